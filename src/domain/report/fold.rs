//! From rows to the results of each bucket.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::{Grouping, Kind, Page, Range, Report};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    pricing::ServiceTier,
    usage::{LineItem, Usage},
};

/// A sum of rollup rows. What the selection does not tell apart is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// As [`super::Selection::bucket_start_s`] has it.
    pub bucket_start_s: u64,
    pub project_id: Option<ProjectId>,
    pub api_key_id: Option<KeyId>,
    pub model: Option<Arc<str>>,
    pub service_tier: Option<ServiceTier>,
    pub requests: u64,
    /// Those of them that used something without a price.
    pub unpriced_requests: u64,
    /// At most one per line item.
    pub lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub line_item: LineItem,
    pub quantity: u64,
    pub amount: Total,
}

/// What one result is about: `None` where the report is not grouped. Results are sorted by these fields in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub model: Option<Arc<str>>,
    pub project_id: Option<ProjectId>,
    pub api_key_id: Option<KeyId>,
    pub line_item: Option<LineItem>,
    /// By name.
    pub service_tier: Option<&'static str>,
    pub batch: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub requests: u64,
    /// Those of them that used something without a price: `amount` does not hold it.
    pub unpriced_requests: u64,
    pub usage: Usage,
    pub amount: Total,
}

/// One bucket of a report with its results in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub range: Range,
    pub results: BTreeMap<Group, Sums>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sum in the report is too large")]
pub struct Overflow;

impl Report {
    /// The results of each bucket of `page`; a bucket without rows has none.
    pub fn fold(&self, page: &Page, rows: impl IntoIterator<Item = Row>) -> Result<Vec<Bucket>, Overflow> {
        let empty = |range: &Range| Bucket { range: *range, results: BTreeMap::new() };
        let mut buckets: Vec<_> = page.buckets.iter().map(empty).collect();
        for row in rows {
            let Some(bucket) = buckets.get_mut(page.position(row.bucket_start_s)) else { continue };
            for (group, sums) in self.results_of(&row)? {
                match bucket.results.entry(group) {
                    Entry::Vacant(place) => _ = place.insert(sums),
                    Entry::Occupied(mut place) => place.get_mut().add(&sums)?,
                }
            }
        }
        Ok(buckets)
    }

    fn results_of(&self, row: &Row) -> Result<Vec<(Group, Sums)>, Overflow> {
        let group = self.group_of(row);
        let requests = Sums { requests: row.requests, unpriced_requests: row.unpriced_requests, ..Sums::default() };
        if self.is_by(Grouping::LineItem) {
            let result = |line: &Line| {
                let usage = Usage::default().with(line.line_item, line.quantity);
                let sums = Sums { usage, amount: line.amount, ..requests };
                (Group { line_item: Some(line.line_item), ..group.clone() }, sums)
            };
            return Ok(row.lines.iter().map(result).collect());
        }
        // Requests that used nothing count as requests, but nobody is billed for them.
        if self.kind == Kind::Costs && row.lines.is_empty() {
            return Ok(Vec::new());
        }
        let mut sums = requests;
        for line in &row.lines {
            let usage = Usage::default().with(line.line_item, line.quantity);
            sums.add(&Sums { usage, amount: line.amount, ..Sums::default() })?;
        }
        Ok(vec![(group, sums)])
    }

    fn group_of(&self, row: &Row) -> Group {
        let by = |grouping| self.is_by(grouping);
        Group {
            // A line item is named after its model.
            model: row.model.clone().filter(|_| by(Grouping::Model) || by(Grouping::LineItem)),
            project_id: row.project_id.clone().filter(|_| by(Grouping::ProjectId)),
            api_key_id: row.api_key_id.clone().filter(|_| by(Grouping::ApiKeyId)),
            line_item: None,
            service_tier: row.service_tier.filter(|_| by(Grouping::ServiceTier)).map(ServiceTier::name),
            batch: row.service_tier.filter(|_| by(Grouping::Batch)).map(|tier| tier == ServiceTier::Batch),
        }
    }
}

impl Sums {
    /// `None` when something was used and all of it had no price: that is not known, which is not nothing.
    pub fn known_amount(&self) -> Option<Total> {
        let unknown = self.unpriced_requests > 0 && self.amount == Total::default();
        (!unknown).then_some(self.amount)
    }

    fn add(&mut self, other: &Self) -> Result<(), Overflow> {
        self.requests = self.requests.checked_add(other.requests).ok_or(Overflow)?;
        self.unpriced_requests = self.unpriced_requests.checked_add(other.unpriced_requests).ok_or(Overflow)?;
        self.usage = self.usage.checked_add(&other.usage).ok_or(Overflow)?;
        self.amount = self.amount.checked_add(other.amount).map_err(|_| Overflow)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        report::{Filter, Width},
        time::UnixNanos,
    };

    fn row(bucket_start_s: u64, model: &str, tier: ServiceTier, lines: &[(LineItem, u64, i128)]) -> Row {
        let line = |(line_item, quantity, pico): &(LineItem, u64, i128)| Line {
            line_item: *line_item,
            quantity: *quantity,
            amount: Total::from_pico(*pico),
        };
        Row {
            bucket_start_s,
            project_id: ProjectId::parse("proj_a"),
            api_key_id: KeyId::parse("key_a"),
            model: Some(model.into()),
            service_tier: Some(tier),
            requests: 1,
            unpriced_requests: 0,
            lines: lines.iter().map(line).collect(),
        }
    }

