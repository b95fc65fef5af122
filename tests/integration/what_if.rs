//! `tollgate simulate-limits` beside gateways that had these limits.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tollgate::{clock::Clock, config::Reserve, domain::time::UnixNanos, simulator};

use crate::support::{Actor, Ended, Gateway, command};

/// 2026-09-21 14:13:20 UTC.
const START_MS: u64 = 1_790_000_000_000;
const MILLISECOND: u64 = 1_000_000;

async fn gateway() -> Gateway {
    let clock = Clock::manual(UnixNanos::from_millis(START_MS));
    Gateway::start_at(clock, simulator::Options::default(), |_| {}).await
}

/// A morning's requests: milliseconds since the one before, and what is said.
fn requests() -> Vec<(u64, String)> {
    let mut seed = 7_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let gap = |n: u64| if n < 7 { 1 + n * 300 } else { 9_000 + n * 1_000 };
    (0..90).map(|_| (gap(next(10)), "x".repeat([40, 700, 2_900][usize::try_from(next(3)).unwrap()]))).collect()
}

/// When requests were refused, in Unix milliseconds.
async fn send(gateway: &Gateway, team: &Actor) -> Vec<u64> {
    let (mut now_ms, mut refused) = (START_MS, Vec::new());
    for (gap_ms, words) in requests() {
        gateway.clock.advance(gap_ms * MILLISECOND);
        now_ms += gap_ms;
        match team.say(&words).await.status.as_u16() {
            200 => {}
            429 => refused.push(now_ms),
            other => panic!("{other}"),
        }
    }
    gateway.at_rest().await;
    refused
}

async fn simulated(gateway: &Gateway, words: &[&str]) -> Ended {
    let range = ["simulate-limits", "--from", "2026-09-21", "--to", "2026-09-22"];
    let ended = command(gateway, &[&range[..], words].concat(), &[]).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    ended
}

/// What the answer says of refusals: how many, the first and the last.
fn summary(answer: &Value) -> (u64, Option<u64>, Option<u64>) {
    let rows = answer["refusals"].as_array().unwrap();
    let all = |name: &str| rows.iter().map(|row| row[name].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("refused").iter().sum::<u64>(), answer["refused"].as_u64().unwrap());
    let (first, last) = (all("first_at_ms").into_iter().min(), all("last_at_ms").into_iter().max());
    (answer["refused"].as_u64().unwrap(), first, last)
}

#[tokio::test]
async fn a_what_if_refuses_exactly_whom_a_gateway_with_these_limits_refused() {
    let wide = gateway().await;
    let team = wide.project("tier1").await;
    assert_eq!(send(&wide, &team).await, [0; 0]);
    let file = wide.dir.path().join("narrow.toml");
    std::fs::write(&file, "[default_limits]\nrequests_per_minute = 9\ntokens_per_minute = 3_000\n").unwrap();
    let file = file.to_str().unwrap();

    let narrow = gateway().await;
    let limits = json!({"requests_per_minute": 9, "tokens_per_minute": 3_000});
    let narrow_team = narrow.project_with("tier1", limits).await;
    let refused = send(&narrow, &narrow_team).await;
    assert!((10..80).contains(&refused.len()), "{refused:?}");
    let answer = simulated(&wide, &["--limits", file, "--json"]).await.json();
    assert_eq!(summary(&answer), (refused.len() as u64, refused.first().copied(), refused.last().copied()));
    let hit = |limit: &str| answer["refusals"].as_array().unwrap().iter().any(|row| row["limit_name"] == limit);
    assert!(hit("requests_per_minute") && hit("tokens_per_minute"), "{answer}");

    // Each under the limits that it had: the narrow ones are those of the key.
    for gateway in [&wide, &narrow] {
        let answer = simulated(gateway, &["--tier", "tier1", "--json"]).await.json();
        assert_eq!(summary(&answer), (0, None, None));
    }

    let free = gateway().await;
    let free_team = free.project("free").await;
    let refused = send(&free, &free_team).await;
    for words in [&["--tier", "free", "--json"][..], &["--tier", "free", "--json", "--project", &team.project_id]] {
        let answer = simulated(&wide, words).await.json();
        assert_eq!(summary(&answer), (refused.len() as u64, refused.first().copied(), refused.last().copied()));
        assert_eq!(answer["refusals"][0]["api_key_id"], team.key_id.as_str());
    }
    let screen = simulated(&wide, &["--tier", "free", "--model", "gpt-4o-mini"]).await.out;
    assert!(screen.contains(&format!("{} of 90", refused.len())) && screen.contains("█"), "{screen}");
    let other = simulated(&wide, &["--tier", "free", "--model", "gpt-4.1-mini"]).await.out;
    assert!(other.starts_with("0 requests, ") && other.contains("nobody would have been refused"), "{other}");
}

