use std::{fs::OpenOptions, sync::Arc};

use super::{
    super::{
        Store,
        ledger::LedgerBatch,
        projector::Projector,
        reports,
        retention::Dropped,
        spend::{adjusted_after, last_number},
    },
    assert_balanced, entries, everything, number, store,
};
use crate::{
    domain::{
        ids::RequestId,
        ledger::Entry,
        report::{Row, Width},
        rollup::Detail,
        time::UnixNanos,
    },
    journal::{Journal, Options, Position, samples::*},
};

fn entry(number: u64) -> Entry {
    let admission = admission(number);
    Entry { settlement: settlement(&admission), admission }
}

fn ms(millis: u64) -> UnixNanos {
    UnixNanos::from_millis(NOW.millis() + millis)
}

async fn drop_before(store: &Store, before: UnixNanos) -> Dropped {
    drop_beside(store, before, None).await
}

async fn drop_beside(store: &Store, before: UnixNanos, in_journal_from: Option<RequestId>) -> Dropped {
    let mut dropping = store.begin_dropping(before, in_journal_from).await.unwrap();
    let mut all = Dropped::default();
    while let Some(dropped) = dropping.step(store).await.unwrap() {
        assert!(dropped.entries <= 500, "transactions are small");
        all.entries += dropped.entries;
        all.adjustments += dropped.adjustments;
    }
    all
}

async fn report(store: &Store) -> Vec<Vec<Row>> {
    let mut widths = Vec::new();
    for width in [Width::Minute, Width::Hour, Width::Day] {
        let mut selection = everything(width);
        (selection.callers, selection.by_model, selection.by_service_tier) = (Detail::Keys, true, true);
        widths.push(reports::rows(store, &selection).await.unwrap());
    }
    widths
}

async fn adjust_all(store: &Store) {
    for sql in [
        "INSERT OR IGNORE INTO tariffs (endpoint, model, service_tier, prices_from_s, priced, adjusts, prices)
         SELECT endpoint, model, service_tier, -1, 1, 1, '{\"input_audio\":-3}' FROM tariffs LIMIT 1",
        "INSERT INTO adjustments (request_id, api_key, tariff, requests, settled_at_ms, adjusted_at_ms, reason, input_audio)
         SELECT request_id, api_key, (SELECT max(number) FROM tariffs), 0, admitted_at_ms + duration_ms, 0, 'test', 17
         FROM entries",
    ] {
        sqlx::query(sql).execute(store.writer()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_old_goes_with_its_adjustments_and_no_report_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut entries_of_a_day: Vec<_> = (0..1_500).map(entry).collect();
    // It ran across the horizon.
    entries_of_a_day[3].settlement.settled_at = ms(5_000);
    store.append(&LedgerBatch { entries: entries_of_a_day, ..LedgerBatch::default() }).await.unwrap();
    adjust_all(&store).await;
    sqlx::raw_sql("DELETE FROM rollups; UPDATE summed_up SET is_done = 0").execute(store.writer()).await.unwrap();
    store.sum_up_if_new().await.unwrap();
    let (before, tariffs) = (report(&store).await, number(&store, "SELECT count(*) FROM tariffs").await);
    // Entry n is settled at n + 900 ms: 0 to 1299 are older, but for one.
    assert_eq!(drop_before(&store, ms(2_200)).await, Dropped { entries: 1_299, adjustments: 1_299 });
    assert_eq!(entries(&store).await, 201);
    assert_eq!(number(&store, "SELECT count(*) FROM adjustments").await, 201);
    assert_eq!(report(&store).await, before);
    assert_eq!(number(&store, "SELECT count(*) FROM tariffs").await, tariffs);
    assert_eq!(drop_before(&store, ms(2_200)).await, Dropped::default());
    assert_eq!(drop_before(&store, ms(100_000)).await, Dropped { entries: 201, adjustments: 201 });
    assert_eq!(report(&store).await, before);
    store.close().await;
    let store = super::store(dir.path()).await;
    assert_eq!((entries(&store).await, report(&store).await), (0, before));
}

#[tokio::test]
async fn nothing_at_or_after_the_horizon_can_be_deleted_and_the_horizon_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut set_back = entry(2);
    set_back.settlement.settled_at = ms(0);
    store.append(&LedgerBatch { entries: vec![entry(1), set_back], ..LedgerBatch::default() }).await.unwrap();
    adjust_all(&store).await;
    for sql in [
        "DELETE FROM entries",
        "DELETE FROM adjustments",
        "UPDATE retention SET horizon_ms = -1",
        "DELETE FROM retention",
        "INSERT INTO retention VALUES (2, 0)",
        "REPLACE INTO retention VALUES (1, -1)",
    ] {
        assert!(sqlx::query(sql).execute(store.writer()).await.is_err(), "{sql}");
    }
    // Settled at 901 ms, which is not before.
    assert_eq!(drop_before(&store, ms(901)).await.entries, 1, "the one that was settled earlier");
    assert!(sqlx::query("DELETE FROM entries").execute(store.writer()).await.is_err());
    drop_before(&store, ms(0)).await;
    let horizon = number(&store, "SELECT horizon_ms FROM retention").await;
    assert_eq!(u64::try_from(horizon).unwrap(), ms(901).millis());
    assert_eq!(entries(&store).await, 1);
    assert_eq!(drop_before(&store, ms(902)).await.entries, 1);
}

/// The ledger had the request and dropped it; the journal lost its end, and brings it again as interrupted.
#[tokio::test]
async fn a_dropped_request_that_the_journal_brings_again_is_not_counted_twice() {
    let dir = tempfile::tempdir().unwrap();
    let journals = dir.path().join("journal");
    let store = store(dir.path()).await;
    let (journal, _) = Journal::open(Options::new(&journals), NOW).unwrap();
    finish(&journal, 1);
    let two = admission(2);
    let ticket = journal.admit(&two).unwrap();
    let survives = ticket.position().offset;
    journal.settle(ticket, &settlement(&two));
    let mut projector = Projector::new(Arc::clone(&journal), store.clone());
    projector.catch_up().await.unwrap();
    let before = report(&store).await;
    assert_eq!(drop_beside(&store, ms(1_000), projector.progress().first_id()).await.entries, 2);
    drop((projector, journal));
    OpenOptions::new().write(true).open(journals.join("0000000001.jsonl")).unwrap().set_len(survives).unwrap();
    let later = ms(60 * 60 * 1_000);
    let (journal, recovered) = Journal::open(Options::new(&journals), later).unwrap();
    assert_eq!(recovered.interrupted, 1);
    let mut projector = Projector::new(Arc::clone(&journal), store.clone());
    projector.catch_up().await.unwrap();
    assert_eq!((entries(&store).await, report(&store).await), (0, before));
    finish(&journal, 10_000);
    projector.catch_up().await.unwrap();
    assert_eq!(entries(&store).await, 1);
}

#[tokio::test]
async fn dropped_requests_are_known_for_as_long_as_the_journal_holds_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (journal, _) = Journal::open(small(&dir.path().join("journal"), 100), NOW).unwrap();
    let mut projector = Projector::new(Arc::clone(&journal), store.clone());
    projector.catch_up().await.unwrap();
    let progress = projector.progress();
    assert_eq!(progress.first_id(), None);
    finish(&journal, 3);
    finish(&journal, 2);
    projector.catch_up().await.unwrap();
    assert_eq!(progress.first_id(), Some(admission(2).request_id));
    let known = || number(&store, "SELECT count(*) FROM dropped");
    assert_eq!(drop_beside(&store, ms(2_000), progress.first_id()).await.entries, 2);
    assert_eq!(known().await, 2);
    (1_000..1_200).for_each(|number| finish(&journal, number));
    projector.catch_up().await.unwrap();
    assert!(journal.start().segment > 1);
    let first = progress.first_id().unwrap();
    assert!(first > admission(1_000).request_id && first < admission(1_200).request_id);
    assert_eq!(drop_beside(&store, ms(1_500), Some(first)).await.entries, 0);
    assert_eq!(known().await, 0);
    drop_beside(&store, ms(10_000), progress.first_id()).await;
    let still_there = (1_000..1_200).filter(|number| admission(*number).request_id >= first).count();
    assert_eq!(known().await, i64::try_from(still_there).unwrap());
}

