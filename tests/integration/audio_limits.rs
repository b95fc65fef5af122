//! Limits of audio alone: reserved by the clips and the probable answer, settled as both were, and told in their own words.

use serde_json::{Value, json};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::{
    metering::{heard, wav},
    support::{Actor, Gateway, MODEL, Reply, spoken},
};

const MILLISECOND: u64 = 1_000_000;

async fn gateway() -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(1_790_000_000));
    Gateway::start_at(clock, simulator::Options::default(), |_| {}).await
}

/// A clip of so many tenths of a second, which are as many tokens, and an answer in text.
async fn hear(team: &Actor, tenths: u32) -> Reply {
    team.chat(&heard("wav", &wav(tenths))).await
}

/// What is left of a minute's tokens of audio. Asking consumes nothing.
async fn left(team: &Actor) -> String {
    let reply = team.chat(&json!({"model": MODEL, "messages": []})).await;
    reply.header("x-ratelimit-remaining-audio-tokens").to_owned()
}

fn refusal(team: &Actor, what: &str) -> Value {
    let message = format!(
        "Rate limit reached for {MODEL} in organization {} on {what}. Visit \
         https://platform.openai.com/account/rate-limits to learn more.",
        team.project_id
    );
    json!({"error": {"message": message, "type": "tokens", "param": null, "code": "rate_limit_exceeded"}})
}

#[tokio::test]
async fn a_minutes_tokens_of_audio_are_reserved_by_the_clip_and_settled_with_what_was_said() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"audio_tokens_per_minute": 600})).await;
    assert_eq!(hear(&team, 69).await.header("x-ratelimit-remaining-audio-tokens"), "531");
    // Guessed 200, said 2 seconds.
    let said = team.chat_with_fault("audio-seconds=2", &spoken("wav")).await;
    assert_eq!(said.header("x-ratelimit-remaining-audio-tokens"), "331");
    let shown = ["limit", "reset"].map(|it| said.header(&format!("x-ratelimit-{it}-audio-tokens")).to_owned());
    assert_eq!(shown, ["600", "26.9s"]);
    assert_eq!(left(&team).await, (600 - 69 - 40).to_string());
    let refused = hear(&team, 500).await;
    let words = "audio tokens per min: Limit 600, Used 109, Requested 500. Please try again in 900ms";
    assert_eq!((refused.status.as_u16(), refused.json()), (429, refusal(&team, words)));
    assert_eq!((refused.header("retry-after-ms"), refused.header("retry-after")), ("900", "1"));
    assert_eq!(gateway.metric(r#"requests_refused_total{limit="audio_tokens_per_minute",scope="key"}"#).await, 1);
    gateway.clock.advance(899 * MILLISECOND);
    assert_eq!(hear(&team, 500).await.status, 429);
    gateway.clock.advance(MILLISECOND);
    assert_eq!(hear(&team, 500).await.status, 200);
    // Whoever says and hears nothing passes.
    assert_eq!(team.say("Hi").await.status, 200);
    let too_long = hear(&team, 601).await;
    assert!(too_long.text().contains("Request too large for"), "{}", too_long.text());
    assert_eq!((too_long.status.as_u16(), too_long.header("x-should-retry")), (429, "false"));
}

#[tokio::test]
async fn a_clip_whose_length_cannot_be_read_is_never_too_long_and_counts_what_is_billed() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"audio_tokens_per_minute": 600})).await;
    // 75 seconds at 16 kbit/s, and no wav for all that it says so.
    let unreadable = team.chat(&heard("wav", &"A".repeat(200_000))).await;
    assert_ne!(unreadable.status, 429, "{}", unreadable.text());
    assert_eq!(unreadable.header("x-ratelimit-remaining-audio-tokens"), "0", "all that there is was held");
    assert_eq!(left(&team).await, "600", "the upstream refused it and bills nothing");
}

