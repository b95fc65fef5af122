//! A clock that jumps by 25 hours either way: nobody gets more than a full bucket, and nobody waits for the jump.

use http_body_util::BodyExt as _;
use serde_json::json;
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::support::{Actor, Gateway, TEXT_MODEL, text, with};

const START: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
const SECOND: u64 = 1_000_000_000;
const JUMP: u64 = 25 * 3_600 * SECOND;
const MINUTE: u64 = 60 * SECOND;

async fn gateway() -> Gateway {
    Gateway::start_at(Clock::manual(START), simulator::Options::default(), |_| {}).await
}

/// Starts again over the same data, at another time.
async fn restart_at(gateway: &mut Gateway, time: UnixNanos, teams: &mut [&mut Actor]) {
    gateway.stop().await;
    gateway.clock = Clock::manual(time);
    gateway.run().await;
    for team in teams {
        team.url.clone_from(&gateway.calls_url);
    }
}

/// How many of 50 requests pass.
async fn passing(team: &Actor) -> usize {
    let mut passed = 0;
    for _ in 0..50 {
        let status = team.say("Hi").await.status;
        assert!(status == 200 || status == 429, "{status}");
        passed += usize::from(status == 200);
    }
    passed
}

/// Limits and what is left of them: requests and tokens. Asking takes nothing.
async fn left(team: &Actor) -> [String; 4] {
    let reply = team.chat(&json!({"model": TEXT_MODEL, "messages": []})).await;
    ["reset-requests", "remaining-requests", "remaining-tokens", "reset-tokens"]
        .map(|name| reply.header(&format!("x-ratelimit-{name}")).to_owned())
}

#[tokio::test]
async fn after_a_jump_forward_a_bucket_is_full_and_not_fuller() {
    let mut gateway = gateway().await;
    let mut minute = gateway.project_with("tier5", json!({"requests_per_minute": 6})).await;
    let mut day = gateway.project_with("tier5", json!({"requests_per_day": 5})).await;
    assert_eq!((passing(&minute).await, passing(&day).await), (6, 5));
    gateway.clock.advance(JUMP);
    assert_eq!((passing(&minute).await, passing(&day).await), (6, 5));
    restart_at(&mut gateway, START.plus_nanos(2 * JUMP), &mut [&mut minute, &mut day]).await;
    assert_eq!((passing(&minute).await, passing(&day).await), (6, 5));
}

#[tokio::test]
async fn a_request_that_is_open_while_the_clock_jumps_forward_brings_no_room() {
    let gateway = gateway().await;
    let limits = json!({"requests_per_minute": 10, "tokens_per_minute": 120});
    let team = gateway.project_with("tier5", limits).await;
    // It holds 103 tokens, and uses 12 in the end.
    let body = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true, "max_tokens": 100}));
    let open = team.open(&[("x-simulate", "chunks=7,delay-ms=300")], &body).await;
    gateway.clock.advance(JUMP);
    // Each holds and uses 12.
    let small = with(text(TEXT_MODEL, "Hi"), &json!({"max_tokens": 9}));
    let pass = async || {
        let mut passed = 0;
        while team.chat_with_fault("chunks=7", &small).await.status == 200 {
            passed += 1;
        }
        passed
    };
    let before = pass().await;
    open.into_body().collect().await.unwrap();
    gateway.at_rest().await;
    assert_eq!((before, pass().await), (10, 0));
}

#[tokio::test]
async fn limits_are_as_they_were_when_the_clock_was_set_back_over_a_restart() {
    let mut gateway = gateway().await;
    let mut minute = gateway.project_with("tier5", json!({"requests_per_minute": 6})).await;
    let mut day = gateway.project_with("tier1", json!({"requests_per_day": 5, "tokens_per_minute": 600})).await;
    assert_eq!((passing(&minute).await, day.say("Hi").await.status.as_u16()), (6, 200));
    let before = [left(&minute).await, left(&day).await];
    // Twice, without a request between: what was set back is not set back again.
    for _ in 0..2 {
        let back = UnixNanos(START.0 - JUMP);
        restart_at(&mut gateway, back, &mut [&mut minute, &mut day]).await;
        assert_eq!([left(&minute).await, left(&day).await], before);
    }
    assert_eq!((passing(&minute).await, passing(&day).await), (0, 4));
    gateway.clock.advance(10 * SECOND);
    assert_eq!(passing(&minute).await, 1);
    gateway.clock.advance(MINUTE);
    assert_eq!((passing(&minute).await, passing(&day).await), (6, 0));
}

#[tokio::test]
async fn what_is_used_after_the_clock_was_set_back_is_kept_over_the_next_restart() {
    let mut gateway = gateway().await;
    let mut minute = gateway.project_with("tier5", json!({"requests_per_minute": 6})).await;
    let mut day = gateway.project_with("tier5", json!({"requests_per_day": 5})).await;
    for _ in 0..2 {
        assert_eq!((minute.say("Hi").await.status.as_u16(), day.say("Hi").await.status.as_u16()), (200, 200));
    }
    let back = UnixNanos(START.0 - JUMP);
    restart_at(&mut gateway, back, &mut [&mut minute, &mut day]).await;
    assert_eq!((minute.say("Hi").await.status.as_u16(), day.say("Hi").await.status.as_u16()), (200, 200));
    // The second one did not ask since: its bucket was set back too.
    let before = [left(&minute).await, left(&day).await];
    assert_eq!((before[0][0].as_str(), before[1][1].as_str()), ("30s", "2"));
    for _ in 0..2 {
        restart_at(&mut gateway, back, &mut [&mut minute, &mut day]).await;
        assert_eq!([left(&minute).await, left(&day).await], before);
    }
    // And once more.
    restart_at(&mut gateway, UnixNanos(back.0 - JUMP), &mut [&mut minute, &mut day]).await;
    assert_eq!([left(&minute).await, left(&day).await], before);
    assert_eq!((passing(&minute).await, passing(&day).await), (3, 2));
    // Back to the right time, all is full again.
    restart_at(&mut gateway, START.plus_nanos(SECOND), &mut [&mut minute, &mut day]).await;
    assert_eq!((passing(&minute).await, passing(&day).await), (6, 5));
}