/// A request that was open for longer than entries are kept, or a clock that was wrong.
#[tokio::test]
async fn a_request_that_is_counted_late_is_counted_once_and_goes_with_the_next_drop() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    drop_before(&store, ms(100_000)).await;
    let up_to = Position { segment: 1, offset: 1 };
    store.append(&LedgerBatch { entries: vec![entry(4), entry(5)], up_to, ..LedgerBatch::default() }).await.unwrap();
    assert_eq!(entries(&store).await, 2);
    assert_balanced(&store).await;
    let before = report(&store).await;
    assert_eq!(drop_beside(&store, ms(1_000), Some(entry(5).admission.request_id)).await.entries, 2);
    let from = Some(up_to);
    let up_to = Position { segment: 1, offset: 2 };
    store.append(&LedgerBatch { entries: vec![entry(5)], from, up_to, ..LedgerBatch::default() }).await.unwrap();
    assert_eq!((entries(&store).await, report(&store).await), (0, before));
}

/// Who counts adjustments remembers the number of the last one.
#[tokio::test]
async fn the_number_of_a_dropped_adjustment_is_not_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    assert_eq!(last_number(store.reader()).await.unwrap(), 0);
    store.append(&LedgerBatch { entries: vec![entry(1), entry(2)], ..LedgerBatch::default() }).await.unwrap();
    adjust_all(&store).await;
    let last = last_number(store.reader()).await.unwrap();
    assert_eq!((last, drop_before(&store, ms(10_000)).await.adjustments), (2, 2));
    assert_eq!(last_number(store.reader()).await.unwrap(), last);
    let from = store.projection().await.unwrap();
    let up_to = Position { segment: 1, offset: 1 };
    store.append(&LedgerBatch { entries: vec![entry(20_000)], from, up_to, ..LedgerBatch::default() }).await.unwrap();
    adjust_all(&store).await;
    let numbers: Vec<i64> = adjusted_after(&store, last).await.unwrap().iter().map(|new| new.number).collect();
    assert_eq!(numbers, [3]);
}