#[tokio::test]
async fn headers_of_audio_are_there_only_with_a_limit_of_it() {
    let gateway = gateway().await;
    let (tokens, seconds) = (json!({"audio_tokens_per_minute": 600}), json!({"audio_seconds_per_day": 60}));
    for (limits, shown) in [(json!({}), &[][..]), (tokens, &["audio-tokens"]), (seconds, &["audio-seconds"])] {
        let team = gateway.project_with("tier1", limits).await;
        let reply = hear(&team, 10).await;
        assert!(!reply.header("x-ratelimit-remaining-tokens").is_empty());
        let of = |name: &http::HeaderName| name.as_str().strip_prefix("x-ratelimit-remaining-").map(str::to_owned);
        let audio = reply.headers.keys().filter_map(of).filter(|it| it.contains("audio"));
        assert_eq!(audio.collect::<Vec<_>>(), shown);
    }
}

#[tokio::test]
async fn a_days_seconds_of_audio_are_shown_in_whole_seconds() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"audio_seconds_per_day": 60})).await;
    let reply = hear(&team, 11).await;
    let shown = |what: &str| reply.header(&format!("x-ratelimit-{what}-audio-seconds")).to_owned();
    // 1.1 of 60 seconds are gone; one of them comes back in 24 minutes.
    assert_eq!([shown("limit"), shown("remaining"), shown("reset")], ["60", "58", "26m24s"]);
    let refused = hear(&team, 590).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-ratelimit-remaining-audio-seconds")), (429, "58"));
    let id = refused.header("x-request-id").to_owned();
    let explained = gateway.admin().get(&format!("/v1/organization/requests/{id}")).await.json();
    let expected = json!({"limit": 60, "remaining": 58, "reset_ms": 1_584_000});
    assert_eq!(explained["refusal"]["headrooms"]["audio_seconds"], expected);
}

#[tokio::test]
async fn a_days_seconds_of_audio_are_heard_and_said_ones_together_and_no_client_retries_by_itself() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"audio_seconds_per_day": 20})).await;
    assert_eq!(hear(&team, 69).await.status, 200);
    assert_eq!(team.chat_with_fault("audio-seconds=4.65", &spoken("wav")).await.status, 200);
    // 6.9 s and 4.65 s are gone, 8.45 s are left; a tick more is 216 s away.
    let refused = hear(&team, 85).await;
    let words = "audio seconds per day: Limit 20, Used 12, Requested 9. Please try again in 3m36s";
    assert_eq!((refused.status.as_u16(), refused.json()), (429, refusal(&team, words)));
    assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), ("216", "false"));
    gateway.clock.advance(215_999 * MILLISECOND);
    assert_eq!(hear(&team, 85).await.status, 429);
    gateway.clock.advance(MILLISECOND);
    assert_eq!(hear(&team, 85).await.status, 200);
}

#[tokio::test]
async fn limits_of_audio_are_as_they_were_after_a_restart_and_hold_for_a_project_too() {
    let mut gateway = gateway().await;
    let mut team = gateway.project("tier1").await;
    let path = format!("/v1/organization/projects/{}/rate_limits/rl-{MODEL}", team.project_id);
    let limits = json!({"max_audio_tokens_per_1_minute": 600, "max_audio_seconds_per_1_day": 40});
    let set = gateway.admin().post(&path, &limits).await;
    assert_eq!((set.status.as_u16(), &set.json()["max_audio_seconds_per_1_day"]), (200, &json!(40)));
    let other = gateway.key_of(&team.project_id, json!({})).await;
    assert_eq!(hear(&team, 150).await.status, 200);
    assert_eq!(hear(&other, 150).await.status, 200);
    gateway.at_rest().await;
    gateway.stop().await;
    gateway.run().await;
    team.url.clone_from(&gateway.calls_url);
    assert_eq!(left(&team).await, "300");
    let refused = hear(&team, 101).await;
    assert!(refused.text().contains("audio seconds per day: Limit 40, Used 30, Requested 11."), "{}", refused.text());
    assert_eq!(hear(&team, 100).await.status, 200);
    // Each limit as the request met it, in its own unit.
    let id = refused.header("x-request-id").to_owned();
    let explained = gateway.admin().get(&format!("/v1/organization/requests/{id}")).await.json();
    let limit = &explained["refusal"]["limit"];
    assert_eq!((&limit["name"], &limit["unit"]), (&json!("audio_seconds_per_day"), &json!("seconds")));
    assert_eq!((&limit["limit"], &limit["used"], &limit["requested"]), (&json!(40), &json!(30), &json!(11)));
}
