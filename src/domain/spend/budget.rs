//! Budgets of keys: how much money a key may spend in a calendar month and in a day (UTC), and how much it has spent.

use std::{collections::HashMap, num::NonZeroU64, sync::PoisonError};

use serde::{Deserialize, Serialize};

use super::{DAY_S, Enforcement, MOST_SPANS, Month, SpendLimit, Spending};
use crate::domain::{ids::KeyId, money::Total, report::Range, time::UnixNanos};

/// At least one of the two amounts is there, or it would be no budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub monthly_cents: Option<NonZeroU64>,
    pub daily_cents: Option<NonZeroU64>,
    pub enforcement: Enforcement,
}

/// What is to be different about a budget; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetChange {
    /// `Some(None)`: this amount goes.
    pub monthly_cents: Option<Option<NonZeroU64>>,
    pub daily_cents: Option<Option<NonZeroU64>>,
    pub enforcement: Option<Enforcement>,
}

/// What an amount is a ceiling for. Both begin and end at midnight in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    #[default]
    Month,
    Day,
}

/// What keys have spent lately.
#[derive(Debug, Default)]
pub(super) struct KeySums {
    months: Recent,
    days: Recent,
}

/// At most [`MOST_SPANS`], no span twice; the one that was last added to is the last. A clock may jump over the end of one
/// and back.
#[derive(Debug, Default)]
struct Recent(Vec<Span>);

#[derive(Debug)]
struct Span {
    range: Range,
    keys: HashMap<KeyId, Total>,
}

impl Interval {
    pub const ALL: [Self; 2] = [Self::Month, Self::Day];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Day => "day",
        }
    }

    pub fn around(self, at: UnixNanos) -> Range {
        match self {
            Self::Month => Month::of(at).range(),
            Self::Day => {
                let start_s = at.seconds() - at.seconds() % DAY_S;
                Range { start_s, end_s: start_s + DAY_S }
            }
        }
    }

    /// The one before, the one after, and the one around `at`: that which matters most last.
    pub fn near(self, at: UnixNanos) -> impl Iterator<Item = Range> {
        let current = self.around(at);
        let around = move |seconds| self.around(UnixNanos::from_seconds(seconds));
        let neighbours = [around(current.start_s.saturating_sub(1)), around(current.end_s)];
        // The first of all has none before it.
        neighbours.into_iter().filter(move |range| *range != current).chain([current])
    }
}

impl Budget {
    /// The month's, and the day's.
    pub(super) fn limits(&self) -> [Option<SpendLimit>; 2] {
        let enforcement = self.enforcement;
        let limit = |interval, cents: Option<NonZeroU64>| {
            cents.map(|threshold_cents| SpendLimit { threshold_cents, interval, enforcement })
        };
        [limit(Interval::Month, self.monthly_cents), limit(Interval::Day, self.daily_cents)]
    }
}

impl BudgetChange {
    /// What becomes of `budget`: none where no amount is left. A new one is enforced unless something else is said.
    pub fn of(self, budget: Option<Budget>) -> Option<Budget> {
        let monthly_cents = self.monthly_cents.unwrap_or_else(|| budget?.monthly_cents);
        let daily_cents = self.daily_cents.unwrap_or_else(|| budget?.daily_cents);
        let before = budget.map_or(Enforcement::Enforcing, |budget| budget.enforcement);
        let enforcement = self.enforcement.unwrap_or(before);
        monthly_cents.or(daily_cents).map(|_| Budget { monthly_cents, daily_cents, enforcement })
    }
}

impl Span {
    fn add(&mut self, key: &KeyId, amount: Total) {
        match self.keys.get_mut(key) {
            // A sum that no longer fits has passed every limit.
            Some(spent) => *spent = spent.checked_add(amount).unwrap_or(Total::from_pico(i128::MAX)),
            None => {
                self.keys.insert(key.clone(), amount);
            }
        }
    }
}

impl Recent {
    fn add(&mut self, range: Range, key: &KeyId, amount: Total) {
        if let Some(latest) = self.0.last_mut().filter(|span| span.range == range) {
            return latest.add(key, amount);
        }
        let known = self.0.iter().position(|span| span.range == range);
        let mut span = known.map_or_else(|| Span { range, keys: HashMap::new() }, |at| self.0.remove(at));
        if self.0.len() >= MOST_SPANS {
            self.0.remove(0);
        }
        span.add(key, amount);
        self.0.push(span);
    }

    fn spent(&self, key: &KeyId, range: Range) -> Total {
        let span = self.0.iter().find(|span| span.range == range);
        span.and_then(|span| span.keys.get(key)).copied().unwrap_or_default()
    }
}

impl KeySums {
    const fn of(&self, interval: Interval) -> &Recent {
        match interval {
            Interval::Month => &self.months,
            Interval::Day => &self.days,
        }
    }

    const fn of_mut(&mut self, interval: Interval) -> &mut Recent {
        match interval {
            Interval::Month => &mut self.months,
            Interval::Day => &mut self.days,
        }
    }
}

