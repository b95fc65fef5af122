//! Money that requests under way are expected to cost: held when they are admitted, given back when they are settled at what
//! they did cost. So requests at the same time overshoot an enforced limit by no more than their estimates are wrong.
//!
//! A request that is alone may go past the limit by its own cost: it is not refused for a guess while there is money left.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, PoisonError},
};

use super::{Budget, Mark, SpendLimit, SpendLimitReached, Spender, Spending, marks::Limits};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    projects::Project,
    time::UnixNanos,
};

/// Nothing when nothing is under way, and no entry for a key or a project that has nothing under way.
#[derive(Debug, Default)]
pub(super) struct HeldSums {
    organization: Total,
    projects: HashMap<ProjectId, Total>,
    keys: HashMap<KeyId, Total>,
}

/// Who a request is paid by, and the limits that are theirs alone.
#[derive(Clone, Copy)]
pub struct Payer<'a> {
    pub key: &'a KeyId,
    pub budget: Option<&'a Budget>,
    pub project: &'a Project,
    /// The monthly usage limit of the project's tier.
    pub tier: Option<SpendLimit>,
}

/// Money held for one request: settled, or given back when it is dropped.
#[derive(Debug)]
pub struct SpendHold {
    spending: Arc<Spending>,
    project: ProjectId,
    key: KeyId,
    /// Nothing once it is settled.
    amount: Total,
    limits: Limits,
}

impl HeldSums {
    /// By all who count for a limit of `spender`.
    pub(super) fn of(&self, spender: Spender, payer: &Payer<'_>) -> Total {
        match spender {
            Spender::Organization => self.organization,
            Spender::Project | Spender::Tier => self.projects.get(&payer.project.id).copied().unwrap_or_default(),
            Spender::Key => self.keys.get(payer.key).copied().unwrap_or_default(),
        }
    }

    /// Nobody can hold as many amounts of 64 bits at once as would not fit into 128.
    fn change(&mut self, key: &KeyId, project: &ProjectId, by: Total) {
        self.organization = plus(self.organization, by);
        change(&mut self.projects, project, by);
        change(&mut self.keys, key, by);
    }
}

fn change<Id: Clone + Eq + Hash>(held: &mut HashMap<Id, Total>, id: &Id, by: Total) {
    let sum = plus(held.get(id).copied().unwrap_or_default(), by);
    if sum == Total::default() {
        held.remove(id);
    } else if let Some(known) = held.get_mut(id) {
        *known = sum;
    } else {
        held.insert(id.clone(), sum);
    }
}

fn plus(a: Total, b: Total) -> Total {
    Total::from_pico(a.pico().saturating_add(b.pico()))
}

impl Spending {
    /// Holds what a request is expected to cost, or says which enforced limit has no room for it. One at a time: of several
    /// that would fit alone, only so many pass as fit together.
    pub fn hold(
        self: &Arc<Self>,
        payer: &Payer<'_>,
        amount: Total,
        now: UnixNanos,
    ) -> Result<SpendHold, SpendLimitReached> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reached) = self.without_room(payer, &held, amount, now) {
            return Err(reached);
        }
        held.change(payer.key, &payer.project.id, amount);
        let (project, key) = (payer.project.id.clone(), payer.key.clone());
        let limits = self.limits(payer);
        Ok(SpendHold { spending: Arc::clone(self), project, key, amount, limits })
    }

    /// All that is held, and for how many keys and projects.
    pub fn held(&self) -> (Total, usize) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        (held.organization, held.projects.len().saturating_add(held.keys.len()))
    }
}

impl SpendHold {
    /// See [`Spending::soft_percent`].
    pub fn soft_percent(&self, now: UnixNanos) -> Option<u64> {
        self.limits.soft_percent(&self.spending, &self.key, &self.project, now)
    }

    /// What the request did cost, counted in place of what was held, with no moment in between that shows neither. Returns the
    /// marks that limits pass by it.
    pub fn settle(mut self, cost: Total, at: UnixNanos) -> Vec<Mark> {
        let spending = Arc::clone(&self.spending);
        let mut held = spending.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.change(&self.key, &self.project, Total::from_pico(-self.amount.pico()));
        self.amount = Total::default();
        spending.add(&self.project, cost, at);
        spending.add_to_key(&self.key, cost, at);
        // Nobody else's settlement is in between, so that each mark is passed by one.
        self.limits.passed(&spending, &self.key, &self.project, cost, at)
    }
}

