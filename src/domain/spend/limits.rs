//! Which limits a request is held to, and how much is spent of each.

use std::{num::NonZeroU64, sync::PoisonError};

use serde::{Deserialize, Serialize};

use super::{Budget, Interval, Payer, SpendLimit, Spender, Spending, Sums, dollars, hold::HeldSums, marks::Limits};
use crate::domain::{
    ids::{KeyId, ProjectId},
    limits::NEXT_END_NANOS,
    money::Total,
    projects::Project,
    time::UnixNanos,
};

/// A limit, and who it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitOf {
    pub(super) spender: Spender,
    pub(super) limit: SpendLimit,
}

/// One limit on money as a request meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpendLimitUse {
    pub spender: Spender,
    pub limit: SpendLimit,
    /// In the interval, by all who count for this limit.
    pub spent: Total,
    /// What their requests under way are expected to cost.
    pub held: Total,
    /// What this request is expected to cost.
    pub requested: Total,
}

/// What a hold would meet, had it been made.
#[derive(Debug)]
pub struct WouldHold {
    /// In the order of checking, soft ones among them.
    pub limits: Vec<SpendLimitUse>,
    pub refused: Option<SpendLimitReached>,
}

/// A spend limit that refused a request, as it was then: all of it was spent, or what was left was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendLimitReached {
    pub spender: Spender,
    #[serde(default)]
    pub interval: Interval,
    pub threshold_cents: NonZeroU64,
    /// In the interval of the refusal, by all who count for this limit.
    pub spent: Total,
    /// What their requests under way were expected to cost.
    #[serde(default)]
    pub held: Total,
    /// What this request was expected to cost.
    #[serde(default)]
    pub requested: Total,
    /// Unix seconds: the end of that interval, when requests pass again, whatever becomes of those under way.
    #[serde(alias = "month_end_s")]
    pub ends_s: u64,
}

impl SpendLimitReached {
    pub fn threshold(&self) -> Total {
        dollars(self.threshold_cents)
    }

    /// Nothing is left, so that no waiting helps before the interval ends. Otherwise only what is held stands in the way.
    pub fn is_spent(&self) -> bool {
        self.spent >= self.threshold()
    }

    /// When to ask again; `None` where it is spent.
    pub fn wait_nanos(&self) -> Option<u64> {
        (!self.is_spent()).then_some(NEXT_END_NANOS)
    }
}

impl SpendLimitUse {
    pub fn threshold(&self) -> Total {
        self.limit.threshold()
    }

    /// What is left with the request under way: nothing where one that is alone goes past a limit, or any a soft one; `None`
    /// where it is refused.
    pub fn left_after(&self) -> Option<Total> {
        let left = self.threshold().pico().saturating_sub(self.needed().pico());
        (!self.refuses()).then_some(Total::from_pico(left.max(0)))
    }

    fn needed(&self) -> Total {
        let sum = |a: Total, b: Total| Total::from_pico(a.pico().saturating_add(b.pico()));
        sum(sum(self.spent, self.held), self.requested)
    }

    /// A request that is alone needs only that something is left.
    fn refuses(&self) -> bool {
        let is_alone = self.held == Total::default();
        let leaves_room = self.spent < self.threshold() && (is_alone || self.needed() <= self.threshold());
        self.limit.is_enforced() && !leaves_room
    }

    fn reached(&self, now: UnixNanos) -> Option<SpendLimitReached> {
        let Self { spender, limit: SpendLimit { threshold_cents, interval, .. }, spent, held, requested } = *self;
        let ends_s = interval.around(now).end_s;
        self.refuses().then_some(SpendLimitReached {
            spender,
            interval,
            threshold_cents,
            spent,
            held,
            requested,
            ends_s,
        })
    }
}

