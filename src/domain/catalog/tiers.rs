//! The tiers: what each allows, how a project gets there, and which is which on the way up.

use std::num::NonZeroU64;

use super::Catalog;
use crate::domain::{
    keys::AllowedModels,
    limits::Limits,
    money::Total,
    projects::TierId,
    spend::{Enforcement, Interval, SpendLimit},
    standing::Standing,
    time::UnixNanos,
};

/// A named set of default limits (`config/tiers.toml`).
#[derive(Clone, Debug)]
pub struct Tier {
    pub id: TierId,
    pub name: String,
    /// The higher, the better.
    pub order: u32,
    /// Projects that name no tier are in this one.
    pub is_default: bool,
    /// `None`: nobody gets here by spending, only by an administrator.
    pub qualification: Option<Qualification>,
    /// What each project of the tier may spend in a calendar month, in dollars; `None` is no limit.
    pub monthly_usage_limit_dollars: Option<NonZeroU64>,
    /// `None`: every model.
    pub models: Option<AllowedModels>,
    /// For models whose page has no row for this tier.
    pub default_limits: Limits,
}

/// What it takes to reach a tier: what a project has spent in all, and for how long it has been spending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qualification {
    pub spent_dollars: u64,
    pub days_since_first_spend: u32,
}

const CENTS_PER_DOLLAR: NonZeroU64 = NonZeroU64::MIN.saturating_add(99);

impl Tier {
    /// The monthly usage limit as a spend limit, which it is for each project of the tier.
    pub fn spend_limit(&self) -> Option<SpendLimit> {
        let threshold_cents = self.monthly_usage_limit_dollars?.saturating_mul(CENTS_PER_DOLLAR);
        Some(SpendLimit { threshold_cents, interval: Interval::Month, enforcement: Enforcement::Enforcing })
    }
}

impl Qualification {
    pub fn is_met(&self, standing: &Standing, now: UnixNanos) -> bool {
        standing.spent >= Total::from_dollars(self.spent_dollars)
            && standing.days_since_first_spend(now) >= Some(u64::from(self.days_since_first_spend))
    }
}

impl Catalog {
    /// The tier of a project that names none: the one that says so, else `tier1`, else the lowest that is reached by spending, else
    /// the lowest. Without any tier it is one that does not exist.
    pub fn default_tier(&self) -> TierId {
        let lowest =
            |is_meant: fn(&Tier) -> bool| self.tiers().filter(|tier| is_meant(tier)).min_by_key(|tier| tier.order);
        let usual = TierId::from("tier1");
        let found = lowest(|tier| tier.is_default).or_else(|| self.tier(&usual));
        let found = found.or_else(|| lowest(|tier| tier.qualification.is_some())).or_else(|| lowest(|_| true));
        found.map_or(usual, |tier| tier.id.clone())
    }

    /// Whether `tier` is that of those who pay nothing: the lowest, reached without spending where others are reached by it. Who is
    /// in it is told in a refusal that paying helps.
    pub fn is_free(&self, tier: &TierId) -> bool {
        let lowest = self.tiers().min_by_key(|tier| tier.order);
        lowest.is_some_and(|lowest| lowest.id == *tier && lowest.qualification.is_none())
            && self.tiers().any(|tier| tier.qualification.is_some())
    }

    /// Whether `tier` is the lower one of two that are both here.
    pub fn is_below(&self, tier: &TierId, other: &TierId) -> bool {
        let order = |id| self.tier(id).map(|tier| tier.order);
        order(tier).zip(order(other)).is_some_and(|(tier, other)| tier < other)
    }

