//! Corrections beside entries that the gateway writes: sums, sizes, and what a second run finds.

use std::sync::Arc;

use proptest::prelude::*;

use super::{assert_balanced, entries, number, parts, store};
use crate::{
    domain::{
        audit::{AuditEvent, By, EventType},
        catalog::{Catalog, Model},
        ledger::Entry,
        money::{Money, Total},
        pricing::{Prices, Rates},
        report::{LATEST_TIME_S, Range},
        reprice::{Booked, Repriced},
        spend::Interval,
        time::UnixNanos,
        usage::{LineItem, Usage},
    },
    journal::{Position, samples::*},
    store::{
        Store, StoreError,
        ledger::LedgerBatch,
        reprice::{Stretch, Touched, correct, read, tidy},
        spend::{Spent, adjusted_after, spent},
    },
};

const MODEL: &str = "gpt-4o-audio-preview-2024-12-17";

fn catalog(pico: i64) -> Catalog {
    let mut standard = Rates::default();
    for item in LineItem::ALL {
        standard.set(item, Money::from_pico(pico));
    }
    let prices = vec![Arc::new(Prices { standard, ..Prices::default() })];
    Catalog::new(vec![Model { id: MODEL.into(), prices, ..Model::default() }], vec![]).unwrap()
}

fn stretch() -> Stretch {
    Stretch { from: UnixNanos(0), to: UnixNanos(u64::MAX), reason: "a test".to_owned(), adjusted_at: NOW }
}

fn entry(number: u64) -> Entry {
    let admission = admission(number);
    Entry { settlement: settlement(&admission), admission }
}

async fn append(store: &Store, entries: Vec<Entry>) {
    let from = store.projection().await.unwrap();
    let up_to = Position { segment: 1, offset: from.map_or(1, |from| from.offset + 1) };
    store.append(&LedgerBatch { entries, from, up_to, ..LedgerBatch::default() }).await.unwrap();
}

fn event() -> AuditEvent {
    AuditEvent::new(EventType::PricesRepriced, &By::gateway(NOW), "ledger")
}

/// A whole run, piece by piece.
async fn reprice(store: &Store, stretch: &Stretch, catalog: &Catalog) -> Result<Repriced, StoreError> {
    let judge = |booked: &Booked| booked.judge(catalog);
    let (mut sums, mut touched, mut after, mut event) = (Repriced::default(), Touched::new(), None, Some(event()));
    loop {
        let mut piece = read(store, stretch, after, judge).await?;
        if !piece.is_right() {
            piece = correct(store, stretch, &piece, judge, &mut event, &mut touched).await?;
        }
        piece.requests.iter().for_each(|(booked, verdict)| sums.add(booked, verdict).unwrap());
        after = piece.next;
        if after.is_none() {
            tidy(store, &touched).await?;
            return Ok(sums);
        }
    }
}

async fn cost(store: &Store) -> i64 {
    number(store, "SELECT coalesce(sum(cost_pico), 0) FROM ledger").await
}

