//! One gateway for one data directory, and stopping in order.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    client::{get, open, request, rest},
    ledger::{Ledger, until_seen},
    process::{Gateway, Key, LookAlike, Setup},
    survival::text,
};

fn stream() -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Count to ten."}], "stream": true})
}

fn chat(key: &Key, body: &Value) -> Vec<u8> {
    request("POST", "/v1/chat/completions", &key.plain, &[], &body.to_string())
}

#[tokio::test]
async fn a_second_gateway_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let (code, screen, said) = setup.start_in_vain();
    assert_eq!((code, screen.as_str()), (Some(1), ""));
    assert!(said.contains("another gateway uses the data directory") && said.contains("TOLLGATE_DATA_DIR"), "{said}");

    let key = gateway.new_key(&json!({})).await;
    assert_eq!(gateway.chat(&key, &text()).await.status, 200, "the first gateway goes on");
    gateway.stop();
    assert_eq!(Ledger::open(&setup.ledger()).await.count().await, 1);
    // And when the first is gone, its place is free.
    setup.start().healthy().await;
}

/// A gateway before an upstream that takes a second and a half for each answer, and a key.
async fn slow(dir: &tempfile::TempDir, grace_s: &str) -> (LookAlike, Setup, Gateway, Key) {
    let upstream = LookAlike::start(dir.path(), &["--delay-ms", "500", "--chunks", "10", "--chunk-gap-ms", "100"]);
    let setup = Setup::new(dir.path(), &upstream).with("SHUTDOWN_GRACE_S", grace_s);
    let gateway = setup.start();
    let key = gateway.new_key(&json!({})).await;
    (upstream, setup, gateway, key)
}

#[tokio::test]
async fn sigterm_lets_open_streams_finish_and_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    let (_upstream, setup, mut gateway, key) = slow(&dir, "20").await;
    let (streaming, begun) = open(gateway.calls, &chat(&key, &stream()), 400).await.unwrap();
    let (waiting, nothing) = open(gateway.calls, &chat(&key, &text()), 0).await.unwrap();
    // This client leaves, and its answer is read to its end without it.
    let (leaving, _) = open(gateway.calls, &chat(&key, &stream()), 400).await.unwrap();
    drop(leaving);
    until_seen(&dir, 3).await;
    gateway.tell_to_stop();
    let told = Instant::now();
    while get(gateway.calls, "/health", "").await.is_ok() {
        assert!(told.elapsed() < Duration::from_secs(2), "it still takes requests");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (streamed, answered) = tokio::join!(rest(streaming, begun), rest(waiting, nothing));
    assert!(streamed.is_finished(), "{}", streamed.text());
    assert!(answered.is_finished(), "{}", answered.text());
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(15), "it waited for nothing: {:?}", told.elapsed());

    let mut rows: Vec<_> = Ledger::open(&setup.ledger()).await.rows().await;
    rows.sort_by(|a, b| a.outcome.cmp(&b.outcome));
    let ends: Vec<_> = rows.iter().map(|row| (row.outcome.as_str(), row.basis.as_str())).collect();
    assert_eq!(ends, [("client_left", "reported"), ("completed", "reported"), ("completed", "reported")]);
    setup.assert_quiet_log();
}

#[tokio::test]
async fn what_outlasts_the_grace_period_is_cut_and_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (_upstream, setup, mut gateway, key) = slow(&dir, "0").await;
    let (streaming, begun) = open(gateway.calls, &chat(&key, &stream()), 400).await.unwrap();
    gateway.tell_to_stop();
    assert_eq!(gateway.wait().code(), Some(0));
    let streamed = rest(streaming, begun).await;
    assert!(!streamed.text().contains("[DONE]"), "half an answer must not look like a whole one");

    let rows = Ledger::open(&setup.ledger()).await.rows().await;
    assert_eq!(rows.len(), 1);
    assert!(rows[0].outcome != "completed", "{rows:?}");
}

#[tokio::test]
async fn a_second_sigterm_stops_at_once_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_upstream, setup, mut gateway, key) = slow(&dir, "60").await;
    let hang = request("POST", "/v1/chat/completions", &key.plain, &[("x-simulate", "hang")], &text().to_string());
    let _hanging = open(gateway.calls, &hang, 0).await.unwrap();
    until_seen(&dir, 1).await;
    gateway.tell_to_stop();
    let told = Instant::now();
    while get(gateway.calls, "/health", "").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.tell_to_stop();
    assert_eq!(gateway.wait().code(), Some(1));
    assert!(told.elapsed() < Duration::from_secs(15));

    setup.start().stop();
    let rows = Ledger::open(&setup.ledger()).await.rows().await;
    assert_eq!(rows.iter().map(|row| row.outcome.as_str()).collect::<Vec<_>>(), ["interrupted"]);
}
