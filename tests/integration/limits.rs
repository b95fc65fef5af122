//! Limits as callers meet them: how much passes, what a refusal says, and when the next request passes.

use serde_json::{Value, json};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::support::{Actor, Gateway, MODEL, Reply, TEXT_MODEL, change_price, spoken, text};

const MILLISECOND: u64 = 1_000_000;

async fn gateway() -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(1_790_000_000));
    Gateway::start_at(clock, simulator::Options::default(), |_| {}).await
}

/// A short spoken answer of the seed model.
async fn speak(team: &Actor) -> Reply {
    team.chat_with_fault("audio-seconds=0.05", &spoken("wav")).await
}

/// Limits, what is left of them, and when they are full: requests, then tokens. Asking consumes nothing.
async fn shown(team: &Actor, model: &str) -> [String; 6] {
    let reply = team.chat(&json!({"model": model, "messages": []})).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    let header = |what: &str, of: &str| reply.header(&format!("x-ratelimit-{what}-{of}")).to_owned();
    let (requests, tokens) = ("requests", "tokens");
    let limits = [header("limit", requests), header("remaining", requests), header("reset", requests)];
    let [limit, remaining, reset] = limits;
    [limit, remaining, reset, header("limit", tokens), header("remaining", tokens), header("reset", tokens)]
}

fn refusal(kind: &str, message: &str) -> Value {
    const MORE: &str = "Visit https://platform.openai.com/account/rate-limits to learn more.";
    json!({"error": {
        "message": format!("{message} {MORE}"), "type": kind, "param": null, "code": "rate_limit_exceeded",
    }})
}

/// The same, as a project of the free tier reads it.
fn free_refusal(kind: &str, message: &str) -> Value {
    const PAY: &str = "You can increase your rate limit by adding a payment method to your account at \
        https://platform.openai.com/account/billing.";
    let mut refusal = refusal(kind, message);
    refusal["error"]["message"] = format!("{} {PAY}", refusal["error"]["message"].as_str().unwrap()).into();
    refusal
}

/// A millisecond less than told is too early, and exactly as long as told is enough.
pub async fn passes_exactly_when_told(gateway: &Gateway, refused: &Reply, again: impl AsyncFn() -> Reply) {
    let wait_ms: u64 = refused.header("retry-after-ms").parse().unwrap();
    assert_eq!(refused.header("retry-after"), wait_ms.div_ceil(1_000).to_string());
    gateway.clock.advance((wait_ms - 1) * MILLISECOND);
    let early = again().await;
    assert_eq!((early.status.as_u16(), early.header("retry-after-ms")), (429, "1"), "{}", early.text());
    gateway.clock.advance(MILLISECOND);
    let in_time = again().await;
    assert_eq!(in_time.status, 200, "{}", in_time.text());
}

#[tokio::test]
async fn each_tier_has_the_limits_of_the_models_page() {
    let gateway = gateway().await;
    // The day's limit where there is one, else the minute's; then tokens per minute.
    for (tier, requests, tokens) in [
        ("free", "200", "40000"),
        ("tier1", "10000", "200000"),
        ("tier2", "5000", "2000000"),
        ("tier3", "5000", "4000000"),
        ("tier4", "10000", "10000000"),
        ("tier5", "30000", "150000000"),
    ] {
        let team = gateway.project(tier).await;
        let [limit, remaining, reset, token_limit, token_remaining, token_reset] = shown(&team, MODEL).await;
        assert_eq!((limit.as_str(), remaining.as_str(), reset.as_str()), (requests, requests, "0s"), "{tier}");
        assert_eq!((token_limit.as_str(), token_remaining.as_str()), (tokens, tokens), "{tier}");
        assert_eq!(token_reset, "0s", "{tier}");
    }
}

