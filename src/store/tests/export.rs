use super::{
    super::{
        Store, StoreError,
        export::{Export, Settled},
        ledger::LedgerBatch,
    },
    number, store,
};
use crate::{
    domain::{
        export::{Adjusted, ExportedEntry},
        ledger::{Entry, Settlement},
        money::Total,
        time::UnixNanos,
        usage::LineItem,
    },
    journal::{Position, samples::*},
};

const ALWAYS: Settled = Settled { from: UnixNanos(0), until: UnixNanos(u64::MAX) };

fn entry(number: u64) -> Entry {
    let admission = admission(number);
    Entry { settlement: settlement(&admission), admission }
}

async fn append(store: &Store, offset: u64, entries: Vec<Entry>) {
    let from = store.projection().await.unwrap();
    let up_to = Position { segment: 1, offset };
    store.append(&LedgerBatch { entries, from, up_to, ..LedgerBatch::default() }).await.unwrap();
}

async fn export(dir: &std::path::Path, settled: Settled) -> Vec<ExportedEntry> {
    let mut export = Export::open(&dir.join("tollgate.db"), settled).await.unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = export.next().await.unwrap() {
        entries.push(entry);
    }
    entries
}

#[tokio::test]
async fn an_entry_leaves_with_everything_that_was_settled() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, 1, vec![entry(2)]).await;
    let [exported] = export(dir.path(), ALWAYS).await.try_into().unwrap();
    let Entry { admission, settlement } = entry(2);
    assert_eq!(exported.request_id, admission.request_id);
    assert_eq!(exported.admitted_at.millis(), admission.admitted_at.millis());
    assert_eq!(exported.settled_at.millis(), settlement.settled_at.millis());
    assert_eq!(exported.duration_ms(), 900);
    let owner = [&exported.project_id, &exported.project_name, &exported.api_key_id, &exported.api_key_name];
    assert_eq!(owner, ["proj_a", "A", "key_one", "one"]);
    assert_eq!(
        (&*exported.tariff.endpoint, &*exported.tariff.model),
        (&*admission.endpoint, &*settlement.billed_model)
    );
    assert_eq!(exported.tariff.prices_from, admission.prices_from);
    let ended = [&exported.requested_model, &exported.outcome, &exported.basis];
    assert_eq!(ended, ["gpt-4o-audio-preview", "completed", "reported"]);
    assert_eq!((exported.status, exported.stream, exported.usage), (200, true, settlement.usage));
    assert_eq!(exported.cost(), Ok(Some(Total::from_pico(17 * 4 + 6 * 8))));
    assert!(exported.is_priced() && exported.adjusted.is_none());
}

#[tokio::test]
async fn entries_are_those_settled_from_the_first_moment_on_and_before_the_last_in_the_order_of_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let settled_at = |entry: Entry, millis| Entry {
        settlement: Settlement { settled_at: UnixNanos::from_millis(NOW.millis() + millis), ..entry.settlement },
        ..entry
    };
    let mut entries: Vec<_> = (0..5_000).rev().map(entry).collect();
    // The first to arrive, and the last to be settled.
    let first = entries.pop().unwrap();
    entries.push(settled_at(first, 100_000));
    append(&store, 1, entries).await;
    let between = |from: u64, until: u64| {
        let time = |millis| UnixNanos::from_millis(NOW.millis() + millis);
        export(dir.path(), Settled { from: time(from), until: time(until) })
    };
    let all = export(dir.path(), ALWAYS).await;
    assert_eq!(all.len(), 5_000);
    assert!(all.is_sorted_by_key(|entry| entry.request_id.to_bytes()));
    let ids = |entries: Vec<ExportedEntry>| entries.iter().map(|entry| entry.request_id).collect::<Vec<_>>();
    let expected = |numbers: &[u64]| numbers.iter().map(|n| admission(*n).request_id).collect::<Vec<_>>();
    assert_eq!(ids(between(5_000 + 895, 5_000 + 898).await), expected(&[4_995, 4_996, 4_997]));
    assert_eq!(ids(between(100_000, 100_001).await), expected(&[0]));
    assert_eq!(ids(between(99_999, 100_000).await), expected(&[]));
    assert_eq!(between(0, 100_000).await.len(), 4_999);
}

