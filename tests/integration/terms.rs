//! What administrators agree on with projects, as teams meet it: rate limits, model permissions, spend limits.

use serde_json::{Value, json};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::support::{Actor, Gateway, MODEL, Reply, SNAPSHOT, TEXT_MODEL, spoken, text, with};

const PROJECTS: &str = "/v1/organization/projects";
const ORGANIZATION: &str = "/v1/organization/spend_limit";
/// 2026-09-21, ten days before the month ends.
const SEPTEMBER: u64 = 1_790_000_000;
const OCTOBER: u64 = 1_790_812_800;

async fn gateway() -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(SEPTEMBER));
    Gateway::start_at(clock, simulator::Options::default(), |_| {}).await
}

async fn restart(gateway: &mut Gateway, teams: &mut [&mut Actor]) {
    gateway.stop().await;
    gateway.run().await;
    for team in teams {
        team.url.clone_from(&gateway.calls_url);
    }
}

async fn set(gateway: &Gateway, path: &str, body: Value) {
    let reply = gateway.admin().post(path, &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

// === rate limits ===

async fn set_rate(gateway: &Gateway, team: &Actor, model: &str, body: Value) {
    set(gateway, &format!("{PROJECTS}/{}/rate_limits/rl-{model}", team.project_id), body).await;
}

fn requests(reply: &Reply) -> (&str, &str) {
    (reply.header("x-ratelimit-limit-requests"), reply.header("x-ratelimit-remaining-requests"))
}

#[tokio::test]
async fn the_catalogs_models_are_listed_with_the_limits_of_their_pages() {
    let gateway = gateway().await;
    let team = gateway.project("free").await;
    let list = gateway.admin().get(&format!("{PROJECTS}/{}/rate_limits", team.project_id)).await.json();
    let limits = list["data"].as_array().unwrap();
    assert!(limits.len() > 10, "{list}");
    let id = format!("rl-{MODEL}");
    let expected = json!({
        "object": "project.rate_limit", "id": id, "model": MODEL, "max_requests_per_1_minute": 3,
        "max_requests_per_1_day": 200, "max_tokens_per_1_minute": 40_000,
    });
    assert_eq!(limits.iter().find(|limit| limit["id"] == id), Some(&expected));
}

#[tokio::test]
async fn a_projects_own_rate_limit_holds_from_the_next_request_and_after_a_restart() {
    let mut gateway = gateway().await;
    let mut team = gateway.project("tier1").await;
    assert_eq!(requests(&team.say("Hi").await), ("10000", "9999"));
    set_rate(&gateway, &team, TEXT_MODEL, json!({"max_requests_per_1_day": 20_000})).await;
    // What was used stays used.
    assert_eq!(requests(&team.say("Hi").await), ("20000", "19998"));
    set_rate(&gateway, &team, TEXT_MODEL, json!({"max_requests_per_1_day": 1, "max_tokens_per_1_minute": 500})).await;
    restart(&mut gateway, &mut [&mut team]).await;
    let refused = team.say("Hi").await;
    assert_eq!((refused.status.as_u16(), requests(&refused)), (429, ("1", "0")), "{}", refused.text());
    assert_eq!(refused.header("x-ratelimit-limit-tokens"), "500");
    // Another model of the project has its tier's.
    let other = team.chat(&with(spoken("wav"), &json!({"model": SNAPSHOT}))).await;
    assert_eq!((other.status.as_u16(), requests(&other)), (200, ("10000", "9999")));
    let back = json!({"max_requests_per_1_day": null, "max_tokens_per_1_minute": null});
    set_rate(&gateway, &team, TEXT_MODEL, back).await;
    let passed = team.say("Hi").await;
    assert_eq!((passed.status.as_u16(), passed.header("x-ratelimit-limit-tokens")), (200, "200000"));
}

#[tokio::test]
async fn a_limit_that_is_set_for_a_model_holds_for_all_of_its_limit_group() {
    let clock = Clock::manual(UnixNanos::from_seconds(SEPTEMBER));
    let mut gateway = Gateway::start_at(clock, simulator::Options::default(), |settings| {
        let folder = settings.data_dir.with_file_name("models");
        std::fs::create_dir(&folder).unwrap();
        for twin in ["twin-a", "twin-b"] {
            let page = format!(
                "id = {twin:?}\nlimit_group = \"twins\"\ndescription = \"Alike\"\ncreated = 1700000000\nowned_by = \"us\"\n\
                 endpoints = [\"/v1/chat/completions\"]\n[[prices]]\nfrom = \"2024-01-01\"\n\
                 standard = {{ input_text = \"1\", output_text = \"1\" }}\n"
            );
            std::fs::write(folder.join(format!("{twin}.toml")), page).unwrap();
        }
        settings.models_dir = Some(folder);
    })
    .await;
    let mut team = gateway.project("tier1").await;
    set_rate(&gateway, &team, "twin-a", json!({"max_requests_per_1_minute": 10})).await;
    let list = gateway.admin().get(&format!("{PROJECTS}/{}/rate_limits?limit=100", team.project_id)).await.json();
    let twins: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["model"].as_str().unwrap().starts_with("twin-"))
        .collect();
    assert!(twins.len() == 2 && twins.iter().all(|it| it["max_requests_per_1_minute"] == 10), "{twins:?}");
    for twin in ["twin-a", "twin-b"].repeat(5) {
        assert_eq!(team.chat(&text(twin, "Hi")).await.status, 200);
    }
    // A call of the one does not weigh anew what the other has used.
    for restarted in [false, true] {
        if restarted {
            restart(&mut gateway, &mut [&mut team]).await;
        }
        for twin in ["twin-b", "twin-a"] {
            let refused = team.chat(&text(twin, "Hi")).await;
            assert_eq!(refused.status, 429);
            assert!(refused.text().contains("Limit 10, Used 10, Requested 1"), "{}", refused.text());
        }
    }
    set_rate(&gateway, &team, "twin-b", json!({"max_requests_per_1_minute": null})).await;
    assert_eq!(team.chat(&text("twin-a", "Hi")).await.status, 200);
}

#[tokio::test]
async fn a_key_still_narrows_what_its_project_has() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_day": 5})).await;
    set_rate(&gateway, &team, TEXT_MODEL, json!({"max_requests_per_1_day": 20_000})).await;
    assert_eq!(requests(&team.say("Hi").await), ("5", "4"));
}

