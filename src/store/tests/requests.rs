//! Single requests read back: what the ledger knows of them, and what is kept of refusals.

use super::{
    super::{
        Store,
        ledger::LedgerBatch,
        refusals,
        requests::{self, Filter},
    },
    number, store,
};
use crate::{
    domain::{
        explanation::{Explained, Finished},
        held::Held,
        ids::{KeyId, ProjectId, RequestId},
        ledger::{Entry, Outcome, Settlement},
        limits::{ByScope, Dimension, Headrooms, LimitExceeded, Scope},
        money::{Money, Total},
        pricing::Rates,
        refusals::{Kept, OverLimit, Reason, RefusedRequest},
        tariff::{Tariff, TariffKind},
        time::UnixNanos,
        usage::{Basis, LineItem, Usage},
    },
    journal::{Position, samples::*},
};

const DAY_MS: u64 = 86_400_000;

fn entry(number: u64, outcome: Outcome) -> Entry {
    let admission = admission(number);
    Entry { settlement: Settlement { outcome, ..settlement(&admission) }, admission }
}

async fn append(store: &Store, entries: Vec<Entry>) {
    let batch = LedgerBatch { entries, up_to: Position { segment: 1, offset: 100 }, ..LedgerBatch::default() };
    store.append(&batch).await.unwrap();
}

/// Arrived `ms` after [`NOW`].
fn refused(ms: u64, random: u128) -> RefusedRequest {
    let exceeded = LimitExceeded {
        scope: Scope::Key,
        dimension: Dimension::TokensPerMinute,
        limit: 500,
        used: 498,
        requested: 7,
        wait_nanos: Some(600_000_000),
    };
    let estimate = Usage::default().with(LineItem::InputText, 7);
    RefusedRequest {
        request_id: RequestId::new(NOW.millis() + ms, random),
        refused_at: NOW.plus_nanos(ms * 1_000_000 + 5),
        project_id: ProjectId::parse("proj_b").unwrap(),
        key_id: KeyId::parse("key_two").unwrap(),
        endpoint: "chat.completions".into(),
        model: "gpt-4o".into(),
        stream: true,
        status: 429,
        code: Some("rate_limit_exceeded".into()),
        reason: Reason::Limit(Box::new(OverLimit { limit_group: "gpt-4o".into(), exceeded, estimate })),
        headrooms: Headrooms::default(),
    }
}

fn everything() -> Filter {
    Filter::between(RequestId::earliest(0), RequestId::new(u64::MAX >> 16, u128::MAX))
}

async fn ids(store: &Store, filter: &Filter, limit: usize) -> Vec<RequestId> {
    let found = requests::page(store, filter, NOW, limit).await.unwrap();
    found.iter().map(Explained::request_id).collect()
}

async fn finished(store: &Store, id: RequestId) -> Finished {
    match requests::find(store, id, NOW).await.unwrap() {
        Some(Explained::Finished(finished)) => *finished,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_entry_is_read_back_with_its_limits_estimate_and_prices() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, vec![entry(1, Outcome::Completed), entry(2, Outcome::ClientLeft)]).await;
    let admission = admission(1);
    let found = finished(&store, admission.request_id).await;
    let settlement = settlement(&admission);
    assert_eq!((found.requested_model.as_str(), &*found.tariff.model), (&*admission.model, &*settlement.billed_model));
    assert_eq!((found.outcome, found.basis, found.status), (Outcome::Completed, Basis::Reported, 200));
    assert_eq!((found.admitted_at_ms, found.duration_ms), (admission.admitted_at.millis(), 900));
    assert_eq!((found.usage, found.stream), (settlement.usage, false));
    assert_eq!(found.tariff.charges(&found.usage), settlement.charges);
    assert_eq!(found.tariff.prices_from, admission.prices_from);
    assert_eq!(found.cost().unwrap(), Some(Total::from_pico(17 * 4 + 6 * 8)));
    let under = found.admitted_under.unwrap();
    assert_eq!(
        (under.limits, under.held.used_before, under.held.reserved_tokens),
        (admission.hold.limits, admission.hold.used_before, 120)
    );
    assert_eq!((&*under.limit_group, under.held.estimate), (&*admission.hold.limit_group, admission.estimate));
    assert_eq!(requests::find(&store, RequestId::new(NOW.millis() + 1, 9), NOW).await.unwrap(), None);
}

