use std::{fs::OpenOptions, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{super::projector::*, assert_balanced, entries, number, store};
use crate::journal::{Journal, Options, samples::*};

#[tokio::test]
async fn everything_in_the_journal_is_in_the_ledger_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (journals, mut open) = (dir.path().join("journal"), 0);
    for round in 0..4 {
        let (journal, recovered) = Journal::open(small(&journals, 100), NOW).unwrap();
        assert_eq!(recovered.interrupted, open);
        let store = store(dir.path()).await;
        let mut projector = Projector::new(Arc::clone(&journal), store.clone());
        let start = round * 1_000;
        (start..start + 40).for_each(|number| finish(&journal, number));
        projector.catch_up().await.unwrap();
        (start + 40..start + 60).for_each(|number| finish(&journal, number));
        open = 3;
        for number in start + 60..start + 63 {
            let _left = journal.admit(&admission(number)).unwrap();
        }
        if round % 2 == 0 {
            projector.catch_up().await.unwrap();
        }
        assert_balanced(&store).await;
    }
    let (journal, _) = Journal::open(small(&journals, 100), NOW).unwrap();
    let store = store(dir.path()).await;
    let mut projector = Projector::new(Arc::clone(&journal), store.clone());
    projector.catch_up().await.unwrap();
    assert_eq!(entries(&store).await, 4 * 63);
    assert_eq!(number(&store, "SELECT count(*) FROM ledger WHERE outcome = 'interrupted'").await, 4 * 3);
    assert_eq!(projector.progress().state(), ProjectorState { position: journal.end(), lag_bytes: 0, failing: None });
    assert!(journal.start().segment > 1, "what the ledger has is released");
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_counts_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path().join("journal")), NOW).unwrap();
    let store = store(dir.path()).await;
    finish(&journal, 1);
    let [mut one, mut other] = [(); 2].map(|()| Projector::new(Arc::clone(&journal), store.clone()));
    one.catch_up().await.unwrap();
    other.catch_up().await.unwrap();
    finish(&journal, 2);
    one.catch_up().await.unwrap();
    other.catch_up().await.unwrap();
    assert_eq!(entries(&store).await, 2);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn an_admission_is_kept_until_its_settlement_is_in_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let journals = dir.path().join("journal");
    let (journal, _) = Journal::open(small(&journals, 100), NOW).unwrap();
    let store = store(dir.path()).await;
    let slow = admission(0);
    let ticket = journal.admit(&slow).unwrap();
    (1..100).for_each(|number| finish(&journal, number));
    let mut projector = Projector::new(Arc::clone(&journal), store.clone());
    projector.catch_up().await.unwrap();
    assert_eq!(journal.start().segment, 1);
    journal.settle(ticket, &settlement(&slow));
    drop((projector, journal));
    let (journal, recovered) = Journal::open(small(&journals, 100), NOW).unwrap();
    assert_eq!(recovered.interrupted, 0);
    let mut projector = Projector::new(Arc::clone(&journal), store.clone());
    projector.catch_up().await.unwrap();
    assert_eq!(entries(&store).await, 100);
    // The last record tells the next start the time: it goes when there is a later one.
    assert_eq!(journal.start().segment, journal.end().segment - 1);
    finish(&journal, 100);
    projector.catch_up().await.unwrap();
    assert_eq!(journal.start().segment, journal.end().segment);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_settled_request_is_in_the_ledger_within_a_second_and_at_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path().join("journal")), NOW).unwrap();
    let store = store(dir.path()).await;
    let projector = Projector::new(Arc::clone(&journal), store.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn(projector.run(stop.clone()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    finish(&journal, 1);
    let visible = async {
        while entries(&store).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), visible).await.unwrap();
    (2..3_000).for_each(|number| finish(&journal, number));
    stop.cancel();
    running.await.unwrap();
    assert_eq!(entries(&store).await, 2_999);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_failing_database_delays_the_ledger_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path().join("journal")), NOW).unwrap();
    let store = store(dir.path()).await;
    sqlx::query("ALTER TABLE rollups RENAME TO away").execute(store.writer()).await.unwrap();
    let projector = Projector::new(Arc::clone(&journal), store.clone());
    let (progress, stop) = (projector.progress(), CancellationToken::new());
    let running = tokio::spawn(projector.run(stop.clone()));
    finish(&journal, 1);
    let failing = async {
        while progress.state().failing.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), failing).await.unwrap();
    finish(&journal, 2);
    assert!(progress.state().lag_bytes > 0);
    sqlx::query("ALTER TABLE away RENAME TO rollups").execute(store.writer()).await.unwrap();
    let caught_up = async {
        while progress.state().lag_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), caught_up).await.unwrap();
    assert_eq!(progress.state().failing, None);
    stop.cancel();
    running.await.unwrap();
    assert_eq!(entries(&store).await, 2);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn after_a_power_failure_took_the_end_of_the_journal_the_ledger_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let journals = dir.path().join("journal");
    let store = store(dir.path()).await;
    let (journal, _) = Journal::open(Options::new(&journals), NOW).unwrap();
    finish(&journal, 1);
    let two = admission(2);
    let ticket = journal.admit(&two).unwrap();
    let survives = ticket.position().offset;
    journal.settle(ticket, &settlement(&two));
    (3..6).for_each(|number| finish(&journal, number));
    Projector::new(Arc::clone(&journal), store.clone()).catch_up().await.unwrap();
    drop(journal);
    OpenOptions::new().write(true).open(journals.join("0000000001.jsonl")).unwrap().set_len(survives).unwrap();
    let (journal, recovered) = Journal::open(Options::new(&journals), NOW).unwrap();
    assert_eq!(recovered.interrupted, 1);
    finish(&journal, 7);
    let mut projector = Projector::new(Arc::clone(&journal), store.clone());
    projector.catch_up().await.unwrap();
    finish(&journal, 8);
    projector.catch_up().await.unwrap();
    assert_eq!(entries(&store).await, 7);
    assert_eq!(number(&store, "SELECT count(*) FROM ledger WHERE outcome = 'interrupted'").await, 0);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_lost_journal_does_not_stop_a_kept_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    for (name, number) in [("journal", 1), ("empty", 2)] {
        let (journal, _) = Journal::open(Options::new(dir.path().join(name)), NOW).unwrap();
        Projector::new(Arc::clone(&journal), store.clone()).catch_up().await.unwrap();
        finish(&journal, number);
        Projector::new(Arc::clone(&journal), store.clone()).catch_up().await.unwrap();
    }
    assert_eq!(entries(&store).await, 2);
}

/// Waits until `holds`, which is to come soon.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let coming = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), coming).await.is_ok(), "{what}");
}

#[tokio::test]
async fn a_ledger_that_is_away_does_not_keep_the_journal_from_healing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path().join("journal")), NOW).unwrap();
    let store = store(dir.path()).await;
    sqlx::query("ALTER TABLE rollups RENAME TO away").execute(store.writer()).await.unwrap();
    let projector = Projector::new(Arc::clone(&journal), store.clone());
    let (progress, stop) = (projector.progress(), CancellationToken::new());
    let running = tokio::spawn(projector.run(stop.clone()));
    finish(&journal, 1);
    until("the ledger is away", || progress.state().failing.is_some()).await;
    journal.break_disk();
    assert!(journal.admit(&admission(2)).is_err());
    assert!(journal.state().failing.is_some());
    until("the journal heals", || journal.state().failing.is_none()).await;
    assert!(progress.state().failing.is_some(), "the ledger is still away");
    stop.cancel();
    running.await.unwrap();
}
