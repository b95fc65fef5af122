//! Spend limits: how much money a project, or the whole organization, may spend in a calendar month (UTC), and how much it
//! has spent in this one.
//!
//! Money is spent when a request is settled, as it is in the ledger. Until then what the request is expected to cost is held for
//! it: see [`SpendHold`].

mod budget;
mod hold;
mod limits;
mod soft;

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use jiff::{Timestamp, tz::Offset};
use serde::{Deserialize, Serialize};

pub use self::{
    budget::{Budget, Interval},
    hold::{Payer, SpendHold},
    soft::MARKS,
};
use super::{ids::ProjectId, money::Total, time::UnixNanos};

const PICO_PER_CENT: i128 = 10_000_000_000;
const DAY_S: u64 = 86_400;

/// A ceiling on the money of one month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpendLimit {
    pub threshold_cents: NonZeroU64,
    pub enforcement: Enforcement,
}

/// Whether a limit that is reached refuses requests, or only says what was meant to be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    Enforcing,
    Inactive,
}

/// Whose limit refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spender {
    /// An API key: its budget, of the month or of the day.
    Key,
    Project,
    /// The project's too: what its tier allows.
    Tier,
    Organization,
}

impl Spender {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Project => "project",
            Self::Tier => "tier",
            Self::Organization => "organization",
        }
    }
}

/// The organization's limit: changed by one, read with each request.
#[derive(Debug, Default)]
pub struct OrganizationLimit(RwLock<Option<SpendLimit>>);

/// A calendar month in UTC: Unix seconds, without the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    pub start_s: u64,
    pub end_s: u64,
}

/// What has been spent this month, and by whom. The months beside it are kept too: a clock may jump over the end of a month
/// and back, and settlements come a little late.
#[derive(Debug)]
pub struct Spending {
    organization_limit: Arc<OrganizationLimit>,
    /// Locked before `months` where both are.
    held: Mutex<hold::Held>,
    keys: Mutex<budget::KeySums>,
    /// At most [`MAX_MONTHS`], no month twice; the one that was last added to is the last.
    months: Mutex<Vec<Sums>>,
}

/// A month, the one before and the one after.
const MAX_MONTHS: usize = 3;

#[derive(Debug)]
struct Sums {
    month: Month,
    organization: Total,
    projects: HashMap<ProjectId, Total>,
}

impl Enforcement {
    pub const ALL: [Self; 2] = [Self::Enforcing, Self::Inactive];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Inactive => "inactive",
        }
    }
}

impl SpendLimit {
    fn is_enforced(&self) -> bool {
        self.enforcement == Enforcement::Enforcing
    }

    /// 64 bits of cents are 98 bits of pico-dollars.
    fn threshold(&self) -> Total {
        Total::from_pico(i128::from(self.threshold_cents.get()) * PICO_PER_CENT)
    }
}

impl OrganizationLimit {
    pub fn new(limit: Option<SpendLimit>) -> Self {
        Self(RwLock::new(limit))
    }

    pub fn current(&self) -> Option<SpendLimit> {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, limit: Option<SpendLimit>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = limit;
    }
}

impl Month {
    pub fn of(at: UnixNanos) -> Self {
        let seconds = at.seconds();
        // Unix nanoseconds in 64 bits end in the year 2554, long before the calendar does.
        let timestamp = Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
        let date = Offset::UTC.to_datetime(timestamp).date();
        let days = |days: i8| u64::from(days.unsigned_abs()) * DAY_S;
        let start_s = seconds - seconds % DAY_S - days(date.day() - 1);
        Self { start_s, end_s: start_s + days(date.days_in_month()) }
    }

    const fn holds(self, at: UnixNanos) -> bool {
        self.start_s <= at.seconds() && at.seconds() < self.end_s
    }

    /// The one before, the one after, and `self`: those that matter most last.
    pub fn with_neighbours(self) -> impl Iterator<Item = Self> {
        let of = |seconds| Self::of(UnixNanos::from_seconds(seconds));
        let neighbours = [of(self.start_s.saturating_sub(1)), of(self.end_s)];
        // The first month of all has none before it.
        neighbours.into_iter().filter(move |month| *month != self).chain([self])
    }
}

