use std::{collections::BTreeMap, path::PathBuf};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tempfile::TempDir;

use super::{
    seed::{Settled, clear, seed},
    *,
};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    pricing::ServiceTier,
    report::{Line, Range, Width, pieces},
    rollup::Detail,
    usage::LineItem,
};

async fn open() -> (TempDir, PathBuf, Store) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let store = Store::open(&path).await.unwrap();
    (folder, path, store)
}

fn all_of(range: Range, bucket_width: Width) -> Selection {
    Selection {
        pieces: pieces(range, bucket_width),
        bucket_width,
        bucket_starts: Vec::new(),
        callers: Detail::Together,
        by_model: false,
        by_service_tier: false,
        endpoints: None,
        project_ids: None,
        api_key_ids: None,
        models: None,
        batch: None,
    }
}

const TWO_DAYS: Range = Range { start_s: 0, end_s: 172_800 };

#[tokio::test]
async fn each_piece_is_one_range_of_the_primary_key() {
    let (_folder, _, store) = open().await;
    let statement = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {PARTS}"));
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(statement).fetch_all(store.reader()).await.unwrap();
    let steps: Vec<&str> = plan.iter().map(|step| step.3.as_str()).collect();
    let range = "SEARCH r USING INDEX sqlite_autoindex_rollups_1 (detail=? AND width_s=? AND bucket_start_s>? AND bucket_start_s<?)";
    assert!(steps.contains(&range), "{steps:#?}");
    assert!(!steps.iter().any(|step| step.starts_with("SCAN r")), "{steps:#?}");
}

#[tokio::test]
async fn rows_are_told_apart_as_selected() {
    let (_folder, path, store) = open().await;
    let line = [(LineItem::InputText, 5, 50), (LineItem::OutputAudio, 1, 7)];
    let first = Settled { at_s: 10, lines: &line, ..Settled::default() };
    let second = Settled { project_id: "proj_b", api_key_id: "key_b", service_tier: "batch", ..first };
    seed(&path, &[first, second, Settled { model: "m-2", ..first }, Settled { at_s: 86_400, ..second }]).await;

    let whole = all_of(TWO_DAYS, Width::Day);
    let together = rows(&store, &whole).await.unwrap();
    let lines = |times: u64| {
        vec![
            Line {
                line_item: LineItem::InputText,
                quantity: 5 * times,
                amount: Total::from_pico(50 * i128::from(times)),
            },
            Line { line_item: LineItem::OutputAudio, quantity: times, amount: Total::from_pico(7 * i128::from(times)) },
        ]
    };
    let bare = |bucket_start_s, times| Row {
        bucket_start_s,
        project_id: None,
        api_key_id: None,
        model: None,
        service_tier: None,
        requests: times,
        unpriced_requests: 0,
        lines: lines(times),
    };
    assert_eq!(together, [bare(0, 3), bare(86_400, 1)]);

    let apart = Selection { callers: Detail::Keys, by_model: true, by_service_tier: true, ..whole };
    let apart = rows(&store, &apart).await.unwrap();
    assert_eq!(apart.len(), 4);
    let full = Row {
        project_id: ProjectId::parse("proj_b"),
        api_key_id: KeyId::parse("key_b"),
        model: Some("m-1".into()),
        service_tier: Some(ServiceTier::Batch),
        ..bare(86_400, 1)
    };
    assert_eq!(apart.last(), Some(&full));
}

#[tokio::test]
async fn keys_of_a_project_are_summed_together_where_only_projects_are_told_apart() {
    let (_folder, path, store) = open().await;
    let line = [(LineItem::InputText, 5, 50)];
    let first = Settled { lines: &line, ..Settled::default() };
    let second = Settled { api_key_id: "key_a2", ..first };
    let other = Settled { project_id: "proj_b", api_key_id: "key_b", ..first };
    seed(&path, &[other, first, second, other]).await;
    let selection = Selection { callers: Detail::Projects, ..all_of(TWO_DAYS, Width::Day) };
    let rows = rows(&store, &selection).await.unwrap();
    let mut found: Vec<_> = rows.iter().map(|row| (row.project_id.as_ref().unwrap().as_str(), row.requests)).collect();
    found.sort_unstable();
    assert_eq!(found, [("proj_a", 2), ("proj_b", 2)]);
    assert!(rows.iter().all(|row| row.api_key_id.is_none()));
}

