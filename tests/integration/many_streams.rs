//! Many streams at once: each gets its own bytes and its own bill.

use std::{collections::BTreeMap, time::Duration};

use http_body_util::BodyExt as _;
use serde_json::json;
use tollgate::config::Durability;

use crate::{
    scripted::{Scripted, Step, chunk, finish, last_chunk, stream_head, usage, word},
    support::{Gateway, TEXT_MODEL, text, with},
};

const STREAMS: usize = 200;

/// A stream of `request`'s own: its words name it, and so does its usage.
fn own_events(request: usize) -> Vec<String> {
    let words = 3 + request % 7;
    let said = (0..words).map(|number| word(&format!("stream {request} word {number} ")));
    said.chain([finish(), usage(request as u64, words as u64), "data: [DONE]\n\n".to_owned()]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_get_their_own_bytes_and_bills() {
    let gate = crate::scripted::Gate::closed();
    let script_gate = gate.clone();
    let upstream = Scripted::start(move |request| {
        let mut steps: Vec<_> = std::iter::once(stream_head()).chain(own_events(request).iter().map(chunk)).collect();
        // Nobody ends before all have begun.
        steps.insert(2, Step::Gate(script_gate.clone()));
        steps.push(last_chunk());
        steps
    })
    .await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier5").await;
    let body = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let (team, body) = (team.clone(), body.clone());
            tokio::spawn(async move {
                let response = team.open(&[], &body).await;
                let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
                (id, response.into_body().collect().await.unwrap().to_bytes())
            })
        })
        .collect();
    crate::scripted::eventually("all have begun", async || upstream.requests().len() == STREAMS).await;
    assert_eq!(gateway.metric("open_admissions").await, STREAMS as u64);
    (0..STREAMS).for_each(|_| gate.open());
    let expected: BTreeMap<String, usize> = (0..STREAMS)
        .map(|request| {
            let mut events = own_events(request);
            events.remove(events.len() - 2);
            (events.concat(), request)
        })
        .collect();
    let mut seen = BTreeMap::new();
    for stream in streams {
        let (id, bytes) = stream.await.unwrap();
        let request = expected.get(std::str::from_utf8(&bytes).unwrap()).expect("whole, and of one stream");
        seen.insert(id, *request);
    }
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), seen.len()), (STREAMS, STREAMS));
    for row in rows {
        let request = seen.remove(&row.request_id).unwrap();
        assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("completed", "reported"));
        let expected = (i64::try_from(request).unwrap(), i64::try_from(3 + request % 7).unwrap());
        assert_eq!((row.input_text, row.output_text), expected);
    }
    assert_eq!(upstream.requests().len(), STREAMS);
}

/// Clients that leave at any moment, at random as the machine will have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_that_leave_at_any_moment_are_settled_once_each() {
    // With power, many leave while their settlement is on its way to the disk.
    for durability in [Durability::Process, Durability::Power] {
        leave_at_any_moment(durability).await;
    }
}

async fn leave_at_any_moment(durability: Durability) {
    let gateway = Gateway::start_with(|settings| {
        settings.drain_max_requests = 1_000;
        settings.durability = durability;
    })
    .await;
    let team = gateway.project("tier5").await;
    let body = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
    let clients: Vec<_> = (0..STREAMS)
        .map(|number| {
            let (team, body) = (team.clone(), body.clone());
            let patience = Duration::from_micros(number as u64 * 300);
            tokio::spawn(async move {
                let answer = async {
                    let fault = if number % 2 == 0 { "chunks=16; gap-ms=2" } else { "chunks=16" };
                    team.open(&[("x-simulate", fault)], &body).await.into_body().collect().await.unwrap();
                };
                let _ = tokio::time::timeout(patience, answer).await;
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let rows = gateway.ledger().await;
    let admitted = gateway.metric("upstream_calls_total").await;
    assert!(rows.len() as u64 >= admitted, "{} rows, {admitted} calls", rows.len());
    for row in rows {
        assert!(matches!(row.outcome.as_str(), "completed" | "client_left"), "{row:?}");
        // Left before anything was sent, or read to the end: nothing is estimated.
        assert_eq!(row.basis, "reported", "{row:?}");
        assert!(row.output_text == 16 || (row.output_text, row.status) == (0, 0), "{row:?}");
    }
}
