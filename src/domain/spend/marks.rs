//! How far limits are used. Soft ones refuse nothing, and tell it with each answer; of each limit it is told, once, that it has
//! passed a mark.

use std::num::NonZeroU64;

use serde::Deserialize;

use super::{
    Budget, Interval, Payer, SpendLimit, Spender, Spending,
    limits::{self, LimitOf},
};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    projects::Project,
    report::Range,
    time::UnixNanos,
};

/// Percent of a limit at which it is told of; from the first on soft limits are spoken of in answers.
pub const MARKS: [u8; 3] = [50, 80, 100];

/// A limit that is used as far as one of the [`MARKS`], in one month or day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub spender: Spender,
    pub limit: SpendLimit,
    pub period: Range,
    pub percent: u8,
    /// In the period so far.
    pub spent: Total,
}

/// What makes two tellings of a mark the same. A limit of another amount is told of anew; whether it is enforced makes no
/// difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Told {
    /// The key, the project or the organization.
    pub object_id: String,
    pub facts: ToldFacts,
}

/// In the words of [`crate::domain::audit::Audited`], which they are read back from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct ToldFacts {
    pub spender: Spender,
    pub interval: Interval,
    #[serde(rename = "start_time")]
    pub start_s: u64,
    #[serde(rename = "threshold_amount")]
    pub threshold_cents: NonZeroU64,
    pub percent: u8,
}

/// Those that a request is held to or told of, as they were when it was admitted. In place, so that they cost no allocation.
#[derive(Debug)]
pub(super) struct Limits(pub(super) [Option<LimitOf>; 7]);

impl Mark {
    pub fn told(&self, object_id: &str) -> Told {
        let SpendLimit { threshold_cents, interval, .. } = self.limit;
        let (spender, start_s, percent) = (self.spender, self.period.start_s, self.percent);
        Told {
            object_id: object_id.to_owned(),
            facts: ToldFacts { spender, interval, start_s, threshold_cents, percent },
        }
    }

    /// Of a limit that refuses nothing.
    pub fn is_soft(&self) -> bool {
        !self.limit.is_enforced()
    }
}

impl Spending {
    /// How far the soft limit that is furthest used is used, in percent, from the first of the [`MARKS`] on.
    pub fn soft_percent(&self, payer: &Payer<'_>, now: UnixNanos) -> Option<u64> {
        self.limits(payer).soft_percent(self, payer.key, &payer.project.id, now)
    }

    /// The marks that all limits of a payer have come to in the month or day around `at`.
    pub fn marks(&self, payer: &Payer<'_>, at: UnixNanos) -> Vec<Mark> {
        let of_key = payer.budget.map_or_else(Vec::new, |budget| self.marks_of_key(payer.key, budget, at));
        let of_project = self.marks_of_project(payer.project, payer.tier, at);
        [of_key, of_project, self.marks_of_organization(at)].concat()
    }

    /// Those that its budget has come to.
    pub fn marks_of_key(&self, key: &KeyId, budget: &Budget, at: UnixNanos) -> Vec<Mark> {
        come_to(&limits::of_key(budget), at, |interval| self.spent_by_key(key, interval, at))
    }

    /// Those that its own limits and its tier's have come to.
    pub fn marks_of_project(&self, project: &Project, tier: Option<SpendLimit>, at: UnixNanos) -> Vec<Mark> {
        come_to(&limits::of_project(project, tier), at, |interval| self.spent_by_project(&project.id, interval, at))
    }

    pub fn marks_of_organization(&self, at: UnixNanos) -> Vec<Mark> {
        come_to(&self.limits_of_organization(), at, |interval| self.spent_by_all(interval, at))
    }
}

/// The marks that limits have come to, by what is `spent` in the month or day around `at`.
fn come_to(limits: &[Option<LimitOf>], at: UnixNanos, spent: impl Fn(Interval) -> Total) -> Vec<Mark> {
    let marks = limits.iter().flatten().flat_map(|limit| {
        let spent = spent(limit.limit.interval);
        limit.marks(spent, at).filter(move |mark| is_over(spent, &mark.limit, mark.percent))
    });
    marks.collect()
}

impl LimitOf {
    /// All that it has.
    fn marks(&self, spent: Total, at: UnixNanos) -> impl Iterator<Item = Mark> + use<> {
        let Self { spender, limit } = *self;
        let period = limit.interval.around(at);
        MARKS.into_iter().map(move |percent| Mark { spender, limit, period, percent, spent })
    }
}

/// Compared as hundredths, so that nothing is rounded.
fn is_over(spent: Total, limit: &SpendLimit, percent: u8) -> bool {
    spent.pico().saturating_mul(100) >= limit.threshold().pico().saturating_mul(i128::from(percent))
}

impl Limits {
    pub(super) fn iter(&self) -> impl Iterator<Item = &LimitOf> {
        self.0.iter().flatten()
    }

