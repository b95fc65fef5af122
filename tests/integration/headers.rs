//! What stands in the heads of answers: limits in OpenAI's format, and request ids.

use http::Method;
use serde_json::json;
use tollgate::{clock::Clock, config::Reserve, domain::time::UnixNanos, simulator};

use crate::support::{ADMIN_KEY, Gateway, MODEL, Reply, TEXT_MODEL, model_without_price, spoken, text, with};

const LIMIT_HEADERS: [&str; 6] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

fn limits_of(reply: &Reply) -> [&str; 6] {
    LIMIT_HEADERS.map(|name| reply.header(name))
}

fn shows_no_limits(reply: &Reply) -> bool {
    reply.headers.keys().all(|name| !name.as_str().starts_with("x-ratelimit"))
}

fn manual_clock() -> Clock {
    Clock::manual(UnixNanos::from_seconds(1_790_000_000))
}

fn is_request_id(text: &str) -> bool {
    let hex = text.strip_prefix("req_").unwrap_or_default();
    hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Recording `chat-audio-out_nonstream_mini-preview_opus`: what api.openai.com said to this very request.
#[tokio::test]
async fn the_recorded_request_of_the_seed_model_has_the_recorded_six_headers() {
    let openais = |settings: &mut tollgate::config::Settings| settings.reserve = Reserve::Openai;
    let gateway = Gateway::start_at(manual_clock(), simulator::Options::default(), openais).await;
    let team = gateway.project("tier1").await;
    let recorded = json!({
        "audio": {"format": "opus", "voice": "alloy"},
        "messages": [{"content": "Say a single short 'beep' sound, as brief as possible.", "role": "user"}],
        "modalities": ["text", "audio"],
        "model": "gpt-4o-mini-audio-preview",
    });
    let reply = team.chat(&recorded).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(limits_of(&reply), ["10000", "9999", "8.64s", "200000", "199984", "4ms"]);
}

#[tokio::test]
async fn a_stream_shows_limits_and_ids_before_its_first_event() {
    let mut gateway = Gateway::start_at(manual_clock(), simulator::Options::default(), |_| {}).await;
    gateway.leaves("an answer that hangs is read on");
    let team = gateway.project("tier1").await;
    let body = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
    let response = team.open(&[("x-simulate", "hang-midstream")], &body).await;
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    // 3 tokens of input and the first guess of 256 are held: (259 / 200,000) x 60 s = 77.7 ms.
    let expected = ["10000", "9999", "8.64s", "200000", "199741", "77ms"];
    assert_eq!(LIMIT_HEADERS.map(header), expected);
    assert_eq!(header("content-type"), "text/event-stream; charset=utf-8");
    assert!(is_request_id(&header("x-request-id")) && header("x-upstream-request-id").starts_with("req_"));
}

#[tokio::test]
async fn a_request_that_is_wrong_in_itself_shows_limits_and_consumes_nothing() {
    let gateway = Gateway::start_at(manual_clock(), simulator::Options::default(), |settings| {
        model_without_price(settings);
    })
    .await;
    let team = gateway.project("tier1").await;
    let full = ["10000", "10000", "0s", "200000", "200000", "0s"];
    for more in [
        json!({"messages": []}),
        json!({"n": 0}),
        json!({"max_tokens": -1}),
        json!({"stream": "yes"}),
        json!({"stream_options": {"include_usage": true}}),
    ] {
        let reply = team.chat(&with(text(MODEL, "Hi"), &more)).await;
        assert_eq!((reply.status.as_u16(), limits_of(&reply)), (400, full), "{more}");
    }
    let unpriced = team.chat(&text("no-price", "Hi")).await;
    assert_eq!((unpriced.status.as_u16(), limits_of(&unpriced)), (400, full));
    assert_eq!((gateway.metric("upstream_calls_total").await, gateway.ledger().await.len()), (0, 0));
    assert_eq!(gateway.metric("requests_invalid_total").await, 6);
}

#[tokio::test]
async fn what_the_upstream_refuses_counts_as_a_request_and_its_tokens_come_back() {
    let gateway = Gateway::start_at(manual_clock(), simulator::Options::default(), |_| {}).await;
    let team = gateway.project("tier1").await;
    // An audio model without audio on either side: only the upstream knows.
    let refused = team.chat(&text(MODEL, "Hi")).await;
    assert_eq!((refused.status.as_u16(), refused.error()["code"].as_str()), (400, Some("invalid_value")));
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "9999");
    let now = team.chat(&json!({"model": MODEL, "messages": []})).await;
    assert_eq!(limits_of(&now), ["10000", "9999", "8.64s", "200000", "200000", "0s"]);
}

#[tokio::test]
async fn without_a_known_key_or_model_no_limits_are_shown() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let stranger = gateway.stranger().say("Hi").await;
    let wrong = gateway.bearer("sk-tg_wrong").say("Hi").await;
    let unknown_model = team.chat(&text("no-such-model", "Hi")).await;
    let unknown_url = team.post("/v1/chat/nonsense", &json!({})).await;
    let statuses = [&stranger, &wrong, &unknown_model, &unknown_url].map(|reply| reply.status.as_u16());
    assert_eq!(statuses, [401, 401, 404, 404]);
    assert!([&stranger, &wrong, &unknown_model, &unknown_url].into_iter().all(shows_no_limits));
}