#[tokio::test]
async fn every_request_is_corrected_once_and_the_sums_follow() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, (0..1_203).map(entry).collect()).await;
    // 17 of audio at 4 and 6 of text at 8, and then all at 10.
    let before = cost(&store).await;
    assert_eq!(before, 1_203 * (17 * 4 + 6 * 8));
    let sums = reprice(&store, &stretch(), &catalog(10)).await.unwrap();
    assert_eq!((sums.requests, sums.corrected, sums.difference.pico()), (1_203, 1_203, 1_203 * (17 * 6 + 6 * 2)));
    assert_eq!(cost(&store).await, 1_203 * 23 * 10);
    assert_balanced(&store).await;
    assert_eq!(number(&store, "SELECT count(*) FROM audit_log WHERE type = 'prices.repriced'").await, 1);
    // Three pieces, one kind of difference.
    assert_eq!(number(&store, "SELECT count(*) FROM tariffs WHERE adjusts = 1").await, 1);
    assert_eq!(parts(&store, 86_400).await, 1);
    let again = reprice(&store, &stretch(), &catalog(10)).await.unwrap();
    assert_eq!((again.requests, again.corrected, again.difference), (1_203, 0, Total::default()));
    assert_eq!(number(&store, "SELECT count(*) FROM adjustments").await, 1_203);
    assert_eq!(number(&store, "SELECT count(*) FROM audit_log").await, 1);
    // And back.
    reprice(&store, &stretch(), &catalog(1)).await.unwrap();
    assert_eq!(cost(&store).await, 1_203 * 23);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_run_that_was_ended_in_the_middle_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, (0..700).map(entry).collect()).await;
    let catalog = catalog(10);
    let (mut event, mut touched) = (Some(event()), Touched::new());
    let judge = |booked: &Booked| booked.judge(&catalog);
    let found = read(&store, &stretch(), None, judge).await.unwrap();
    let piece = correct(&store, &stretch(), &found, judge, &mut event, &mut touched).await.unwrap();
    assert!(piece.next.is_some() && event.is_none() && !touched.is_empty());
    assert_balanced(&store).await;
    // The same piece once more, as a second run that has looked at it before finds it.
    let mut event = Some(self::event());
    let piece = correct(&store, &stretch(), &found, judge, &mut event, &mut touched).await.unwrap();
    assert!(piece.is_right() && event.is_some());
    let sums = reprice(&store, &stretch(), &catalog).await.unwrap();
    assert_eq!((sums.requests, sums.corrected), (700, 200));
    assert_eq!(number(&store, "SELECT count(*) FROM audit_log").await, 2);
    assert_eq!(cost(&store).await, 700 * 230);
    assert_balanced(&store).await;
}

/// Whoever writes waits for a correction, and the way to the next request that would be looked at may be long.
#[tokio::test]
async fn a_correction_looks_at_what_was_found_before_and_at_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, (0..700).map(entry).collect()).await;
    let catalog = catalog(10);
    let (mut event, mut touched) = (Some(event()), Touched::new());
    let judge = |booked: &Booked| booked.judge(&catalog);
    let first = read(&store, &stretch(), None, judge).await.unwrap();
    let last = read(&store, &stretch(), first.next, judge).await.unwrap();
    assert_eq!((first.requests.len(), last.requests.len(), last.next), (500, 200, None));
    append(&store, (700..710).map(entry).collect()).await;
    let piece = correct(&store, &stretch(), &last, judge, &mut event, &mut touched).await.unwrap();
    assert_eq!((piece.requests.len(), number(&store, "SELECT count(*) FROM adjustments").await), (200, 200));
    // What is dropped for its age meanwhile does not end the run.
    let mut dropping = store.begin_dropping(NOW.plus_nanos(1_000_000_000), None).await.unwrap();
    while dropping.step(&store).await.unwrap().is_some() {}
    let piece = correct(&store, &stretch(), &first, judge, &mut event, &mut touched).await.unwrap();
    assert_eq!((piece.requests.len(), piece.next), (400, first.next));
    assert_eq!(number(&store, "SELECT count(*) FROM adjustments").await, 600);
}

#[tokio::test]
async fn only_requests_that_ended_in_the_stretch_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, (0..10).map(entry).collect()).await;
    // They end 900 ms after they began, a millisecond apart.
    let at = |number: u64| NOW.plus_nanos((number + 900) * 1_000_000);
    let some = Stretch { from: at(3), to: at(6), ..stretch() };
    let sums = reprice(&store, &some, &catalog(10)).await.unwrap();
    assert_eq!((sums.requests, sums.corrected), (3, 3));
    let ids: Vec<Vec<u8>> = sqlx::query_scalar("SELECT request_id FROM adjustments ORDER BY number")
        .fetch_all(store.reader())
        .await
        .unwrap();
    assert_eq!(ids, [3, 4, 5].map(|number| admission(number).request_id.to_bytes().to_vec()));
}