    fn fold(kind: Kind, group_by: &[Grouping], rows: Vec<Row>) -> Result<Vec<Bucket>, Overflow> {
        let group_by = group_by.iter().copied().collect();
        let (bucket_width, filter) = (Width::Day, Filter::default());
        let report =
            Report { kind, start_s: 70, end_s: None, bucket_width, timezone: None, group_by, filter, limit: 7 };
        let range = report.range(UnixNanos::from_seconds(100_000));
        report.fold(&report.page(range, range.start_s), rows)
    }

    fn groups<T: Clone>(buckets: &[Bucket], of: impl Fn(&Group) -> T) -> Vec<Vec<(T, u64, i128)>> {
        let result = |(group, sums): (&Group, &Sums)| (of(group), sums.usage.total(), sums.amount.pico());
        buckets.iter().map(|bucket| bucket.results.iter().map(result).collect()).collect()
    }

    #[test]
    fn ungrouped_results_sum_everything_and_empty_buckets_have_none() {
        let rows = vec![
            row(0, "b", ServiceTier::Batch, &[(LineItem::InputText, 3, 30), (LineItem::OutputText, 1, 70)]),
            row(0, "a", ServiceTier::Default, &[(LineItem::InputText, 2, 20)]),
        ];
        let buckets = fold(Kind::Completions, &[], rows).unwrap();
        assert_eq!(groups(&buckets, Group::clone), [vec![(Group::default(), 6, 120)], vec![]]);
        assert_eq!(buckets[0].results[&Group::default()].requests, 2);
    }

    #[test]
    fn all_tiers_but_batch_are_one_group_by_batch() {
        let line = [(LineItem::InputText, 1, 1)];
        let tiers = [ServiceTier::Flex, ServiceTier::Batch, ServiceTier::Default, ServiceTier::Priority];
        let rows = tiers.map(|tier| row(0, "m", tier, &line));
        let buckets = fold(Kind::Completions, &[Grouping::Batch], rows.to_vec()).unwrap();
        assert_eq!(groups(&buckets, |group| group.batch)[0], [(Some(false), 3, 3), (Some(true), 1, 1)]);
        let buckets = fold(Kind::Completions, &[Grouping::ServiceTier], rows.to_vec()).unwrap();
        let tiers: Vec<_> = groups(&buckets, |group| group.service_tier.unwrap())[0].iter().map(|it| it.0).collect();
        assert_eq!(tiers, ["batch", "default", "flex", "priority"]);
    }

    #[test]
    fn line_items_are_sorted_by_model_then_item() {
        let rows = vec![
            row(0, "b", ServiceTier::Default, &[(LineItem::OutputAudio, 1, 5), (LineItem::InputText, 2, 6)]),
            row(0, "a", ServiceTier::Default, &[(LineItem::OutputText, 3, 7)]),
            row(0, "a", ServiceTier::Default, &[(LineItem::OutputText, 4, 8)]),
        ];
        let buckets = fold(Kind::Costs, &[Grouping::LineItem], rows).unwrap();
        let name = |group: &Group| (group.model.clone().unwrap().to_string(), group.line_item.unwrap());
        let expected = [
            (("a".to_owned(), LineItem::OutputText), 7, 15),
            (("b".to_owned(), LineItem::InputText), 2, 6),
            (("b".to_owned(), LineItem::OutputAudio), 1, 5),
        ];
        assert_eq!(groups(&buckets, name)[0], expected);
    }

    #[test]
    fn requests_that_used_nothing_count_but_cost_nothing() {
        let rows = vec![row(0, "m", ServiceTier::Default, &[])];
        assert_eq!(groups(&fold(Kind::Costs, &[], rows.clone()).unwrap(), |_| ()), [vec![], vec![]]);
        assert_eq!(groups(&fold(Kind::Completions, &[], rows).unwrap(), |_| ())[0], [((), 0, 0)]);
    }

    #[test]
    fn what_has_no_price_is_not_known_instead_of_nothing() {
        let unpriced =
            Row { unpriced_requests: 1, ..row(0, "m", ServiceTier::Default, &[(LineItem::InputText, 5, 0)]) };
        let priced = row(0, "m", ServiceTier::Default, &[(LineItem::InputText, 5, 7)]);
        let free = row(0, "m", ServiceTier::Default, &[(LineItem::InputText, 5, 0)]);
        let known = |rows: Vec<Row>| {
            let buckets = fold(Kind::Costs, &[Grouping::LineItem], rows).unwrap();
            let sums = buckets[0].results.values().next().copied().unwrap();
            (sums.known_amount().map(Total::pico), sums.unpriced_requests)
        };
        assert_eq!(known(vec![unpriced.clone()]), (None, 1));
        assert_eq!(known(vec![unpriced, priced]), (Some(7), 1));
        assert_eq!(known(vec![free]), (Some(0), 0));
    }

    #[test]
    fn a_sum_that_does_not_fit_is_an_error() {
        let row = row(0, "m", ServiceTier::Default, &[(LineItem::InputText, u64::MAX, 0)]);
        assert_eq!(fold(Kind::Completions, &[], vec![row.clone(), row]), Err(Overflow));
    }
}
