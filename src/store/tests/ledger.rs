use proptest::prelude::*;

use super::{
    super::{Store, StoreError, buckets::StoredBucket, ledger::LedgerBatch, reports},
    assert_balanced, entries, everything, number, parts, store,
};
use crate::{
    domain::{
        bucket::Level,
        ids::{KeyId, ProjectId},
        ledger::{Admission, Entry, Settlement},
        limits::Dimension,
        pricing::Charge,
        report::Width,
        time::UnixNanos,
        usage::{LineItem, Usage},
    },
    journal::{Position, samples::*},
};

fn entry(number: u64) -> Entry {
    let admission = admission(number);
    Entry { settlement: settlement(&admission), admission }
}

fn with_usage(number: u64, usage: Usage, charges: Vec<Charge>) -> Entry {
    let Entry { admission, settlement } = entry(number);
    Entry { admission, settlement: Settlement { usage, charges, ..settlement } }
}

fn first(entries: Vec<Entry>) -> LedgerBatch {
    LedgerBatch { entries, up_to: Position { segment: 1, offset: 100 }, ..LedgerBatch::default() }
}

#[tokio::test]
async fn an_entry_reads_as_it_was_settled() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    store.append(&first(vec![entry(1)])).await.unwrap();
    let row: (String, String, String, String, String, String, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT request_id, project_id, api_key_id, endpoint, model, outcome, status, duration_ms, input_audio, cost_pico
         FROM ledger",
    )
    .fetch_one(store.reader())
    .await
    .unwrap();
    assert_eq!(row.0, admission(1).request_id.to_string());
    assert_eq!((row.1.as_str(), row.2.as_str(), row.3.as_str()), ("proj_a", "key_one", "chat.completions"));
    assert_eq!((row.4.as_str(), row.5.as_str()), ("gpt-4o-audio-preview-2024-12-17", "completed"));
    assert_eq!((row.6, row.7, row.8, row.9), (200, 900, 17, 17 * 4 + 6 * 8));
    assert_balanced(&store).await;
}

#[tokio::test]
async fn what_has_no_price_is_unpriced_and_never_free() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let usage = Usage::default().with(LineItem::InputText, 10).with(LineItem::OutputText, 5);
    let mut one_price = charges(&usage);
    one_price[1].price = None;
    let no_price = one_price.iter().map(|charge| Charge { price: None, ..*charge }).collect();
    let cases = vec![
        with_usage(1, usage, charges(&usage)),
        with_usage(2, usage, one_price),
        with_usage(3, usage, no_price),
        with_usage(4, usage, Vec::new()),
        with_usage(5, Usage::default(), Vec::new()),
    ];
    store.append(&first(cases)).await.unwrap();
    let costs: Vec<(Option<i64>, bool)> = sqlx::query_as("SELECT cost_pico, priced FROM ledger ORDER BY request_id")
        .fetch_all(store.reader())
        .await
        .unwrap();
    assert_eq!(costs, [(Some(50), true), (Some(10), false), (None, false), (None, false), (Some(0), true)]);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_batch_is_never_counted_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let batch = first(vec![entry(1), entry(2)]);
    store.append(&batch).await.unwrap();
    for _ in 0..2 {
        let again = store.append(&batch).await;
        assert!(matches!(again, Err(StoreError::Moved { stored, .. }) if stored == batch.up_to), "{again:?}");
    }
    // Even if the position were right, an entry stands as it was first written.
    let up_to = Position { segment: 1, offset: 200 };
    let overlapping = LedgerBatch {
        entries: vec![entry(2), entry(3), entry(3)],
        from: Some(batch.up_to),
        up_to,
        ..LedgerBatch::default()
    };
    store.append(&overlapping).await.unwrap();
    assert_eq!(entries(&store).await, 3);
    assert_eq!(store.projection().await.unwrap(), Some(up_to));
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_batch_that_fails_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let huge = Usage::default().with(LineItem::InputText, u64::MAX);
    let result = store.append(&first(vec![entry(1), with_usage(2, huge, Vec::new())])).await;
    assert!(matches!(result, Err(StoreError::Overflow(id)) if id == admission(2).request_id));
    let half = Usage::default().with(LineItem::InputText, u64::MAX / 4 * 2);
    let result = store.append(&first((1..4).map(|n| with_usage(n, half, Vec::new())).collect())).await;
    assert!(matches!(result, Err(StoreError::SumOverflow)), "{result:?}");
    let mut unknown = entry(3);
    unknown.admission.key_id = KeyId::parse("key_unknown").unwrap();
    let result = store.append(&first(vec![entry(1), unknown])).await;
    assert!(matches!(result, Err(StoreError::UnknownKey(_))));
    assert_eq!((entries(&store).await, store.projection().await.unwrap()), (0, None));
    assert_eq!(number(&store, "SELECT count(*) FROM names").await, 0);
    store.append(&first(vec![entry(1)])).await.unwrap();
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_sum_that_overflows_is_not_reported() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let large = Usage::default().with(LineItem::InputText, i64::MAX as u64);
    let batches = [1, 2, 3].map(|number| vec![with_usage(number, large, Vec::new())]);
    append_each(&store, batches).await;
    let read = reports::rows(&store, &everything(Width::Day)).await;
    assert!(matches!(read, Err(StoreError::SumOverflow)), "{read:?}");
}