#[tokio::test]
async fn a_request_that_had_no_price_is_priced_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let unpriced = |number, without: &[LineItem]| {
        let mut entry = entry(number);
        for charge in entry.settlement.charges.iter_mut().filter(|charge| without.contains(&charge.line_item)) {
            charge.price = None;
        }
        entry
    };
    let all = [LineItem::InputAudio, LineItem::OutputText];
    append(&store, vec![entry(1), unpriced(2, &all), unpriced(3, &all[1..])]).await;
    assert_eq!(number(&store, "SELECT sum(priced) FROM ledger").await, 1);
    let sums = reprice(&store, &stretch(), &catalog(10)).await.unwrap();
    assert_eq!(sums.corrected, 3);
    assert_eq!(number(&store, "SELECT sum(priced) FROM ledger").await, 3);
    assert_eq!(number(&store, "SELECT count(*) FROM ledger WHERE cost_pico = 230").await, 3);
    assert_balanced(&store).await;
    reprice(&store, &stretch(), &catalog(11)).await.unwrap();
    assert_eq!(number(&store, "SELECT sum(requests) FROM adjustments").await, 2);
    assert_balanced(&store).await;
}

#[tokio::test]
async fn a_gateway_that_is_writing_and_one_that_reprices_share_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = store(dir.path()).await;
    append(&gateway, (0..50).map(entry).collect()).await;
    let repricing = Store::open_existing(&dir.path().join("tollgate.db")).await.unwrap();
    for round in 1..6_u64 {
        let tasks = async {
            // Names and tariffs of each side's own, beside those that the other adds.
            let mut more: Vec<Entry> = (round * 100..round * 100 + 50).map(entry).collect();
            for (at, entry) in more.iter_mut().enumerate() {
                entry.admission.model = format!("asked-{round}-{}", at % 3).into();
                let price = Money::from_pico(i64::try_from(round).unwrap());
                entry.settlement.charges.iter_mut().for_each(|charge| charge.price = Some(price));
            }
            append(&gateway, more).await;
        };
        let catalog = catalog(i64::try_from(round).unwrap() * 7);
        let stretch = stretch();
        let ((), result) = tokio::join!(tasks, reprice(&repricing, &stretch, &catalog));
        result.unwrap();
        assert_balanced(&gateway).await;
    }
    reprice(&repricing, &stretch(), &catalog(70)).await.unwrap();
    assert_eq!((entries(&gateway).await, cost(&gateway).await), (300, 300 * 23 * 70));
    assert_balanced(&gateway).await;
}

#[tokio::test]
async fn adjustments_are_found_by_whoever_counts_what_was_spent() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, vec![entry(1), entry(2)]).await;
    assert_eq!(spent(&store, NOW, None).await.unwrap().last_adjustment, 0);
    reprice(&store, &stretch(), &catalog(10)).await.unwrap();
    let adjusted = adjusted_after(&store, 0).await.unwrap();
    let found: Vec<_> = adjusted.iter().map(|it| (it.number, it.project.as_str(), it.amount.pico())).collect();
    assert_eq!(found, [(1, "proj_a", 114), (2, "proj_a", 114)]);
    assert_eq!(adjusted[0].settled_at.millis(), entry(1).settlement.settled_at.millis());
    assert_eq!(adjusted_after(&store, 1).await.unwrap(), adjusted[1..]);
    let spent = spent(&store, NOW, None).await.unwrap();
    assert_eq!((sum(&spent), spent.last_adjustment), (2 * 230, 2));
}

