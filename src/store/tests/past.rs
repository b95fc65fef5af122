use super::{
    super::{
        Store,
        ledger::LedgerBatch,
        past::{Admitted, Past},
    },
    store,
};
use crate::{
    domain::{
        held::Held,
        ids::{KeyId, ProjectId},
        ledger::Entry,
        time::UnixNanos,
        what_if::Booked,
    },
    journal::{Position, samples::*},
};

fn entry(number: u64) -> Entry {
    let admission = admission(number);
    Entry { settlement: settlement(&admission), admission }
}

async fn append(store: &Store, entries: Vec<Entry>) {
    let batch = LedgerBatch { entries, up_to: Position { segment: 1, offset: 1 }, ..LedgerBatch::default() };
    store.append(&batch).await.unwrap();
}

async fn read(store: &Store, from: UnixNanos, until: UnixNanos, project: Option<&str>) -> Vec<Booked> {
    let project_id = project.and_then(ProjectId::parse);
    let mut past = Past::of(store, Admitted { from, until, project_id });
    let mut all = Vec::new();
    while let Some(booked) = past.next().await.unwrap() {
        all.push(booked);
    }
    all
}

#[tokio::test]
async fn an_entry_comes_with_what_its_limits_saw() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, vec![entry(2)]).await;
    let Entry { admission, settlement } = entry(2);
    let expected = Booked {
        request_id: admission.request_id,
        admitted_at: admission.admitted_at,
        settled_at: settlement.settled_at,
        project_id: ProjectId::parse("proj_a").unwrap(),
        key_id: KeyId::parse("key_one").unwrap(),
        requested_model: "gpt-4o-audio-preview".to_owned(),
        status: 200,
        usage: settlement.usage,
        held: Some(Held::of(&admission)),
    };
    assert_eq!(read(&store, UnixNanos(0), UnixNanos(u64::MAX), None).await, [expected]);
    assert_eq!(read(&store, UnixNanos(0), UnixNanos(u64::MAX), Some("proj_b")).await, []);
}

#[tokio::test]
async fn all_that_were_admitted_in_a_time_come_once_and_in_order_however_many_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, (0..4_500).map(entry).collect()).await;
    let at = |number: u64| NOW.plus_nanos(number * 1_000_000);
    let numbers = |all: Vec<Booked>| all.iter().map(|booked| booked.admitted_at).collect::<Vec<_>>();
    let some = numbers(read(&store, at(100), at(4_300), Some("proj_a")).await);
    assert_eq!(some, (100..4_300).map(at).collect::<Vec<_>>());
    // A time within a millisecond: the ledger knows whole ones.
    let between = NOW.plus_nanos(500_000);
    assert_eq!(numbers(read(&store, between, at(2), None).await), [at(1)]);
    assert_eq!(numbers(read(&store, at(0), between, None).await), [at(0)]);
}

#[tokio::test]
async fn an_entry_from_before_holds_were_kept_is_read_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, vec![entry(1)]).await;
    sqlx::raw_sql("DROP TRIGGER entries_are_never_changed; UPDATE entries SET held = NULL, terms = NULL")
        .execute(store.writer())
        .await
        .unwrap();
    let [booked] = read(&store, UnixNanos(0), UnixNanos(u64::MAX), None).await.try_into().unwrap();
    assert_eq!(booked.held, None);
}