#[tokio::test]
async fn entries_of_before_limits_were_written_down_do_not_know_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, vec![entry(1, Outcome::Completed)]).await;
    let copy = "INSERT INTO entries SELECT x'00000000000000000000000000000001', api_key, tariff, ending, admitted_at_ms,
        duration_ms, input_text, input_cached_text, input_cache_write_text, input_audio, input_cached_audio, input_image,
        input_cached_image, output_text, output_audio, output_image, NULL, NULL
        FROM entries";
    sqlx::query(copy).execute(store.writer()).await.unwrap();
    let found = finished(&store, RequestId::new(0, 1)).await;
    assert_eq!((found.admitted_under, found.outcome), (None, Outcome::Completed));
    // What they held was kept as JSON for a while.
    let json = copy
        .replace("01'", "02'")
        .replace("FROM entries", "FROM entries WHERE terms IS NOT NULL")
        .replace("NULL, NULL", "terms, json_array(120, 1, NULL, 40, 100, 2, 20, 0)");
    sqlx::query(sqlx::AssertSqlSafe(json)).execute(store.writer()).await.unwrap();
    let held = finished(&store, RequestId::new(0, 2)).await.admitted_under.unwrap().held;
    let estimate = Usage::default().with(LineItem::InputText, 100).with(LineItem::InputAudio, 2);
    let estimate = estimate.with(LineItem::OutputText, 20);
    let used_before = ByScope { project: [Some(1), None, Some(40), None], key: [None; 4] };
    assert_eq!(held, Held { reserved_tokens: 120, used_before, estimate });
}

#[tokio::test]
async fn adjustments_are_read_with_the_request_they_correct() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, vec![entry(1, Outcome::Completed), entry(2, Outcome::Completed)]).await;
    let before = finished(&store, admission(1).request_id).await;
    let mut rates = Rates::default();
    rates.set(LineItem::InputAudio, Money::from_pico(-3));
    let tariff = Tariff { rates, kind: TariffKind::Adjustment, ..Tariff::clone(&before.tariff) };
    let mut connection = store.writer().acquire().await.unwrap();
    let number = store.take_names().tariff(&mut connection, &tariff).await.unwrap();
    sqlx::query(
        "INSERT INTO adjustments (request_id, api_key, tariff, requests, settled_at_ms, adjusted_at_ms, reason, input_audio)
         VALUES (?, 1, ?, 0, 0, 77, 'a wrong price', 17)",
    )
    .bind(admission(1).request_id.to_bytes().to_vec())
    .bind(number)
    .execute(&mut *connection)
    .await
    .unwrap();
    drop(connection);
    let found = finished(&store, admission(1).request_id).await;
    let [adjustment] = found.adjustments.as_slice() else { panic!("{found:?}") };
    assert_eq!((adjustment.reason.as_str(), adjustment.adjusted_at_ms), ("a wrong price", 77));
    assert_eq!(found.first_cost(), before.cost());
    assert_eq!(found.cost(), Ok(Some(Total::from_pico(17 * 4 + 6 * 8 - 17 * 3))));
    assert_eq!(finished(&store, admission(2).request_id).await.adjustments, []);
}

#[tokio::test]
async fn a_page_is_the_newest_of_both_and_the_next_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    append(&store, (1..=9).map(|number| entry(number, Outcome::Completed)).collect()).await;
    let refused: Vec<_> = [3, 5, 20].map(|ms| refused(ms, u128::MAX)).into();
    refusals::save(&store, &refused, NOW, &mut Kept::default(), 100).await.unwrap();
    let mut expected: Vec<_> = (1..=9).map(|number| admission(number).request_id).collect();
    expected.extend(refused.iter().map(|it| it.request_id));
    expected.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(ids(&store, &everything(), 100).await, expected);
    for limit in [1, 2, 5] {
        let (mut filter, mut seen) = (everything(), Vec::new());
        loop {
            let page = ids(&store, &filter, limit).await;
            let Some(last) = page.last() else { break };
            filter.before = *last;
            seen.extend(page);
        }
        assert_eq!(seen, expected, "in pages of {limit}");
    }
}

#[tokio::test]
async fn filters_choose_among_entries_and_refusals() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut of_two = entry(3, Outcome::Completed);
    of_two.admission.key_id = KeyId::parse("key_two").unwrap();
    of_two.admission.model = "another".into();
    append(&store, vec![entry(1, Outcome::Completed), entry(2, Outcome::UpstreamFailed), of_two]).await;
    refusals::save(&store, &[refused(4, 0)], NOW, &mut Kept::default(), 100).await.unwrap();
    let [one, two, three] = [1, 2, 3].map(|number| admission(number).request_id);
    let four = refused(4, 0).request_id;
    let words = |word: &str| vec![word.to_owned()];
    let chosen = async |change: fn(&mut Filter, Vec<String>), word: &str| {
        let mut filter = everything();
        change(&mut filter, words(word));
        ids(&store, &filter, 10).await
    };
    assert_eq!(chosen(|it, words| it.project_ids = words, "proj_a").await, [three, two, one]);
    assert_eq!(chosen(|it, words| it.project_ids = words, "proj_b").await, [four]);
    assert_eq!(chosen(|it, words| it.api_key_ids = words, "key_two").await, [four, three]);
    assert_eq!(chosen(|it, words| it.api_key_ids = words, "key_nobody").await, []);
    assert_eq!(chosen(|it, words| it.models = words, "another").await, [three]);
    assert_eq!(chosen(|it, words| it.models = words, "gpt-4o").await, [four]);
    let billed = chosen(|it, words| it.models = words, "gpt-4o-audio-preview-2024-12-17").await;
    assert_eq!(billed, [three, two, one]);
    assert_eq!(chosen(|it, words| it.models = words, "chat.completions").await, []);
    let failed = Filter { outcomes: vec![Outcome::UpstreamFailed], refused: false, ..everything() };
    assert_eq!(ids(&store, &failed, 10).await, [two]);
    assert_eq!(ids(&store, &Filter { outcomes: vec![Outcome::Interrupted], ..failed }, 10).await, []);
    assert_eq!(ids(&store, &Filter { finished: false, ..everything() }, 10).await, [four]);
    let between = Filter { from: two, before: four, ..everything() };
    assert_eq!(ids(&store, &between, 10).await, [three, two]);
}

