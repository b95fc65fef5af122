//! Which limits a request is held to, and how much is spent of each.

use std::{num::NonZeroU64, sync::PoisonError};

use serde::{Deserialize, Serialize};

use super::{Budget, Interval, Payer, SpendLimit, Spender, Spending, dollars, hold::HeldSums, marks::Limits};
use crate::domain::{
    ids::{KeyId, ProjectId},
    limits::NEXT_END_NANOS,
    money::Total,
    time::UnixNanos,
};

/// A limit, and who it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitOf {
    pub(super) spender: Spender,
    pub(super) limit: SpendLimit,
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

    /// A request that is alone needs only that something is left.
    fn leaves_room(&self) -> bool {
        let sum = |a: Total, b: Total| Total::from_pico(a.pico().saturating_add(b.pico()));
        let needed = sum(sum(self.spent, self.held), self.requested);
        !self.is_spent() && (self.held == Total::default() || needed <= self.threshold())
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
        let reached = enforced.filter_map(|limit| {
            let LimitOf { spender, limit: SpendLimit { threshold_cents, interval, .. } } = *limit;
            let reached = SpendLimitReached {
                spender,
                interval,
                threshold_cents,
                spent: self.spent(limit, payer.key, &payer.project.id, now),
                held: held.of(spender, payer),
                requested,
                ends_s: interval.around(now).end_s,
            };
            (!reached.leaves_room()).then_some(reached)
        });
        reached.min_by_key(|reached| !reached.is_spent())
    }

    pub(super) fn limits(&self, payer: &Payer<'_>) -> Limits {
        let of = |spender, limit: Option<SpendLimit>| limit.map(|limit| LimitOf { spender, limit });
        let [monthly, daily] = payer.budget.map_or([None, None], Budget::limits);
        let (project, organization) = (payer.project.terms.spend_limits, self.organization_limits.current());
        Limits([
            of(Spender::Key, monthly),
            of(Spender::Key, daily),
            of(Spender::Project, project.of(Interval::Month)),
            of(Spender::Project, project.of(Interval::Day)),
            of(Spender::Tier, payer.tier),
            of(Spender::Organization, organization.of(Interval::Month)),
            of(Spender::Organization, organization.of(Interval::Day)),
        ])
    }

    /// What counts for a limit, in its month or day around `now`.
    pub(super) fn spent(&self, limit: &LimitOf, key: &KeyId, project: &ProjectId, now: UnixNanos) -> Total {
        let interval = limit.limit.interval;
        if limit.spender == Spender::Key {
            return self.spent_by_key(key, interval, now);
        }
        let range = interval.around(now);
        let spans = self.sums(interval).lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sums) = spans.iter().find(|sums| sums.range == range) else { return Total::default() };
        match limit.spender {
            Spender::Organization => sums.organization,
            _ => sums.projects.get(project).copied().unwrap_or_default(),
        }
    }
}