    /// The highest tier that has been earned, if it is above `tier`. Tiers on the way to it may be skipped.
    pub fn earned(&self, tier: &TierId, standing: &Standing, now: UnixNanos) -> Option<&Tier> {
        let order = self.tier(tier)?.order;
        let is_earned = |tier: &Tier| tier.qualification.is_some_and(|needed| needed.is_met(standing, now));
        self.tiers().filter(|tier| tier.order > order && is_earned(tier)).max_by_key(|tier| tier.order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ids::ProjectId, standing::Standings};

    /// Tiers from the lowest to the highest: their ids, whether spending leads there, and whether projects begin there.
    fn ladder(rows: &[(&str, bool, bool)]) -> Catalog {
        let tiers = (0..).zip(rows).map(|(order, &(id, is_earned, is_default))| Tier {
            id: TierId::from(id),
            name: String::new(),
            order,
            is_default,
            qualification: is_earned.then_some(Qualification { spent_dollars: 5, days_since_first_spend: 0 }),
            monthly_usage_limit_dollars: None,
            models: None,
            default_limits: Limits::default(),
        });
        Catalog::new(vec![], tiers.collect()).unwrap()
    }

    #[test]
    fn the_highest_tier_above_ones_own_is_earned_by_money_and_days_together() {
        let needs =
            |spent_dollars, days_since_first_spend| Some(Qualification { spent_dollars, days_since_first_spend });
        let tiers = [None, needs(5, 0), needs(50, 7), needs(100, 7), None];
        let tiers = (0..).zip(tiers).map(|(order, qualification)| Tier {
            // By name they are in another order.
            id: TierId::from(format!("t{}", 9 - order).as_str()),
            name: String::new(),
            order,
            is_default: false,
            qualification,
            monthly_usage_limit_dollars: None,
            models: None,
            default_limits: Limits::default(),
        });
        let catalog = Catalog::new(vec![], tiers.collect()).unwrap();
        let id = ProjectId::parse("proj_a").unwrap();
        let earned = |from: &str, pico: i128, days: u64| {
            let standing = Standings::default().add(&id, Total::from_pico(pico), UnixNanos::from_seconds(0));
            let now = UnixNanos::from_seconds(days * 86_400);
            catalog.earned(&TierId::from(from), &standing, now).map(|tier| tier.id.as_str().to_owned())
        };
        let dollar = 1_000_000_000_000;
        assert_eq!(earned("t9", 5 * dollar - 1, 90), None);
        assert_eq!(earned("t9", 5 * dollar, 0).as_deref(), Some("t8"));
        assert_eq!(earned("t9", 100 * dollar, 6).as_deref(), Some("t8"));
        assert_eq!(earned("t9", 100 * dollar - 1, 7).as_deref(), Some("t7"));
        assert_eq!(earned("t9", 100 * dollar, 7).as_deref(), Some("t6"));
        // Nothing above one's own is none, and neither is a tier that is gone.
        assert_eq!((earned("t6", 900 * dollar, 90), earned("t5", 900 * dollar, 90)), (None, None));
        assert_eq!(earned("gone", 900 * dollar, 90), None);
        let is_below = |tier: &str, other: &str| catalog.is_below(&TierId::from(tier), &TierId::from(other));
        assert!(is_below("t9", "t8") && !is_below("t8", "t9") && !is_below("t8", "t8"));
        assert!(!is_below("t9", "gone") && !is_below("gone", "t9"));
    }

    #[test]
    fn projects_begin_where_the_tiers_say_or_where_they_usually_do() {
        let default = |rows: &[(&str, bool, bool)]| ladder(rows).default_tier().as_str().to_owned();
        let (free, build, grow) = (("free", false, false), ("build", true, false), ("a", true, false));
        let tier1 = ("tier1", true, false);
        assert_eq!(default(&[free, build, tier1, ("launch", true, true)]), "launch");
        assert_eq!(default(&[free, build, tier1, grow]), "tier1");
        assert_eq!(default(&[free, build, grow]), "build");
        assert_eq!(default(&[("low", false, false), free]), "low");
        assert_eq!(default(&[]), "tier1");
    }

    #[test]
    fn the_free_tier_is_the_lowest_when_only_others_are_reached_by_spending() {
        let free = |rows: &[(&str, bool, bool)]| {
            let catalog = ladder(rows);
            let free = rows.iter().filter(|(id, ..)| catalog.is_free(&TierId::from(*id)));
            free.map(|(id, ..)| (*id).to_owned()).collect::<Vec<_>>()
        };
        let (hobby, build, partners) = (("hobby", false, false), ("build", true, true), ("a", false, false));
        assert_eq!(free(&[hobby, build, partners]), ["hobby"]);
        assert_eq!(free(&[hobby, partners]), [""; 0]);
        assert_eq!(free(&[build, ("free", false, false)]), [""; 0]);
        assert!(!ladder(&[hobby, build]).is_free(&TierId::from("gone")));
    }
}