impl Drop for SpendHold {
    fn drop(&mut self) {
        if self.amount != Total::default() {
            let mut held = self.spending.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.change(&self.key, &self.project, Total::from_pico(-self.amount.pico()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::domain::{
        projects::{ProjectTerms, TierId},
        spend::{Enforcement, Interval, OrganizationLimits, SpendLimitUse},
    };

    const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

    fn limit(threshold_cents: u64) -> Option<SpendLimit> {
        let threshold_cents = NonZeroU64::new(threshold_cents)?;
        Some(SpendLimit { threshold_cents, interval: Interval::Month, enforcement: Enforcement::Enforcing })
    }

    fn project(id: &str, spend_limit: Option<SpendLimit>) -> Project {
        Project {
            id: ProjectId::parse(id).unwrap(),
            name: String::new(),
            tier: TierId::from("tier1"),
            automatic_tier: true,
            terms: ProjectTerms { spend_limits: spend_limit.into(), ..ProjectTerms::default() },
            created_at: UnixNanos::default(),
            archived_at: None,
        }
    }

    fn spending(organization: Option<SpendLimit>) -> Arc<Spending> {
        Arc::new(Spending::restored(Arc::new(OrganizationLimits::new(organization)), []))
    }

    fn cents(cents: i128) -> Total {
        Total::from_pico(cents * 10_000_000_000)
    }

    fn key() -> KeyId {
        KeyId::parse("key_a").unwrap()
    }

    fn hold(
        spending: &Arc<Spending>,
        project: &Project,
        tier: Option<SpendLimit>,
        amount: Total,
    ) -> Result<SpendHold, Spender> {
        let key = key();
        let payer = Payer { key: &key, budget: None, project, tier };
        spending.hold(&payer, amount, NOW).map_err(|reached| reached.spender)
    }

    fn nothing_is_held(spending: &Spending) -> bool {
        let held = spending.held.lock().unwrap();
        held.organization == Total::default() && held.projects.is_empty() && held.keys.is_empty()
    }

    #[test]
    fn requests_at_the_same_time_pass_as_far_as_they_fit_together() {
        let (spending, project) = (spending(None), project("proj_a", limit(10)));
        let three = || hold(&spending, &project, None, cents(3));
        let mut held: Vec<_> = (0..3).map(|_| three().unwrap()).collect();
        assert_eq!(three().err(), Some(Spender::Project));
        // One of them costs less than was held, and makes room.
        held.pop().unwrap().settle(cents(1), NOW);
        assert!(three().is_ok());
        for hold in held {
            hold.settle(cents(3), NOW);
        }
        assert!(nothing_is_held(&spending));
        // 7 of 10 are spent: one that is alone passes whatever is expected of it, and no other beside it.
        let alone = hold(&spending, &project, None, cents(100)).unwrap();
        assert_eq!(three().err(), Some(Spender::Project));
        alone.settle(cents(3), NOW);
        assert_eq!(hold(&spending, &project, None, Total::default()).err(), Some(Spender::Project));
    }

    #[test]
    fn asking_tells_what_holding_does_and_holds_nothing() {
        let (spending, project, key) = (spending(None), project("proj_a", limit(10)), key());
        let payer = Payer { key: &key, budget: None, project: &project, tier: None };
        let ask = || spending.would_hold(&payer, cents(6), NOW).refused;
        assert_eq!((ask(), ask(), nothing_is_held(&spending)), (None, None, true));
        let held = spending.hold(&payer, cents(6), NOW).unwrap();
        assert_eq!(ask(), spending.hold(&payer, cents(6), NOW).err());
        assert!(ask().is_some());
        drop(held);
        assert_eq!(ask(), None);
    }

    #[test]
    fn asking_tells_of_each_limit_what_is_spent_held_and_left() {
        let (spending, project, key) = (spending(limit(100)), project("proj_a", limit(10)), key());
        let (monthly_cents, daily_cents) = (NonZeroU64::new(50), NonZeroU64::new(4));
        let budget = Budget { monthly_cents, daily_cents, enforcement: Enforcement::Inactive };
        let payer = Payer { key: &key, budget: Some(&budget), project: &project, tier: limit(30) };
        spending.hold(&payer, cents(3), NOW).unwrap().settle(cents(3), NOW);
        let ask = |amount| {
            let of = |it: &SpendLimitUse| {
                assert_eq!((it.spent, it.requested), (cents(3), cents(amount)));
                (it.spender, it.limit.interval, it.held.pico() / cents(1).pico(), it.left_after())
            };
            spending.would_hold(&payer, cents(amount), NOW).limits.iter().map(of).collect::<Vec<_>>()
        };
        let told = |held, left: [Option<i128>; 5]| {
            let [monthly, daily, own, tier, organization] = left.map(|left| left.map(cents));
            let month = |spender, left| (spender, Interval::Month, held, left);
            let of_key = [month(Spender::Key, monthly), (Spender::Key, Interval::Day, held, daily)];
            let others = [month(Spender::Project, own), month(Spender::Tier, tier)];
            [&of_key[..], &others, &[month(Spender::Organization, organization)]].concat()
        };
        assert_eq!(ask(2), told(0, [Some(45), Some(0), Some(5), Some(25), Some(95)]));
        // One that is alone may go past a limit by its own cost.
        assert_eq!(ask(8), told(0, [Some(39), Some(0), Some(0), Some(19), Some(89)]));
        let _held = spending.hold(&payer, cents(5), NOW).unwrap();
        assert_eq!(ask(2), told(5, [Some(40), Some(0), Some(0), Some(20), Some(90)]));
        assert_eq!(ask(3), told(5, [Some(39), Some(0), None, Some(19), Some(89)]));
    }

    #[test]
    fn the_projects_limit_is_named_before_its_tiers_and_the_organizations() {
        let spending = spending(limit(30));
        let (strict, free) = (project("proj_a", limit(10)), project("proj_b", None));
        let spend = |project: &Project, amount| hold(&spending, project, limit(20), cents(amount));
        spend(&strict, 10).unwrap().settle(cents(10), NOW);
        assert_eq!(spend(&strict, 1).err(), Some(Spender::Project));
        spend(&free, 19).unwrap().settle(cents(19), NOW);
        let held = spend(&free, 1).unwrap();
        assert_eq!(spend(&free, 1).err(), Some(Spender::Tier));
        held.settle(cents(1), NOW);
        assert_eq!(hold(&spending, &free, None, cents(1)).err(), Some(Spender::Organization));
        // The tier's limit is that of the moment.
        let other = project("proj_c", None);
        assert_eq!(hold(&spending, &other, limit(20), cents(1)).err(), Some(Spender::Organization));
    }

    #[test]
    fn a_keys_budget_of_the_day_and_of_the_month_is_named_first_and_is_its_own() {
        let (spending, project) = (spending(None), project("proj_a", limit(100)));
        let budget = Budget {
            monthly_cents: NonZeroU64::new(10),
            daily_cents: NonZeroU64::new(4),
            enforcement: Enforcement::Enforcing,
        };
        let other = KeyId::parse("key_b").unwrap();
        let pay = |key: &KeyId, budget: &Budget, amount, now| {
            let payer = Payer { key, budget: Some(budget), project: &project, tier: limit(1) };
            spending.hold(&payer, cents(amount), now).map_err(|reached| reached.spender)
        };
        let day = |days: u64| NOW.plus_nanos(days * 86_400_000_000_000);
        let first = pay(&key(), &budget, 3, NOW).unwrap();
        assert_eq!(pay(&key(), &budget, 2, NOW).err(), Some(Spender::Key));
        // What the other's limits say is another matter.
        assert_eq!(pay(&other, &budget, 2, NOW).err(), Some(Spender::Tier));
        first.settle(cents(4), NOW);
        assert_eq!(pay(&key(), &budget, 1, NOW).err(), Some(Spender::Key));
        let inactive = Budget { enforcement: Enforcement::Inactive, ..budget };
        assert_eq!(pay(&key(), &inactive, 1, NOW).err(), Some(Spender::Tier));
        let pay = |amount, now| {
            let payer = Payer { key: &key(), budget: Some(&budget), project: &project, tier: None };
            spending.hold(&payer, cents(amount), now).map_err(|reached| reached.spender)
        };
        pay(4, day(1)).unwrap().settle(cents(4), day(1));
        // Of the month 2 are left, of the day 4.
        let one = pay(2, day(2)).unwrap();
        assert_eq!(pay(1, day(2)).err(), Some(Spender::Key));
        one.settle(cents(2), day(2));
        assert_eq!((pay(1, day(3)).err(), pay(1, day(40)).err()), (Some(Spender::Key), None));
        assert!(nothing_is_held(&spending));
    }

    #[test]
    fn a_refusal_tells_what_was_spent_and_held_and_when_its_month_or_day_ends() {
        let (spending, project) = (spending(None), project("proj_a", None));
        let budget = |monthly, daily| {
            let [monthly_cents, daily_cents] = [monthly, daily].map(NonZeroU64::new);
            Budget { monthly_cents, daily_cents, enforcement: Enforcement::Enforcing }
        };
        let hold = |budget: &Budget, amount| {
            let payer = Payer { key: &key(), budget: Some(budget), project: &project, tier: None };
            spending.hold(&payer, cents(amount), NOW)
        };
        hold(&budget(9, 0), 2).unwrap().settle(cents(2), NOW);
        let under_way = hold(&budget(9, 0), 1).unwrap();
        let day_ends_s = NOW.seconds() - NOW.seconds() % 86_400 + 86_400;
        let told = SpendLimitReached {
            spender: Spender::Key,
            interval: Interval::Day,
            threshold_cents: NonZeroU64::new(4).unwrap(),
            spent: cents(2),
            held: cents(1),
            requested: cents(3),
            ends_s: day_ends_s,
        };
        assert_eq!(hold(&budget(9, 4), 3).unwrap_err(), told);
        let month_ends_s = Interval::Month.around(NOW).end_s;
        let threshold_cents = NonZeroU64::new(3).unwrap();
        let told = SpendLimitReached { interval: Interval::Month, threshold_cents, ends_s: month_ends_s, ..told };
        assert_eq!(hold(&budget(3, 4), 3).unwrap_err(), told);
        drop(under_way);
        assert!(hold(&budget(3, 4), 3).is_ok());
    }

    #[test]
    fn a_limit_of_a_day_counts_that_day_alone_for_a_project_and_for_all_of_them() {
        let daily = |cents| limit(cents).map(|limit| SpendLimit { interval: Interval::Day, ..limit });
        let tomorrow = NOW.plus_nanos(86_400_000_000_000);
        for (own, common, spender) in [(daily(3), None, Spender::Project), (None, daily(3), Spender::Organization)] {
            let (spending, project) = (spending(common), project("proj_a", own));
            let hold = |amount, now| {
                let payer = Payer { key: &key(), budget: None, project: &project, tier: limit(5) };
                spending.hold(&payer, cents(amount), now)
            };
            hold(3, NOW).unwrap().settle(cents(3), NOW);
            let reached = hold(1, NOW).unwrap_err();
            assert_eq!((reached.spender, reached.interval, reached.spent), (spender, Interval::Day, cents(3)));
            assert_eq!(reached.ends_s, Interval::Day.around(NOW).end_s);
            hold(1, tomorrow).unwrap().settle(cents(2), tomorrow);
            assert_eq!(hold(1, tomorrow).unwrap_err().spender, Spender::Tier, "of the month 5 are spent");
            spending.adjust(&project.id, cents(-3), NOW, tomorrow);
            assert!(hold(1, tomorrow).is_ok() && hold(1, NOW).is_ok());
        }
    }

    #[test]
    fn what_is_refused_or_dropped_holds_nothing() {
        let (spending, project) = (spending(limit(5)), project("proj_a", None));
        let first = hold(&spending, &project, None, cents(4)).unwrap();
        assert!(hold(&spending, &project, None, cents(4)).is_err());
        drop(first);
        assert!(nothing_is_held(&spending));
        assert!(hold(&spending, &project, None, cents(4)).is_ok());
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
                        if let Ok(hold) = hold(spending, project, None, amount) {
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