/// Each as a batch of its own.
async fn append_each(store: &Store, batches: impl IntoIterator<Item = Vec<Entry>>) {
    let mut from = None;
    for (entries, offset) in batches.into_iter().zip(1..) {
        let up_to = Position { segment: 1, offset };
        store.append(&LedgerBatch { entries, from, up_to, ..LedgerBatch::default() }).await.unwrap();
        from = Some(up_to);
    }
}

#[tokio::test]
async fn many_batches_of_one_bucket_are_kept_in_few_parts() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append_each(&store, (0..700).map(|number| vec![entry(number)])).await;
    // 700 = 2 x 256 + 11 x 16 + 12, and each level gives way only when the next part comes.
    for width_s in [60, 3_600, 86_400] {
        assert!(parts(&store, width_s).await <= 48, "{}", parts(&store, width_s).await);
    }
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_bucket_that_time_has_moved_on_from_is_one_part() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let at = |number: u64, seconds: u64| {
        let mut entry = entry(number);
        entry.settlement.settled_at = NOW.plus_nanos(seconds * 1_000_000_000);
        entry
    };
    // One comes late, for a minute that is over.
    let seconds = [0, 1, 2, 3, 60, 61, 5, 120];
    append_each(&store, seconds.into_iter().zip(0..).map(|(seconds, number)| vec![at(number, seconds)])).await;
    assert_eq!(parts(&store, 60).await, 4);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn entries_without_sums_are_summed_up_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append_each(&store, (0..40).map(|number| vec![entry(number)])).await;
    store.close().await;
    for lost in [
        "UPDATE summed_up SET is_done = 0; DELETE FROM rollups",
        "UPDATE summed_up SET is_done = 0; DELETE FROM rollups WHERE detail > 0",
        "SELECT 1",
    ] {
        let store = super::store(dir.path()).await;
        sqlx::raw_sql(lost).execute(store.writer()).await.unwrap();
        store.close().await;
        let store = super::store(dir.path()).await;
        assert_balanced(&store).await;
        assert_eq!(parts(&store, 86_400).await, 1);
        store.close().await;
    }
}

#[tokio::test]
async fn requests_of_one_price_list_share_a_tariff_whatever_they_used_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let used = |items: &[LineItem]| items.iter().fold(Usage::default(), |usage, item| usage.with(*item, 10));
    let (input, output, audio) = (LineItem::InputText, LineItem::OutputText, LineItem::OutputAudio);
    let kinds = [used(&[input]), used(&[output, audio]), used(&[]), used(&[input, output, audio]), used(&[audio])];
    let mut entries: Vec<_> =
        kinds.into_iter().zip(1..).map(|(usage, number)| with_usage(number, usage, charges(&usage))).collect();
    // Of a long context: each price is another.
    let long = charges(&kinds[3]).into_iter();
    let long = long.map(|charge| Charge { price: charge.price.map(|price| price.checked_times(2).unwrap()), ..charge });
    entries.push(with_usage(6, kinds[3], long.collect()));
    let mut unpriced = charges(&kinds[0]);
    unpriced[0].price = None;
    entries.push(with_usage(7, kinds[0], unpriced));
    let costs: Vec<_> = entries.iter().map(|entry| entry.cost().unwrap().amount.pico()).collect();
    // One by one and over a restart, so that what is shared is found in the ledger, not remembered.
    append_each(&store, entries.into_iter().map(|entry| vec![entry])).await;
    let tariffs: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT t.prices FROM entries e JOIN tariffs t ON t.number = e.tariff ORDER BY 1")
            .fetch_all(store.reader())
            .await
            .unwrap();
    let full = r#"{"input_text":1,"output_text":8,"output_audio":9}"#;
    let long = r#"{"input_text":2,"output_text":16,"output_audio":18}"#;
    assert_eq!(tariffs, [full, r#"{"input_text":1}"#, long, "{}"]);
    let booked: Vec<Option<i64>> =
        sqlx::query_scalar("SELECT cost_pico FROM ledger ORDER BY request_id").fetch_all(store.reader()).await.unwrap();
    assert_eq!(booked.iter().map(|cost| cost.unwrap_or(0)).collect::<Vec<_>>(), costs);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn the_ledger_cannot_be_changed_or_shortened() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    store.append(&first(vec![entry(1)])).await.unwrap();
    for sql in ["UPDATE entries SET api_key = 2", "DELETE FROM entries", "UPDATE tariffs SET priced = 0"] {
        let error = sqlx::query(sql).execute(store.writer()).await.unwrap_err();
        assert!(error.to_string().contains("the ledger is append-only"), "{error}");
    }
    assert_eq!(number(&store, "SELECT status FROM ledger").await, 200);
}

#[tokio::test]
async fn buckets_are_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let bucket = |arrival| StoredBucket {
        project_id: ProjectId::parse("proj_a").unwrap(),
        key_id: KeyId::parse("key_one"),
        limit_group: "gpt-4o".into(),
        dimension: Dimension::TokensPerDay,
        level: Level { arrival: UnixNanos(arrival), unit_nanos: arrival },
    };
    let of_project = StoredBucket { key_id: None, ..bucket(7) };
    let batch = LedgerBatch { buckets: vec![bucket(5), of_project.clone()], ..first(Vec::new()) };
    store.append(&batch).await.unwrap();
    let later = LedgerBatch { buckets: vec![bucket(u64::MAX)], from: Some(batch.up_to), ..batch };
    store.append(&later).await.unwrap();
    assert_eq!(store.limit_buckets().await.unwrap(), [of_project, bucket(i64::MAX as u64)]);
}

