//! From a span of time to buckets, and from buckets to the rollup rows that hold them.

use super::{Kind, Report, Width, Zone};
use crate::domain::time::UnixNanos;

/// Unix seconds, without the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start_s: u64,
    pub end_s: u64,
}

/// Some of a report's buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub buckets: Vec<Range>,
    /// Of the whole report, the same on each of its pages.
    pub report_end_s: u64,
    /// Where the next page starts, if there is one.
    pub next_s: Option<u64>,
}

/// All rollup rows of one width that start in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub width: Width,
    pub range: Range,
}

impl Range {
    pub const fn is_empty(self) -> bool {
        self.start_s >= self.end_s
    }
}

impl Width {
    pub(super) const fn floor(self, time_s: u64) -> u64 {
        time_s - time_s % self.seconds()
    }

    pub(super) const fn ceil(self, time_s: u64) -> u64 {
        self.floor(time_s.saturating_add(self.seconds() - 1))
    }

    const fn finer(self) -> Option<Self> {
        match self {
            Self::Day => Some(Self::Hour),
            Self::Hour => Some(Self::Minute),
            Self::Minute => None,
        }
    }
}

impl Report {
    /// What the whole report covers: up to now at most; costs come in whole days (recordings `admin_usage_completions`
    /// and `admin_costs`). Empty when it would start in the future.
    pub fn range(&self, now: UnixNanos) -> Range {
        let now_end_s = end_of_now(now);
        let end_s = self.end_s.map_or(now_end_s, |end_s| end_s.min(now_end_s));
        let range = Range { start_s: self.start_s, end_s: end_s.max(self.start_s) };
        match self.kind {
            Kind::Costs if range.is_empty() => range,
            Kind::Costs => Range { start_s: self.floor(range.start_s), end_s: self.ceil(range.end_s) },
            _ => range,
        }
    }

    /// The buckets from `from_s` on, which is the start of `range` or of a bucket in it.
    pub fn page(&self, range: Range, from_s: u64) -> Page {
        let bucket_at = |start_s: u64| {
            let bucket = Range { start_s, end_s: self.edge_after(start_s).min(range.end_s) };
            (!bucket.is_empty()).then_some(bucket)
        };
        let all = std::iter::successors(bucket_at(from_s), |bucket| bucket_at(bucket.end_s));
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let buckets: Vec<_> = all.take(limit).collect();
        let next_s = buckets.last().and_then(|last| bucket_at(last.end_s)).map(|next| next.start_s);
        Page { buckets, report_end_s: range.end_s, next_s }
    }

    /// Whether a later page can start at `time_s`.
    pub fn is_inner_edge(&self, range: Range, time_s: u64) -> bool {
        time_s > range.start_s && time_s < range.end_s && self.floor(time_s) == time_s
    }

    /// The last edge at or before `time_s`.
    fn floor(&self, time_s: u64) -> u64 {
        match self.shifting_zone() {
            Some(zone) => zone.day_start_s(time_s),
            None => self.bucket_width.floor(time_s),
        }
    }

    fn ceil(&self, time_s: u64) -> u64 {
        if self.floor(time_s) == time_s { time_s } else { self.edge_after(time_s) }
    }

    fn edge_after(&self, time_s: u64) -> u64 {
        match self.shifting_zone() {
            Some(zone) => zone.day_end_s(time_s),
            None => self.bucket_width.floor(time_s).saturating_add(self.bucket_width.seconds()),
        }
    }

    fn shifting_zone(&self) -> Option<&Zone> {
        self.timezone.as_ref().filter(|_| self.bucket_width == Width::Day)
    }
}

impl Page {
    pub fn range(&self) -> Option<Range> {
        let (first, last) = (self.buckets.first()?, self.buckets.last()?);
        Some(Range { start_s: first.start_s, end_s: last.end_s })
    }

    /// The fewest rollup rows, none wider than `widest`, that hold the buckets. A day of some place is made of hours, and
    /// of minutes where its clocks are half an hour off; usually it holds no whole day of UTC.
    pub(super) fn pieces(&self, widest: Width) -> Vec<Piece> {
        let mut joined: Vec<Piece> = Vec::new();
        for piece in self.buckets.iter().flat_map(|bucket| pieces(*bucket, widest)) {
            match joined.last_mut() {
                Some(last) if last.width == piece.width && last.range.end_s == piece.range.start_s => {
                    last.range.end_s = piece.range.end_s;
                }
                _ => joined.push(piece),
            }
        }
        joined
    }

    /// The widest sums, at most `widest`, that belong to one bucket each.
    pub(super) fn widest_between_edges(&self, widest: Width) -> Width {
        let fits = |width: &Width| {
            let mut inner_edges = self.buckets.iter().skip(1).map(|bucket| bucket.start_s);
            *width <= widest && inner_edges.all(|edge_s| width.floor(edge_s) == edge_s)
        };
        [Width::Day, Width::Hour].into_iter().find(fits).unwrap_or(Width::Minute)
    }

