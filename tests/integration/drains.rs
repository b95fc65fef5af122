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