#[tokio::test]
async fn a_what_if_refuses_the_models_that_the_tier_does_not_list_as_a_gateway_does() {
    let gateway = gateway().await;
    let models = ["gpt-4o", "gpt-4o-mini", "gpt-4o"];
    let (team, free) = (gateway.project("tier1").await, gateway.project("free").await);
    for (model, as_free) in models.into_iter().zip([403, 200, 403]) {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
        assert_eq!((team.chat(&body).await.status, free.chat(&body).await.status.as_u16()), (StatusCode::OK, as_free));
    }
    gateway.at_rest().await;
    let answer = simulated(&gateway, &["--tier", "free", "--json"]).await.json();
    assert_eq!(summary(&answer), (2, Some(START_MS), Some(START_MS)));
    let row = &answer["refusals"][0];
    assert_eq!((&row["reason"], &row["limit_group"]), (&json!("model_not_allowed"), &json!("gpt-4o")));
    assert_eq!(row["api_key_id"], team.key_id.as_str());
    let screen = simulated(&gateway, &["--tier", "free"]).await.out;
    assert!(screen.contains("model not in the tier"), "{screen}");
    // A file speaks of limits alone.
    let file = gateway.dir.path().join("wide.toml");
    std::fs::write(&file, "[default_limits]\nrequests_per_minute = 90\n").unwrap();
    let answer = simulated(&gateway, &["--limits", file.to_str().unwrap(), "--json"]).await.json();
    assert_eq!(summary(&answer), (0, None, None));
}

#[tokio::test]
async fn what_was_used_beyond_a_limit_per_day_is_owed_longer_than_a_day_in_a_what_if_too() {
    const DAY_NANOS: u64 = 86_400_000 * MILLISECOND;
    let clock = Clock::manual(UnixNanos::from_millis(START_MS));
    let talkative = simulator::Options { chunks: 5_000, ..simulator::Options::default() };
    let mut gateway = Gateway::start_at(clock, talkative, |settings| settings.retention_days = 3).await;
    let wide = gateway.project("tier1").await;
    let narrow = gateway.key_of(&wide.project_id, json!({"tokens_per_day": 1_000})).await;
    let file = gateway.dir.path().join("daily.toml");
    std::fs::write(&file, "[default_limits]\ntokens_per_day = 1_000\n").unwrap();
    let file = file.to_str().unwrap().to_owned();
    for expected in [200, 429] {
        assert_eq!((wide.say("Hi").await.status, narrow.say("Hi").await.status.as_u16()), (StatusCode::OK, expected));
        gateway.at_rest().await;
        gateway.clock.advance(26 * DAY_NANOS / 24);
    }
    let range = ["simulate-limits", "--from", "2026-09-22T15:00:00Z", "--to", "2026-09-23"];
    let answer = async |gateway: &Gateway| {
        command(gateway, &[&range[..], &["--limits", &file, "--project", &wide.project_id, "--json"]].concat(), &[])
            .await
    };
    let all = answer(&gateway).await;
    assert_eq!((summary(&all.json()).0, all.err.as_str()), (1, ""), "{all:?}");

    // 2026-09-24: what was said at the start is more than three days old, what was said later is not.
    gateway.clock.advance(DAY_NANOS);
    assert_eq!(wide.say("Good evening").await.status, StatusCode::OK);
    gateway.at_rest().await;
    gateway.stop().await;
    gateway.run().await;
    let dropped = async {
        while gateway.metric("entries_dropped_total").await < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dropped).await.unwrap();
    let rest = answer(&gateway).await;
    assert_eq!((&rest.json()["requests"], summary(&rest.json()).0), (&json!(1), 0), "{rest:?}");
    let said = "may be missing, and the replay begins at 2026-09-15T15:00:00Z";
    assert!(
        rest.err.contains("Entries that were settled before 2026-09-21T18:13:20Z") && rest.err.contains(said),
        "{rest:?}"
    );
}

