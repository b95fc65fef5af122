//! Requests explained: every charge from its tokens to the last digit of its cost, every refusal with the limit it hit.

mod lists;

use std::{collections::BTreeMap, process::Output};

use serde_json::{Value, json};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::support::{ADMIN_KEY, Actor, Gateway, MODEL, Reply, TEXT_MODEL, model_without_price, spoken, text, with};

const REQUESTS: &str = "/v1/organization/requests";
const START_S: u64 = 1_790_000_000;
const MILLISECOND: u64 = 1_000_000;

async fn gateway() -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    Gateway::start_at(clock, simulator::Options::default(), |_| {}).await
}

fn id(reply: &Reply) -> String {
    reply.header("x-request-id").to_owned()
}

async fn explained(gateway: &Gateway, reply: &Reply) -> Reply {
    let found = gateway.admin().get(&format!("{REQUESTS}/{}", id(reply))).await;
    assert_eq!(found.status, 200, "{}", found.text());
    found
}

async fn list(gateway: &Gateway, query: &str) -> Value {
    let reply = gateway.admin().get(&format!("{REQUESTS}?{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    reply.json()
}

fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

/// What follows `"<name>":{"value":` each time, in pico-dollars: digits that never go through a float.
fn amounts(text: &str, name: &str) -> Vec<i128> {
    let pico = |digits: &str| {
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        assert!(part.len() <= 12, "{digits}");
        format!("{whole}{part:0<12}").parse::<i128>().unwrap()
    };
    let start = format!("\"{name}\":{{\"value\":");
    text.split(&start).skip(1).map(|rest| pico(rest.split([',', '}']).next().unwrap())).collect()
}

#[tokio::test]
async fn the_lines_of_a_request_are_its_charge_to_the_last_digit() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    for (fault, body) in [
        ("", spoken("wav")),
        ("chunks=12345;cached=3", text(TEXT_MODEL, "Hi")),
        ("", with(text(TEXT_MODEL, "Hi"), &json!({"service_tier": "priority", "stream": true}))),
        ("no-usage", text(TEXT_MODEL, "Hi")),
    ] {
        let reply = team.chat_with_fault(fault, &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let explanation = explained(&gateway, &reply).await.text();
        let rows = gateway.ledger().await;
        let row = rows.iter().find(|row| row.request_id == id(&reply)).unwrap();
        let cost = i128::from(row.cost_pico.unwrap());
        assert!(cost > 0);
        assert_eq!(amounts(&explanation, "amount").iter().sum::<i128>(), cost, "{explanation}");
        for name in ["cost", "cost_before_adjustments"] {
            assert_eq!(amounts(&explanation, name), [cost], "{explanation}");
        }
        let object: Value = serde_json::from_str(&explanation).unwrap();
        assert_eq!((&object["model"], &object["service_tier"]), (&json!(row.model), &json!(row.service_tier)));
        assert_eq!((&object["usage"]["basis"], &object["priced"]), (&json!(row.basis), &json!(true)));
        assert!(object["prices_from"].as_u64().unwrap() < START_S);
    }
}

#[tokio::test]
async fn explanations_add_up_to_the_costs_report() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    for fault in ["", "chunks=777", "cached=2", "no-usage"] {
        assert_eq!(team.chat_with_fault(fault, &text(TEXT_MODEL, "What does it cost?")).await.status, 200);
    }
    assert_eq!(team.chat(&spoken("wav")).await.status, 200);
    gateway.at_rest().await;
    let (mut explained, mut listed) = (BTreeMap::new(), 0);
    for id in ids(&list(&gateway, "outcome=completed").await) {
        let reply = gateway.admin().get(&format!("{REQUESTS}/{id}")).await;
        let (lines, text) = (amounts(&reply.text(), "amount"), reply.json());
        for (line, amount) in text["lines"].as_array().unwrap().iter().zip(lines) {
            *explained.entry(line["description"].as_str().unwrap().to_owned()).or_insert(0) += amount;
        }
        listed += 1;
    }
    assert_eq!(listed, 5);
    let path = format!("/v1/organization/costs?start_time={}&group_by=line_item", START_S - 1);
    let costs = gateway.admin().get(&path).await;
    let results = costs.json()["data"][0]["results"].as_array().unwrap().clone();
    let names = results.iter().map(|result| result["line_item"].as_str().unwrap().to_owned());
    let reported: BTreeMap<_, _> = names.zip(amounts(&costs.text(), "amount")).collect();
    assert!(reported.len() >= 5, "{reported:?}");
    assert_eq!(explained, reported);
}

#[tokio::test]
async fn a_request_shows_what_was_asked_and_never_its_content() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    let reply = team.chat(&text(TEXT_MODEL, "a secret recipe for soup")).await;
    let found = explained(&gateway, &reply).await;
    assert!(!found.text().contains("soup") && !found.text().contains(team.key.as_ref().unwrap()));
    let object = found.json();
    let expected = json!({
        "object": "organization.request", "id": id(&reply), "project_id": team.project_id, "api_key_id": team.key_id,
        "endpoint": "chat.completions", "requested_model": TEXT_MODEL, "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default", "stream": false, "outcome": "completed", "status": 200, "admitted_at": START_S,
        "settled_at": START_S, "duration_ms": 0, "refused_at": null, "adjustments": [], "refusal": null,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&object[name], value, "{name}");
    }
    let tokens = |name: &str| object[name]["input_tokens"].as_u64().unwrap();
    assert!(tokens("estimate") > 0 && tokens("usage") > 0);
}

