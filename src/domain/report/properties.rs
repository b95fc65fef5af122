//! What holds for every range and every ledger.

use std::{collections::BTreeMap, ops::Range as Span};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    pricing::ServiceTier,
    time::UnixNanos,
    usage::LineItem,
};

const SPAN_S: u64 = 4 * 86_400;

/// Where clocks are whole, half and quarter hours off, and change at midnight or before.
const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Havana",
    "America/St_Johns",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Pacific/Apia",
];

/// Two days before clocks change somewhere: Berlin 2026 in March and in October, New York 2026 in March, Havana 2024 in
/// November, St John's 2010 in November (at a minute past midnight), Apia 2011 (a day left out); and 1970.
const TIMES_S: [u64; 7] = [1_774_486_800, 1_792_803_600, 1_772_780_400, 1_730_437_200, 1_289_010_600, 1_325_066_400, 0];

/// One settled request with one line, some time after the base of the report.
#[derive(Clone, Debug)]
struct Settled {
    at_s: u64,
    api_key: u8,
    model: u8,
    line_item: LineItem,
    quantity: u64,
    pico: i64,
}

fn settled() -> impl Strategy<Value = Settled> {
    let line_item = prop::sample::select(LineItem::ALL.to_vec());
    (0..SPAN_S, 0..3_u8, 0..3_u8, line_item, 1..1_000_u64, any::<i64>()).prop_map(
        |(at_s, api_key, model, line_item, quantity, pico)| Settled { at_s, api_key, model, line_item, quantity, pico },
    )
}

fn report() -> impl Strategy<Value = Report> {
    let kind_and_width = prop::sample::select(vec![
        (Kind::Completions, Width::Minute),
        (Kind::Completions, Width::Hour),
        (Kind::Completions, Width::Day),
        (Kind::Costs, Width::Day),
    ]);
    let end_s = prop::option::of(1..SPAN_S);
    let grouping = (any::<prop::sample::Index>(), any::<bool>());
    let timezone = prop::option::weighted(0.7, prop::sample::select(ZONES.to_vec()));
    (kind_and_width, 0..SPAN_S, end_s, grouping, timezone, 1..200_u64).prop_map(
        |((kind, bucket_width), start_s, length_s, (index, is_grouped), timezone, limit)| {
            let group_by = is_grouped.then(|| *index.get(kind.groupings())).into_iter().collect();
            let end_s = length_s.map(|length_s| start_s + length_s);
            let (timezone, filter) = (timezone.and_then(Zone::named), Filter::default());
            Report { kind, start_s, end_s, bucket_width, timezone, group_by, filter, limit }
        },
    )
}

/// Everything at once as much later.
fn moved(base_s: u64, report: Report, ledger: Vec<Settled>) -> (Report, Vec<Settled>) {
    let end_s = report.end_s.map(|end_s| base_s + end_s);
    let ledger = ledger.into_iter().map(|settled| Settled { at_s: base_s + settled.at_s, ..settled }).collect();
    (Report { start_s: base_s + report.start_s, end_s, ..report }, ledger)
}

fn base_s() -> impl Strategy<Value = u64> {
    prop::sample::select(TIMES_S.to_vec())
}

/// The whole report on one page.
fn whole(report: &Report, now_s: u64) -> Page {
    let unlimited = Report { limit: u64::MAX, ..report.clone() };
    let range = unlimited.range(UnixNanos::from_seconds(now_s));
    unlimited.page(range, range.start_s)
}

/// What the ledger would answer to a selection: rows per width, summed to the width of the selection.
fn read(ledger: &[Settled], pieces: &[Piece], bucket_width: Width) -> Vec<Row> {
    let in_piece = |piece: &Piece, settled: &Settled| {
        let row_start_s = piece.width.floor(settled.at_s);
        (piece.range.start_s..piece.range.end_s).contains(&row_start_s)
    };
    let row = |piece: &Piece, settled: &Settled| Row {
        bucket_start_s: bucket_width.floor(piece.width.floor(settled.at_s)),
        project_id: ProjectId::parse("proj_a"),
        api_key_id: KeyId::parse(&format!("key_{}", settled.api_key)),
        model: Some(format!("m-{}", settled.model).into()),
        service_tier: Some(ServiceTier::Default),
        requests: 1,
        unpriced_requests: 0,
        lines: vec![Line {
            line_item: settled.line_item,
            quantity: settled.quantity,
            amount: Total::from_pico(i128::from(settled.pico)),
        }],
    };
    let rows_of = |piece| ledger.iter().filter(move |it| in_piece(piece, it)).map(move |it| row(piece, it));
    pieces.iter().flat_map(rows_of).collect()
}

type Totals = (u64, BTreeMap<LineItem, u64>, i128);