#[tokio::test]
async fn a_project_that_gets_more_does_not_give_its_keys_again_what_they_have_used() {
    let mut gateway = gateway().await;
    let mut team = gateway.project_with("tier1", json!({"requests_per_day": 2})).await;
    set_rate(&gateway, &team, TEXT_MODEL, json!({"max_requests_per_1_day": 2})).await;
    let mut other = gateway.key_of(&team.project_id, json!({})).await;
    for _ in 0..2 {
        assert_eq!(team.say("Hi").await.status, 200);
    }
    assert!(team.say("Hi").await.text().contains("Limit 2, Used 2, Requested 1"));
    set_rate(&gateway, &team, TEXT_MODEL, json!({"max_requests_per_1_day": 1_000})).await;
    for restarted in [false, true] {
        if restarted {
            restart(&mut gateway, &mut [&mut team, &mut other]).await;
        }
        let refused = team.say("Hi").await;
        assert_eq!((refused.status.as_u16(), requests(&refused)), (429, ("2", "0")), "{}", refused.text());
        assert!(refused.text().contains("Limit 2, Used 2, Requested 1"), "{}", refused.text());
    }
    assert_eq!(requests(&other.say("Hi").await), ("1000", "997"));
}

// === model permissions ===

#[tokio::test]
async fn model_permissions_hold_for_all_keys_of_a_project_before_anything_is_consumed() {
    let mut gateway = gateway().await;
    let mut team = gateway.project("tier1").await;
    let mut second = gateway.key_of(&team.project_id, json!({})).await;
    let mut other = gateway.project("tier1").await;
    let path = format!("{PROJECTS}/{}/model_permissions", team.project_id);
    set(&gateway, &path, json!({"mode": "deny_list", "model_ids": [MODEL]})).await;
    for restarted in [false, true] {
        if restarted {
            restart(&mut gateway, &mut [&mut team, &mut second, &mut other]).await;
        }
        let calls = gateway.metric("upstream_calls_total").await;
        for (key, model) in [(&team, MODEL), (&team, SNAPSHOT), (&second, MODEL)] {
            let refused = key.chat(&text(model, "Hi")).await;
            let expected = json!({
                "message": format!("Project `{}` does not have access to model `{model}`", team.project_id),
                "type": "invalid_request_error", "param": null, "code": "model_not_found",
            });
            assert_eq!((refused.status.as_u16(), refused.error()), (403, expected));
            let (limit, remaining) = requests(&refused);
            assert_eq!(limit, remaining);
        }
        assert_eq!(gateway.metric("upstream_calls_total").await, calls);
        assert_eq!(team.say("Hi").await.status, 200);
        assert_eq!(other.chat(&spoken("wav")).await.status, 200);
    }
    assert_eq!(gateway.admin().delete(&path).await.status, 200);
    assert_eq!(team.chat(&spoken("wav")).await.status, 200);
}

