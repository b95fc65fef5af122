//! What each project has spent in all and since when: what moves it to a higher tier.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{ids::ProjectId, money::Total, time::UnixNanos};

/// A project's spending since its first day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub spent: Total,
    /// The day (UTC) that it first spent anything on, as days since 1970-01-01. To the day, as the ledger's sums know it.
    first_day: Option<u64>,
}

/// The standing of every project that has spent anything. One entry per project.
#[derive(Debug, Default)]
pub struct Standings(Mutex<HashMap<ProjectId, Standing>>);

impl Standing {
    /// Whole days of the calendar; `None` before anything was spent.
    pub fn days_since_first_spend(&self, now: UnixNanos) -> Option<u64> {
        self.first_day.map(|first| now.day().saturating_sub(first))
    }

    fn add(&mut self, amount: Total, at: UnixNanos) {
        // A sum that no longer fits has earned every tier.
        self.spent = self.spent.checked_add(amount).unwrap_or(Total::from_pico(i128::MAX));
        if amount > Total::default() {
            let day = at.day();
            self.first_day = Some(self.first_day.map_or(day, |first| first.min(day)));
        }
    }
}

impl Standings {
    /// Counts what a request cost that was settled at `at`, or what such a cost was corrected by. Returns where that leaves the
    /// project.
    pub fn add(&self, project: &ProjectId, amount: Total, at: UnixNanos) -> Standing {
        let mut standings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = standings.get_mut(project) {
            standing.add(amount, at);
            return *standing;
        }
        let mut standing = Standing::default();
        standing.add(amount, at);
        if standing != Standing::default() {
            standings.insert(project.clone(), standing);
        }
        standing
    }

    pub fn of(&self, project: &ProjectId) -> Standing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(project).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: u64) -> UnixNanos {
        UnixNanos::from_seconds(day * 86_400)
    }

    #[test]
    fn the_first_day_is_the_earliest_on_which_anything_was_spent() {
        let (standings, id) = (Standings::default(), ProjectId::parse("proj_a").unwrap());
        assert_eq!(standings.add(&id, Total::default(), day(3)).days_since_first_spend(day(9)), None);
        standings.add(&id, Total::from_pico(5), UnixNanos(day(8).0 - 1));
        // A correction of an earlier day, and one that takes money back.
        standings.add(&id, Total::from_pico(2), day(6));
        standings.add(&id, Total::from_pico(-3), day(2));
        let standing = standings.of(&id);
        assert_eq!((standing.spent, standing.days_since_first_spend(day(9))), (Total::from_pico(4), Some(3)));
        assert_eq!(standing.days_since_first_spend(UnixNanos(day(9).0 - 1)), Some(2));
        assert_eq!(standing.days_since_first_spend(day(1)), Some(0));
        assert_eq!(standings.of(&ProjectId::parse("proj_b").unwrap()), Standing::default());
    }
}