/// As recorded: a 400 shows limits, a 403 none (protocol facts d.1).
#[tokio::test]
async fn for_a_model_that_a_key_may_not_use_no_limits_are_shown() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let key = format!("/v1/organization/projects/{}/api_keys/{}", team.project_id, team.key_id);
    assert_eq!(gateway.admin().post(&key, &json!({"allowed_models": [MODEL]})).await.status, 200);
    let (denied, wrong) = (team.say("Hi").await, team.chat(&json!({"model": MODEL, "messages": []})).await);
    assert_eq!((denied.status.as_u16(), shows_no_limits(&denied)), (403, true), "{:?}", denied.headers);
    assert_eq!((wrong.status.as_u16(), shows_no_limits(&wrong)), (400, false));
    let body = text(TEXT_MODEL, "Hi").to_string();
    let told = team.post_bytes("/v1/chat/completions", &[("x-tollgate-dry-run", "true")], body).await;
    assert_eq!((told.json()["refusal"]["status"].as_u64(), shows_no_limits(&told)), (Some(403), true));
    let path = format!("/v1/organization/requests/{}", denied.header("x-request-id"));
    let explained = gateway.admin().get(&path).await.json();
    assert!(explained["refusal"]["headrooms"].as_object().unwrap().values().all(serde_json::Value::is_null));
}

#[tokio::test]
async fn a_refusal_for_a_limit_shows_what_is_left() {
    let gateway = Gateway::start_at(manual_clock(), simulator::Options::default(), |_| {}).await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 1, "requests_per_day": 100})).await;
    team.say("Hi").await;
    let refused = team.say("Hi").await;
    assert_eq!(refused.status, 429);
    // The day's bucket is shown, as recorded; it was the minute's that refused.
    assert_eq!(limits_of(&refused)[..3], ["100", "99", "14m24s"]);
    assert_eq!(refused.header("x-ratelimit-limit-tokens"), "200000");
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_ours() {
    let gateway = Gateway::start_with(|settings| settings.max_body_bytes = 2_048).await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 1})).await;
    let (admin, stranger) = (gateway.admin(), gateway.stranger());
    let large = "x".repeat(3_000);
    let delete = team.request(Method::DELETE, "/v1/chat/completions", &[]);
    let replies = [
        (200, team.chat(&text(TEXT_MODEL, "Hi")).await),
        (429, team.say("Hi").await),
        (400, team.post_bytes("/v1/chat/completions", &[], "{").await),
        (401, stranger.say("Hi").await),
        (404, team.get("/v1/nothing").await),
        (404, stranger.get("/").await),
        (405, team.send(delete, bytes::Bytes::new()).await),
        (413, team.say(&large).await),
        (415, team.post_bytes("/v1/chat/completions", &[("content-encoding", "gzip")], "{}").await),
        (200, team.get("/v1/models").await),
        (200, stranger.get("/health").await),
        (200, admin.get("/v1/organization/projects").await),
        (400, admin.get("/v1/organization/costs").await),
        (404, admin.get("/v1/chat/completions").await),
    ];
    let mut ids: Vec<&str> = Vec::new();
    for (status, reply) in &replies {
        assert_eq!(reply.status.as_u16(), *status, "{}", reply.text());
        assert!(is_request_id(reply.header("x-request-id")), "{status}: {:?}", reply.headers);
        ids.push(reply.header("x-request-id"));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), replies.len());
}

#[tokio::test]
async fn a_callers_own_id_is_neither_taken_over_nor_echoed() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let theirs = "req_00000000000000000000000000000000";
    let headers = [("x-request-id", theirs), ("x-client-request-id", theirs)];
    let reply = team.post_bytes("/v1/chat/completions", &headers, text(TEXT_MODEL, "Hi").to_string()).await;
    assert_eq!(reply.status, 200);
    let ours = reply.header("x-request-id");
    assert!(is_request_id(ours) && ours != theirs);
    assert_eq!(gateway.ledger().await[0].request_id, ours);
    assert!(reply.headers.values().all(|value| value != theirs));
}

#[tokio::test]
async fn the_upstreams_request_id_is_told_beside_ours() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let answered = team.chat(&spoken("mp3")).await;
    let failed = team.chat_with_fault("500", &text(TEXT_MODEL, "Hi")).await;
    for reply in [answered, failed] {
        let upstreams = reply.header("x-upstream-request-id");
        assert!(upstreams.starts_with("req_") && upstreams != reply.header("x-request-id"), "{:?}", reply.headers);
    }
    let ours = gateway.bearer(ADMIN_KEY).say("Hi").await;
    assert!(!ours.headers.contains_key("x-upstream-request-id"));
}