#[tokio::test]
async fn of_the_free_tiers_three_requests_a_minute_three_pass() {
    let gateway = gateway().await;
    let team = gateway.project("free").await;
    for _ in 0..3 {
        let reply = speak(&team).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let refused = speak(&team).await;
    let project = &team.project_id;
    let message = format!(
        "Rate limit reached for {MODEL} in organization {project} on requests per min (RPM): Limit 3, Used 3, Requested \
         1. Please try again in 20s."
    );
    assert_eq!((refused.status.as_u16(), refused.json()), (429, free_refusal("requests", &message)));
    assert_eq!((refused.header("retry-after"), refused.header("retry-after-ms")), ("20", "20000"));
    assert!(!refused.headers.contains_key("x-should-retry"));
    passes_exactly_when_told(&gateway, &refused, async || speak(&team).await).await;
    assert_eq!(speak(&team).await.status, 429);
    assert_eq!(gateway.ledger().await.len(), 4);
    let refused = r#"requests_refused_total{limit="requests_per_minute",scope="project"}"#;
    assert_eq!((gateway.metric("upstream_calls_total").await, gateway.metric(refused).await), (4, 3));
}

#[tokio::test]
async fn a_refusal_of_a_shared_limit_says_which_it_is() {
    let gateway = Gateway::start_with(|settings| {
        let id = format!("id = \"{TEXT_MODEL}\"");
        change_price(settings, TEXT_MODEL, &id, &format!("{id}\nlimit_group = \"small-models\""));
    })
    .await;
    let limits = json!({"requests_per_minute": 1, "concurrent_streams": 1});
    let team = gateway.project_with("tier1", limits).await;
    assert_eq!(team.say("Hi").await.status, 200);
    for model in [TEXT_MODEL, "gpt-4o-mini-2024-07-18"] {
        let refused = team.chat(&text(model, "Hi")).await;
        let message = refused.error()["message"].as_str().unwrap().to_owned();
        let organization = &team.project_id;
        let words =
            format!("Rate limit reached for {model} (for limit small-models) in organization {organization} on");
        assert!(refused.status == 429 && message.starts_with(&words), "{message}");
    }
    // One that is the model's own is not named twice.
    let own = gateway.project_with("tier1", json!({"requests_per_minute": 1})).await;
    assert_eq!(speak(&own).await.status, 200);
    let refused = speak(&own).await;
    assert!(refused.status == 429 && !refused.text().contains("for limit"), "{}", refused.text());
}

#[tokio::test]
async fn a_wait_that_is_no_whole_number_of_milliseconds_is_rounded_up() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 7})).await;
    for _ in 0..7 {
        assert_eq!(team.say("Hi").await.status, 200);
    }
    // 60 s / 7 are 8,571.43 ms: the text cuts them off, as OpenAI's does.
    let refused = team.say("Hi").await;
    assert!(refused.text().contains("Please try again in 8.571s."), "{}", refused.text());
    assert_eq!((refused.header("retry-after"), refused.header("retry-after-ms")), ("9", "8572"));
    passes_exactly_when_told(&gateway, &refused, async || team.say("Hi").await).await;
}

#[tokio::test]
async fn of_tier_ones_five_hundred_a_minute_five_hundred_pass() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    for nth in 1..=500 {
        let reply = speak(&team).await;
        assert_eq!(reply.status, 200, "request {nth}: {}", reply.text());
    }
    let refused = speak(&team).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after-ms")), (429, "120"), "{}", refused.text());
    passes_exactly_when_told(&gateway, &refused, async || speak(&team).await).await;
}

#[tokio::test]
async fn the_day_is_a_bucket_that_refills_not_a_date() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_day": 2})).await;
    assert_eq!((team.say("Hi").await.status.as_u16(), team.say("Hi").await.status.as_u16()), (200, 200));
    let refused = team.say("Hi").await;
    let project = &team.project_id;
    let message = format!(
        "Rate limit reached for {TEXT_MODEL} in organization {project} on requests per day (RPD): Limit 2, Used 2, \
         Requested 1. Please try again in 12h0m0s."
    );
    assert_eq!((refused.status.as_u16(), refused.json()), (429, refusal("requests", &message)));
    assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), ("43200", "false"));
    passes_exactly_when_told(&gateway, &refused, async || team.say("Hi").await).await;
}

