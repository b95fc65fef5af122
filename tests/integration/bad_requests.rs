//! Requests that are wrong in themselves: each gets its answer in OpenAI's shape, and costs nobody anything.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::{
    raw::{Raw, exchange},
    support::{ADMIN_KEY, Actor, Gateway, Reply, TEXT_MODEL},
};

const CHAT: &str = "/v1/chat/completions";
const MAX_BODY_BYTES: usize = 4_096;
const GOOD: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}]}"#;

struct Case {
    what: String,
    request: Vec<u8>,
    status: u16,
    code: Option<&'static str>,
    param: Option<&'static str>,
}

fn case(what: &str, request: Vec<u8>, status: u16, code: Option<&'static str>) -> Case {
    Case { what: what.to_owned(), request, status, code, param: None }
}

async fn gateway() -> Gateway {
    // Time stands still, so that nothing which was taken comes back unseen.
    let clock = Clock::manual(UnixNanos::from_seconds(1_790_000_000));
    let small = |settings: &mut tollgate::config::Settings| settings.max_body_bytes = MAX_BODY_BYTES;
    Gateway::start_at(clock, simulator::Options::default(), small).await
}

fn with_key(key: &str) -> Raw {
    Raw::new("POST", CHAT).header("authorization", format!("Bearer {key}")).header("content-type", "application/json")
}

/// `GOOD` with one more member in front.
fn plus(member: &str) -> String {
    format!("{{{member},{}", &GOOD[1..])
}

fn not_json() -> Vec<(&'static str, Vec<u8>)> {
    let utf16 = GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let nested = |depth: usize| plus(&format!("\"x\":{}{}", "[".repeat(depth), "]".repeat(depth))).into_bytes();
    vec![
        ("an empty body", Vec::new()),
        ("null", b"null".to_vec()),
        ("an array", b"[]".to_vec()),
        ("a string", b"\"gpt-4o-mini\"".to_vec()),
        ("half of an object", GOOD.as_bytes()[..30].to_vec()),
        ("a comma too many", plus("\"x\":1,").into_bytes()),
        ("a byte order mark", format!("\u{feff}{GOOD}").into_bytes()),
        ("UTF-16", utf16),
        (
            "bytes that are no UTF-8",
            plus("\"x\":\"\u{1}\"")
                .replace('\u{1}', "?")
                .into_bytes()
                .into_iter()
                .map(|byte| if byte == b'?' { 0xFF } else { byte })
                .collect(),
        ),
        ("something after the object", format!("{GOOD}x").into_bytes()),
        ("two objects", format!("{GOOD}{GOOD}").into_bytes()),
        ("not a number", plus("\"n\":NaN").into_bytes()),
        ("half of a surrogate pair", GOOD.replace("gpt-4o-mini", "\\ud800").into_bytes()),
        ("arrays 200 deep", nested(200)),
        ("arrays 2,000 deep", nested(2_000)),
        ("an object that never ends", "{\"x\":".repeat(800).into_bytes()),
    ]
}

