//! A client that leaves is billed what the upstream says, or marked as estimated; never forgotten, never twice. Every moment
//! at which it may leave is in `disconnect_table`.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tollgate::config::OnClientDisconnect;

use crate::{
    scripted::{Gate, Scripted, Step, chunk, eventually, last_chunk, spoken_events, stream_head, text_events},
    support::{Actor, Gateway, Row, TEXT_MODEL, spoken, text, with},
};

/// The true usage of the text stream below, as input, output text and output audio.
const TEXT_USAGE: (i64, i64, i64) = (5, 6, 0);

fn streaming(body: Value) -> Value {
    with(body, &json!({"stream": true, "stream_options": {"include_usage": true}}))
}

fn text_request() -> Value {
    streaming(text(TEXT_MODEL, "Hi"))
}

fn spoken_request() -> Value {
    streaming(spoken("pcm16"))
}

/// A stream that waits for the gate before the event with this index.
fn held_before(events: &[String], index: usize, gate: &Gate) -> Vec<Step> {
    let mut steps: Vec<_> =
        std::iter::once(stream_head()).chain(events.iter().map(chunk)).chain([last_chunk()]).collect();
    steps.insert(index + 1, Step::Gate(gate.clone()));
    steps
}

/// Reads all that comes before the gate, then hangs up.
async fn leave_after(team: &Actor, body: &Value, events: &[String]) {
    let mut response = team.open(&[], body).await;
    let mut left = events.concat().len();
    while left > 0 {
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        left -= frame.into_data().unwrap().len();
    }
}

fn usage_of(row: &Row) -> (i64, i64, i64) {
    (row.input_text, row.output_text, row.output_audio)
}

async fn drained(events: Vec<String>, body: Value, true_usage: (i64, i64, i64), leaving: usize) {
    let gate = Gate::closed();
    let upstream = Scripted::playing(held_before(&events, leaving, &gate)).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    leave_after(&team, &body, &events[..leaving]).await;
    eventually("the answer is read on", async || gateway.metric("drains").await == 1).await;
    gate.open();
    let ended = Instant::now();
    eventually("the request is settled", async || gateway.metric("open_admissions").await == 0).await;
    assert!(ended.elapsed() < Duration::from_secs(1), "settled within a second of the upstream's end");
    let rows = gateway.ledger().await;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(
        (row.outcome.as_str(), row.basis.as_str(), usage_of(row)),
        ("client_left", "reported", true_usage),
        "{leaving}"
    );
    assert_eq!((upstream.requests().len(), upstream.hang_ups()), (1, 0));
}

async fn cancelled(events: Vec<String>, body: Value, leaving: usize, delivered: (i64, i64)) -> Row {
    let upstream = Scripted::playing(held_before(&events, leaving, &Gate::closed())).await;
    let gateway = upstream.gateway(|settings| settings.on_client_disconnect = OnClientDisconnect::Cancel).await;
    let team = gateway.project("tier1").await;
    leave_after(&team, &body, &events[..leaving]).await;
    eventually("the upstream is left", async || upstream.hang_ups() == 1).await;
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), upstream.requests().len()), (1, 1));
    let row = rows[0].clone();
    assert_eq!(row.outcome, "client_left");
    assert!(row.output_text >= delivered.0 && row.output_audio >= delivered.1, "{row:?}");
    row
}

#[tokio::test]
async fn a_cancelled_stream_is_estimated_and_never_under_what_was_delivered() {
    let events = text_events(600);
    for leaving in [0, 1, 300, 600] {
        let delivered = i64::try_from(leaving).unwrap();
        let row = cancelled(events.clone(), text_request(), leaving, (delivered, 0)).await;
        assert_eq!(row.basis, "estimated");
    }
    let events = spoken_events();
    for (leaving, delivered) in [(0, (0, 0)), (2, (1, 0)), (3, (2, 0)), (6, (2, 8)), (8, (2, 16))] {
        let row = cancelled(events.clone(), spoken_request(), leaving, delivered).await;
        assert_eq!(row.basis, "estimated");
    }
}

/// Some services report a growing usage in every event: what stands in the middle is not the truth yet.
fn growing_events() -> Vec<String> {
    let event = |output: u64| {
        let usage = json!({"prompt_tokens": 5, "completion_tokens": output, "total_tokens": 5 + output});
        let choice = r#"{"index":0,"delta":{"content":"word"},"finish_reason":null}"#;
        format!(r#"data: {{"choices":[{choice}],"usage":{usage}}}"#) + "\n\n"
    };
    let mut events = text_events(6);
    events.splice(..6, (1..=6).map(event));
    events
}

#[tokio::test]
async fn a_usage_that_still_grows_is_not_taken_for_the_last() {
    for leaving in [1, 3, 6] {
        drained(growing_events(), text_request(), TEXT_USAGE, leaving).await;
        let delivered = i64::try_from(leaving).unwrap();
        let row = cancelled(growing_events(), text_request(), leaving, (delivered, 0)).await;
        assert_eq!(row.basis, "estimated");
    }
}

#[tokio::test]
async fn leaving_in_the_middle_of_the_request_leaves_no_trace() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let before = team.say("Hi").await;
    let connections = gateway.metric("connections").await;
    let mut socket = TcpStream::connect(team.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{\"model\"",
        team.key.as_deref().unwrap()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    eventually("the connection is there", async || gateway.metric("connections").await > connections).await;
    drop(socket);
    eventually("the connection is gone", async || gateway.metric("connections").await == connections).await;
    assert_eq!(gateway.metric("upstream_calls_total").await, 1);
    let after = team.say("Hi").await;
    let left = |reply: &crate::support::Reply| reply.header("x-ratelimit-remaining-requests").parse::<u64>().unwrap();
    assert_eq!(left(&before), left(&after) + 1, "only the two that were answered count");
    assert_eq!(gateway.ledger().await.len(), 2);
}

#[tokio::test]
async fn an_error_inside_a_stream_stays_the_upstreams_failure_when_the_client_leaves_at_it() {
    let error =
        r#"data: {"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#;
    let mut events = text_events(6);
    events.splice(3.., [format!("{error}\n\n"), "data: [DONE]\n\n".to_owned()]);
    for policy in [OnClientDisconnect::Drain, OnClientDisconnect::Cancel] {
        let gate = Gate::closed();
        let upstream = Scripted::playing(held_before(&events, 4, &gate)).await;
        let gateway = upstream.gateway(|settings| settings.on_client_disconnect = policy).await;
        let team = gateway.project("tier1").await;
        // As the SDKs do: they raise the error and close.
        leave_after(&team, &text_request(), &events[..4]).await;
        gate.open();
        let rows = gateway.ledger().await;
        assert_eq!((rows.len(), rows[0].outcome.as_str(), rows[0].output_text), (1, "upstream_failed", 3));
    }
}
