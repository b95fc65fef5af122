//! What has no price is refused, or marked as unpriced; it is never shown as nothing.

use serde_json::{Value, json};

use crate::support::{Gateway, TEXT_MODEL, model_without_price, spoken, text};

async fn costs(gateway: &Gateway, more: &str) -> Vec<Value> {
    let now_s = gateway.clock.now().seconds();
    let path = format!("/v1/organization/costs?start_time={}&limit=180{more}", now_s - 3_600);
    let page = gateway.admin().get(&path).await;
    assert_eq!(page.status, 200, "{}", page.text());
    let page = page.json();
    let buckets = page["data"].as_array().unwrap();
    buckets.iter().flat_map(|bucket| bucket["results"].as_array().unwrap().clone()).collect()
}

#[tokio::test]
async fn a_model_without_token_prices_is_refused() {
    let gateway = Gateway::start_with(|settings| _ = model_without_price(settings)).await;
    let team = gateway.project("tier1").await;
    let reply = team.chat(&text("no-price", "Hi")).await;
    let error = reply.error();
    assert_eq!(
        (reply.status.as_u16(), &error["code"], &error["param"]),
        (400, &json!("model_not_priced"), &json!("model"))
    );
    assert_eq!((gateway.metric("upstream_calls_total").await, gateway.ledger().await.len()), (0, 0));
}

#[tokio::test]
async fn a_model_without_a_page_does_not_exist() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    // Another case, a letter that only looks the same, an asterisk, a space: other names.
    for name in ["my-own-model", "GPT-4o-mini", "gpt-4o-min\u{456}", "*", "gpt-4o-mini ", "gpt-4o", "../gpt-4o-mini"] {
        let reply = team.chat(&text(name, "Hi")).await;
        if name == "gpt-4o" {
            assert_eq!(reply.status, 200);
            continue;
        }
        let message = format!("The model `{name}` does not exist or you do not have access to it.");
        let expected =
            json!({"message": message, "type": "invalid_request_error", "param": null, "code": "model_not_found"});
        assert_eq!((reply.status.as_u16(), reply.error()), (404, expected));
    }
    assert_eq!((gateway.metric("upstream_calls_total").await, gateway.ledger().await.len()), (1, 1));
}

#[tokio::test]
async fn allowed_without_a_price_it_is_in_the_books_as_unpriced() {
    let gateway = Gateway::start_with(|settings| {
        settings.allow_unpriced = true;
        model_without_price(settings);
    })
    .await;
    let team = gateway.project("tier1").await;
    for name in ["no-price", "my-own-model"] {
        let reply = team.chat(&text(name, "Hi")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("x-ratelimit-limit-tokens")),
            (200, "200000"),
            "{}",
            reply.text()
        );
    }
    let rows = gateway.ledger().await;
    for row in &rows {
        assert_eq!((row.priced, row.cost_pico), (0, None), "{row:?}");
        assert_eq!((row.input_text, row.output_text), (5, 16));
    }
    assert_eq!(gateway.metric("requests_unpriced_total").await, 2);

    let [whole] = costs(&gateway, "").await.try_into().unwrap();
    assert_eq!((&whole["amount"], &whole["unpriced_requests"]), (&Value::Null, &json!(2)), "{whole}");
    let lines = costs(&gateway, "&group_by=line_item").await;
    let names: Vec<_> = lines.iter().map(|line| line["line_item"].as_str().unwrap()).collect();
    assert_eq!(names, ["my-own-model, input", "my-own-model, output", "no-price, input", "no-price, output"]);
    for line in &lines {
        assert_eq!((&line["amount"], &line["unpriced_requests"]), (&Value::Null, &json!(1)), "{line}");
        assert!(line["quantity"].as_u64().unwrap() > 0);
    }
}

#[tokio::test]
async fn names_without_a_page_share_one_limit() {
    let gateway = Gateway::start_with(|settings| settings.allow_unpriced = true).await;
    let team = gateway.project_with("tier1", json!({"requests_per_day": 2})).await;
    let mut statuses = Vec::new();
    for name in ["one-name", "another-name", "a-third-name", TEXT_MODEL] {
        statuses.push(team.chat(&text(name, "Hi")).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 200]);
}

#[tokio::test]
async fn beside_what_has_a_price_the_report_says_that_it_is_not_all() {
    let gateway = Gateway::start_with(|settings| settings.allow_unpriced = true).await;
    let team = gateway.project("tier1").await;
    team.say("Hi").await;
    team.chat(&text("my-own-model", "Hi")).await;
    gateway.at_rest().await;
    let [whole] = costs(&gateway, "").await.try_into().unwrap();
    // 5 x 0.15 + 16 x 0.60 dollars per million, and one request that nobody can say the price of.
    assert_eq!(whole["amount"], json!({"value": 0.000_010_35, "currency": "usd"}));
    assert_eq!(whole["unpriced_requests"], 1);
    let lines = costs(&gateway, "&group_by=line_item").await;
    let of = |name: &str| lines.iter().find(|line| line["line_item"] == name).unwrap();
    let input = of("gpt-4o-mini-2024-07-18, input");
    assert_eq!(input["amount"], json!({"value": 0.000_000_75, "currency": "usd"}));
    assert!(input.get("unpriced_requests").is_none());
    assert_eq!(of("my-own-model, output")["amount"], Value::Null);
}

#[tokio::test]
async fn where_everything_has_a_price_the_report_is_openais() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    team.chat(&spoken("opus")).await;
    team.chat(&text(TEXT_MODEL, "Hi")).await;
    gateway.at_rest().await;
    for result in costs(&gateway, "&group_by=line_item").await {
        assert!(result.get("unpriced_requests").is_none() && result["amount"]["value"].is_number(), "{result}");
    }
}