#[tokio::test]
async fn filters_let_through_what_they_name() {
    let (_folder, path, store) = open().await;
    let first = Settled::default();
    let other_key = Settled { api_key_id: "key_a2", service_tier: "batch", ..first };
    let other_project = Settled { project_id: "proj_b", api_key_id: "key_b", model: "m-2", ..first };
    seed(&path, &[first, other_key, other_project, Settled { endpoint: "embeddings", ..first }]).await;

    let whole = all_of(TWO_DAYS, Width::Day);
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    for (selection, requests) in [
        (whole.clone(), 4),
        (Selection { endpoints: names(&["chat.completions"]), ..whole.clone() }, 3),
        (Selection { project_ids: names(&["proj_a"]), ..whole.clone() }, 3),
        (Selection { project_ids: names(&["proj_a"]), api_key_ids: names(&["key_b"]), ..whole.clone() }, 0),
        (Selection { api_key_ids: names(&["key_a2", "key_b"]), ..whole.clone() }, 2),
        (Selection { models: names(&["m-2", "m-3"]), ..whole.clone() }, 1),
        (Selection { models: names(&["m' OR '1'='1"]), ..whole.clone() }, 0),
        (Selection { batch: Some(true), ..whole.clone() }, 1),
        (Selection { batch: Some(false), ..whole.clone() }, 3),
    ] {
        let found: u64 = rows(&store, &selection).await.unwrap().iter().map(|row| row.requests).sum();
        assert_eq!(found, requests, "{selection:?}");
    }
}

#[tokio::test]
async fn sums_past_the_range_of_an_i64_are_exact() {
    let (_folder, path, store) = open().await;
    let line = |pico| [(LineItem::OutputText, 1, pico)];
    let lines = [line(i64::MAX), line(i64::MAX), line(i64::MAX), line(-1)];
    let names = ["m-0", "m-1", "m-2", "m-3"];
    let entries: Vec<_> =
        lines.iter().zip(names).map(|(lines, model)| Settled { model, lines, ..Settled::default() }).collect();
    seed(&path, &entries).await;
    let rows = rows(&store, &all_of(TWO_DAYS, Width::Day)).await.unwrap();
    assert_eq!(rows[0].lines[0].amount.pico(), 3 * i128::from(i64::MAX) - 1);
}

/// One request with one line.
#[derive(Clone, Debug)]
struct Entry {
    at_s: u64,
    api_key_id: &'static str,
    lines: [(LineItem, i64, i64); 1],
}

/// Quantity and pico-dollars by bucket, key and line item.
type Sums = BTreeMap<(u64, String, LineItem), (i128, i128)>;

const SPAN_S: u64 = 3 * 86_400;

fn entry() -> impl Strategy<Value = Entry> {
    let api_key_id = prop::sample::select(vec!["key_a", "key_b", "key_c"]);
    let line = (prop::sample::select(LineItem::ALL.to_vec()), 1..1_000_i64, -2_000..9_000_i64);
    (0..SPAN_S, api_key_id, line).prop_map(|(at_s, api_key_id, (item, quantity, price))| Entry {
        at_s,
        api_key_id,
        lines: [(item, quantity, quantity * price)],
    })
}

fn settled(entry: &Entry) -> Settled<'_> {
    let Entry { at_s, api_key_id, lines } = entry;
    Settled { at_s: *at_s, api_key_id, lines, ..Settled::default() }
}

fn expected(entries: &[Entry], touched: &std::ops::Range<u64>, width: Width) -> Sums {
    let mut sums = Sums::new();
    for entry in entries.iter().filter(|entry| touched.contains(&entry.at_s)) {
        let [(line_item, quantity, pico)] = entry.lines;
        let bucket_start_s = entry.at_s - entry.at_s % width.seconds();
        let sum = sums.entry((bucket_start_s, entry.api_key_id.to_owned(), line_item)).or_default();
        *sum = (sum.0 + i128::from(quantity), sum.1 + i128::from(pico));
    }
    sums
}

fn found(rows: &[Row]) -> Sums {
    let lines = rows.iter().flat_map(|row| row.lines.iter().map(move |line| (row, line)));
    let sum = |(row, line): (&Row, &Line)| {
        let key = (row.bucket_start_s, row.api_key_id.as_ref().unwrap().to_string(), line.line_item);
        (key, (i128::from(line.quantity), line.amount.pico()))
    };
    lines.map(sum).collect()
}

#[test]
fn any_range_sums_up_to_the_minutes_it_touches() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_folder, path, store) = runtime.block_on(open());
    let width = prop::sample::select(vec![Width::Minute, Width::Hour, Width::Day]);
    let case = (vec(entry(), 0..25), 0..SPAN_S, 1..SPAN_S, width);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&case, |(entries, start_s, length_s, width)| {
        let range = Range { start_s, end_s: start_s + length_s };
        let selection = Selection { callers: Detail::Keys, ..all_of(range, width) };
        let read = runtime.block_on(async {
            clear(&path).await;
            seed(&path, &entries.iter().map(settled).collect::<Vec<_>>()).await;
            rows(&store, &selection).await.unwrap()
        });
        let touched = range.start_s / 60 * 60..range.end_s.div_ceil(60) * 60;
        prop_assert_eq!(found(&read), expected(&entries, &touched, width));
        Ok(())
    });
    outcome.unwrap();
}