/// The body, `code`, `param`.
fn wrong_parameters() -> Vec<(String, Option<&'static str>, Option<&'static str>)> {
    let long = format!(r#"{{"model":"{}","messages":[]}}"#, "m".repeat(1_000));
    let model = |value: &str| GOOD.replace("\"gpt-4o-mini\"", value);
    let messages = |value: &str| format!(r#"{{"model":"gpt-4o-mini","messages":{value}}}"#);
    let duplicate = Some("duplicate_parameter");
    let (below, above) = (Some("integer_below_min_value"), Some("integer_above_max_value"));
    let (wrong_type, unknown) = (Some("invalid_type"), Some("unknown_parameter"));
    vec![
        ("{}".to_owned(), None, None),
        (model("null"), None, None),
        (model("\"\""), None, None),
        (model("7"), wrong_type, Some("model")),
        (model("[\"gpt-4o-mini\"]"), wrong_type, Some("model")),
        (model("\"a\\u0000b\""), Some("invalid_value"), Some("model")),
        (model("\"a\\r\\nx-evil: 1\""), Some("invalid_value"), Some("model")),
        (long, Some("string_above_max_length"), Some("model")),
        (r#"{"model":"gpt-4o-mini"}"#.to_owned(), Some("missing_required_parameter"), Some("messages")),
        (messages("[]"), Some("empty_array"), Some("messages")),
        (messages("{}"), wrong_type, Some("messages")),
        (messages("null"), wrong_type, Some("messages")),
        (messages("[1]"), wrong_type, Some("messages[0]")),
        (plus("\"model\":\"gpt-4o-mini\""), duplicate, Some("model")),
        (plus("\"mod\\u0065l\":\"gpt-4.1-nano\""), duplicate, Some("model")),
        (plus("\"messages\":[]"), duplicate, Some("messages")),
        (plus("\"stream\":false,\"stream\":true"), duplicate, Some("stream")),
        (plus("\"max_tokens\":1,\"max_tokens\":9"), duplicate, Some("max_tokens")),
        (plus("\"n\":1,\"\\u006e\":2"), duplicate, Some("n")),
        (plus("\"service_tier\":\"flex\",\"service_tier\":\"priority\""), duplicate, Some("service_tier")),
        (plus("\"Model\":\"gpt-4.1-nano\""), unknown, Some("Model")),
        (plus("\"STREAM\":true"), unknown, Some("STREAM")),
        (plus("\"max_tokens\":-1"), below, Some("max_tokens")),
        (plus("\"max_tokens\":0"), below, Some("max_tokens")),
        (plus("\"max_completion_tokens\":0"), below, Some("max_completion_tokens")),
        (plus("\"max_tokens\":2147483648"), above, Some("max_tokens")),
        (plus("\"max_tokens\":9223372036854775808"), above, Some("max_tokens")),
        (plus("\"max_tokens\":99999999999999999999999999"), above, Some("max_tokens")),
        (plus("\"max_tokens\":\"100\""), wrong_type, Some("max_tokens")),
        (plus("\"max_tokens\":1.5"), wrong_type, Some("max_tokens")),
        (plus("\"max_tokens\":1e309"), wrong_type, Some("max_tokens")),
        (plus("\"n\":0"), below, Some("n")),
        (plus("\"n\":129"), above, Some("n")),
        (plus("\"n\":1000000000"), above, Some("n")),
        (plus("\"n\":-9"), below, Some("n")),
        (plus("\"stream\":\"true\""), wrong_type, Some("stream")),
        (plus("\"stream\":1"), wrong_type, Some("stream")),
        (plus("\"stream_options\":{\"include_usage\":true}"), None, Some("stream_options")),
        (plus("\"stream\":true,\"stream_options\":7"), wrong_type, Some("stream_options")),
        (
            plus("\"stream\":true,\"stream_options\":{\"include_usage\":true,\"include_usage\":false}"),
            duplicate,
            Some("stream_options.include_usage"),
        ),
        (
            plus("\"stream\":true,\"stream_options\":{\"include_usage\":\"no\"}"),
            wrong_type,
            Some("stream_options.include_usage"),
        ),
        (plus("\"modalities\":\"audio\""), wrong_type, Some("modalities")),
        (plus("\"audio\":\"wav\""), wrong_type, Some("audio")),
    ]
}

fn bodies(key: &str) -> Vec<Case> {
    let not_json = not_json().into_iter().map(|(what, body)| case(what, with_key(key).body(body), 400, None));
    let wrong = wrong_parameters().into_iter().map(|(body, code, param)| {
        let what = body.chars().take(120).collect::<String>();
        Case { param, ..case(&what, with_key(key).body(body), 400, code) }
    });
    not_json.chain(wrong).collect()
}

fn transport(key: &str) -> Vec<Case> {
    let large = plus(&format!("\"x\":\"{}\"", "x".repeat(MAX_BODY_BYTES)));
    let path = |method: &str, path: &str| Raw::new(method, path).header("authorization", format!("Bearer {key}"));
    let mut cases = vec![
        case("a body that is too large", with_key(key).body(&large), 413, None),
        case("the same in chunks", with_key(key).chunked(large.as_bytes(), 1_000), 413, None),
        case("the same in one chunk", with_key(key).chunked(large.as_bytes(), 1 << 20), 413, None),
        case("ten gigabytes announced", with_key(key).header("content-length", "10737418240").rest(GOOD), 413, None),
        case("another method", path("GET", CHAT).body(""), 405, Some("method_not_supported")),
        case("another URL", path("POST", "/v1/completely/else").body(GOOD), 404, None),
        case("a URL that is not served", path("POST", "/v1/embeddings").body(GOOD), 404, None),
    ];
    for encoding in ["gzip", "br", "zstd", "deflate", "gzip, gzip", "GZIP"] {
        let request = with_key(key).header("content-encoding", encoding).body(GOOD);
        cases.push(case(encoding, request, 415, Some("unsupported_encoding")));
    }
    cases
}

fn credentials(key: &str) -> Vec<Case> {
    const WRONG: Option<&str> = Some("invalid_api_key");
    const TWO: Option<&str> = Some("conflicting_credentials");
    let bare = || Raw::new("POST", CHAT).header("content-type", "application/json");
    let with = |value: &[u8]| bare().header("authorization", value).body(GOOD);
    let as_key = |key: &str| with(format!("Bearer {key}").as_bytes());
    let mut other_checksum = key.to_owned();
    let last = other_checksum.pop().unwrap();
    other_checksum.push(if last == '0' { '1' } else { '0' });
    let in_url = |name: &str| Raw::new("POST", &format!("{CHAT}?{name}={key}")).body(GOOD);
    vec![
        case("no key", bare().body(GOOD), 401, None),
        case("an empty header", with(b""), 401, None),
        case("no key after the scheme", with(b"Bearer "), 401, None),
        case("Basic", with(b"Basic c2stdGc6"), 401, None),
        case("the key without a scheme", with(key.as_bytes()), 401, None),
        case("a key of somebody else", as_key("sk-proj-0123456789abcdefghijklmnopqrstuvwxyz"), 401, WRONG),
        case("another checksum", as_key(&other_checksum), 401, WRONG),
        case("the beginning of the key", as_key(&key[..20]), 401, WRONG),
        case("the key and more", as_key(&format!("{key}0")), 401, WRONG),
        case("the key twice", as_key(&format!("{key} {key}")), 401, WRONG),
        case("the admin key", as_key(ADMIN_KEY), 401, WRONG),
        case("SQL", as_key("' OR 1=1--"), 401, WRONG),
        case("8 KiB of key", as_key(&"k".repeat(8 << 10)), 401, WRONG),
        case("letters beyond ASCII", as_key("sk-tg_é€\u{1F600}"), 401, WRONG),
        case("bytes that are no text", with(b"Bearer \xFF\xFE\x80"), 401, WRONG),
        case("two headers", with_key(key).header("authorization", format!("Bearer {key}")).body(GOOD), 400, TWO),
        case("another key beside it", with_key(key).header("x-api-key", "sk-other").body(GOOD), 400, TWO),
        case("only x-api-key", bare().header("x-api-key", key).body(GOOD), 401, None),
        case("an underscore for the dash", bare().header("x_api_key", key).body(GOOD), 401, None),
        case("a cookie", bare().header("cookie", format!("key={key}")).body(GOOD), 401, None),
        case("?api_key=", in_url("api_key"), 400, Some("api_key_in_url")),
        case("?key=", in_url("key"), 400, Some("api_key_in_url")),
    ]
}

/// What a caller sees of the limits: nothing may change it.
async fn headroom(team: &Actor) -> Vec<String> {
    let reply = team.post(CHAT, &json!({"model": TEXT_MODEL, "messages": []})).await;
    let limits = reply.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-ratelimit"));
    limits.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

fn check(case: &Case, reply: &Reply, key: &str) {
    let what = &case.what;
    assert_eq!(reply.status.as_u16(), case.status, "{what}: {}", reply.text());
    assert_eq!(reply.header("content-type"), "application/json", "{what}");
    assert!(reply.header("x-request-id").starts_with("req_"), "{what}");
    let error = reply.error();
    let keys: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["code", "message", "param", "type"], "{what}");
    assert_eq!(reply.json().as_object().unwrap().len(), 1, "{what}");
    assert_eq!(error["code"].as_str(), case.code, "{what}: {error}");
    assert_eq!(error["param"].as_str(), case.param, "{what}: {error}");
    let kind = if case.status == 413 { "server_error" } else { "invalid_request_error" };
    assert_eq!((error["type"].as_str(), error["message"].as_str().unwrap().is_empty()), (Some(kind), false), "{what}");
    assert!(!reply.text().contains(&key[8..]), "{what}: the key is in the answer");
}

#[tokio::test]
async fn each_wrong_request_has_its_answer_and_costs_nothing() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    let key = team.key.clone().unwrap();
    let untouched = headroom(&team).await;
    assert_eq!(untouched.len(), 6);
    for case in [bodies(&key), transport(&key), credentials(&key)].into_iter().flatten() {
        let reply = exchange(&gateway.calls_url, &case.request).await;
        check(&case, &reply, &key);
        assert_eq!(gateway.metric("upstream_calls_total").await, 0, "{}", case.what);
        assert_eq!(headroom(&team).await, untouched, "{}", case.what);
    }
    assert_eq!(gateway.ledger().await.len(), 0);
    // The good one among them is good.
    assert_eq!(exchange(&gateway.calls_url, &with_key(&key).body(GOOD)).await.status, 200);
    let lower = Raw::new("POST", CHAT).header("AUTHORIZATION", format!("bEARER   {key}  ")).chunked(GOOD.as_bytes(), 7);
    assert_eq!(exchange(&gateway.calls_url, &lower).await.status, 200);
    assert_eq!(gateway.ledger().await.len(), 2);
}

/// Otherwise everybody with a key could fill the memory of the gateway, and of what watches it.
#[tokio::test]
async fn no_name_of_a_callers_choice_becomes_a_metric() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    let page = async || gateway.admin().get("/metrics").await.text();
    let before = page().await;
    let long = "m".repeat(250);
    for model in
        ["gpt-4o-mini*", "*", "GPT-4O-MINI", "gpt-4\u{3bf}-mini", "../gpt-4o-mini", "a\"} 1", "gpt-4o-mini ", &long]
    {
        let reply = team.chat(&crate::support::text(model, "Hi")).await;
        assert_eq!((reply.status.as_u16(), reply.error()["code"].as_str()), (404, Some("model_not_found")), "{model}");
    }
    let after = page().await;
    let names =
        |page: &str| page.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect();
    let [before, after]: [Vec<String>; 2] = [names(&before), names(&after)];
    assert_eq!(before, after);
    assert_eq!(gateway.metric("upstream_calls_total").await, 0);
}

/// Where a message ends must not be a matter of opinion.
#[tokio::test]
async fn ambiguous_framing_is_refused_and_nothing_is_smuggled() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    let key = team.key.clone().unwrap();
    let length = GOOD.len().to_string();
    let framed = |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(with_key(&key), |request, (name, value)| request.header(name, value));
        request.rest(GOOD)
    };
    let http10 =
        String::from_utf8(with_key(&key).chunked(GOOD.as_bytes(), 99)).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    for request in [
        framed(&[("content-length", &format!("+{length}"))]),
        framed(&[("content-length", &format!("{length}, 5"))]),
        framed(&[("content-length", &length), ("content-length", "5")]),
        framed(&[("content-length", "0x43")]),
        framed(&[("content-length", "-1")]),
        framed(&[("content-length", "18446744073709551616")]),
        framed(&[("transfer-encoding", "xchunked")]),
        framed(&[("transfer-encoding", "chunked, identity")]),
        framed(&[("x-folded", "a\r\n b"), ("content-length", &length)]),
        framed(&[("x-nul", "a\0b"), ("content-length", &length)]),
        framed(&[("x-space ", "a"), ("content-length", &length)]),
        framed(&[("x-bare-return", "a\rb"), ("content-length", &length)]),
        http10.into_bytes(),
    ] {
        let reply = exchange(&gateway.calls_url, &request).await;
        assert_eq!(reply.status, 400, "{}: {}", String::from_utf8_lossy(&request), reply.text());
        assert_eq!(gateway.metric("upstream_calls_total").await, 0, "{}", String::from_utf8_lossy(&request));
    }
    assert_eq!(gateway.ledger().await.len(), 0);
    // Two lengths: whichever counts, there is one request and not a second one hidden in its body.
    let hidden = String::from_utf8(with_key(&key).body(GOOD)).unwrap();
    let both = with_key(&key)
        .header("content-length", (GOOD.len() + 1_000).to_string())
        .header("transfer-encoding", "chunked")
        .rest(format!("{:x}\r\n{GOOD}\r\n0\r\n\r\n{hidden}", GOOD.len()));
    let reply = exchange(&gateway.calls_url, &both).await;
    assert!(matches!(reply.status.as_u16(), 200 | 400), "{}", reply.text());
    assert!(gateway.ledger().await.len() <= 1);
    assert_eq!(memchr::memmem::find_iter(&reply.body, b"HTTP/1.1").count(), 0);
}

