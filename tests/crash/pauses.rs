//! A gateway whose log stands still or is gone, and one that itself stands still for a while.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    client::{exchange, open, request, rest},
    kill::number,
    ledger::{Ledger, Verdict, read_log},
    load::{Tally, teams},
    process::{Key, LookAlike, Setup, log_of},
    survival::text,
};

/// A request at which the gateway logs a line.
fn logged(key: &Key) -> Vec<u8> {
    request("POST", "/v1/chat/completions", &key.plain, &[("x-simulate", "500")], &text().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_takes_holds_up_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    // Open for reading in the process itself: it fills up, and is not closed.
    let pipe = dir.path().join("log");
    let shell = r#"mkfifo "$1"; exec 2<>"$1"; shift; exec "$@""#;
    let stuck = ["sh", "-c", shell, "sh", pipe.to_str().unwrap()];
    let setup = Setup::new(dir.path(), &upstream).started_by(&stuck);
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({})).await;
    let call = Arc::new(logged(&key));
    let mut clients = JoinSet::new();
    // A pipe takes 64 KiB, which is less than 800 lines.
    for _ in 0..8 {
        let (call, gateway) = (Arc::clone(&call), gateway.calls);
        clients.spawn(async move {
            for _ in 0..100 {
                assert_eq!(exchange(gateway, &call).await.unwrap().status, 500);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    gateway.stop();
    assert_eq!(Ledger::open(&setup.ledger()).await.count().await, 801);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_reader_is_gone_fails_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let pipe = dir.path().join("log");
    let shell = r#"mkfifo "$1"; (: <"$1") & exec 2>"$1"; wait; shift; exec "$@""#;
    let gone = ["sh", "-c", shell, "sh", pipe.to_str().unwrap()];
    let setup = Setup::new(dir.path(), &upstream).started_by(&gone);
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({})).await;
    for _ in 0..5 {
        assert_eq!(exchange(gateway.calls, &logged(&key)).await.unwrap().status, 500);
    }
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    gateway.stop();
    assert_eq!(Ledger::open(&setup.ledger()).await.count().await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stands_still_goes_on_where_it_was() {
    let pause = Duration::from_secs(number(&tollgate::config::environment(), "TOLLGATE_PAUSE_S", 2));
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--delay-ms", "200", "--chunks", "10", "--chunk-gap-ms", "50"]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    let narrow = gateway.new_key(&json!({"requests_per_minute": 2})).await;
    for status in [200, 200, 429] {
        assert_eq!(gateway.chat(&narrow, &text()).await.status, status);
    }
    let call = |stream| {
        let mut body = text();
        body["stream"] = json!(stream);
        request("POST", "/v1/chat/completions", &teams[0].key.plain, &[], &body.to_string())
    };
    let (streaming, begun) = open(gateway.calls, &call(true), 400).await.unwrap();
    let (waiting, nothing) = open(gateway.calls, &call(false), 0).await.unwrap();
    gateway.signal("STOP");
    let mut clients = JoinSet::new();
    for _ in 0..10 {
        let (gateway, call) = (gateway.calls, call(false));
        clients.spawn(async move { exchange(gateway, &call).await.unwrap().is_finished() });
    }
    tokio::time::sleep(pause).await;
    gateway.signal("CONT");
    assert!(rest(streaming, begun).await.is_finished() && rest(waiting, nothing).await.is_finished());
    while let Some(finished) = clients.join_next().await {
        assert!(finished.unwrap());
    }
    // One comes back in half a minute.
    if pause < Duration::from_secs(20) {
        assert_eq!(gateway.chat(&narrow, &text()).await.status, 429);
    }
    gateway.stop();
    let (log, rows) = (read_log(&log_of(dir.path())), Ledger::open(&setup.ledger()).await.rows().await);
    assert_eq!((log.len(), rows.len()), (14, 14), "nothing is sent twice because of the pause");
    assert!(rows.iter().all(|row| row.outcome == "completed"), "{rows:?}");
    let of_teams: Vec<_> = rows.into_iter().filter(|row| row.api_key_id != narrow.id).collect();
    let seen: Vec<_> =
        log.into_iter().filter(|seen| of_teams.iter().any(|row| row.request_id == seen.request_id)).collect();
    Verdict::of(&seen, &of_teams, &teams, &Tally::default()).assert_good();
}