    pub(super) fn soft_percent(
        &self,
        spending: &Spending,
        key: &KeyId,
        project: &ProjectId,
        now: UnixNanos,
    ) -> Option<u64> {
        let used = self.iter().filter(|limit| !limit.limit.is_enforced()).map(|limit| {
            let spent = spending.spent(limit, key, project, now).pico().max(0);
            spent.saturating_mul(100) / limit.limit.threshold().pico()
        });
        let percent = used.max().filter(|percent| *percent >= i128::from(MARKS[0]))?;
        Some(u64::try_from(percent).unwrap_or(u64::MAX))
    }

    /// The marks that lie between what was spent before and after `cost`.
    pub(super) fn passed(
        &self,
        spending: &Spending,
        key: &KeyId,
        project: &ProjectId,
        cost: Total,
        at: UnixNanos,
    ) -> Vec<Mark> {
        let passed = self.iter().flat_map(|limit| {
            let after = spending.spent(limit, key, project, at);
            let before = Total::from_pico(after.pico().saturating_sub(cost.pico()));
            limit.marks(after, at).filter(move |mark| {
                is_over(after, &mark.limit, mark.percent) && !is_over(before, &mark.limit, mark.percent)
            })
        });
        passed.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, sync::Arc};

    use super::*;
    use crate::domain::{
        projects::{ProjectTerms, TierId},
        spend::Enforcement,
    };

    const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

    fn project(spend_limit: Option<SpendLimit>) -> Project {
        Project {
            id: ProjectId::parse("proj_a").unwrap(),
            name: String::new(),
            tier: TierId::from("tier1"),
            automatic_tier: true,
            terms: ProjectTerms { spend_limits: spend_limit.into(), ..ProjectTerms::default() },
            created_at: UnixNanos::default(),
            archived_at: None,
        }
    }

    #[test]
    fn marks_are_passed_once_and_nothing_is_refused() {
        let soft = |cents| {
            let (threshold_cents, interval) = (NonZeroU64::new(cents).unwrap(), Interval::Month);
            SpendLimit { threshold_cents, interval, enforcement: Enforcement::Inactive }
        };
        let project = project(Some(soft(100)));
        let budget =
            Budget { monthly_cents: None, daily_cents: NonZeroU64::new(50), enforcement: Enforcement::Inactive };
        let (spending, key) = (Arc::new(Spending::restored(Arc::default(), [])), KeyId::parse("key_a").unwrap());
        let spend = |cents: i128, now| {
            let payer = Payer { key: &key, budget: Some(&budget), project: &project, tier: None };
            let hold = spending.hold(&payer, Total::from_pico(1), now).unwrap();
            let percent = hold.soft_percent(now);
            assert_eq!(spending.soft_percent(&payer, now), percent);
            let passed = hold.settle(Total::from_pico(cents * 10_000_000_000), now);
            (percent, passed.iter().map(|mark| mark.percent).collect::<Vec<_>>())
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

    #[test]
    fn marks_that_were_come_to_are_those_of_the_period_whichever_way_they_were_passed() {
        let threshold_cents = NonZeroU64::new(100).unwrap();
        let limit = SpendLimit { threshold_cents, interval: Interval::Day, enforcement: Enforcement::Enforcing };
        let project = project(Some(limit));
        let (spending, key) = (Arc::new(Spending::restored(Arc::default(), [])), KeyId::parse("key_a").unwrap());
        let payer = Payer { key: &key, budget: None, project: &project, tier: None };
        let marks = |at| spending.marks(&payer, at).iter().map(|mark| (mark.percent, mark.spent)).collect::<Vec<_>>();
        let cents = |cents: i128| Total::from_pico(cents * 10_000_000_000);
        spending.add(&project.id, cents(49), NOW);
        assert_eq!(marks(NOW), []);
        let passed = spending.hold(&payer, cents(1), NOW).unwrap().settle(cents(31), NOW);
        assert_eq!(marks(NOW), [(50, cents(80)), (80, cents(80))]);
        assert_eq!((passed, passed_is_soft(&spending, &payer)), (spending.marks(&payer, NOW), false));
        // As after a restart, and as after a correction.
        let period = Interval::Day.around(NOW);
        let restored = Spending::restored(Arc::default(), [(Interval::Day, period, project.id.clone(), cents(100))]);
        assert_eq!(restored.marks(&payer, NOW).len(), 3);
        spending.adjust(&project.id, cents(-30), NOW, NOW);
        assert_eq!(marks(NOW), [(50, cents(50))]);
        assert_eq!(marks(NOW.plus_nanos(86_400_000_000_000)), []);
        let told = spending.marks(&payer, NOW)[0].told("proj_a");
        assert_eq!((told.facts.start_s, told.facts.percent), (period.start_s, 50));
    }

    fn passed_is_soft(spending: &Spending, payer: &Payer<'_>) -> bool {
        spending.marks(payer, NOW).iter().any(Mark::is_soft)
    }
}