fn sum(spent: &Spent) -> i128 {
    let months = spent.by_project.iter().filter(|it| it.0 == Interval::Month);
    months.map(|it| it.3.pico()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spent_holds_just_the_adjustments_up_to_the_one_that_it_names() {
    const ENTRIES: u64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let gateway = store(dir.path()).await;
    append(&gateway, (0..ENTRIES).map(entry).collect()).await;
    let repricing = Store::open_existing(&dir.path().join("tollgate.db")).await.unwrap();
    // At one price after another, each adjustment adds 23 pico-dollars.
    reprice(&repricing, &stretch(), &catalog(10)).await.unwrap();
    let run = tokio::spawn(async move {
        for price in 11..14 {
            reprice(&repricing, &stretch(), &catalog(price)).await.unwrap();
        }
    });
    let (base, first) = (i128::from(ENTRIES) * 230, i128::from(ENTRIES));
    let mut seen = std::collections::BTreeSet::new();
    let ever = Range { start_s: 0, end_s: LATEST_TIME_S };
    while !run.is_finished() {
        let spent = spent(&gateway, NOW, Some(ever)).await.unwrap();
        let expected = base + (i128::from(spent.last_adjustment) - first) * 23;
        assert_eq!(sum(&spent), expected);
        let by_keys = |of| spent.by_key.iter().filter(move |it| it.0 == of).map(|it| it.3.pico()).sum::<i128>();
        assert_eq!(Interval::ALL.map(by_keys), [expected; 2]);
        assert_eq!(spent.by_day.iter().map(|it| it.2.pico()).sum::<i128>(), expected);
        seen.insert(spent.last_adjustment);
    }
    run.await.unwrap();
    assert!(seen.len() > 3, "{seen:?}");
}

#[tokio::test]
async fn a_database_of_another_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    assert!(Store::open_existing(&path).await.is_err() && !path.exists());
    let newest = store(dir.path()).await;
    for (sql, is_older) in [
        (
            "UPDATE _sqlx_migrations SET version = 9999 WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
            false,
        ),
        ("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)", true),
        ("DROP TABLE _sqlx_migrations", true),
    ] {
        assert!(Store::open_existing(&path).await.is_ok() || is_older);
        sqlx::query(sql).execute(newest.writer()).await.unwrap();
        match Store::open_existing(&path).await {
            Err(StoreError::NewerDatabase { version: 9_999 }) => assert!(!is_older),
            Err(StoreError::OlderDatabase) => assert!(is_older),
            other => panic!("{sql}: {:?}", other.err()),
        }
    }
}

prop_compose! {
    fn any_entry()(
        second_key in any::<bool>(),
        seconds in 0_u64..200_000,
        quantities in prop::collection::vec((0_usize..LineItem::COUNT, 0_u64..1_000_000), 0..6),
        priced in any::<[bool; LineItem::COUNT]>(),
    ) -> Entry {
        let mut entry = entry(seconds);
        let usage = quantities.into_iter().fold(Usage::default(), |usage, (index, n)| usage.with(LineItem::ALL[index], n));
        let key = if second_key { "key_two" } else { "key_one" };
        entry.admission.key_id = crate::domain::ids::KeyId::parse(key).unwrap();
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
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn after_repricing_every_entry_costs_what_the_list_says(
        mut found in prop::collection::vec(any_entry(), 1..80),
        prices in prop::collection::vec(0_i64..50, 1..4),
    ) {
        for (number, entry) in found.iter_mut().enumerate() {
            entry.admission.request_id = admission(number as u64).request_id;
            entry.settlement.request_id = entry.admission.request_id;
        }
        let tokens: u64 = found.iter().map(|entry| entry.settlement.usage.total()).sum();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path()).await;
            append(&store, found).await;
            for price in prices {
                let before = cost(&store).await;
                let sums = reprice(&store, &stretch(), &catalog(price)).await.unwrap();
                let after = cost(&store).await;
                assert_eq!(i128::from(after - before), sums.difference.pico());
                assert_eq!(after, i64::try_from(tokens).unwrap() * price);
                assert_eq!(number(&store, "SELECT count(*) FROM ledger WHERE NOT priced").await, 0);
                assert_balanced(&store).await;
            }
        });
    }
}
