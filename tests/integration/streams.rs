//! Streams reach the client event by event, byte for byte, and settled before their end.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    scripted::{
        DONE, Gate, Scripted, Step, chunk, finish, last_chunk, spoken_events, stream_head, streamed, text_events,
        usage, word,
    },
    support::{Gateway, MODEL, SNAPSHOT, TEXT_MODEL, spoken, text, with},
};

/// A request for a stream, without and with the usage chunk.
fn request(with_usage: bool) -> Value {
    let body = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
    if with_usage { with(body, &json!({"stream_options": {"include_usage": true}})) } else { body }
}

async fn next(response: &mut http::Response<Incoming>) -> Option<String> {
    let frame = response.body_mut().frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn the_first_event_arrives_while_the_upstream_is_still_sending() {
    let gate = Gate::closed();
    let steps = vec![
        stream_head(),
        chunk(word("one")),
        Step::Gate(gate.clone()),
        chunk(word("two")),
        chunk(finish() + &usage(5, 2) + DONE),
        last_chunk(),
    ];
    let upstream = Scripted::playing(steps).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    let mut response = team.open(&[], &request(false)).await;
    // Nothing but the first event has been sent: waiting for more would wait for ever.
    assert_eq!(next(&mut response).await.unwrap(), word("one"));
    gate.open();
    let rest = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(rest, word("two") + &finish() + DONE);
    let rows = gateway.ledger().await;
    assert_eq!((rows[0].outcome.as_str(), rows[0].basis.as_str(), rows[0].output_text), ("completed", "reported", 2));
}

/// The look-alike's recorded anatomy, as raw bytes.
async fn recorded_like(body: Value) -> String {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    team.chat(&with(body, &json!({"stream": true, "stream_options": {"include_usage": true}}))).await.text()
}

fn without_usage_chunk(stream: &str) -> String {
    stream.split_inclusive("\n\n").filter(|event| !event.contains(r#""choices":[],"usage":{"#)).collect()
}

async fn every_split_passes_unchanged(stream: String, sizes: Vec<usize>) {
    let (bytes, pieces) = (stream.clone(), sizes.clone());
    let upstream = Scripted::start(move |number| {
        let size = pieces[number / 2];
        let chunks = bytes.as_bytes().chunks(size).map(chunk);
        std::iter::once(stream_head()).chain(chunks).chain([last_chunk()]).collect()
    })
    .await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier5").await;
    for size in sizes {
        for with_usage in [false, true] {
            let reply = team.chat(&request(with_usage)).await;
            let expected = if with_usage { stream.clone() } else { without_usage_chunk(&stream) };
            assert_eq!(reply.text(), expected, "in pieces of {size}, usage asked for: {with_usage}");
        }
    }
    let rows = gateway.ledger().await;
    let first = &rows[0];
    assert!(first.output_text > 0);
    for row in &rows {
        assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("completed", "reported"));
        assert_eq!((row.output_text, row.output_audio), (first.output_text, first.output_audio));
    }
}

#[tokio::test]
async fn a_text_stream_passes_unchanged_however_it_is_split() {
    let stream = recorded_like(text(TEXT_MODEL, "Hi")).await;
    let sizes = (1..=24).chain([31, 64, 255, 256, 257, 1_000, stream.len()]).collect();
    every_split_passes_unchanged(stream, sizes).await;
}

#[tokio::test]
async fn a_spoken_stream_passes_unchanged_however_it_is_split() {
    let sizes = vec![13, 64, 1_000, 4_095, 4_096, 4_097, 30_000, 1 << 20];
    every_split_passes_unchanged(spoken_events().concat(), sizes).await;
}

#[tokio::test]
async fn other_line_ends_comments_and_several_lines_of_data_pass_unchanged() {
    let stream = text_events(3).concat().replace("\n\n", "\r\n\r\n");
    let stream = format!(
        ": keep-alive\r\n\r\n\u{feff}event: x\r\nid: 1\r\nretry: 5\r\n\r\ndata: {{\"choices\":\r\ndata: []}}\r\n\r\n{stream}"
    );
    let expected = stream.replace(&usage(5, 3).replace("\n\n", "\r\n\r\n"), "");
    let pieces = stream.clone();
    let upstream = Scripted::start(move |number| {
        let chunks = pieces.as_bytes().chunks(number + 1).map(chunk);
        std::iter::once(stream_head()).chain(chunks).chain([last_chunk()]).collect()
    })
    .await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier5").await;
    for _ in 0..12 {
        assert_eq!(team.chat(&request(false)).await.text(), expected);
    }
}

#[tokio::test]
async fn all_chunks_of_a_spoken_stream_pass_and_it_is_metered_as_audio() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let body = with(spoken("pcm16"), &json!({"stream": true}));
    let asking = with(body.clone(), &json!({"stream_options": {"include_usage": true}}));
    let (plain, full) = (team.chat(&body).await, team.chat(&asking).await);
    for (reply, seen) in [(&plain, false), (&full, true)] {
        let events = reply.events();
        assert!(events.iter().any(|event| event["choices"].is_null()), "chunks without choices pass");
        assert!(!reply.text().contains(r#""finish_reason":"stop""#));
        // The one after the usage chunk.
        assert!(!events.last().unwrap()["choices"][0]["delta"]["audio"]["expires_at"].is_null(), "{}", reply.text());
        assert!(reply.text().ends_with(DONE));
        assert_eq!(events.iter().any(|event| !event["usage"].is_null()), seen);
    }
    let usage = full.events().iter().find(|event| !event["usage"].is_null()).unwrap()["usage"].clone();
    for row in gateway.ledger().await {
        assert_eq!((row.outcome.as_str(), row.basis.as_str(), row.model.as_str()), ("completed", "reported", SNAPSHOT));
        assert_eq!(json!(row.output_audio), usage["completion_tokens_details"]["audio_tokens"]);
        assert_eq!(json!(row.output_text), usage["completion_tokens_details"]["text_tokens"]);
        assert_eq!(row.requested_model, MODEL);
    }
}

#[tokio::test]
async fn usage_is_the_last_that_was_reported() {
    let cumulative = |output: u64| {
        let usage = json!({"prompt_tokens": 5, "completion_tokens": output, "total_tokens": 5 + output});
        format!(r#"data: {{"choices":[{{"index":0,"delta":{{"content":"w"}},"finish_reason":null}}],"usage":{usage}}}"#)
            + "\n\n"
    };
    let events = vec![cumulative(1), cumulative(2), cumulative(3), finish(), usage(5, 4), DONE.to_owned()];
    let upstream = Scripted::playing(streamed(&events)).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    let reply = team.chat(&request(false)).await;
    assert_eq!(reply.text(), without_usage_chunk(&events.concat()), "only the chunk of its own is hidden");
    assert_eq!(gateway.ledger().await[0].output_text, 4);
}

/// Everything the journal holds.
fn journal(gateway: &Gateway) -> String {
    let files = std::fs::read_dir(gateway.data_dir().join("journal")).unwrap();
    files.map(|file| String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into_owned()).collect()
}

#[tokio::test]
async fn the_end_is_not_seen_before_the_settlement_is_in_the_journal() {
    // In one frame with the last words, and alone.
    let scripts = [vec![text_events(3).concat()], text_events(3)];
    let upstream = Scripted::start(move |number| {
        let mut steps = streamed(&scripts[number % 2]);
        // The end of the stream itself never comes, only its last event does.
        steps.pop();
        steps.push(Step::Hang);
        steps
    })
    .await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    for _ in 0..6 {
        let mut response = team.open(&[], &request(false)).await;
        let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        loop {
            let piece = next(&mut response).await.expect("the stream goes on");
            if piece.contains("[DONE]") {
                let journal = journal(&gateway);
                let settled = journal.lines().filter(|line| line.contains("settled") && line.contains(&request_id));
                assert_eq!(settled.count(), 1, "{journal}");
                break;
            }
        }
    }
    assert!(gateway.ledger().await.iter().all(|row| row.outcome == "completed" && row.output_text == 3));
}