#[tokio::test]
async fn the_free_tiers_two_hundred_a_day_refill_while_they_are_used() {
    let gateway = gateway().await;
    let team = gateway.project("free").await;
    let mut passed = 0;
    // One request every 20 s, as the minute's limit allows; one more than the 200 comes back every 432 s.
    let refused = loop {
        let reply = team.say("Hi").await;
        if reply.status != 200 {
            break reply;
        }
        passed += 1;
        gateway.clock.advance(20_000 * MILLISECOND);
    };
    assert_eq!(passed, 209);
    assert!(refused.text().contains("requests per day (RPD): Limit 200, Used 200"), "{}", refused.text());
}

#[tokio::test]
async fn tokens_are_limited_by_what_was_used_and_is_asked_for() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"tokens_per_minute": 1_000})).await;
    // 3,000 bytes are estimated at 752 tokens and billed at 754; the answer has 16.
    let words = "x".repeat(3_000);
    assert_eq!(team.say(&words).await.status, 200);
    let refused = team.say(&words).await;
    let project = &team.project_id;
    let message = format!(
        "Rate limit reached for {TEXT_MODEL} in organization {project} on tokens per min (TPM): Limit 1000, Used 770, \
         Requested 768. Please try again in 32.28s."
    );
    assert_eq!((refused.status.as_u16(), refused.json()), (429, refusal("tokens", &message)));
    assert_eq!((refused.header("retry-after"), refused.header("retry-after-ms")), ("33", "32280"));
    passes_exactly_when_told(&gateway, &refused, async || team.say(&words).await).await;
}

#[tokio::test]
async fn what_is_larger_than_the_whole_limit_is_too_large_and_not_worth_a_retry() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"tokens_per_minute": 1_000})).await;
    let refused = team.say(&"x".repeat(4_000)).await;
    let project = &team.project_id;
    let message = format!(
        "Request too large for {TEXT_MODEL} in organization {project} on tokens per min (TPM): Limit 1000, Requested \
         1002. The input or output tokens must be reduced in order to run successfully."
    );
    assert_eq!((refused.status.as_u16(), refused.json()), (429, refusal("tokens", &message)));
    assert_eq!(refused.header("x-should-retry"), "false");
    assert!(!refused.headers.contains_key("retry-after") && !refused.headers.contains_key("retry-after-ms"));
    assert_eq!(shown(&team, TEXT_MODEL).await, ["10000", "10000", "0s", "1000", "1000", "0s"]);
    assert_eq!((gateway.metric("upstream_calls_total").await, gateway.ledger().await.len()), (0, 0));
}

#[tokio::test]
async fn a_refused_request_takes_nothing_from_any_limit() {
    let gateway = gateway().await;
    let limits = json!({"requests_per_minute": 4, "requests_per_day": 10, "tokens_per_minute": 1_000});
    let team = gateway.project_with("tier1", limits).await;
    let words = "x".repeat(3_000);
    assert_eq!(team.say(&words).await.status, 200);
    let before = shown(&team, TEXT_MODEL).await;
    for _ in 0..20 {
        let refused = team.say(&words).await;
        assert!(refused.text().contains("(TPM)"), "{}", refused.text());
    }
    assert_eq!(shown(&team, TEXT_MODEL).await, before);
    // The three other requests of this minute are still there.
    for _ in 0..3 {
        assert_eq!(team.say("Hi").await.status, 200);
    }
    let before = shown(&team, TEXT_MODEL).await;
    for _ in 0..20 {
        let refused = team.say("Hi").await;
        assert!(refused.text().contains("(RPM): Limit 4, Used 4"), "{}", refused.text());
    }
    assert_eq!(shown(&team, TEXT_MODEL).await, before);
    assert_eq!(gateway.ledger().await.len(), 4);
}

#[tokio::test]
async fn a_key_narrows_its_projects_limits_and_never_widens_them() {
    let gateway = gateway().await;
    let wide = json!({"requests_per_minute": 9_000, "requests_per_day": 90_000, "tokens_per_minute": 9_000_000});
    let team = gateway.project_with("free", wide).await;
    assert_eq!(shown(&team, MODEL).await, ["200", "200", "0s", "40000", "40000", "0s"]);
    for status in [200, 200, 200, 429] {
        assert_eq!(team.say("Hi").await.status, status);
    }
    let narrow = json!({"requests_per_minute": 1, "requests_per_day": 7, "tokens_per_minute": 300});
    let narrowed = gateway.key_of(&team.project_id, narrow).await;
    assert_eq!(shown(&narrowed, MODEL).await, ["7", "7", "0s", "300", "300", "0s"]);
    // The project's three of this minute are used up.
    gateway.clock.advance(60_000 * MILLISECOND);
    for status in [200, 429] {
        assert_eq!(narrowed.say("Hi").await.status, status);
    }
}