#[tokio::test]
async fn where_maxima_are_reserved_whole_a_what_if_lets_a_guess_give_way_as_the_gateway_does() {
    let clock = Clock::manual(UnixNanos::from_millis(START_MS));
    let gateway = Gateway::start_at(clock, simulator::Options::default(), |settings| {
        settings.reserve = Reserve::Strict;
        settings.allow_unpriced = true;
    });
    let gateway = gateway.await;
    let file = gateway.dir.path().join("narrow.toml");
    std::fs::write(&file, "[default_limits]\ntokens_per_minute = 100\n").unwrap();
    let wide = gateway.project("tier1").await;
    // Neither this model nor the first request states a maximum; the second does.
    let mut bodies = [json!({"model": "sim-own", "messages": [{"role": "user", "content": "Hi"}]}), Value::Null];
    bodies[1] = bodies[0].clone();
    bodies[1]["max_tokens"] = json!(500);
    for (body, as_narrow) in bodies.iter().zip([200, 429]) {
        let narrow = gateway.project_with("tier1", json!({"tokens_per_minute": 100})).await;
        let statuses = (wide.chat(body).await.status, narrow.chat(body).await.status.as_u16());
        assert_eq!(statuses, (StatusCode::OK, as_narrow), "{body}");
        gateway.at_rest().await;
        gateway.clock.advance(120_000 * MILLISECOND);
    }
    let env = [("TOLLGATE_RESERVE", "strict"), ("TOLLGATE_ALLOW_UNPRICED", "true")];
    let words = ["simulate-limits", "--from", "2026-09-21", "--to", "2026-09-22", "--project", &wide.project_id];
    let limits = ["--limits", file.to_str().unwrap(), "--json"];
    let ended = command(&gateway, &[&words[..], &limits].concat(), &env).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    let answer = ended.json();
    assert_eq!(summary(&answer), (1, Some(START_MS + 120_000), Some(START_MS + 120_000)), "{answer}");
    assert_eq!((&answer["requests"], &answer["refusals"][0]["too_large"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn what_cannot_be_replayed_says_what_to_change() {
    let gateway = gateway().await;
    let fails = async |words: &[&str]| {
        let range = ["simulate-limits", "--from", "2026-09-21"];
        let ended = command(&gateway, &[&range[..], words].concat(), &[]).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{ended:?}");
        ended.err
    };
    let said = fails(&["--to", "2026-09-21", "--tier", "free"]).await;
    assert_eq!(said, "tollgate: --to must be later than --from\n");
    let said = fails(&["--to", "2026-09-22", "--tier", "gold"]).await;
    assert!(said.contains("no tier \"gold\"") && said.contains("free, tier1, tier2"), "{said}");
    let said = fails(&["--to", "2026-09-22", "--tier", "free", "--project", "proj_nobody"]).await;
    assert!(said.contains("--project: there is no project proj_nobody in this ledger"), "{said}");
    let said = fails(&["--to", "2026-09-22", "--tier", "free", "--model", "gpt-5000"]).await;
    assert!(said.contains("--model: there is no model \"gpt-5000\" in the catalog"), "{said}");
    let said = fails(&["--to", "2026-09-22", "--limits", "/nowhere.toml"]).await;
    assert!(said.starts_with("tollgate: --limits:\n/nowhere.toml: cannot be read: "), "{said}");
}