impl Sums {
    fn new(month: Month) -> Self {
        Self { month, organization: Total::default(), projects: HashMap::new() }
    }

    fn add(&mut self, project: &ProjectId, amount: Total) {
        // A sum that no longer fits has passed every limit.
        let sum = |a: Total| a.checked_add(amount).unwrap_or(Total::from_pico(i128::MAX));
        self.organization = sum(self.organization);
        match self.projects.get_mut(project) {
            Some(spent) => *spent = sum(*spent),
            None => {
                self.projects.insert(project.clone(), amount);
            }
        }
    }
}

impl Spending {
    /// Goes on from what the ledger says was spent in some months.
    pub fn restored(
        organization_limit: Arc<OrganizationLimit>,
        spent: impl IntoIterator<Item = (Month, ProjectId, Total)>,
    ) -> Self {
        let spending =
            Self { organization_limit, held: Mutex::default(), keys: Mutex::default(), months: Mutex::default() };
        spent.into_iter().for_each(|(month, project, amount)| spending.add_to(month, &project, amount));
        spending
    }

    /// Counts what a request cost that was settled at `at`, or what such a cost was corrected by.
    pub fn add(&self, project: &ProjectId, amount: Total, at: UnixNanos) {
        self.add_to(Month::of(at), project, amount);
    }

