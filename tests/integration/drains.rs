//! Reading on for a client that left is bounded in time, in bytes and in number.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use serde_json::json;

use crate::{
    scripted::{Gate, Scripted, Step, chunk, eventually, last_chunk, stream_head, text_events, word},
    support::{TEXT_MODEL, text, with},
};

fn request() -> serde_json::Value {
    with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}))
}

#[tokio::test]
async fn in_time() {
    for steps in [vec![stream_head(), chunk(word("one")), Step::Hang], vec![Step::Hang]] {
        let before_the_head = steps.len() == 1;
        let upstream = Scripted::playing(steps).await;
        let gateway = upstream.gateway(|settings| settings.drain_max_s = 1).await;
        let team = gateway.project("tier1").await;
        let client = {
            let team = team.clone();
            tokio::spawn(async move { team.open(&[], &request()).await })
        };
        eventually("the request is there", async || upstream.requests().len() == 1).await;
        if before_the_head {
            client.abort();
        } else {
            drop(client.await.unwrap());
        }
        eventually("the answer is read on", async || gateway.metric("drains").await == 1).await;
        let left = Instant::now();
        eventually("the upstream is left", async || upstream.hang_ups() == 1).await;
        assert!(left.elapsed() > Duration::from_millis(800) && left.elapsed() < Duration::from_secs(2));
        let rows = gateway.ledger().await;
        assert_eq!((rows.len(), rows[0].outcome.as_str(), rows[0].basis.as_str()), (1, "client_left", "estimated"));
    }
}

#[tokio::test]
async fn in_bytes() {
    // One event in chunked coding, again and again.
    let Step::Send(flood) = chunk(word("more")) else { unreachable!() };
    let upstream = Scripted::playing(vec![stream_head(), chunk(word("one")), Step::Flood(flood)]).await;
    let gateway = upstream.gateway(|settings| settings.drain_max_bytes = 10_000).await;
    let team = gateway.project("tier1").await;
    drop(team.open(&[], &request()).await);
    eventually("the upstream is left", async || upstream.hang_ups() == 1).await;
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), rows[0].outcome.as_str(), rows[0].basis.as_str()), (1, "client_left", "estimated"));
    assert!(rows[0].output_text >= 100, "what was read on counts as delivered: {}", rows[0].output_text);
}

#[tokio::test]
async fn in_bytes_from_when_the_client_left() {
    // More than the bound reaches the client itself.
    let gate = Gate::closed();
    let large = word(&"word ".repeat(4_000));
    let (said, rest) = ((0..3).map(|_| large.clone()).collect::<Vec<_>>(), text_events(2));
    let steps = std::iter::once(stream_head()).chain(said.iter().map(chunk)).chain([Step::Gate(gate.clone())]);
    let steps = steps.chain(rest.iter().map(chunk)).chain([last_chunk()]).collect();
    let upstream = Scripted::playing(steps).await;
    let gateway = upstream.gateway(|settings| settings.drain_max_bytes = 10_000).await;
    let team = gateway.project("tier1").await;
    let mut response = team.open(&[], &request()).await;
    let mut read = 0;
    while read < 3 * large.len() {
        read += response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    drop(response);
    eventually("the answer is read on", async || gateway.metric("drains").await == 1).await;
    gate.open();
    let rows = gateway.ledger().await;
    assert_eq!((rows[0].outcome.as_str(), rows[0].basis.as_str(), rows[0].output_text), ("client_left", "reported", 2));
}

#[tokio::test]
async fn in_bytes_for_an_answer_that_is_no_stream() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let gate = Gate::closed();
    let Step::Send(flood) = chunk(" ".repeat(1_000)) else { unreachable!() };
    let steps = vec![Step::Send(head.into()), Step::Gate(gate.clone()), Step::Flood(flood)];
    let upstream = Scripted::playing(steps).await;
    let gateway = upstream
        .gateway(|settings| {
            settings.drain_max_bytes = 10_000;
            settings.max_answer_bytes = 4 << 30;
        })
        .await;
    let team = gateway.project("tier1").await;
    let client = {
        let team = team.clone();
        tokio::spawn(async move { team.open(&[], &text(TEXT_MODEL, "Hi")).await })
    };
    eventually("the request is there", async || upstream.requests().len() == 1).await;
    client.abort();
    eventually("the answer is read on", async || gateway.metric("drains").await == 1).await;
    gate.open();
    eventually("the upstream is left", async || upstream.hang_ups() == 1).await;
    assert!(upstream.written() < 64 << 20, "only what the connection held: {}", upstream.written());
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), rows[0].outcome.as_str(), rows[0].basis.as_str()), (1, "client_left", "estimated"));
    assert!(rows[0].input_text > 0 && rows[0].output_text > 0, "not less than the estimate");
}

#[tokio::test]
async fn in_time_from_when_the_client_left_whatever_comes_then() {
    let gate = Gate::closed();
    let steps = vec![Step::Gate(gate.clone()), stream_head(), chunk(word("one")), Step::Hang];
    let upstream = Scripted::playing(steps).await;
    let gateway = upstream.gateway(|settings| settings.drain_max_s = 2).await;
    let team = gateway.project("tier1").await;
    let client = {
        let team = team.clone();
        tokio::spawn(async move { team.open(&[], &request()).await })
    };
    eventually("the request is there", async || upstream.requests().len() == 1).await;
    client.abort();
    eventually("the answer is read on", async || gateway.metric("drains").await == 1).await;
    let left = Instant::now();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    gate.open();
    eventually("the upstream is left", async || upstream.hang_ups() == 1).await;
    assert!(left.elapsed() < Duration::from_secs(3), "{:?}", left.elapsed());
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), rows[0].outcome.as_str()), (1, "client_left"));
}

#[tokio::test]
async fn in_number() {
    let gate = Gate::closed();
    let mut steps: Vec<_> = std::iter::once(stream_head()).chain(text_events(6).iter().map(chunk)).collect();
    steps.push(last_chunk());
    steps.insert(2, Step::Gate(gate.clone()));
    let upstream = Scripted::playing(steps).await;
    let gateway = upstream.gateway(|settings| settings.drain_max_requests = 1).await;
    let team = gateway.project("tier1").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut response = team.open(&[], &request()).await;
        response.body_mut().frame().await.unwrap().unwrap();
        open.push(response);
    }
    drop(open);
    eventually("two are cancelled", async || upstream.hang_ups() == 2).await;
    assert_eq!(gateway.metric("drains").await, 1);
    gate.open();
    let rows = gateway.ledger().await;
    assert!(rows.iter().all(|row| row.outcome == "client_left"));
    let mut bases: Vec<_> = rows.iter().map(|row| row.basis.as_str()).collect();
    bases.sort_unstable();
    assert_eq!(bases, ["estimated", "estimated", "reported"]);
    let reported = rows.iter().find(|row| row.basis == "reported").unwrap();
    assert_eq!((reported.input_text, reported.output_text), (5, 6));
    // The place is free again.
    let mut response = team.open(&[], &request()).await;
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    eventually("the next is read on", async || gateway.metric("drains").await == 1).await;
    gate.open();
    assert_eq!(gateway.ledger().await.iter().filter(|row| row.basis == "reported").count(), 2);
}