    /// The bucket that holds a sum, by the start of the sum: that of the first may lie before the bucket's.
    pub(super) fn position(&self, sum_start_s: u64) -> usize {
        self.buckets.partition_point(|bucket| bucket.start_s <= sum_start_s).saturating_sub(1)
    }
}

/// An exclusive end on the edge of a minute would leave out the minute that has just begun, so it moves on by a second.
const fn end_of_now(now: UnixNanos) -> u64 {
    let now_s = now.seconds();
    if now_s == Width::Minute.floor(now_s) { now_s.saturating_add(1) } else { now_s }
}

/// The fewest rollup rows, none wider than `widest`, that hold every minute which `range` touches.
///
/// Usage is kept per minute, so a range that starts or ends inside one has all of it: showing a few seconds too much is
/// better than hiding the request that was just made.
pub fn pieces(range: Range, widest: Width) -> Vec<Piece> {
    let (start_s, end_s) = (Width::Minute.floor(range.start_s), Width::Minute.ceil(range.end_s));
    let mut pieces = Vec::new();
    split(Range { start_s, end_s }, widest, &mut pieces);
    pieces
}

/// Whole rows of `width` in the middle, finer ones before and after.
fn split(range: Range, width: Width, pieces: &mut Vec<Piece>) {
    if range.is_empty() {
        return;
    }
    let whole = Range { start_s: width.ceil(range.start_s), end_s: width.floor(range.end_s) };
    match width.finer() {
        None => pieces.push(Piece { width, range }),
        Some(finer) if whole.is_empty() => split(range, finer, pieces),
        Some(finer) => {
            split(Range { start_s: range.start_s, end_s: whole.start_s }, finer, pieces);
            pieces.push(Piece { width, range: whole });
            split(Range { start_s: whole.end_s, end_s: range.end_s }, finer, pieces);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::report::Filter;

    // The moment of the recordings: 2025-02-10 10:15:50 UTC.
    const RECORDED_NOW: UnixNanos = UnixNanos::from_seconds(1_739_182_550);

    fn report(kind: Kind, start_s: u64, end_s: Option<u64>, bucket_width: Width) -> Report {
        let (group_by, filter) = (BTreeSet::new(), Filter::default());
        Report { kind, start_s, end_s, bucket_width, timezone: None, group_by, filter, limit: 7 }
    }

    fn first_page(report: &Report, now: UnixNanos) -> Page {
        let range = report.range(now);
        report.page(range, range.start_s)
    }

    fn edges(page: &Page) -> Vec<(u64, u64)> {
        page.buckets.iter().map(|bucket| (bucket.start_s, bucket.end_s)).collect()
    }

    #[test]
    fn usage_buckets_start_at_the_start_and_end_now_as_recorded() {
        let page = first_page(&report(Kind::Completions, 1_739_096_063, None, Width::Day), RECORDED_NOW);
        assert_eq!(edges(&page), [(1_739_096_063, 1_739_145_600), (1_739_145_600, 1_739_182_550)]);
        assert_eq!(page.next_s, None);
    }

    #[test]
    fn cost_buckets_are_whole_days_as_recorded() {
        let page = first_page(&report(Kind::Costs, 1_739_096_063, None, Width::Day), RECORDED_NOW);
        assert_eq!(edges(&page), [(1_739_059_200, 1_739_145_600), (1_739_145_600, 1_739_232_000)]);
    }

    #[test]
    fn a_report_ends_at_its_end_or_now_whichever_is_earlier() {
        let end = |end_s| report(Kind::Completions, 100, end_s, Width::Day).range(UnixNanos::from_seconds(1_000)).end_s;
        assert_eq!((end(None), end(Some(500)), end(Some(5_000))), (1_000, 500, 1_000));
    }

    #[test]
    fn a_report_from_the_future_is_empty() {
        for kind in [Kind::Completions, Kind::Costs] {
            let page = first_page(&report(kind, 90_000, None, Width::Day), UnixNanos::from_seconds(80_000));
            assert_eq!((page.buckets.len(), page.next_s, page.range()), (0, None, None));
        }
    }

    #[test]
    fn the_minute_that_has_just_begun_is_covered() {
        let report = report(Kind::Completions, 86_400, None, Width::Day);
        let page = first_page(&report, UnixNanos::from_seconds(2 * 86_400));
        assert_eq!(edges(&page), [(86_400, 2 * 86_400), (2 * 86_400, 2 * 86_400 + 1)]);
        let costs = Report { kind: Kind::Costs, ..report };
        assert_eq!(edges(&first_page(&costs, UnixNanos::from_seconds(2 * 86_400))).len(), 2);
    }

    #[test]
    fn inner_edges_are_aligned_whatever_the_start() {
        let page = first_page(&report(Kind::Completions, 3_599, Some(7_300), Width::Hour), RECORDED_NOW);
        assert_eq!(edges(&page), [(3_599, 3_600), (3_600, 7_200), (7_200, 7_300)]);
        let page = first_page(&report(Kind::Completions, 59, Some(121), Width::Minute), RECORDED_NOW);
        assert_eq!(edges(&page), [(59, 60), (60, 120), (120, 121)]);
    }

    #[test]
    fn a_long_range_reads_minutes_hours_days_hours_minutes() {
        let (day, hour) = (86_400, 3_600);
        let range = Range { start_s: hour - 61, end_s: 40 * day + 2 * hour + 1 };
        let read: Vec<_> = pieces(range, Width::Day)
            .iter()
            .map(|piece| (piece.width, (piece.range.end_s - piece.range.start_s) / piece.width.seconds()))
            .collect();
        let expected = [(Width::Minute, 2), (Width::Hour, 23), (Width::Day, 39), (Width::Hour, 2), (Width::Minute, 1)];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_range_inside_one_minute_has_all_of_it() {
        let whole = Piece { width: Width::Minute, range: Range { start_s: 60, end_s: 120 } };
        assert_eq!(pieces(Range { start_s: 61, end_s: 62 }, Width::Day), [whole]);
        assert_eq!(pieces(Range { start_s: 60, end_s: 60 }, Width::Day), []);
    }

    /// Six days of Berlin around the change in March 2026: clocks went on at 01:00 UTC on the 29th.
    fn berlin() -> Report {
        let (start_s, end_s) = (1_774_567_800, Some(1_774_990_800));
        Report { timezone: Zone::named("Europe/Berlin"), ..report(Kind::Completions, start_s, end_s, Width::Day) }
    }

    const LATER: UnixNanos = UnixNanos::from_seconds(1_800_000_000);

    #[test]
    fn days_of_a_zone_begin_at_its_midnights_and_costs_come_in_whole_ones() {
        let hours = |page: &Page| -> Vec<_> {
            page.buckets.iter().map(|bucket| (bucket.end_s - bucket.start_s) / 360).collect()
        };
        let page = first_page(&berlin(), LATER);
        // In tenths of hours: it starts at 00:30 on the 27th and ends at 23:00 on the 31st.
        assert_eq!(hours(&page), [235, 240, 230, 240, 230]);
        assert_eq!(page.buckets[1].start_s, 1_774_652_400);
        let page = first_page(&Report { kind: Kind::Costs, ..berlin() }, LATER);
        assert_eq!(hours(&page), [240, 240, 230, 240, 240]);
        assert_eq!(page.buckets[0].start_s, 1_774_566_000);
    }

    #[test]
    fn hours_and_minutes_are_the_same_everywhere() {
        for bucket_width in [Width::Hour, Width::Minute] {
            let shifted = Report { bucket_width, timezone: Zone::named("Asia/Kolkata"), ..berlin() };
            let page = first_page(&shifted, LATER);
            assert_eq!(page, first_page(&Report { timezone: None, ..shifted }, LATER));
        }
    }

    #[test]
    fn a_shifted_day_is_read_as_hours_and_minutes_and_one_of_utc_as_a_day() {
        let read = |zone: &str| {
            // The 27th to the 31st of March 2026 in UTC.
            let (start_s, end_s) = (1_774_569_600, Some(1_775_001_600));
            let costs = report(Kind::Costs, start_s, end_s, Width::Day);
            let page = first_page(&Report { timezone: Zone::named(zone), ..costs }, LATER);
            let pieces = page.pieces(Width::Day);
            let rows = |width| {
                let of_width = pieces.iter().filter(|piece| piece.width == width);
                of_width.map(|piece| (piece.range.end_s - piece.range.start_s) / width.seconds()).sum::<u64>()
            };
            (page.buckets.len(), Width::ALL.map(rows), page.widest_between_edges(Width::Day))
        };
        assert_eq!(read("UTC"), (5, [0, 0, 5], Width::Day));
        // Days of UTC until the 29th, which is an hour short; an hour off since.
        assert_eq!(read("Europe/London"), (6, [0, 23 + 3 * 24, 2], Width::Hour));
        assert_eq!(read("Europe/Berlin"), (6, [0, 143, 0], Width::Hour));
        // Each day has 30 minutes at its begin and end, which are two halves of hours of UTC.
        assert_eq!(read("Asia/Kolkata"), (6, [6 * 60, 6 * 23, 0], Width::Minute));
    }
}