#[tokio::test]
async fn a_second_request_met_what_the_first_had_left_in_use() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_day": 100, "requests_per_minute": 50})).await;
    let (first, second) = (team.say("Hi").await, team.say("Hi").await);
    let (first, second) = (explained(&gateway, &first).await.json(), explained(&gateway, &second).await.json());
    let used = first["usage"]["input_tokens"].as_u64().unwrap() + first["usage"]["output_tokens"].as_u64().unwrap();
    let limits = |object: &Value| object["limits"].as_array().unwrap().clone();
    assert_eq!(limits(&first).len(), 5);
    for ((before, after), (scope, name, limit, used)) in limits(&first).iter().zip(limits(&second)).zip([
        ("project", "requests_per_minute", 500, 1),
        ("project", "requests_per_day", 10_000, 1),
        ("project", "tokens_per_minute", 200_000, used),
        ("key", "requests_per_minute", 50, 1),
        ("key", "requests_per_day", 100, 1),
    ]) {
        for it in [before, &after] {
            assert_eq!((&it["scope"], &it["name"], &it["limit"]), (&json!(scope), &json!(name), &json!(limit)), "{it}");
            assert_eq!((&it["limit_group"], &it["settled"]), (&json!(TEXT_MODEL), &json!(used)), "{it}");
        }
        assert_eq!((&before["used_before"], &after["used_before"]), (&json!(0), &json!(used)), "{name}");
        let reserved = after["reserved"].as_u64().unwrap();
        assert_eq!(after["used_after"], used + reserved, "{name}");
    }
}

#[tokio::test]
async fn a_refusal_names_its_limit_and_when_it_would_have_passed() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 2})).await;
    for _ in 0..2 {
        assert_eq!(team.say("Hi").await.status, 200);
    }
    gateway.clock.advance(1_234_567);
    let refused = team.say("Hi").await;
    assert_eq!(refused.status, 429);
    let object = explained(&gateway, &refused).await.json();
    assert_eq!((&object["outcome"], &object["status"]), (&json!("refused"), &json!(429)));
    assert!(object["cost"].is_null() && object["usage"].is_null() && object["lines"] == json!([]));
    let wait_ms: u64 = refused.header("retry-after-ms").parse().unwrap();
    let limit = &object["refusal"]["limit"];
    let expected = json!({
        "scope": "key", "name": "requests_per_minute", "limit_group": TEXT_MODEL, "unit": "requests", "limit": 2, "used": 2,
        "requested": 1, "wait_ms": wait_ms, "admissible_at_ms": START_S * 1_000 + 30_000,
    });
    assert_eq!(limit, &expected);
    assert_eq!(object["refusal"]["code"], "rate_limit_exceeded");
    // A day's request is shown where the model has such a limit.
    let remaining: u64 = refused.header("x-ratelimit-remaining-requests").parse().unwrap();
    assert_eq!(object["refusal"]["headrooms"]["requests"]["remaining"], remaining);
    let until = limit["admissible_at_ms"].as_u64().unwrap() * MILLISECOND;
    gateway.clock.advance(until - gateway.clock.now().0 - 1);
    assert_eq!(team.say("Hi").await.status, 429, "a nanosecond too early");
    gateway.clock.advance(1);
    assert_eq!(team.say("Hi").await.status, 200);
}

