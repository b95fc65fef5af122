//! Which limits a request is held to, and how much is spent of each.

use std::sync::PoisonError;

use super::{Budget, Interval, Payer, SpendLimit, Spender, Spending, hold::Held};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    time::UnixNanos,
};

/// A limit, and who it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitOf {
    pub(super) spender: Spender,
    /// It is for a day, not for a month.
    day: bool,
    pub(super) limit: SpendLimit,
}

impl Spending {
    /// Whose enforced limit has no room for a request that is expected to cost `amount`, if one has none: the key's before the
    /// project's own, before its tier's, and the organization's last.
    pub(super) fn without_room(
        &self,
        payer: &Payer<'_>,
        held: &Held,
        amount: Total,
        now: UnixNanos,
    ) -> Option<Spender> {
        let month = self.spent_this_month(&payer.project.id, now);
        let full = self.limits(payer).filter(|limit| limit.limit.is_enforced()).find(|limit| {
            let spent = self.spent(limit, payer.key, month, now);
            !held.leaves_room(limit.spender, payer, &limit.limit, spent, amount)
        });
        full.map(|limit| limit.spender)
    }

    pub(super) fn limits(&self, payer: &Payer<'_>) -> impl Iterator<Item = LimitOf> + use<> {
        let month = |spender, limit: Option<SpendLimit>| limit.map(|limit| LimitOf { spender, day: false, limit });
        let [monthly, daily] = payer.budget.map_or([None, None], Budget::limits);
        let limits = [
            month(Spender::Key, monthly),
            daily.map(|limit| LimitOf { spender: Spender::Key, day: true, limit }),
            month(Spender::Project, payer.project.terms.spend_limit),
            month(Spender::Tier, payer.tier),
            month(Spender::Organization, self.organization_limit.current()),
        ];
        limits.into_iter().flatten()
    }

    /// What counts for a limit; `month` is what the project and all of them spent in it.
    pub(super) fn spent(&self, limit: &LimitOf, key: &KeyId, month: (Total, Total), now: UnixNanos) -> Total {
        match limit.spender {
            Spender::Key => self.spent_by_key(key, if limit.day { Interval::Day } else { Interval::Month }, now),
            Spender::Project | Spender::Tier => month.0,
            Spender::Organization => month.1,
        }
    }

    /// By a project, and by all of them.
    pub(super) fn spent_this_month(&self, project: &ProjectId, now: UnixNanos) -> (Total, Total) {
        let months = self.months.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sums) = months.iter().find(|sums| sums.month.holds(now)) else { return Default::default() };
        (sums.projects.get(project).copied().unwrap_or_default(), sums.organization)
    }
}