/// Neither sorted nor read whole: the newest come first out of the table itself.
#[tokio::test]
async fn a_page_is_read_along_the_primary_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let sql = format!("EXPLAIN QUERY PLAN {}", requests::ENTRIES);
    let plan: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(store.reader()).await.unwrap();
    let steps: Vec<&str> = plan.iter().map(|step| step.3.as_str()).collect();
    let reading = steps.iter().filter(|step| step.contains("SEARCH entries USING PRIMARY KEY")).count();
    assert_eq!(reading, 1, "{steps:#?}");
    assert!(!steps.iter().any(|step| step.contains("SCAN entries") || step.contains("SCAN k")), "{steps:#?}");
}

#[tokio::test]
async fn a_refusal_is_read_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut spent = refused(1, 1);
    (spent.reason, spent.code, spent.stream) = (Reason::UnknownModel, None, false);
    spent.headrooms.tokens = Some(crate::domain::bucket::Headroom { limit: 9, remaining: 8, reset_nanos: 7 });
    let both = [refused(0, 1), spent];
    refusals::save(&store, &both, NOW, &mut Kept::default(), 100).await.unwrap();
    for refused in both {
        let found = requests::find(&store, refused.request_id, NOW).await.unwrap();
        assert_eq!(found, Some(Explained::Refused(Box::new(refused))));
    }
}

#[tokio::test]
async fn a_refusal_of_more_than_a_day_ago_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let [old, young] = [refused(0, u128::MAX), refused(1, 0)];
    let mut kept = Kept::default();
    refusals::save(&store, &[old.clone(), young.clone()], NOW, &mut kept, 100).await.unwrap();
    let later = UnixNanos::from_millis(NOW.millis() + DAY_MS + 1);
    let found =
        async |refused: &RefusedRequest, now| requests::find(&store, refused.request_id, now).await.unwrap().is_some();
    assert!(found(&old, UnixNanos::from_millis(NOW.millis() + DAY_MS)).await);
    // It is not shown any more, and then not kept any more.
    assert!(!found(&old, later).await && found(&young, later).await);
    assert_eq!(refusals::kept(&store).await.unwrap().total(), 2);
    refusals::save(&store, &[], later, &mut kept, 100).await.unwrap();
    assert_eq!((kept.total(), refusals::kept(&store).await.unwrap()), (1, kept));
}

#[tokio::test]
async fn of_too_many_refusals_the_newest_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let flood: Vec<_> = (0..2_500).map(|ms| refused(ms, 0)).collect();
    let mut kept = Kept::default();
    for _ in 0..2 {
        // What is there already is not counted again.
        refusals::save(&store, &flood, NOW, &mut kept, 1_000).await.unwrap();
        assert_eq!((kept.total(), refusals::kept(&store).await.unwrap()), (1_000, kept));
        kept = refusals::kept(&store).await.unwrap();
    }
    let oldest = number(&store, "SELECT min(refused_at) / 1000000 FROM refusals").await;
    assert_eq!(oldest.unsigned_abs(), NOW.millis() + 1_500);
}

/// More than one statement deletes what has become old.
#[tokio::test]
async fn however_many_refusals_are_old_all_of_them_go() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut kept) = (store(dir.path()).await, Kept::default());
    let many: Vec<_> = (0..2_500).map(|ms| refused(ms, 0)).collect();
    refusals::save(&store, &many, NOW, &mut kept, 10_000).await.unwrap();
    let later = UnixNanos::from_millis(NOW.millis() + DAY_MS + 2_400);
    refusals::save(&store, &[], later, &mut kept, 10_000).await.unwrap();
    assert_eq!((kept.total(), refusals::kept(&store).await.unwrap()), (100, kept));
}
