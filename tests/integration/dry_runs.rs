//! Dry runs: what would become of a request, told without taking, sending or writing anything.

use serde_json::{Value, json};
use tollgate::{clock::Clock, config::Settings, domain::time::UnixNanos, simulator};

use crate::{
    scripted::{Scripted, Step, chunk, good_json, stream_head, word},
    stand_in::StandIn,
    support::{Actor, Gateway, MODEL, Reply, TEXT_MODEL, amounts, model_without_price, spoken, text, with},
};

const CHAT: &str = "/v1/chat/completions";
const MILLISECOND: u64 = 1_000_000;

async fn gateway(change: impl FnOnce(&mut Settings)) -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(1_790_000_000));
    Gateway::start_at(clock, simulator::Options::default(), change).await
}

async fn dry(team: &Actor, body: &Value) -> Reply {
    let reply = team.post_bytes(CHAT, &[("x-tollgate-dry-run", "true")], body.to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/json"), "{}", reply.text());
    assert_eq!(reply.json()["object"], "tollgate.admission");
    reply
}

fn headrooms(reply: &Reply) -> Vec<(String, String)> {
    let shown = reply.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-ratelimit-"));
    shown.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

/// All that counts something about requests.
async fn counted(gateway: &Gateway) -> Vec<String> {
    let page = gateway.admin().get("/metrics").await.text();
    let counts = ["tollgate_requests_", "tollgate_upstream_calls", "tollgate_journal", "tollgate_tokens"];
    let lines = page.lines().filter(|line| counts.iter().any(|it| line.starts_with(it)));
    lines.map(str::to_owned).collect()
}

fn limit<'a>(told: &'a Value, scope: &str, name: &str) -> &'a Value {
    let limits = told["limits"].as_array().unwrap();
    limits
        .iter()
        .find(|it| it["scope"] == scope && it["name"] == name)
        .unwrap_or_else(|| panic!("{scope} {name}: {told}"))
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let gateway = gateway(|_| {}).await;
    let team = gateway.project_with("tier1", json!({"tokens_per_day": 50_000})).await;
    assert_eq!(team.say("Hi").await.status, 200);
    let rows = gateway.ledger().await.len();
    let (shown, counts) = (headrooms(&dry(&team, &text(TEXT_MODEL, "Hi")).await), counted(&gateway).await);
    assert!(shown.len() == 6 && counts.len() > 10, "{counts:#?}");
    for body in [
        text(TEXT_MODEL, "Hi"),
        with(text(TEXT_MODEL, "Hi"), &json!({"stream": true})),
        with(text(TEXT_MODEL, "Hi"), &json!({"max_tokens": 16_000, "n": 8})),
        text(TEXT_MODEL, &"word ".repeat(200_000)),
    ] {
        for _ in 0..5 {
            assert_eq!(headrooms(&dry(&team, &body).await), shown);
        }
    }
    let nobody = dry(&team, &text("nobody", "Hi")).await;
    assert_eq!((headrooms(&nobody).len(), &nobody.json()["refusal"]["reason"]), (0, &json!("unknown_model")));
    assert_eq!(counted(&gateway).await, counts);
    assert_eq!(gateway.ledger().await.len(), rows);
    let refused = gateway.admin().get("/v1/organization/requests?outcome=refused").await.json();
    assert_eq!(refused["data"], json!([]));
}

#[tokio::test]
async fn a_dry_run_tells_how_far_a_soft_limit_is_used_as_an_answer_does() {
    const HEADER: &str = "x-tollgate-budget-percent";
    let gateway = crate::tiers::gateway(|_| {}).await;
    let team = gateway.project("partners").await;
    crate::tiers::spend(&team).await;
    let cents = gateway.ledger().await[0].cost_pico.unwrap() / 10_000_000_000 + 1;
    assert_eq!(dry(&team, &text(TEXT_MODEL, "Hi")).await.header(HEADER), "");
    let soft = json!({"threshold_amount": cents, "currency": "USD", "interval": "month", "enforcement": {"status": "inactive"}});
    let path = format!("/v1/organization/projects/{}/spend_limit", team.project_id);
    assert_eq!(gateway.admin().post(&path, &soft).await.status, 200);
    let told = dry(&team, &text(TEXT_MODEL, "Hi")).await.header(HEADER).to_owned();
    assert!(told.parse::<u64>().is_ok_and(|percent| (90..100).contains(&percent)), "{told}");
    assert_eq!(team.say("Hi").await.header(HEADER), told);
}

