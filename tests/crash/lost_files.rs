//! Files of the data directory that are deleted, replaced or cut while the gateway uses them, or before it starts.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    client::get,
    ledger::{Ledger, Verdict, read_log},
    load::{Load, Tally, teams},
    process::{LookAlike, Setup, log_of},
    survival::text,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_is_deleted_or_replaced_while_it_is_used_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--chunks", "4"]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let (teams, mut tally) = (teams(&gateway).await, Tally::default());
    let mut slowest = Duration::ZERO;
    for replaced in [false, true, false] {
        let load = Load::start(gateway.calls, &teams, 8);
        tokio::time::sleep(Duration::from_millis(300)).await;
        fs::remove_file(setup.ledger()).unwrap();
        if replaced {
            fs::write(setup.ledger(), "not a database").unwrap();
        }
        // Keys that are made meanwhile are not lost either.
        let key = gateway.new_key(&json!({})).await;
        let gone = Instant::now();
        while !fs::read(setup.ledger()).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3")) {
            assert!(gone.elapsed() < Duration::from_secs(20), "the ledger does not come back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        slowest = slowest.max(gone.elapsed());
        tally.add(load.end().await);
        // Nothing is closed in order.
        gateway.kill();
        gateway = setup.start();
        gateway.healthy().await;
        let models = get(gateway.calls, "/v1/models", &key.plain).await.unwrap();
        assert_eq!(models.status, 200, "a key that was made meanwhile is gone");
    }
    assert!(tally.statuses.keys().all(|status| *status == 200 || *status == 429), "{:?}", tally.statuses);
    gateway.stop();
    let ledger = Ledger::open(&setup.ledger()).await;
    ledger.assert_sound().await;
    let (log, rows) = (read_log(&log_of(dir.path())), ledger.rows().await);
    println!("deleted ledger: {} requests recorded, back after {} ms at most", rows.len(), slowest.as_millis());
    Verdict::of(&log, &rows, &teams, &tally).assert_good();
}

#[tokio::test]
async fn a_start_without_the_ledger_that_the_journal_belongs_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({})).await;
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    gateway.stop();
    let whole = fs::read(setup.ledger()).unwrap();
    let not_a_database = [b"x".repeat(100), whole[100..].to_vec()].concat();
    let half = whole[..whole.len() / 2].to_vec();
    for (damage, says) in [
        (None, "is missing or empty, but there is a journal beside it"),
        (Some(Vec::new()), "is missing or empty, but there is a journal beside it"),
        (Some(not_a_database), "is damaged, or none at all"),
        (Some(half), "is damaged, or none at all"),
    ] {
        let _ = fs::remove_file(setup.ledger());
        if let Some(bytes) = &damage {
            fs::write(setup.ledger(), bytes).unwrap();
        }
        let (code, screen, said) = setup.start_in_vain();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(says) && said.contains("tollgate.db"), "{said}");
        assert!(!screen.contains("http://"), "nobody is listened to: {screen}");
        assert_eq!(fs::read(setup.ledger()).ok(), damage, "the file is left as it was");
    }
    fs::write(setup.ledger(), &whole).unwrap();
    let mut gateway = setup.start();
    assert_eq!(get(gateway.calls, "/v1/models", &key.plain).await.unwrap().status, 200);
    gateway.stop();
}