#[tokio::test]
async fn adjustments_are_in_the_cost_and_shown_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut unpriced = entry(2);
    unpriced.settlement.charges.clear();
    append(&store, 1, vec![entry(1), unpriced]).await;
    adjust(&store, 1, 17, r#"{"input_audio":-3}"#, 0).await;
    adjust(&store, 1, 1, r#"{"input_audio":100}"#, 0).await;
    adjust(&store, 2, 17, r#"{"input_audio":2}"#, 1).await;
    let [one, two] = export(dir.path(), ALWAYS).await.try_into().unwrap();
    assert_eq!(one.adjusted, Some(Adjusted { amount: Total::from_pico(49), priced_since: false }));
    assert_eq!(one.cost(), Ok(Some(Total::from_pico(17 * 4 + 6 * 8 + 49))));
    assert_eq!(one.amount(LineItem::InputAudio), Ok(Some(Total::from_pico(17 * 4))));
    assert_eq!((two.cost(), two.is_priced()), (Ok(Some(Total::from_pico(34))), true));
    assert_eq!(two.amount(LineItem::InputAudio), Ok(None));
}

/// An adjustment of sound that came in, at `prices`.
async fn adjust(store: &Store, number: u64, quantity: i64, prices: &str, requests: i64) {
    let id = admission(number).request_id.to_bytes().to_vec();
    sqlx::query(
        "INSERT OR IGNORE INTO tariffs (endpoint, model, service_tier, prices_from_s, priced, adjusts, prices)
         SELECT endpoint, model, service_tier, -1, 1, 1, ? FROM tariffs LIMIT 1",
    )
    .bind(prices)
    .execute(store.writer())
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO adjustments (request_id, api_key, tariff, requests, settled_at_ms, adjusted_at_ms, reason, input_audio)
         SELECT request_id, api_key, (SELECT number FROM tariffs WHERE prices = ?2), ?3, admitted_at_ms + duration_ms, 0,
             'test', ?4
         FROM entries WHERE request_id = ?1",
    )
    .bind(id)
    .bind(prices)
    .bind(requests)
    .bind(quantity)
    .execute(store.writer())
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_adjusted_and_added_while_an_export_runs_changes_nothing_of_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, 1, (0..3_000).map(entry).collect()).await;
    let mut export = Export::open(&dir.path().join("tollgate.db"), ALWAYS).await.unwrap();
    export.next().await.unwrap().unwrap();
    adjust(&store, 2_999, 17, r#"{"input_audio":-3}"#, 0).await;
    append(&store, 2, (3_000..3_001).map(entry).collect()).await;
    assert!(store.checkpoint().await.unwrap(), "an export that waits does not hold the write-ahead log back");
    let mut last = None;
    let mut entries = 1;
    while let Some(entry) = export.next().await.unwrap() {
        entries += 1;
        assert_eq!(entry.adjusted, None);
        last = Some(entry);
    }
    assert_eq!((entries, last.unwrap().request_id), (3_001, admission(3_000).request_id));
}

#[tokio::test]
async fn a_database_of_an_older_or_a_newer_version_is_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let opened = async || Export::open(&dir.path().join("tollgate.db"), ALWAYS).await;
    let newer = "INSERT INTO _sqlx_migrations VALUES (9999, 'later', '2030-01-01', 1, x'00', 0)";
    sqlx::query(newer).execute(store.writer()).await.unwrap();
    assert!(matches!(opened().await, Err(StoreError::NewerDatabase { version: 9999 })));
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version > 5").execute(store.writer()).await.unwrap();
    assert!(matches!(opened().await, Err(StoreError::OlderDatabase)));
    assert_eq!(number(&store, "SELECT count(*) FROM entries").await, 0);
}