#[tokio::test]
async fn a_dry_run_tells_what_the_request_then_takes() {
    let gateway = gateway(|_| {}).await;
    let team = gateway.project_with("tier1", json!({"tokens_per_day": 50_000})).await;
    for body in
        [text(TEXT_MODEL, "Hi"), with(spoken("wav"), &json!({"max_completion_tokens": 300})), text(TEXT_MODEL, "Hi")]
    {
        let told = dry(&team, &body).await.json();
        assert_eq!((&told["admitted"], &told["refusal"]), (&json!(true), &Value::Null));
        let reply = team.chat(&body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        gateway.at_rest().await;
        let id = reply.header("x-request-id");
        let explained = gateway.admin().get(&format!("/v1/organization/requests/{id}")).await.json();
        assert_eq!(told["estimate"], explained["estimate"]);
        let met = explained["limits"].as_array().unwrap();
        assert_eq!(met.len(), told["limits"].as_array().unwrap().len());
        for it in met {
            let told = limit(&told, it["scope"].as_str().unwrap(), it["name"].as_str().unwrap());
            assert_eq!((&told["used_before"], &told["would_reserve"]), (&it["used_before"], &it["reserved"]), "{it}");
            let left = it["limit"].as_u64().unwrap() - it["used_after"].as_u64().unwrap();
            assert_eq!((&told["left_after"], &told["limit"]), (&json!(left), &it["limit"]));
        }
        let left = limit(&told, "key", "tokens_per_day")["left_after"].to_string();
        assert_eq!(reply.header("x-ratelimit-remaining-tokens"), left);
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_the_words_and_the_wait_of_the_real_one() {
    let gateway = gateway(|_| {}).await;
    let minute = gateway.project_with("tier1", json!({"requests_per_minute": 1})).await;
    let day = gateway.project_with("tier1", json!({"tokens_per_day": 300})).await;
    let free = gateway.project("free").await;
    let long = text(TEXT_MODEL, &"word ".repeat(200_000));
    let small = text(TEXT_MODEL, "Hi");
    for team in [&minute, &day, &free, &free, &free] {
        assert_eq!(team.chat(&small).await.status, 200);
    }
    let too_large = text(TEXT_MODEL, &"word ".repeat(300));
    let asked = [
        (&minute, &small),
        (&day, &text(TEXT_MODEL, &"word ".repeat(230))),
        (&day, &too_large),
        (&free, &small),
        (&free, &long),
    ];
    for (team, body) in asked {
        let told = dry(team, body).await;
        let real = team.chat(body).await;
        assert_eq!(real.status, 429, "{}", real.text());
        let (shown, refusal) = (headrooms(&told), told.json()["refusal"].clone());
        assert_eq!((&refusal["status"], &refusal["error"]), (&json!(429), &real.error()));
        let wait = real.headers.get("retry-after-ms").map(|it| it.to_str().unwrap().parse::<u64>().unwrap());
        assert_eq!(refusal["retry_after_ms"], json!(wait));
        let should_retry = real.headers.get("x-should-retry").map(|_| false);
        assert_eq!(refusal["should_retry"], json!(should_retry));
        assert_eq!(headrooms(&real), shown);
        let told = told.json();
        let hit = limit(&told, refusal["scope"].as_str().unwrap(), refusal["name"].as_str().unwrap());
        assert_eq!((&told["admitted"], &hit["left_after"]), (&json!(false), &Value::Null));
    }
    let wait = dry(&minute, &small).await.json()["refusal"]["retry_after_ms"].as_u64().unwrap();
    gateway.clock.advance((wait - 1) * MILLISECOND);
    assert_eq!(dry(&minute, &small).await.json()["admitted"], false);
    gateway.clock.advance(MILLISECOND);
    assert_eq!(dry(&minute, &small).await.json()["admitted"], true);
    assert_eq!(minute.chat(&small).await.status, 200);
}

#[tokio::test]
async fn other_refusals_are_told_too() {
    let gateway = gateway(|settings| {
        model_without_price(settings);
    })
    .await;
    let team = gateway.project("tier1").await;
    assert_eq!(team.say("Hi").await.status, 200);
    gateway.at_rest().await;
    let project = format!("/v1/organization/projects/{}", team.project_id);
    let denied = json!({"mode": "deny_list", "model_ids": [MODEL]});
    assert_eq!(gateway.admin().post(&format!("{project}/model_permissions"), &denied).await.status, 200);
    for (body, reason) in [
        (text("nobody", "Hi"), "unknown_model"),
        (text(MODEL, "Hi"), "model_not_allowed"),
        (text("whisper-1", "Hi"), "wrong_endpoint"),
        (text("no-price", "Hi"), "unpriced_model"),
    ] {
        let (told, real) = (dry(&team, &body).await, team.chat(&body).await);
        let refusal = told.json()["refusal"].clone();
        assert_eq!((&refusal["reason"], &refusal["status"]), (&json!(reason), &json!(real.status.as_u16())));
        assert_eq!((&refusal["error"], headrooms(&told)), (&real.error(), headrooms(&real)), "{reason}");
    }
    // What is wrong in itself is refused as it is without the header.
    let wrong = json!({"model": TEXT_MODEL, "messages": []}).to_string();
    assert_eq!(team.post_bytes(CHAT, &[("x-tollgate-dry-run", "true")], wrong).await.status, 400);
}

#[tokio::test]
async fn money_that_is_spent_is_told_before_it_is_asked_for() {
    let gateway = gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    let limit = json!({"threshold_amount": 1, "currency": "USD", "interval": "month"});
    let path = format!("/v1/organization/projects/{}/spend_limit", team.project_id);
    assert_eq!(gateway.admin().post(&path, &limit).await.status, 200);
    assert_eq!(dry(&team, &text(TEXT_MODEL, "Hi")).await.json()["admitted"], true);
    assert_eq!(team.chat_with_fault("chunks=20000", &text(TEXT_MODEL, "Hi")).await.status, 200);
    gateway.at_rest().await;
    let (told, real) = (dry(&team, &text(TEXT_MODEL, "Hi")).await.json(), team.say("Hi").await);
    assert_eq!((real.status.as_u16(), &told["refusal"]["error"]), (429, &real.error()));
    let refusal = &told["refusal"];
    assert_eq!(
        (&refusal["reason"], &refusal["scope"], &refusal["name"], &refusal["should_retry"]),
        (&json!("spend_limit"), &json!("project"), &json!("month"), &json!(false))
    );
}

#[tokio::test]
async fn a_dry_run_tells_what_would_be_reserved_on_each_limit_of_money() {
    let steps = |connection| match connection {
        0 => vec![good_json()],
        _ => vec![stream_head(), chunk(word("one")), Step::Hang],
    };
    let mut gateway = Scripted::start(steps).await.gateway(|_| {}).await;
    gateway.leaves("an answer that hangs is read on");
    let (admin, team) = (gateway.admin(), gateway.project("tier1").await);
    let project = format!("/v1/organization/projects/{}", team.project_id);
    let month = |cents| json!({"threshold_amount": cents, "currency": "USD", "interval": "month"});
    let soft = with(month(20_000), &json!({"enforcement": {"status": "inactive"}}));
    let budget = json!({"budget": {"monthly_cents": 500, "daily_cents": 50}});
    for (path, body) in [
        (format!("{project}/api_keys/{}", team.key_id), budget),
        (format!("{project}/spend_limit"), month(1)),
        ("/v1/organization/spend_limit".to_owned(), soft),
    ] {
        assert_eq!(admin.post(&path, &body).await.status, 200, "{path}");
    }
    let body = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
    assert_eq!(team.say("Hi").await.status, 200);
    let spent = i128::from(gateway.ledger().await[0].cost_pico.unwrap());
    let _under_way = team.open(&[], &body).await;
    let told = dry(&team, &body).await;
    let object = told.json();
    let limits = object["spend_limits"].as_array().unwrap().iter();
    let limits = limits.map(|it| ["of", "interval", "enforcement"].map(|name| it[name].as_str().unwrap()));
    let enforced = [["key", "month"], ["key", "day"], ["project", "month"], ["tier", "month"]];
    let expected = enforced.map(|[of, interval]| [of, interval, "enforcing"]);
    assert_eq!(limits.collect::<Vec<_>>(), [&expected[..], &[["organization", "month", "inactive"]]].concat());
    let values = amounts(&told.text(), "value");
    let cost = values[25];
    assert!(spent > 0 && cost > 0 && values.len() == 27, "{values:?}");
    for (told, cents) in values.chunks(5).zip([500, 50, 1, 10_000, 20_000]) {
        let threshold = cents * 10_000_000_000;
        // What is under way was expected to cost as much.
        assert_eq!(told, [threshold, spent, cost, cost, threshold - spent - 2 * cost]);
    }
    assert_eq!(dry(&team, &body).await.json()["spend_limits"], object["spend_limits"], "nothing is held by asking");
}

#[tokio::test]
async fn the_worst_case_is_exact_or_says_why_there_is_none() {
    let gateway = gateway(|settings| {
        model_without_price(settings);
        settings.allow_unpriced = true;
    })
    .await;
    let team = gateway.project("tier1").await;
    // 3 tokens at 0.15 and at most 16,384 at 0.6 dollars per million; guessed are 256.
    let told = dry(&team, &text(TEXT_MODEL, "Hi")).await.text();
    assert!(told.contains(r#""estimated_cost":{"value":0.00015405,"currency":"usd"}"#), "{told}");
    assert!(
        told.contains(r#""worst_case_cost":{"value":0.00983085,"currency":"usd"},"worst_case_unknown":null"#),
        "{told}"
    );
    let stated = with(text(TEXT_MODEL, "Hi"), &json!({"max_tokens": 10, "n": 3}));
    let told = dry(&team, &stated).await.text();
    assert!(told.contains(r#""worst_case_cost":{"value":0.00001875,"currency":"usd"}"#), "{told}");
    for model in ["no-price", "nobody"] {
        let told = dry(&team, &text(model, "Hi")).await.json();
        assert_eq!((&told["admitted"], &told["worst_case_cost"]), (&json!(true), &Value::Null), "{model}");
        assert_eq!((&told["worst_case_unknown"], &told["estimated_cost"]), (&json!("unpriced"), &Value::Null));
    }
}

#[tokio::test]
async fn costs_are_those_of_the_service_tier_that_is_asked_for() {
    let gateway = gateway(|_| {}).await;
    let team = gateway.project("tier5").await;
    // 3 tokens, and 256 that are guessed or 1,000 that are allowed: pico-dollars each, in and out.
    for (tier, input, output) in [
        (Value::Null, 250_000, 2_000_000),
        (json!("flex"), 125_000, 1_000_000),
        (json!("priority"), 450_000, 3_600_000),
        (json!("auto"), 450_000, 3_600_000),
    ] {
        let body = with(text("gpt-5-mini", "Hi"), &json!({"service_tier": tier, "max_completion_tokens": 1_000}));
        let told = dry(&team, &body).await.text();
        let expected = |tokens| i128::from(3 * input + tokens * output);
        let (_limits, costs) = told.split_once("\"estimated_cost\"").unwrap();
        assert_eq!(amounts(costs, "value"), [expected(256_i64), expected(1_000)], "{tier}");
    }
}

#[tokio::test]
async fn the_header_is_true_or_false_and_stays_here() {
    let upstream = StandIn::start().await;
    let gateway = Gateway::start_before(&upstream.url, upstream.stop.clone(), Clock::system(), |_| {}).await;
    let team = gateway.project("tier1").await;
    let body = text(TEXT_MODEL, "Hi").to_string();
    let ask = async |value: &str| team.post_bytes(CHAT, &[("x-tollgate-dry-run", value)], body.clone()).await;
    for value in ["True", "1", "yes", "true, true"] {
        let reply = ask(value).await;
        assert_eq!((reply.status.as_u16(), &reply.error()["param"]), (400, &json!("x-tollgate-dry-run")), "{value}");
        assert!(reply.text().contains("expected one of 'true' and 'false'"), "{}", reply.text());
    }
    assert_eq!(ask("true").await.json()["object"], "tollgate.admission");
    assert_eq!(upstream.received().len(), 0);
    assert_eq!(ask("false").await.json()["object"], "chat.completion");
    let received = upstream.received();
    assert_eq!(received.len(), 1);
    assert!(!received[0].headers.contains_key("x-tollgate-dry-run"));
    let stranger = gateway.stranger().post_bytes(CHAT, &[("x-tollgate-dry-run", "true")], body.clone()).await;
    assert_eq!(stranger.status, 401);
}