#[tokio::test]
async fn a_keys_own_limits_hold_for_each_model() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 1})).await;
    let colleague = gateway.key_of(&team.project_id, json!({"requests_per_minute": 1})).await;
    let status = async |actor: &Actor, model: &str| actor.chat(&text(model, "Hi")).await.status.as_u16();
    assert_eq!((status(&team, TEXT_MODEL).await, status(&team, TEXT_MODEL).await), (200, 429));
    assert_eq!((status(&colleague, TEXT_MODEL).await, status(&colleague, TEXT_MODEL).await), (200, 429));
    assert_eq!((status(&team, "gpt-4.1-mini").await, status(&team, "gpt-4.1-mini").await), (200, 429));
    // A dated name is the same model.
    assert_eq!(status(&team, "gpt-4o-mini-2024-07-18").await, 429);
    assert_eq!(status(&team, "gpt-4.1-mini-2025-04-14").await, 429);
}

#[tokio::test]
async fn the_keys_of_a_project_share_its_limits_and_other_projects_have_theirs() {
    let gateway = gateway().await;
    let (one, other) = (gateway.project("free").await, gateway.project("free").await);
    let two = gateway.key_of(&one.project_id, json!({})).await;
    for key in [&one, &two, &one] {
        assert_eq!(speak(key).await.status, 200);
    }
    for key in [&one, &two] {
        let refused = speak(key).await;
        let text = refused.text();
        assert!(
            text.contains(&format!("in organization {} on requests per min (RPM): Limit 3, Used 3", one.project_id)),
            "{text}"
        );
        assert_eq!(refused.header("retry-after-ms"), "20000");
    }
    assert_eq!(speak(&other).await.status, 200);
    // A new key brings no new room.
    gateway.clock.advance(20_000 * MILLISECOND);
    let third = gateway.key_of(&one.project_id, json!({"requests_per_minute": 3})).await;
    assert_eq!((speak(&third).await.status.as_u16(), speak(&one).await.status.as_u16()), (200, 429));
    let refused = r#"requests_refused_total{limit="requests_per_minute",scope="project"}"#;
    assert_eq!(gateway.metric(refused).await, 3);
}