prop_compose! {
    fn any_entry()(
        second_key in any::<bool>(),
        model in 0_u8..3,
        seconds in 0_u64..200_000,
        quantities in prop::collection::vec((0_usize..LineItem::COUNT, 0_u64..1_000_000_000), 0..6),
        priced in any::<[bool; LineItem::COUNT]>(),
    ) -> Entry {
        let mut entry = entry(seconds);
        let usage = quantities.into_iter().fold(Usage::default(), |usage, (index, n)| usage.with(LineItem::ALL[index], n));
        entry.admission.key_id = KeyId::parse(if second_key { "key_two" } else { "key_one" }).unwrap();
        entry.settlement.billed_model = format!("model-{model}").into();
        entry.settlement.settled_at = NOW.plus_nanos(seconds * 1_000_000_000);
        entry.settlement.usage = usage;
        entry.settlement.charges = charges(&usage);
        for charge in &mut entry.settlement.charges {
            charge.price = charge.price.filter(|_| priced[charge.line_item.index()]);
        }
        entry
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rollups_are_the_sums_of_the_entries(mut found in prop::collection::vec(any_entry(), 1..150), cut in 0_usize..150) {
        for (number, entry) in found.iter_mut().enumerate() {
            entry.admission.request_id = admission(number as u64).request_id;
            entry.settlement.request_id = entry.admission.request_id;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path()).await;
            let count = found.len();
            let second = found.split_off(cut.min(count));
            let batch = first(found);
            store.append(&batch).await.unwrap();
            let up_to = Position { segment: 1, offset: 200 };
            let rest = LedgerBatch { entries: second, from: Some(batch.up_to), up_to, ..LedgerBatch::default() };
            store.append(&rest).await.unwrap();
            assert_eq!(usize::try_from(entries(&store).await).unwrap(), count);
            assert_balanced(&store).await;
        });
    }
}

/// As `SQLite` does when the disk is full: the rollback is its own, and ours finds no transaction.
#[tokio::test]
async fn a_transaction_that_the_database_rolled_back_is_not_in_the_way_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut transaction = store.writer().begin().await.unwrap();
    sqlx::query("ROLLBACK").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    store.append(&first(vec![entry(1)])).await.unwrap();
    assert_eq!(entries(&store).await, 1);
}

#[tokio::test]
async fn names_that_callers_make_up_share_one_when_there_are_many_and_names_with_prices_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let entry = |number: u64, model: &str, prices_from| {
        let mut admission = Admission { model: model.into(), billed_model: model.into(), ..admission(number) };
        admission.prices_from = prices_from;
        let mut settlement = settlement(&admission);
        if prices_from.is_none() {
            settlement.charges.clear();
        }
        Entry { admission, settlement }
    };
    store.append(&LedgerBatch { entries: vec![entry(1, "known", None)], ..LedgerBatch::default() }).await.unwrap();
    sqlx::query("INSERT INTO names VALUES (20000, 'the last')").execute(store.writer()).await.unwrap();
    let later = ["known", "new", "newer"].into_iter().zip(2..).map(|(model, number)| entry(number, model, None));
    let entries = later.chain([entry(9, "priced", Some(NOW))]).collect();
    let from = store.projection().await.unwrap();
    store.append(&LedgerBatch { entries, from, ..LedgerBatch::default() }).await.unwrap();
    let sql = "SELECT model, requested_model, priced FROM ledger ORDER BY request_id";
    let rows: Vec<(String, String, bool)> = sqlx::query_as(sql).fetch_all(store.reader()).await.unwrap();
    let models: Vec<_> = rows.iter().map(|(model, requested, priced)| (&**model, &**requested, *priced)).collect();
    let unpriced = |name| (name, name, false);
    let expected = [unpriced("known"), unpriced("known"), unpriced("(other)"), unpriced("(other)")];
    assert_eq!(models, [expected.as_slice(), &[("priced", "priced", true)]].concat());
    assert_balanced(&store).await;
}
