//! Where one request ends and the next begins: on a connection that stays open, nothing that hides in a request becomes one,
//! and it does not matter in which pieces a request arrives.

use serde_json::Value;
use tokio::task::JoinSet;
use tollgate::clock::Clock;

use crate::{
    raw::{parse, until_closed},
    stand_in::StandIn,
    support::{Actor, Gateway},
};

const CHAT: &str = "/v1/chat/completions";
const GOOD: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}]}"#;
const HIDDEN: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"SMUGGLED"}]}"#;

/// A request on a connection that is to stay open.
fn open(first: &str, key: &str, headers: &[&str], rest: &str) -> String {
    let headers = headers.iter().map(|header| format!("{header}\r\n")).collect::<Vec<_>>().concat();
    let authorization = if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
    format!("{first} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n{authorization}{headers}\r\n{rest}")
}

fn post(key: &str, headers: &[&str], rest: &str) -> String {
    open(&format!("POST {CHAT}"), key, headers, rest)
}

fn sized(key: &str, body: &str) -> String {
    post(key, &[&format!("content-length: {}", body.len())], body)
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// The last request of a connection.
const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n";

/// What is sent on one connection, which statuses come back in order, and how many requests reach the upstream.
struct Row {
    what: &'static str,
    sent: String,
    answers: &'static [u16],
    upstream: usize,
}

fn row(what: &'static str, sent: impl Into<String>, answers: &'static [u16], upstream: usize) -> Row {
    Row { what, sent: sent.into(), answers, upstream }
}

/// A second request stands where one reader of the first would find it and another would not. The connection closes by
/// itself where that is so.
fn two_lengths(key: &str) -> Vec<Row> {
    let (hidden, chunks) = (sized(key, HIDDEN), chunked(GOOD));
    let after = format!("{chunks}{hidden}");
    let all = format!("content-length: {}", after.len());
    let short = "content-length: 4";
    let te = "transfer-encoding: chunked";
    let both = |headers: &[&str]| post(key, headers, &after);
    vec![
        row("a length and chunks", both(&[&all, te]), &[200], 1),
        row("chunks and a length", both(&[te, &all]), &[200], 1),
        row("a short length and chunks", both(&[short, te]), &[200], 1),
        row("chunks and a short length", both(&[te, short]), &[200], 1),
        row("chunks and a length that is none", both(&[te, "content-length: x"]), &[200], 1),
        row("a length that is none and chunks", both(&["content-length: x", te]), &[400], 0),
        row("two lengths", both(&[&all, short]), &[400], 0),
        row("two lengths in one", both(&["content-length: 4, 5"]), &[400], 0),
        row("chunks hidden by a tab", both(&[&all, "transfer-encoding:\tchunked"]), &[200], 1),
        row("chunks hidden by a form feed", both(&[&all, "transfer-encoding: \x0bchunked"]), &[400], 0),
        row("chunks hidden by a gap", both(&[&all, "transfer-encoding : chunked"]), &[400], 0),
        row("chunks on a folded line", both(&[&all, "transfer-encoding:\r\n chunked"]), &[400], 0),
        row("another coding last", both(&[&all, "transfer-encoding: chunked, identity"]), &[400], 0),
        row("an unknown coding", both(&[&all, "transfer-encoding: xchunked"]), &[400], 0),
        row("chunks in quotes", both(&[&all, "transfer-encoding: \"chunked\""]), &[400], 0),
        row("a bare return", both(&["x-a: b\rtransfer-encoding: chunked", &all]), &[400], 0),
        row("HTTP/1.0", both(&[te]).replace("HTTP/1.1", "HTTP/1.0"), &[400], 0),
    ]
}

/// All of a body is body, whatever it looks like and whether or not anybody reads it.
fn in_bodies(key: &str) -> Vec<Row> {
    let hidden = sized(key, HIDDEN);
    let length = format!("content-length: {}", hidden.len());
    let with = |first: &str, key: &str, headers: &[&str]| {
        format!("{}{HEALTH}", open(first, key, &[headers, &[&*length]].concat(), &hidden))
    };
    let chat = format!("POST {CHAT}");
    vec![
        row("in the body of a GET", with("GET /v1/models", key, &[]), &[200, 200], 0),
        row("in the body of a health check", with("GET /health", "", &[]), &[200, 200], 0),
        row("behind a wrong key", with(&chat, "sk-wrong", &[]), &[401, 200], 0),
        row("behind no key", with(&chat, "", &[]), &[401, 200], 0),
        row("behind an unknown URL", with("POST /v1/nothing", key, &[]), &[404, 200], 0),
        row("behind another method", with(&format!("PUT {CHAT}"), key, &[]), &[405, 200], 0),
        row("behind a key in the URL", with(&format!("POST {CHAT}?api_key=x"), key, &[]), &[400, 200], 0),
        row("behind a coding", with(&chat, key, &["content-encoding: gzip"]), &[415, 200], 0),
        row("in a body that is no JSON", with(&chat, key, &[]), &[400, 200], 0),
        row("in a dry run", with(&chat, key, &["x-tollgate-dry-run: true"]), &[400, 200], 0),
    ]
}

fn broken_chunks(key: &str) -> Vec<Row> {
    let chunks = |rest: &str| post(key, &["transfer-encoding: chunked"], rest);
    let (size, hidden) = (GOOD.len(), sized(key, HIDDEN));
    vec![
        row("line feeds alone", chunks(&format!("{size:x}\n{GOOD}\n0\n\n{hidden}")), &[], 0),
        row("a chunk with more than it says", chunks(&format!("{size:x}\r\n{GOOD}XX\r\n0\r\n\r\n{hidden}")), &[], 0),
        row("a chunk of 65 bits", chunks(&format!("1{:0>16}\r\n{GOOD}\r\n0\r\n\r\n{hidden}", 0)), &[], 0),
        row("a size with 0x", chunks(&format!("0x{size:x}\r\n{GOOD}\r\n0\r\n\r\n{hidden}")), &[], 0),
        row("a size with a plus", chunks(&format!("+{size:x}\r\n{GOOD}\r\n0\r\n\r\n{hidden}")), &[], 0),
        row("a line feed in an extension", chunks(&format!("{size:x};a\nb\r\n{GOOD}\r\n0\r\n\r\n{hidden}")), &[], 0),
    ]
}

/// These are as they should be, and show that requests are counted here at all.
fn pipelines(key: &str) -> Vec<Row> {
    let (good, extension) = (sized(key, GOOD), format!("{:x};a=b\r\n{GOOD}\r\n0\r\nx-a: b\r\n\r\n", GOOD.len()));
    let wanted = post(key, &["connection: close", "transfer-encoding: chunked"], &chunked(GOOD));
    let upgrade = |to: &str| format!("connection: upgrade\r\nupgrade: {to}\r\ncontent-length: {}", GOOD.len());
    let strange = format!("{}{}", sized("", HIDDEN), HEALTH);
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    vec![
        row("two in one go", format!("{good}{wanted}"), &[200, 200], 2),
        row("an empty line before", format!("\r\n{good}{HEALTH}"), &[200, 200], 1),
        row(
            "an extension and a trailer",
            post(key, &["transfer-encoding: chunked"], &extension) + HEALTH,
            &[200, 200],
            1,
        ),
        row("line feeds alone in the head", good.replace("\r\n", "\n") + HEALTH, &[200, 200], 1),
        row("more than the length says", format!("{good}{strange}"), &[200, 401, 200], 1),
        row("an upgrade to a socket", post(key, &[&upgrade("websocket")], GOOD) + &strange, &[200, 401, 200], 1),
        row("an upgrade to HTTP/2", post(key, &[&upgrade("h2c"), "http2-settings: AA"], GOOD) + preface, &[200], 1),
        row("HTTP/2 from the start", preface, &[], 0),
    ]
}

async fn gateway() -> (StandIn, Gateway, Actor) {
    let upstream = StandIn::start().await;
    let gateway = Gateway::start_before(&upstream.url, upstream.stop.clone(), Clock::system(), |settings| {
        settings.body_idle_timeout_s = 10;
    })
    .await;
    let team = gateway.project("tier5").await;
    (upstream, gateway, team)
}

fn statuses(answer: &[u8]) -> Vec<u16> {
    let starts = memchr::memmem::find_iter(answer, b"HTTP/1.1 ");
    starts.map(|at| std::str::from_utf8(&answer[at + 9..at + 12]).unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn nothing_that_hides_in_a_request_becomes_one() {
    let (upstream, gateway, team) = gateway().await;
    let key = team.key.as_deref().unwrap();
    let (mut problems, mut rows, mut sent) = (Vec::new(), 0, 0);
    for row in [two_lengths(key), in_bodies(key), broken_chunks(key), pipelines(key)].into_iter().flatten() {
        let answer = until_closed(&gateway.calls_url, &[row.sent.as_bytes()]).await;
        let (seen, reached) = (statuses(&answer), upstream.received().len() - sent);
        sent += reached;
        rows += 1;
        // Broken chunks may be answered or not, but not well, and nothing after them.
        let right = seen == row.answers || (row.answers.is_empty() && seen.len() == 1 && (400..500).contains(&seen[0]));
        if !right || reached != row.upstream {
            problems.push(format!("{}: {seen:?}, {reached} sent\n{}", row.what, answer.escape_ascii()));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(rows > 40);
    for received in upstream.received() {
        assert_eq!(received.body, GOOD, "bodies arrive as they were meant");
        assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", CHAT));
        assert_eq!(received.headers.get("content-length").unwrap().to_str().unwrap(), GOOD.len().to_string());
        for name in ["transfer-encoding", "upgrade", "http2-settings", "x-a", "trailer"] {
            assert!(!received.headers.contains_key(name), "{name} was forwarded");
        }
    }
    assert_eq!(gateway.ledger().await.len(), sent);
}

#[tokio::test]
async fn no_header_of_ours_can_be_taken_away_or_added_to() {
    let (upstream, gateway, team) = gateway().await;
    let key = team.key.as_deref().unwrap();
    let evil = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = evil.local_addr().unwrap();
    let named =
        "connection: close, authorization, x-client-request-id, x-request-id, content-type, content-length, host";
    let body = format!(
        r#"{{"model":"gpt-4o-mini","user":"a\r\nx-evil: 1","metadata":{{"a":"b\r\nx-evil: 1"}},"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"http://{address}/image"}}}},{{"type":"file","file":{{"file_url":"http://{address}/file"}}}}]}}]}}"#
    );
    let (long, length) = ("x".repeat(300), format!("content-length: {}", body.len()));
    let mut headers =
        vec![named.to_owned(), length, format!("x-request-id: {long}"), "x-client-request-id: a".to_owned()];
    for name in [
        "x-portkey-custom-host",
        "x-base-url",
        "x-skipper-proxy",
        "x-forwarded-host",
        "x-forwarded-for",
        "x-original-url",
        "forwarded",
        "openai-organization",
        "openai-project",
        "cookie",
        "proxy-authorization",
        "x_api_key",
    ] {
        headers.push(format!("{name}: http://{address}/v1"));
    }
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let answer = until_closed(&gateway.calls_url, &[post(key, &headers, &body).as_bytes()]).await;
    let reply = parse(&answer).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let received = upstream.last();
    assert_eq!(received.body, body);
    let mut names: Vec<_> = received.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let ours = ["accept-encoding", "authorization", "content-length", "content-type", "host", "x-client-request-id"];
    assert_eq!(names, ours);
    assert_eq!(received.headers["authorization"], "Bearer sk-upstream-canary-key");
    assert_eq!(received.headers["x-client-request-id"], reply.header("x-request-id"));
    assert!(reply.header("x-request-id").starts_with("req_") && !reply.headers.contains_key("x-evil"));
    let connects = tokio::time::timeout(std::time::Duration::from_millis(100), evil.accept()).await;
    assert!(connects.is_err(), "the gateway went where the request told it to");
}

/// The answer without what differs from request to request.
fn essence(answer: &[u8]) -> (u16, Option<Value>) {
    let reply = parse(answer).unwrap_or_else(|| panic!("{}", answer.escape_ascii()));
    (reply.status.as_u16(), serde_json::from_slice(&reply.body).ok())
}

#[tokio::test]
async fn the_pieces_in_which_a_request_arrives_make_no_difference() {
    let (upstream, gateway, team) = gateway().await;
    let key = team.key.as_deref().unwrap();
    let closing =
        |headers: &[&str], rest: &str, key: &str| post(key, &[headers, &["connection: close"]].concat(), rest);
    let length = format!("content-length: {}", GOOD.len());
    let rows = [
        (true, closing(&[&length], GOOD, key)),
        (true, closing(&["transfer-encoding: chunked"], &chunked(GOOD), key)),
        (false, closing(&[&length], GOOD, "sk-wrong-key-of-nobody")),
        (false, closing(&[&length], &GOOD.replace("\"model\"", "\"Model\""), key)),
        (false, closing(&["content-length: 4, 5"], GOOD, key)),
    ];
    for (good, request) in rows {
        let before = upstream.received().len();
        let whole = essence(&until_closed(&gateway.calls_url, &[request.as_bytes()]).await);
        assert_eq!(whole.0 == 200, good, "{whole:?}");
        let (mut tasks, mut cut) = (JoinSet::new(), 0);
        while cut < request.len() || !tasks.is_empty() {
            while cut < request.len() && tasks.len() < 32 {
                let (request, url) = (request.clone(), gateway.calls_url.clone());
                tasks.spawn(async move {
                    let (first, second) = request.as_bytes().split_at(cut);
                    // Cut nowhere, it comes byte by byte.
                    let bytes: Vec<_> = request.as_bytes().chunks(1).collect();
                    let pieces = if cut == 0 { bytes } else { vec![first, second] };
                    (cut, essence(&until_closed(&url, &pieces).await))
                });
                cut += 1;
            }
            let (cut, cut_up) = tasks.join_next().await.unwrap().unwrap();
            assert_eq!(cut_up, whole, "cut at {cut}: {request}");
        }
        let sent = upstream.received().len() - before;
        assert_eq!(sent, if good { request.len() + 1 } else { 0 });
    }
    assert!(upstream.received().iter().all(|received| received.body == GOOD));
}