#[tokio::test]
async fn every_kind_of_refusal_is_explained_at_once() {
    let gateway = gateway().await;
    let admin = gateway.admin();
    let small = gateway.project_with("tier1", json!({"tokens_per_minute": 20})).await;
    let narrow = gateway.project("tier1").await;
    let key = format!("/v1/organization/projects/{}/api_keys/{}", narrow.project_id, narrow.key_id);
    assert_eq!(admin.post(&key, &json!({"allowed_models": [MODEL]})).await.status, 200);
    let spent = gateway.project("tier1").await;
    let limit = json!({"threshold_amount": 1, "currency": "USD", "interval": "month"});
    let spend = format!("/v1/organization/projects/{}/spend_limit", spent.project_id);
    assert_eq!(admin.post(&spend, &limit).await.status, 200);
    // 30 seconds of speech are more than a cent.
    assert_eq!(spent.chat_with_fault("audio-seconds=30", &spoken("wav")).await.status, 200);
    let large = text(TEXT_MODEL, &"many words ".repeat(100));
    for (team, body, reason, status) in [
        (&small, large, "limit", 429),
        (&narrow, text(TEXT_MODEL, "Hi"), "model_not_allowed", 403),
        (&narrow, text("gpt-unknown", "Hi"), "unknown_model", 404),
        (&spent, text(TEXT_MODEL, "Hi"), "spend_limit", 429),
        (&small, text("whisper-1", "Hi"), "wrong_endpoint", 404),
    ] {
        let reply = team.chat(&body).await;
        assert_eq!(reply.status, status, "{}", reply.text());
        let object = explained(&gateway, &reply).await.json();
        assert_eq!((&object["refusal"]["reason"], &object["status"]), (&json!(reason), &json!(status)));
        assert_eq!(object["refusal"]["code"], reply.error()["code"]);
        assert_eq!((&object["requested_model"], &object["api_key_id"]), (&body["model"], &json!(team.key_id)));
        let limit = &object["refusal"]["limit"];
        assert_eq!(limit.is_null(), reason != "limit");
        assert!(limit["wait_ms"].is_null(), "larger than the whole limit");
        let whose = if reason == "spend_limit" { json!("project") } else { Value::Null };
        assert_eq!(object["refusal"]["spend_limit"]["of"], whose);
    }
    assert_eq!(gateway.ledger().await.len(), 1);
}

#[tokio::test]
async fn a_refusal_for_money_tells_what_was_spent_and_passes_when_it_says() {
    for (of, interval) in [("project", "month"), ("organization", "month"), ("key", "day")] {
        let gateway = gateway().await;
        let (admin, team) = (gateway.admin(), gateway.project("tier1").await);
        let project = format!("/v1/organization/projects/{}", team.project_id);
        let path = match of {
            "project" => format!("{project}/spend_limit"),
            "key" => format!("{project}/api_keys/{}", team.key_id),
            _ => "/v1/organization/spend_limit".to_owned(),
        };
        let limit = |cents| match interval {
            "day" => json!({"budget": {"daily_cents": cents, "monthly_cents": 100}}),
            _ => json!({"threshold_amount": cents, "currency": "USD", "interval": interval}),
        };
        assert_eq!(admin.post(&path, &limit(2)).await.status, 200);
        // A minute of speech is more than two cents.
        assert_eq!(team.chat_with_fault("audio-seconds=60", &spoken("wav")).await.status, 200);
        let refused = team.say("Hi").await;
        assert_eq!(refused.status, 429, "{}", refused.text());
        // What is changed later does not change why it was refused.
        assert_eq!(admin.post(&path, &limit(1)).await.status, 200);
        let found = explained(&gateway, &refused).await;
        let spent = i128::from(gateway.ledger().await[0].cost_pico.unwrap());
        assert_eq!(amounts(&found.text(), "threshold"), [20_000_000_000]);
        assert_eq!(amounts(&found.text(), "spent"), [spent]);
        let refusal = &found.json()["refusal"];
        assert_eq!((&refusal["spend_limit"]["of"], &refusal["limit"]), (&json!(of), &Value::Null));
        assert_eq!(refusal["spend_limit"]["interval"], interval);
        assert_eq!(amounts(&found.text(), "held"), [0]);
        let until = refusal["spend_limit"]["admissible_at_ms"].as_u64().unwrap() * MILLISECOND;
        gateway.clock.advance(until - gateway.clock.now().0 - 1);
        assert_eq!(team.say("Hi").await.status, 429, "a nanosecond too early");
        gateway.clock.advance(1);
        assert_eq!(team.say("Hi").await.status, 200);
    }
}

