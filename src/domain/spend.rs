//! Spend limits: how much money a project, or the whole organization, may spend in a calendar month or a day (UTC), and how
//! much it has spent in this one.
//!
//! Money is spent when a request is settled, as it is in the ledger. Until then what the request is expected to cost is held for
//! it: see [`SpendHold`].

mod budget;
mod hold;
mod limits;
mod marks;
mod own;

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use jiff::{Timestamp, tz::Offset};
use serde::{Deserialize, Serialize};

pub use self::{
    budget::{Budget, BudgetChange, Interval},
    hold::{Payer, SpendHold},
    limits::{SpendLimitReached, SpendLimitUse, WouldHold},
    marks::{MARKS, Mark, Told},
    own::{SpendLimitChange, SpendLimits},
};
use super::{ids::ProjectId, money::Total, report::Range, time::UnixNanos};

const PICO_PER_CENT: i128 = 10_000_000_000;
const DAY_S: u64 = 86_400;

/// A ceiling on the money of one month or day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpendLimit {
    pub threshold_cents: NonZeroU64,
    #[serde(default)]
    pub interval: Interval,
    pub enforcement: Enforcement,
}

/// Whether a limit that is reached refuses requests, or only says what was meant to be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    Enforcing,
    Inactive,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// The organization's limits: changed by one, read with each request.
#[derive(Debug, Default)]
pub struct OrganizationLimits(RwLock<SpendLimits>);

/// A calendar month in UTC: Unix seconds, without the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    pub start_s: u64,
    pub end_s: u64,
}

/// What has been spent this month and this day, and by whom. Those beside them are kept too: a clock may jump over the end of
/// a month and back, and settlements come a little late.
#[derive(Debug)]
pub struct Spending {
    organization_limits: Arc<OrganizationLimits>,
    /// Locked before the sums where both are.
    held: Mutex<hold::HeldSums>,
    keys: Mutex<budget::KeySums>,
    months: Mutex<Vec<Sums>>,
    days: Mutex<Vec<Sums>>,
}

/// At most so many months and days are kept, none twice; the one that was last added to is the last. One, the one before and
/// the one after.
const MOST_SPANS: usize = 3;

#[derive(Debug)]
struct Sums {
    range: Range,
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

/// 64 bits of cents are 98 bits of pico-dollars.
fn dollars(cents: NonZeroU64) -> Total {
    Total::from_pico(i128::from(cents.get()) * PICO_PER_CENT)
}

impl SpendLimit {
    fn is_enforced(&self) -> bool {
        self.enforcement == Enforcement::Enforcing
    }

    fn threshold(&self) -> Total {
        dollars(self.threshold_cents)
    }
}

impl OrganizationLimits {
    pub fn new(limits: impl Into<SpendLimits>) -> Self {
        Self(RwLock::new(limits.into()))
    }

    pub fn current(&self) -> SpendLimits {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, limits: SpendLimits) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = limits;
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

    pub const fn range(self) -> Range {
        Range { start_s: self.start_s, end_s: self.end_s }
    }
}

impl Sums {
    fn new(range: Range) -> Self {
        Self { range, organization: Total::default(), projects: HashMap::new() }
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
    /// Goes on from what the ledger says was spent in some months and days.
    pub fn restored(
        organization_limits: Arc<OrganizationLimits>,
        spent: impl IntoIterator<Item = (Interval, Range, ProjectId, Total)>,
    ) -> Self {
        let (held, keys, months, days) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        let spending = Self { organization_limits, held, keys, months, days };
        for (interval, range, project, amount) in spent {
            spending.add_to(interval, range, &project, amount);
        }
        spending
    }

    /// Counts what a request cost that was settled at `at`.
    pub fn add(&self, project: &ProjectId, amount: Total, at: UnixNanos) {
        for interval in Interval::ALL {
            self.add_to(interval, interval.around(at), project, amount);
        }
    }

    /// Counts what the cost of a request that was settled at `at` was corrected by, if that can still matter: the months and
    /// days of long ago refuse nothing, and would push out those that do.
    pub fn adjust(&self, project: &ProjectId, amount: Total, at: UnixNanos, now: UnixNanos) {
        for interval in Interval::ALL {
            let range = interval.around(at);
            if interval.near(now).any(|near| near == range) {
                self.add_to(interval, range, project, amount);
            }
        }
    }

    const fn sums(&self, interval: Interval) -> &Mutex<Vec<Sums>> {
        match interval {
            Interval::Month => &self.months,
            Interval::Day => &self.days,
        }
    }

    fn add_to(&self, interval: Interval, range: Range, project: &ProjectId, amount: Total) {
        let mut spans = self.sums(interval).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = spans.last_mut().filter(|sums| sums.range == range) {
            return latest.add(project, amount);
        }
        let known = spans.iter().position(|sums| sums.range == range);
        let mut sums = known.map_or_else(|| Sums::new(range), |at| spans.remove(at));
        if spans.len() >= MOST_SPANS {
            spans.remove(0);
        }
        sums.add(project, amount);
        spans.push(sums);
    }
}

#[cfg(test)]
mod tests;