    fn add_to(&self, month: Month, project: &ProjectId, amount: Total) {
        let mut months = self.months.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = months.last_mut().filter(|sums| sums.month == month) {
            return latest.add(project, amount);
        }
        let known = months.iter().position(|sums| sums.month == month);
        let mut sums = known.map_or_else(|| Sums::new(month), |at| months.remove(at));
        if months.len() >= MAX_MONTHS {
            months.remove(0);
        }
        sums.add(project, amount);
        months.push(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        ids::KeyId,
        projects::{Project, ProjectTerms, TierId},
    };

    /// 2026-02-28, a second before midnight.
    const LAST_SECOND: u64 = 1_772_323_199;

    fn limit(threshold_cents: u64, enforcement: Enforcement) -> Option<SpendLimit> {
        NonZeroU64::new(threshold_cents).map(|threshold_cents| SpendLimit { threshold_cents, enforcement })
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

    fn at(seconds: u64) -> UnixNanos {
        UnixNanos::from_seconds(seconds)
    }

    fn whose(spending: &Spending, project: &Project, now: UnixNanos) -> Option<Spender> {
        let key = KeyId::parse("key_a").unwrap();
        let payer = Payer { key: &key, budget: None, project, tier: None };
        spending.without_room(&payer, &hold::Held::default(), Total::default(), now)
    }

    fn nothing_spent(limit: Option<SpendLimit>) -> Spending {
        Spending::restored(Arc::new(OrganizationLimit::new(limit)), [])
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let days = |at: u64| {
            let month = Month::of(UnixNanos::from_seconds(at));
            (month.start_s, (month.end_s - month.start_s) / DAY_S)
        };
        assert_eq!(days(0), (0, 31));
        assert_eq!(days(LAST_SECOND), (1_769_904_000, 28));
        assert_eq!(days(LAST_SECOND + 1), (1_772_323_200, 31));
        // A leap year.
        assert_eq!(days(1_709_200_000), (1_706_745_600, 29));
        assert_eq!(Month::of(UnixNanos(u64::MAX)).end_s, 18_447_609_600);
    }

    #[test]
    fn a_limit_is_reached_by_the_very_amount_and_not_a_pico_dollar_before() {
        let spending = nothing_spent(None);
        let project = project("proj_a", limit(1, Enforcement::Enforcing));
        spending.add(&project.id, Total::from_pico(9_999_999_999), at(LAST_SECOND));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND)), None);
        spending.add(&project.id, Total::from_pico(1), at(LAST_SECOND));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND)), Some(Spender::Project));
    }

    #[test]
    fn all_projects_together_reach_the_organizations_limit() {
        let spending = nothing_spent(limit(2, Enforcement::Enforcing));
        let (a, b) = (project("proj_a", None), project("proj_b", limit(2, Enforcement::Enforcing)));
        let cent = Total::from_pico(10_000_000_000);
        spending.add(&a.id, cent, at(LAST_SECOND));
        assert_eq!(whose(&spending, &b, at(LAST_SECOND)), None);
        spending.add(&b.id, cent, at(LAST_SECOND));
        for project in [&a, &b] {
            assert_eq!(whose(&spending, project, at(LAST_SECOND)), Some(Spender::Organization));
        }
        spending.organization_limit.set(None);
        assert_eq!(whose(&spending, &a, at(LAST_SECOND)), None);
    }

    #[test]
    fn an_inactive_limit_refuses_nothing() {
        let spending = nothing_spent(limit(1, Enforcement::Inactive));
        let project = project("proj_a", limit(1, Enforcement::Inactive));
        spending.add(&project.id, Total::from_pico(i64::MAX.into()), at(LAST_SECOND));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND)), None);
    }

    #[test]
    fn a_new_month_begins_at_nothing_and_a_late_settlement_of_the_old_does_not_count() {
        let spending = nothing_spent(None);
        let project = project("proj_a", limit(1, Enforcement::Enforcing));
        let much = Total::from_pico(i64::MAX.into());
        spending.add(&project.id, much, at(LAST_SECOND));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND)), Some(Spender::Project));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND + 1)), None);
        spending.add(&project.id, Total::from_pico(1), at(LAST_SECOND + 1));
        spending.add(&project.id, much, at(LAST_SECOND));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND + 1)), None);
        spending.add(&project.id, much, at(LAST_SECOND + 1));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND + 1)), Some(Spender::Project));
    }

    #[test]
    fn what_was_spent_before_a_restart_counts() {
        let (id, cent) = (ProjectId::parse("proj_a").unwrap(), Total::from_pico(10_000_000_000));
        let month = Month::of(at(LAST_SECOND));
        let spending = Spending::restored(Arc::default(), [(month, id.clone(), cent), (month, id, cent)]);
        let reached =
            |cents| whose(&spending, &project("proj_a", limit(cents, Enforcement::Enforcing)), at(LAST_SECOND));
        assert_eq!((reached(2), reached(3)), (Some(Spender::Project), None));
    }

    #[test]
    fn a_clock_that_jumps_over_the_months_end_and_back_switches_no_limit_off() {
        let spending = nothing_spent(None);
        let project = project("proj_a", limit(1, Enforcement::Enforcing));
        let cent = Total::from_pico(10_000_000_000);
        spending.add(&project.id, cent, at(LAST_SECOND));
        // To the next month, years ahead, and further still, with settlements there.
        for ahead in [1, 100_000_000, 200_000_000, 300_000_000] {
            spending.add(&project.id, Total::from_pico(1), at(LAST_SECOND + ahead));
            assert_eq!(whose(&spending, &project, at(LAST_SECOND + ahead)), None);
            spending.add(&project.id, Total::from_pico(1), at(LAST_SECOND));
            assert_eq!(whose(&spending, &project, at(LAST_SECOND)), Some(Spender::Project), "{ahead}");
            assert!(spending.months.lock().unwrap().len() <= MAX_MONTHS);
        }
    }

    #[test]
    fn a_correction_may_lower_what_was_spent() {
        let spending = nothing_spent(None);
        let project = project("proj_a", limit(1, Enforcement::Enforcing));
        spending.add(&project.id, Total::from_pico(10_000_000_000), at(LAST_SECOND));
        spending.add(&project.id, Total::from_pico(-1), at(LAST_SECOND));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND)), None);
    }

    #[test]
    fn the_neighbours_of_a_month_are_those_of_the_calendar() {
        let starts = |at| Month::of(at).with_neighbours().map(|month| month.start_s).collect::<Vec<_>>();
        assert_eq!(starts(at(LAST_SECOND)), [1_767_225_600, 1_772_323_200, 1_769_904_000]);
        assert_eq!(starts(at(0)), [31 * DAY_S, 0]);
    }
}
