//! Money that requests under way are expected to cost: held when they are admitted, given back when they are settled at what
//! they did cost. So requests at the same time overshoot an enforced limit by no more than their estimates are wrong.
//!
//! A request that is alone may go past the limit by its own cost: it is not refused for a guess while there is money left.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use super::{SpendLimit, Spender, Spending};
use crate::domain::{ids::ProjectId, money::Total, projects::Project, time::UnixNanos};

/// Nothing when nothing is under way, and no entry for a project that has nothing under way.
#[derive(Debug, Default)]
pub(super) struct Held {
    organization: Total,
    projects: HashMap<ProjectId, Total>,
}

/// What a request asks the limits for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) project: &'a Project,
    /// The monthly usage limit of the project's tier.
    pub(super) tier: Option<SpendLimit>,
    pub(super) amount: Total,
}

/// Money held for one request: settled, or given back when it is dropped.
#[derive(Debug)]
pub struct SpendHold {
    spending: Arc<Spending>,
    project: ProjectId,
    /// Nothing once it is settled.
    amount: Total,
}

impl Held {
    pub(super) fn leaves_room(
        &self,
        spender: Spender,
        project: &ProjectId,
        limit: &SpendLimit,
        spent: Total,
        amount: Total,
    ) -> bool {
        let held = match spender {
            Spender::Organization => self.organization,
            Spender::Project | Spender::Tier => self.projects.get(project).copied().unwrap_or_default(),
        };
        let needed = plus(plus(spent, held), amount);
        spent < limit.threshold() && (held == Total::default() || needed <= limit.threshold())
    }

    /// Nobody can hold as many amounts of 64 bits at once as would not fit into 128.
    fn change(&mut self, project: &ProjectId, by: Total) {
        self.organization = plus(self.organization, by);
        let held = plus(self.projects.get(project).copied().unwrap_or_default(), by);
        if held == Total::default() {
            self.projects.remove(project);
        } else if let Some(known) = self.projects.get_mut(project) {
            *known = held;
        } else {
            self.projects.insert(project.clone(), held);
        }
    }
}

fn plus(a: Total, b: Total) -> Total {
    Total::from_pico(a.pico().saturating_add(b.pico()))
}

impl Spending {
    /// Holds what a request is expected to cost, or says whose enforced limit has no room for it. One at a time: of several
    /// that would fit alone, only so many pass as fit together.
    pub fn hold(
        self: &Arc<Self>,
        project: &Project,
        tier: Option<SpendLimit>,
        amount: Total,
        now: UnixNanos,
    ) -> Result<SpendHold, Spender> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spender) = self.without_room(&Wanted { project, tier, amount }, &held, now) {
            return Err(spender);
        }
        held.change(&project.id, amount);
        Ok(SpendHold { spending: Arc::clone(self), project: project.id.clone(), amount })
    }
}

impl SpendHold {
    /// What the request did cost, counted in place of what was held, with no moment in between that shows neither.
    pub fn settle(mut self, cost: Total, at: UnixNanos) {
        let spending = Arc::clone(&self.spending);
        let mut held = spending.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.change(&self.project, Total::from_pico(-self.amount.pico()));
        self.amount = Total::default();
        spending.add(&self.project, cost, at);
    }
}