#[tokio::test]
async fn the_list_of_models_shows_what_the_project_may_use() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    let path = format!("{PROJECTS}/{}/model_permissions", team.project_id);
    set(&gateway, &path, json!({"mode": "allow_list", "model_ids": [MODEL]})).await;
    let list = team.get("/v1/models").await.json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&MODEL) && ids.contains(&SNAPSHOT), "{ids:?}");
    assert!(ids.iter().all(|id| id.starts_with(MODEL)), "{ids:?}");
    assert_eq!(team.get(&format!("/v1/models/{TEXT_MODEL}")).await.status, 404);
}

// === spend limits ===

fn cents(threshold: u64) -> Value {
    json!({"threshold_amount": threshold, "currency": "USD", "interval": "month"})
}

/// 30 seconds of speech: 600 tokens at 20 dollars a million and some text, between one cent and two.
async fn speak(team: &Actor) -> Reply {
    team.chat_with_fault("audio-seconds=30", &spoken("wav")).await
}

fn assert_spent(refused: &Reply, whose: &str) {
    let expected = json!({
        "message": format!("Your {whose} reached its enforced spend limit."), "type": "insufficient_quota", "param": null,
        "code": format!("{whose}_spend_limit_exceeded"),
    });
    assert_eq!((refused.status.as_u16(), refused.error()), (429, expected));
    assert_eq!(refused.header("x-should-retry"), "false");
    assert!(!refused.headers.contains_key("retry-after") && !refused.headers.contains_key("retry-after-ms"));
}

#[tokio::test]
async fn a_project_that_has_spent_its_limit_is_refused_and_nothing_is_consumed() {
    let mut gateway = gateway().await;
    let (mut team, mut other) = (gateway.project("tier1").await, gateway.project("tier1").await);
    let path = format!("{PROJECTS}/{}/spend_limit", team.project_id);
    set(&gateway, &path, cents(2)).await;
    for spent in [0, 1] {
        assert_eq!(speak(&team).await.status, 200, "{spent} cents and a bit are spent");
    }
    let refused = speak(&team).await;
    assert_spent(&refused, "project");
    let again = speak(&team).await;
    assert_eq!(requests(&refused), requests(&again));
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), again.header("x-ratelimit-remaining-tokens"));
    assert_eq!((gateway.metric("upstream_calls_total").await, gateway.ledger().await.len()), (2, 2));
    assert_eq!(gateway.metric("requests_over_spend_limit_total").await, 2);
    assert_eq!(other.say("Hi").await.status, 200);
    restart(&mut gateway, &mut [&mut team, &mut other]).await;
    assert_spent(&team.say("Hi").await, "project");
    assert_eq!(other.say("Hi").await.status, 200);
    // A higher limit, one that is not enforced, none: each holds from the next request.
    let inactive = with(cents(1), &json!({"enforcement": {"status": "inactive"}}));
    for (body, status) in [(cents(3), 200), (cents(1), 429), (inactive, 200), (cents(1), 429)] {
        set(&gateway, &path, body.clone()).await;
        assert_eq!(team.say("Hi").await.status.as_u16(), status, "{body}");
    }
    assert_eq!(gateway.admin().delete(&path).await.status, 200);
    assert_eq!(team.say("Hi").await.status, 200);
}