/// Straight from the ledger, at the precision of a minute (costs: of a day).
fn expected(ledger: &[Settled], covered: &Span<u64>) -> Totals {
    let inside = ledger.iter().filter(|settled| covered.contains(&settled.at_s));
    inside.fold(Totals::default(), |(requests, mut quantities, pico), settled| {
        *quantities.entry(settled.line_item).or_default() += settled.quantity;
        (requests + 1, quantities, pico + i128::from(settled.pico))
    })
}

fn totals(buckets: &[Bucket]) -> Totals {
    let sums = buckets.iter().flat_map(|bucket| bucket.results.values());
    sums.fold(Totals::default(), |(requests, mut quantities, pico), sums| {
        for (item, quantity) in sums.usage.items() {
            *quantities.entry(item).or_default() += quantity;
        }
        (requests + sums.requests, quantities, pico + sums.amount.pico())
    })
}

proptest! {
    #[test]
    fn pieces_tile_the_touched_minutes_with_few_aligned_rows(
        start_s in 0..10_000_000_u64,
        length_s in 1..10_000_000_u64,
        widest in prop::sample::select(Width::ALL.to_vec()),
    ) {
        let range = Range { start_s, end_s: start_s + length_s };
        let mut covered_to_s = Width::Minute.floor(range.start_s);
        let mut rows = 0;
        for piece in pieces(range, widest) {
            prop_assert_eq!(piece.range.start_s, covered_to_s);
            prop_assert!(!piece.range.is_empty() && piece.width <= widest);
            prop_assert_eq!(piece.width.floor(piece.range.start_s), piece.range.start_s);
            prop_assert_eq!(piece.width.floor(piece.range.end_s), piece.range.end_s);
            covered_to_s = piece.range.end_s;
            rows += (piece.range.end_s - piece.range.start_s) / piece.width.seconds();
        }
        prop_assert_eq!(covered_to_s, Width::Minute.ceil(range.end_s));
        if widest == Width::Day {
            prop_assert!(rows <= length_s / 86_400 + 2 * (23 + 59) + 2);
        }
    }

    #[test]
    fn buckets_tile_the_report(base_s in base_s(), report in report(), now_s in 0..2 * SPAN_S) {
        let ((report, _), now_s) = (moved(base_s, report, vec![]), base_s + now_s);
        let range = report.range(UnixNanos::from_seconds(now_s));
        let page = whole(&report, now_s);
        let mut covered_to_s = range.start_s;
        for bucket in &page.buckets {
            prop_assert_eq!(bucket.start_s, covered_to_s);
            prop_assert!(bucket.end_s > bucket.start_s);
            prop_assert!(bucket.start_s == range.start_s || report.is_inner_edge(range, bucket.start_s));
            covered_to_s = bucket.end_s;
        }
        prop_assert_eq!((covered_to_s, page.next_s), (range.end_s, None));
    }

    #[test]
    fn pages_joined_are_the_whole_report(base_s in base_s(), report in report(), now_s in 0..2 * SPAN_S) {
        let ((report, _), now_s) = (moved(base_s, report, vec![]), base_s + now_s);
        let range = report.range(UnixNanos::from_seconds(now_s));
        let mut joined = Vec::new();
        let mut from_s = Some(range.start_s);
        while let Some(start_s) = from_s {
            let page = report.page(range, start_s);
            prop_assert!(page.buckets.len() as u64 <= report.limit);
            from_s = page.next_s;
            joined.extend(page.buckets);
        }
        prop_assert_eq!(joined, whole(&report, now_s).buckets);
    }

    #[test]
    fn buckets_sum_up_to_the_ledger(
        base_s in base_s(),
        ledger in vec(settled(), 0..60),
        report in report(),
        now_s in 0..2 * SPAN_S,
    ) {
        let ((report, ledger), now_s) = (moved(base_s, report, ledger), base_s + now_s);
        let page = whole(&report, now_s);
        let selection = report.selection(&page, &Catalog::default());
        let rows = selection.map_or(vec![], |it| read(&ledger, &it.pieces, it.bucket_width));
        let buckets = report.fold(&page, rows).unwrap();
        let covered = page.range().map_or(0..0, |range| {
            Width::Minute.floor(range.start_s)..Width::Minute.ceil(range.end_s)
        });
        prop_assert_eq!(totals(&buckets), expected(&ledger, &covered));
        for bucket in &buckets {
            let (start_s, end_s) = (bucket.range.start_s, bucket.range.end_s);
            let covered = Width::Minute.floor(start_s)..Width::Minute.ceil(end_s);
            prop_assert_eq!(totals(std::slice::from_ref(bucket)), expected(&ledger, &covered));
        }
    }
}