impl Spending {
    /// The enforced limit that has no room for a request that is expected to cost `requested`, if one has none: the key's
    /// before the project's own, before its tier's, and the organization's last; but one that is spent before all in which
    /// money is only held, because it is in vain to wait for those.
    pub(super) fn without_room(
        &self,
        payer: &Payer<'_>,
        held: &HeldSums,
        requested: Total,
        now: UnixNanos,
    ) -> Option<SpendLimitReached> {
        let limits = self.limits(payer);
        let enforced = limits.iter().filter(|limit| limit.limit.is_enforced());
        told(enforced.filter_map(|limit| self.limit_use(limit, payer, held, requested, now).reached(now)))
    }

    /// What [`Self::hold`] would meet now, and whether it would be refused. Nothing is held.
    pub fn would_hold(&self, payer: &Payer<'_>, amount: Total, now: UnixNanos) -> WouldHold {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = self.limits(payer);
        let limits: Vec<_> = limits.iter().map(|limit| self.limit_use(limit, payer, &held, amount, now)).collect();
        let refused = told(limits.iter().filter_map(|limit| limit.reached(now)));
        WouldHold { limits, refused }
    }

    fn limit_use(
        &self,
        limit: &LimitOf,
        payer: &Payer<'_>,
        held: &HeldSums,
        requested: Total,
        now: UnixNanos,
    ) -> SpendLimitUse {
        let LimitOf { spender, limit: spend_limit } = *limit;
        let spent = self.spent(limit, payer.key, &payer.project.id, now);
        SpendLimitUse { spender, limit: spend_limit, spent, held: held.of(spender, payer), requested }
    }

    pub(super) fn limits(&self, payer: &Payer<'_>) -> Limits {
        let [key_month, key_day] = payer.budget.map_or([None, None], of_key);
        let [month, day, tier] = of_project(payer.project, payer.tier);
        let [all_month, all_day] = self.limits_of_organization();
        Limits([key_month, key_day, month, day, tier, all_month, all_day])
    }

    pub(super) fn limits_of_organization(&self) -> [Option<LimitOf>; 2] {
        let limits = self.organization_limits.current();
        Interval::ALL.map(|interval| LimitOf::new(Spender::Organization, limits.of(interval)))
    }

    /// What counts for a limit, in its month or day around `now`.
    pub(super) fn spent(&self, limit: &LimitOf, key: &KeyId, project: &ProjectId, now: UnixNanos) -> Total {
        let interval = limit.limit.interval;
        match limit.spender {
            Spender::Key => self.spent_by_key(key, interval, now),
            Spender::Project | Spender::Tier => self.spent_by_project(project, interval, now),
            Spender::Organization => self.spent_by_all(interval, now),
        }
    }

    pub(super) fn spent_by_project(&self, project: &ProjectId, interval: Interval, now: UnixNanos) -> Total {
        self.spent_in(interval, now, |sums| sums.projects.get(project).copied().unwrap_or_default())
    }

    pub(super) fn spent_by_all(&self, interval: Interval, now: UnixNanos) -> Total {
        self.spent_in(interval, now, |sums| sums.organization)
    }

    fn spent_in(&self, interval: Interval, now: UnixNanos, of: impl FnOnce(&Sums) -> Total) -> Total {
        let range = interval.around(now);
        let spans = self.sums(interval).lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().find(|sums| sums.range == range).map_or_else(Total::default, of)
    }
}

impl LimitOf {
    fn new(spender: Spender, limit: Option<SpendLimit>) -> Option<Self> {
        limit.map(|limit| Self { spender, limit })
    }
}

pub(super) fn of_key(budget: &Budget) -> [Option<LimitOf>; 2] {
    budget.limits().map(|limit| LimitOf::new(Spender::Key, limit))
}

/// Its own, and its tier's.
pub(super) fn of_project(project: &Project, tier: Option<SpendLimit>) -> [Option<LimitOf>; 3] {
    let [month, day] = Interval::ALL.map(|interval| project.terms.spend_limits.of(interval));
    [(Spender::Project, month), (Spender::Project, day), (Spender::Tier, tier)]
        .map(|(spender, limit)| LimitOf::new(spender, limit))
}

/// Of several that refuse the same request, the one to tell its caller.
fn told(reached: impl Iterator<Item = SpendLimitReached>) -> Option<SpendLimitReached> {
    reached.min_by_key(|reached| !reached.is_spent())
}