#[tokio::test]
async fn a_new_month_starts_at_nothing_with_and_without_a_restart() {
    for restarted in [false, true] {
        let mut gateway = gateway().await;
        let mut team = gateway.project("tier1").await;
        set(&gateway, &format!("{PROJECTS}/{}/spend_limit", team.project_id), cents(1)).await;
        assert_eq!(speak(&team).await.status, 200);
        gateway.clock.advance((OCTOBER - SEPTEMBER - 1) * 1_000_000_000);
        assert_spent(&speak(&team).await, "project");
        gateway.clock.advance(1_000_000_000);
        if restarted {
            restart(&mut gateway, &mut [&mut team]).await;
        }
        assert_eq!(speak(&team).await.status, 200, "restarted: {restarted}");
        assert_spent(&speak(&team).await, "project");
    }
}

#[tokio::test]
async fn a_limit_of_a_day_refuses_until_midnight_with_and_without_a_restart() {
    for whose in ["project", "organization"] {
        let mut gateway = gateway().await;
        let mut team = gateway.project("tier1").await;
        let path = match whose {
            "project" => format!("{PROJECTS}/{}/spend_limit", team.project_id),
            _ => ORGANIZATION.to_owned(),
        };
        let daily = with(cents(1), &json!({"interval": "day"}));
        set(&gateway, &path, daily).await;
        assert_eq!(gateway.admin().get(&path).await.json()["interval"], "day");
        assert_eq!(speak(&team).await.status, 200);
        assert_spent(&team.say("Hi").await, whose);
        restart(&mut gateway, &mut [&mut team]).await;
        assert_spent(&team.say("Hi").await, whose);
        let second = gateway.clock.now().0 / 1_000_000_000;
        gateway.clock.advance((86_399 - second % 86_400) * 1_000_000_000);
        assert_spent(&team.say("Hi").await, whose);
        gateway.clock.advance(1_000_000_000);
        assert_eq!(speak(&team).await.status, 200);
        assert_spent(&team.say("Hi").await, whose);
    }
}

#[tokio::test]
async fn a_limit_of_the_month_and_one_of_the_day_hold_at_the_same_time() {
    for whose in ["project", "organization"] {
        let mut gateway = gateway().await;
        let mut team = gateway.project("tier1").await;
        let path = match whose {
            "project" => format!("{PROJECTS}/{}/spend_limit", team.project_id),
            _ => ORGANIZATION.to_owned(),
        };
        set(&gateway, &path, cents(2)).await;
        set(&gateway, &path, with(cents(1), &json!({"interval": "day"}))).await;
        for (day, restarted) in [(0, false), (1, true)] {
            assert_eq!(speak(&team).await.status, 200, "day {day} of the {whose}'s");
            assert_spent(&team.say("Hi").await, whose);
            if restarted {
                restart(&mut gateway, &mut [&mut team]).await;
            }
            assert_spent(&team.say("Hi").await, whose);
            gateway.clock.advance(86_400 * 1_000_000_000);
        }
        // A third day is new, and the month is not.
        assert_spent(&team.say("Hi").await, whose);
        assert_eq!(gateway.admin().delete(&format!("{path}?interval=month")).await.status, 200);
        assert_eq!(speak(&team).await.status, 200);
        assert_spent(&team.say("Hi").await, whose);
    }
}

#[tokio::test]
async fn all_projects_together_are_held_to_the_organizations_limit() {
    let mut gateway = gateway().await;
    let (mut one, mut two) = (gateway.project("tier1").await, gateway.project("tier1").await);
    set(&gateway, ORGANIZATION, cents(2)).await;
    for team in [&one, &two] {
        assert_eq!(speak(team).await.status, 200);
    }
    for restarted in [false, true] {
        if restarted {
            restart(&mut gateway, &mut [&mut one, &mut two]).await;
        }
        for team in [&one, &two] {
            assert_spent(&team.say("Hi").await, "organization");
        }
    }
    assert_eq!(gateway.metric("upstream_calls_total").await, 0, "since the restart");
    set(&gateway, ORGANIZATION, cents(100)).await;
    assert_eq!(one.say("Hi").await.status, 200);
}

#[tokio::test]
async fn what_a_client_that_left_has_cost_counts_too() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    set(&gateway, &format!("{PROJECTS}/{}/spend_limit", team.project_id), cents(1)).await;
    let body = with(spoken("pcm16"), &json!({"stream": true}));
    drop(team.open(&[("x-simulate", "audio-seconds=30")], &body).await);
    let rows = gateway.ledger().await;
    assert!(rows[0].cost_pico > Some(10_000_000_000), "{rows:?}");
    assert_spent(&team.say("Hi").await, "project");
}