impl Drop for SpendHold {
    fn drop(&mut self) {
        if self.amount != Total::default() {
            let mut held = self.spending.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.change(&self.project, Total::from_pico(-self.amount.pico()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::domain::{
        projects::{ProjectTerms, TierId},
        spend::{Enforcement, OrganizationLimit},
    };

    const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

    fn limit(threshold_cents: u64) -> Option<SpendLimit> {
        let threshold_cents = NonZeroU64::new(threshold_cents)?;
        Some(SpendLimit { threshold_cents, enforcement: Enforcement::Enforcing })
    }

    fn project(id: &str, spend_limit: Option<SpendLimit>) -> Project {
        Project {
            id: ProjectId::parse(id).unwrap(),
            name: String::new(),
            tier: TierId::from("tier1"),
            automatic_tier: true,
            terms: ProjectTerms { spend_limit, ..ProjectTerms::default() },
            created_at: UnixNanos::default(),
            archived_at: None,
        }
    }

    fn spending(organization: Option<SpendLimit>) -> Arc<Spending> {
        Arc::new(Spending::restored(Arc::new(OrganizationLimit::new(organization)), []))
    }

    fn cents(cents: i128) -> Total {
        Total::from_pico(cents * 10_000_000_000)
    }

    fn nothing_is_held(spending: &Spending) -> bool {
        let held = spending.held.lock().unwrap();
        held.organization == Total::default() && held.projects.is_empty()
    }

    #[test]
    fn requests_at_the_same_time_pass_as_far_as_they_fit_together() {
        let (spending, project) = (spending(None), project("proj_a", limit(10)));
        let hold = || spending.hold(&project, None, cents(3), NOW);
        let mut held: Vec<_> = (0..3).map(|_| hold().unwrap()).collect();
        assert_eq!(hold().err(), Some(Spender::Project));
        // One of them costs less than was held, and makes room.
        held.pop().unwrap().settle(cents(1), NOW);
        assert!(hold().is_ok());
        held.into_iter().for_each(|hold| hold.settle(cents(3), NOW));
        assert!(nothing_is_held(&spending));
        // 7 of 10 are spent: one that is alone passes whatever is expected of it, and no other beside it.
        let alone = spending.hold(&project, None, cents(100), NOW).unwrap();
        assert_eq!(hold().err(), Some(Spender::Project));
        alone.settle(cents(3), NOW);
        assert_eq!(spending.hold(&project, None, Total::default(), NOW).err(), Some(Spender::Project));
    }

    #[test]
    fn the_projects_limit_is_named_before_its_tiers_and_the_organizations() {
        let spending = spending(limit(30));
        let (strict, free) = (project("proj_a", limit(10)), project("proj_b", None));
        let spend = |project: &Project, amount| spending.hold(project, limit(20), cents(amount), NOW);
        spend(&strict, 10).unwrap().settle(cents(10), NOW);
        assert_eq!(spend(&strict, 1).err(), Some(Spender::Project));
        spend(&free, 19).unwrap().settle(cents(19), NOW);
        let held = spend(&free, 1).unwrap();
        assert_eq!(spend(&free, 1).err(), Some(Spender::Tier));
        held.settle(cents(1), NOW);
        assert_eq!(spending.hold(&free, None, cents(1), NOW).err(), Some(Spender::Organization));
        // The tier's limit is that of the moment.
        let other = project("proj_c", None);
        assert_eq!(spending.hold(&other, limit(20), cents(1), NOW).err(), Some(Spender::Organization));
    }

    #[test]
    fn what_is_refused_or_dropped_holds_nothing() {
        let (spending, project) = (spending(limit(5)), project("proj_a", None));
        let first = spending.hold(&project, None, cents(4), NOW).unwrap();
        assert!(spending.hold(&project, None, cents(4), NOW).is_err());
        drop(first);
        assert!(nothing_is_held(&spending));
        assert!(spending.hold(&project, None, cents(4), NOW).is_ok());
    }

    #[test]
    fn many_threads_never_hold_more_than_the_limit_and_leave_nothing_behind() {
        let (spending, project) = (spending(None), project("proj_a", limit(20)));
        std::thread::scope(|scope| {
            for thread in 0..8_i128 {
                let (spending, project) = (&spending, &project);
                scope.spawn(move || {
                    for round in 0..500 {
                        let amount = Total::from_pico(1 + (thread * 7_919 + round * 1_047_291) % 200_000_000);
                        if let Ok(hold) = spending.hold(project, None, amount, NOW) {
                            // True costs are what was expected, or less.
                            hold.settle(Total::from_pico(amount.pico() - amount.pico() % 3), NOW);
                        }
                    }
                });
            }
        });
        assert!(nothing_is_held(&spending));
        let spent = spending.months.lock().unwrap()[0].projects[&project.id];
        // Together they ask for twice as much. Who is refused leaves less than eight of them would need; one may be alone.
        let (least, most) = (cents(20).pico() - 8 * 200_000_000, cents(20).pico() + 200_000_000);
        assert!((least..=most).contains(&spent.pico()), "{spent}");
    }
}