impl Spending {
    /// Goes on from what the ledger says a key spent in a month or a day.
    pub fn restore_key(&self, interval: Interval, range: Range, key: &KeyId, amount: Total) {
        let mut sums = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        sums.of_mut(interval).add(range, key, amount);
    }

    /// Counts what a request with this key cost that was settled at `at`.
    pub(super) fn add_to_key(&self, key: &KeyId, amount: Total, at: UnixNanos) {
        let mut sums = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for interval in Interval::ALL {
            sums.of_mut(interval).add(interval.around(at), key, amount);
        }
    }

    /// Counts what such a cost was corrected by, where that can still matter: what is long ago must not push out what is not.
    pub fn adjust_key(&self, key: &KeyId, amount: Total, at: UnixNanos, now: UnixNanos) {
        let mut sums = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for interval in Interval::ALL {
            let range = interval.around(at);
            if interval.near(now).any(|near| near == range) {
                sums.of_mut(interval).add(range, key, amount);
            }
        }
    }

    /// In the month or the day around `now`.
    pub(super) fn spent_by_key(&self, key: &KeyId, interval: Interval, now: UnixNanos) -> Total {
        let sums = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        sums.of(interval).spent(key, interval.around(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// 2026-02-28, a second before midnight.
    const LAST_SECOND: u64 = 1_772_323_199;

    #[test]
    fn a_change_of_a_budget_leaves_what_it_does_not_name() {
        use Enforcement::{Enforcing, Inactive};
        let cents = NonZeroU64::new;
        let budget = |monthly, daily, enforcement| Budget {
            monthly_cents: cents(monthly),
            daily_cents: cents(daily),
            enforcement,
        };
        let soft = budget(5_000, 500, Inactive);
        let none = BudgetChange::default();
        let daily = |amount| BudgetChange { daily_cents: Some(cents(amount)), ..none };
        assert_eq!(none.of(Some(soft)), Some(soft));
        assert_eq!(daily(1_000).of(Some(soft)), Some(budget(5_000, 1_000, Inactive)));
        assert_eq!(daily(0).of(Some(soft)), Some(budget(5_000, 0, Inactive)));
        let monthly = BudgetChange { monthly_cents: Some(None), ..none };
        assert_eq!(monthly.of(daily(0).of(Some(soft))), None);
        assert_eq!(
            BudgetChange { enforcement: Some(Enforcing), ..none }.of(Some(soft)),
            Some(budget(5_000, 500, Enforcing))
        );
        assert_eq!((daily(7).of(None), none.of(None)), (Some(budget(0, 7, Enforcing)), None));
    }

    fn at(seconds: u64) -> UnixNanos {
        UnixNanos::from_seconds(seconds)
    }

    fn spent(spending: &Spending, key: &KeyId, seconds: u64) -> (i128, i128) {
        let of = |interval| spending.spent_by_key(key, interval, at(seconds)).pico();
        (of(Interval::Month), of(Interval::Day))
    }

    #[test]
    fn months_and_days_begin_at_nothing_and_keys_do_not_mix() {
        let spending = Spending::restored(Arc::default(), []);
        let (key, other) = (KeyId::parse("key_a").unwrap(), KeyId::parse("key_b").unwrap());
        spending.restore_key(Interval::Month, Interval::Month.around(at(LAST_SECOND)), &key, Total::from_pico(40));
        spending.add_to_key(&key, Total::from_pico(1), at(LAST_SECOND - DAY_S));
        spending.add_to_key(&key, Total::from_pico(2), at(LAST_SECOND));
        spending.add_to_key(&other, Total::from_pico(9), at(LAST_SECOND));
        assert_eq!(
            (spent(&spending, &key, LAST_SECOND - DAY_S), spent(&spending, &key, LAST_SECOND)),
            ((43, 1), (43, 2))
        );
        assert_eq!(spent(&spending, &key, LAST_SECOND + 1), (0, 0));
        assert_eq!(spent(&spending, &other, LAST_SECOND), (9, 9));
    }

    #[test]
    fn corrections_of_long_ago_push_nothing_out() {
        let spending = Spending::restored(Arc::default(), []);
        let key = KeyId::parse("key_a").unwrap();
        spending.add_to_key(&key, Total::from_pico(5), at(LAST_SECOND));
        for days_ago in 0..100 {
            spending.adjust_key(&key, Total::from_pico(-1), at(LAST_SECOND - days_ago * DAY_S), at(LAST_SECOND));
        }
        assert_eq!(spent(&spending, &key, LAST_SECOND), (5 - 28, 4));
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_forgets_nothing() {
        let spending = Spending::restored(Arc::default(), []);
        let key = KeyId::parse("key_a").unwrap();
        for ahead in [1, 100_000_000, 200_000_000, 300_000_000] {
            spending.add_to_key(&key, Total::from_pico(1), at(LAST_SECOND));
            spending.add_to_key(&key, Total::from_pico(7), at(LAST_SECOND + ahead));
        }
        assert_eq!(spent(&spending, &key, LAST_SECOND), (4, 4));
    }
}