/// Python's `http.client` is like this: it sends all of its body before it looks for an answer.
#[tokio::test]
async fn who_sends_everything_first_sees_that_it_was_too_much() {
    let gateway = Gateway::start_with(|settings| settings.max_body_bytes = 4 << 20).await;
    let team = gateway.project("tier1").await;
    let key = team.key.as_deref().unwrap();
    // More than the buffers of a connection take in.
    let body = plus(&format!("\"x\":\"{}\"", "A".repeat(24 << 20)));
    for request in [with_key(key).body(&body), with_key(key).chunked(body.as_bytes(), 1 << 16)] {
        let mut stream = TcpStream::connect(gateway.calls_url.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(&request).await.expect("everything can be sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
    }
    // Who goes on without end is cut off.
    let endless = with_key(key).chunked("A".repeat(80 << 20).as_bytes(), 1 << 20);
    let mut stream = TcpStream::connect(gateway.calls_url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(&endless).await.unwrap_err();
    assert_eq!(gateway.ledger().await.len(), 0);
}

/// A large upload with a wrong key: its sender reads the answer only after it has sent everything.
#[tokio::test]
async fn who_sends_much_still_gets_to_read_the_refusal() {
    let gateway = Gateway::start_with(|settings| settings.max_body_bytes = 8 << 20).await;
    let team = gateway.project("tier1").await;
    let key = team.key.as_deref().unwrap();
    let audio = "A".repeat(6 << 20);
    let body = plus(&format!("\"x\":\"{audio}\""));
    let good = format!("Bearer {key}");
    let cases = [
        (401, Raw::new("POST", CHAT).header("authorization", "Bearer sk-wrong").body(&body)),
        (404, Raw::new("POST", "/v1/audio/nothing").header("authorization", &good).body(&body)),
        (415, with_key(key).header("content-encoding", "gzip").body(&body)),
        (413, with_key(key).chunked(format!("{body}{audio}").as_bytes(), 1 << 16)),
    ];
    for (status, request) in cases {
        let reply = exchange(&gateway.calls_url, &request).await;
        assert_eq!(reply.status.as_u16(), status);
        let error: Value = reply.error();
        assert!(error["message"].is_string());
    }
    assert_eq!(gateway.ledger().await.len(), 0);
}