#[tokio::test]
async fn a_keys_narrower_limit_is_hit_first_and_its_sibling_goes_on() {
    let gateway = gateway().await;
    let narrow = gateway.project_with("tier1", json!({"requests_per_day": 2, "tokens_per_minute": 500})).await;
    let wide = gateway.key_of(&narrow.project_id, json!({})).await;
    for status in [200, 200, 429, 429] {
        assert_eq!(narrow.say("Hi").await.status, status);
    }
    let [limit, remaining, _, tokens, ..] = shown(&narrow, TEXT_MODEL).await;
    assert_eq!((limit.as_str(), remaining.as_str(), tokens.as_str()), ("2", "0", "500"));
    // What was refused took nothing from the project.
    let [limit, remaining, _, tokens, ..] = shown(&wide, TEXT_MODEL).await;
    assert_eq!((limit.as_str(), remaining.as_str(), tokens.as_str()), ("10000", "9998", "200000"));
    assert_eq!(wide.say("Hi").await.status, 200);
    assert_eq!(gateway.metric(r#"requests_refused_total{limit="requests_per_day",scope="key"}"#).await, 2);
}

#[tokio::test]
async fn headers_show_the_bucket_with_the_least_left() {
    let gateway = gateway().await;
    let narrow = gateway.project_with("free", json!({"tokens_per_minute": 30_000})).await;
    let wide = gateway.key_of(&narrow.project_id, json!({})).await;
    assert_eq!(shown(&narrow, TEXT_MODEL).await[3..5], ["30000", "30000"]);
    assert_eq!(wide.say(&"x".repeat(60_000)).await.status, 200);
    // 15,003 tokens and the answer's are gone from the project's 40,000, and none from the key's.
    let [.., limit, remaining, _] = shown(&narrow, TEXT_MODEL).await;
    assert_eq!(limit, "40000");
    assert!(remaining.parse::<u32>().unwrap() < 25_000, "{remaining}");
}

#[tokio::test]
async fn tokens_of_a_day_are_refused_in_openais_words() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"tokens_per_day": 1_000})).await;
    let words = "x".repeat(3_000);
    assert_eq!(team.say(&words).await.status, 200);
    let refused = team.say(&words).await;
    let project = &team.project_id;
    // 538 tokens at 86.4 s each.
    let message = format!(
        "Rate limit reached for {TEXT_MODEL} in organization {project} on tokens per day (TPD): Limit 1000, Used 770, \
         Requested 768. Please try again in 12h54m43.2s."
    );
    assert_eq!((refused.status.as_u16(), refused.json()), (429, refusal("tokens", &message)));
    assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), ("46484", "false"));
    let [.., limit, remaining, _] = shown(&team, TEXT_MODEL).await;
    assert_eq!((limit.as_str(), remaining.as_str()), ("1000", "230"));
    passes_exactly_when_told(&gateway, &refused, async || team.say(&words).await).await;
}

#[tokio::test]
async fn of_several_limits_that_are_hit_the_longest_wait_is_told() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 1, "requests_per_day": 1})).await;
    assert_eq!(team.say("Hi").await.status, 200);
    let refused = team.say("Hi").await;
    assert!(refused.text().contains("on requests per day (RPD): Limit 1, Used 1"), "{}", refused.text());
    passes_exactly_when_told(&gateway, &refused, async || team.say("Hi").await).await;
}

#[tokio::test]
async fn a_changed_limit_keeps_what_was_used_also_over_a_restart() {
    let mut gateway = gateway().await;
    let mut team = gateway.project("tier1").await;
    for _ in 0..10 {
        assert_eq!(team.say("Hi").await.status, 200);
    }
    let path = format!("/v1/organization/projects/{}/rate_limits/rl-{TEXT_MODEL}", team.project_id);
    for (day, left) in [(20_000, "19990"), (100, "90"), (10_000, "9990"), (15, "5")] {
        let set = gateway.admin().post(&path, &json!({"max_requests_per_1_day": day})).await;
        assert_eq!(set.status, 200, "{}", set.text());
        gateway.stop().await;
        gateway.run().await;
        team.url.clone_from(&gateway.calls_url);
        assert_eq!(shown(&team, TEXT_MODEL).await[..2], [day.to_string(), left.to_owned()]);
    }
    let daily = gateway.admin().post(&path, &json!({"max_tokens_per_1_day": 100})).await;
    assert_eq!((daily.status.as_u16(), &daily.json()["max_tokens_per_1_day"]), (200, &json!(100)));
    assert_eq!(shown(&team, TEXT_MODEL).await[3], "100");
}

#[tokio::test]
async fn both_scopes_are_as_they_were_after_a_restart() {
    let mut gateway = gateway().await;
    let mut narrow = gateway.project_with("tier1", json!({"requests_per_day": 4, "tokens_per_minute": 1_000})).await;
    let mut wide = gateway.key_of(&narrow.project_id, json!({})).await;
    for team in [&narrow, &wide, &wide, &narrow] {
        assert_eq!(team.say("Hi").await.status, 200);
    }
    let before = [shown(&narrow, TEXT_MODEL).await, shown(&wide, TEXT_MODEL).await];
    assert_eq!((before[0][1].as_str(), before[1][1].as_str()), ("2", "9996"));
    gateway.stop().await;
    gateway.run().await;
    for team in [&mut narrow, &mut wide] {
        team.url.clone_from(&gateway.calls_url);
    }
    assert_eq!([shown(&narrow, TEXT_MODEL).await, shown(&wide, TEXT_MODEL).await], before);
}
