//! Limits that refuse nothing: they tell how far they are used.

use super::{Payer, Spending, limits::LimitOf};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    time::UnixNanos,
};

/// Percent of a soft limit from which on it is spoken of, and at which it is counted.
pub const MARKS: [u8; 3] = [50, 80, 100];

/// Those of a request, as they were when it was admitted. Mostly none, which takes no memory.
#[derive(Debug)]
pub(super) struct SoftLimits(Vec<LimitOf>);

impl Spending {
    pub(super) fn soft_limits(&self, payer: &Payer<'_>) -> SoftLimits {
        SoftLimits(self.limits(payer).filter(|limit| !limit.limit.is_enforced()).collect())
    }
}

impl SoftLimits {
    pub(super) fn percent(&self, spending: &Spending, key: &KeyId, project: &ProjectId, now: UnixNanos) -> Option<u64> {
        if self.0.is_empty() {
            return None;
        }
        let used = self.0.iter().map(|limit| {
            let spent = spending.spent(limit, key, project, now).pico().max(0);
            spent.saturating_mul(100) / limit.limit.threshold().pico()
        });
        let percent = used.max().filter(|percent| *percent >= i128::from(MARKS[0]))?;
        Some(u64::try_from(percent).unwrap_or(u64::MAX))
    }

    /// The marks that lie between what was spent before and after `cost`, once for each limit.
    pub(super) fn passed(
        &self,
        spending: &Spending,
        key: &KeyId,
        project: &ProjectId,
        cost: Total,
        at: UnixNanos,
    ) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let passed = self.0.iter().flat_map(|limit| {
            let after = spending.spent(limit, key, project, at).pico();
            let before = after.saturating_sub(cost.pico());
            let threshold = limit.limit.threshold().pico();
            // Compared as hundredths, so that nothing is rounded.
            let is_over =
                move |spent: i128, mark| spent.saturating_mul(100) >= threshold.saturating_mul(i128::from(mark));
            MARKS.into_iter().filter(move |mark| is_over(after, *mark) && !is_over(before, *mark))
        });
        passed.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, sync::Arc};

    use super::*;
    use crate::domain::{
        projects::{Project, ProjectTerms, TierId},
        spend::{Budget, Enforcement, Interval, SpendLimit},
    };

    const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

    #[test]
    fn marks_are_passed_once_and_nothing_is_refused() {
        let soft = |cents| {
            let (threshold_cents, interval) = (NonZeroU64::new(cents).unwrap(), Interval::Month);
            SpendLimit { threshold_cents, interval, enforcement: Enforcement::Inactive }
        };
        let project = Project {
            id: ProjectId::parse("proj_a").unwrap(),
            name: String::new(),
            tier: TierId::from("tier1"),
            automatic_tier: true,
            terms: ProjectTerms { spend_limits: Some(soft(100)).into(), ..ProjectTerms::default() },
            created_at: UnixNanos::default(),
            archived_at: None,
        };
        let budget =
            Budget { monthly_cents: None, daily_cents: NonZeroU64::new(50), enforcement: Enforcement::Inactive };
        let (spending, key) = (Arc::new(Spending::restored(Arc::default(), [])), KeyId::parse("key_a").unwrap());
        let spend = |cents: i128, now| {
            let payer = Payer { key: &key, budget: Some(&budget), project: &project, tier: None };
            let hold = spending.hold(&payer, Total::from_pico(1), now).unwrap();
            let percent = hold.soft_percent(now);
            (percent, hold.settle(Total::from_pico(cents * 10_000_000_000), now))
        };
        let tomorrow = NOW.plus_nanos(86_400_000_000_000);
        assert_eq!(spend(24, NOW), (None, vec![]));
        assert_eq!(spend(1, NOW), (None, vec![50]));
        // Of the day half is spent, of the month a quarter.
        assert_eq!(spend(30, NOW), (Some(50), vec![80, 100, 50]));
        assert_eq!(spend(1, NOW), (Some(110), vec![]));
        assert_eq!(spend(1, tomorrow), (Some(56), vec![]));
        assert_eq!(spend(100, tomorrow), (Some(57), vec![50, 80, 100, 80, 100]));
        assert_eq!(spend(1, tomorrow).0, Some(202));
    }
}