#[tokio::test]
async fn what_has_no_price_is_explained_as_unpriced_or_as_refused_for_it() {
    for (allow_unpriced, outcome) in [(true, "completed"), (false, "refused")] {
        let gateway = Gateway::start_with(|settings| {
            settings.allow_unpriced = allow_unpriced;
            model_without_price(settings);
        })
        .await;
        let team = gateway.project("tier1").await;
        let reply = team.chat(&text("no-price", "Hi")).await;
        let object = explained(&gateway, &reply).await.json();
        assert_eq!((&object["outcome"], &object["cost"]), (&json!(outcome), &Value::Null));
        if allow_unpriced {
            assert_eq!((&object["priced"], &object["prices_from"]), (&json!(false), &Value::Null));
            let lines = object["lines"].as_array().unwrap();
            assert!(!lines.is_empty() && lines.iter().all(|line| line["price"].is_null() && line["amount"].is_null()));
            let shown = String::from_utf8(explain(&gateway, &[&id(&reply)]).await.stdout).unwrap();
            assert!(shown.contains("unpriced, which is not free") && !shown.contains('$'), "{shown}");
        } else {
            assert_eq!(object["refusal"]["reason"], "unpriced_model");
        }
    }
}

#[tokio::test]
async fn only_administrators_see_requests() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    let reply = team.say("Hi").await;
    for path in [REQUESTS.to_owned(), format!("{REQUESTS}/{}", id(&reply))] {
        let as_team = Actor { url: gateway.admin_url.clone(), ..team.clone() };
        assert_eq!(as_team.get(&path).await.status, 403, "{path}");
        let nobody = Actor { url: gateway.admin_url.clone(), ..gateway.stranger() };
        assert_eq!(nobody.get(&path).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_refusal_survives_a_restart_and_is_gone_after_a_day() {
    let mut gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 1})).await;
    assert_eq!(team.say("Hi").await.status, 200);
    let refused = team.say("Hi").await;
    // Nobody has asked yet: it is the stop that writes it down.
    gateway.stop().await;
    gateway.run().await;
    let object = explained(&gateway, &refused).await.json();
    assert_eq!(object["refusal"]["limit"]["name"], "requests_per_minute");
    gateway.clock.advance(86_400_000 * MILLISECOND);
    assert_eq!(explained(&gateway, &refused).await.status, 200);
    gateway.clock.advance(MILLISECOND);
    assert_eq!(gateway.admin().get(&format!("{REQUESTS}/{}", id(&refused))).await.status, 404);
    assert_eq!(ids(&list(&gateway, "").await).len(), 1);
}

#[tokio::test]
async fn a_thousand_refusals_of_one_key_are_all_explained() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 1})).await;
    assert_eq!(team.say("Hi").await.status, 200);
    let mut last = None;
    for _ in 0..20 {
        let burst = (0..50).map(|_| team.say("Hi"));
        last = futures_util::future::join_all(burst).await.pop();
    }
    let object = explained(&gateway, &last.unwrap()).await.json();
    assert_eq!(object["refusal"]["reason"], "limit");
    let mut seen = 0;
    let mut after = String::new();
    loop {
        let page = list(&gateway, &format!("outcome=refused&limit=100{after}")).await;
        seen += ids(&page).len();
        if page["has_more"] == false {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().unwrap());
    }
    assert_eq!((seen, gateway.metric("refusals_not_kept_total").await), (1_000, 0));
}

async fn explain(gateway: &Gateway, words: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .arg("explain")
        .args(words)
        .env_clear()
        .env("TOLLGATE_ADMIN_URL", &gateway.admin_url)
        .env("TOLLGATE_ADMIN_KEY", ADMIN_KEY)
        .current_dir(gateway.dir.path());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_command_tells_the_story_on_one_screen() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 1})).await;
    let (passed, refused) = (id(&team.say("Hi").await), id(&team.say("Hi").await));
    let said = async |words: &[&str]| {
        let output = explain(&gateway, words).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = said(&[&passed]).await;
    println!("{text}");
    assert!(text.contains("5 tokens x $0.15 per 1M = $0.00000075\n"), "{text}");
    assert!(text.contains("cost") && text.lines().count() < 24, "{text}");
    let text = said(&[&refused]).await;
    println!("{text}");
    assert!(text.contains("used 1 of 1, requested 1\n"), "{text}");
    assert!(text.contains("would have been admitted at 2026-09-21 14:14:20 UTC, 60.000 s later\n"), "{text}");
    let raw = said(&[&passed, "--json"]).await;
    assert_eq!(raw.trim_end(), gateway.admin().get(&format!("{REQUESTS}/{passed}")).await.text());
    let unknown = explain(&gateway, &["req_00000000000000000000000000000000"]).await;
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(!unknown.status.success() && said.contains("refused more than 24 hours ago"), "{said}");
}
