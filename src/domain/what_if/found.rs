//! What a replay has found: per key and limit group, and over time.

use std::{collections::BTreeMap, sync::Arc};

use super::Past;
use crate::domain::{
    ids::{KeyId, ProjectId},
    limits::{Dimension, Scope},
    refusals::Reason,
    time::UnixNanos,
};

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;
const WEEK_S: u64 = 7 * DAY_S;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub requests: u64,
    pub refused: u64,
    /// By key and limit group, those without a refusal too.
    pub keys: BTreeMap<(KeyId, Arc<str>), FoundKey>,
    pub timeline: Timeline,
}

/// A key on the models of a limit group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundKey {
    pub project_id: ProjectId,
    pub requests: u64,
    /// One for each limit that refused, each refusal at the one that would have kept it longest; and one for all models that
    /// may not be called.
    pub hits: Vec<Hit>,
}

/// What is in the way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// The tier does not have the model.
    Model,
    Limit {
        scope: Scope,
        dimension: Dimension,
        limit: u32,
    },
}

/// The limit that would have kept a request waiting longest, or its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub by: RefusedBy,
    pub wait: Wait,
}

impl Refused {
    /// As [`crate::domain::limits::LimitExceeded::or_worse`]: of two that never pass it is the smaller limit.
    pub(super) fn is_worse_than(self, other: Self) -> bool {
        let limit = |refused: Self| match refused.by {
            RefusedBy::Model => 0,
            RefusedBy::Limit { limit, .. } => limit,
        };
        self.wait > other.wait || self.wait == Wait::Endless && other.wait == self.wait && limit(self) < limit(other)
    }
}

/// How long it would have been until a request is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wait {
    /// Until something ends that is under way. Any other refusal says more, so it is the shortest.
    Unknown,
    Nanos(u64),
    /// It is larger than the whole limit, or its model may not be called.
    Endless,
}

/// What one limit, or the lack of a model, refused of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    pub by: RefusedBy,
    pub refused: u64,
    /// Of a limit's refusals: larger than the whole limit, so that no waiting would have helped.
    pub too_large: u64,
    pub first: UnixNanos,
    pub last: UnixNanos,
    /// Of those that are known; `None` where no waiting helps, or nobody knows how long it takes.
    pub longest_wait_nanos: Option<u64>,
}

/// Requests and refusals in stretches of the same length, a few dozen of them at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    pub start_s: u64,
    pub width_s: u64,
    pub slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub requests: u64,
    pub refused: u64,
}

impl RefusedBy {
    /// As refusals of the gateway itself are named.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Model => Reason::ModelNotAllowed.name(),
            Self::Limit { .. } => "limit",
        }
    }

    /// Which limit it is, whatever its figure.
    const fn place(self) -> Option<(Scope, Dimension)> {
        match self {
            Self::Model => None,
            Self::Limit { scope, dimension, .. } => Some((scope, dimension)),
        }
    }
}

impl Refused {
    pub(super) const MODEL: Self = Self { by: RefusedBy::Model, wait: Wait::Endless };
}

impl Found {
    pub(super) const fn new(timeline: Timeline) -> Self {
        Self { requests: 0, refused: 0, keys: BTreeMap::new(), timeline }
    }

    pub(super) fn add(&mut self, past: &Past, refused: Option<&Refused>) {
        self.requests += 1;
        let key = (past.key_id.clone(), Arc::clone(&past.terms.limit_group));
        let key = self.keys.entry(key).or_insert_with(|| FoundKey {
            project_id: past.project_id.clone(),
            requests: 0,
            hits: Vec::new(),
        });
        key.requests += 1;
        if let Some(refused) = refused {
            self.refused += 1;
            key.refuse(refused, past.admitted_at);
        }
        if let Some(slot) = self.timeline.slot(past.admitted_at) {
            slot.requests += 1;
            slot.refused += u64::from(refused.is_some());
        }
    }

    /// Keys that were refused anything.
    pub fn refused_keys(&self) -> usize {
        self.distinct(|key| !key.hits.is_empty())
    }

    pub fn all_keys(&self) -> usize {
        self.distinct(|_| true)
    }

    fn distinct(&self, counts: impl Fn(&FoundKey) -> bool) -> usize {
        let keys = self.keys.iter().filter(|(_, key)| counts(key)).map(|((id, _), _)| id);
        let mut last = None;
        keys.filter(|id| last.replace(*id) != Some(*id)).count()
    }
}

impl FoundKey {
    fn refuse(&mut self, refused: &Refused, at: UnixNanos) {
        let Refused { by, wait } = *refused;
        let known = self.hits.iter().position(|hit| hit.by.place() == by.place());
        let place = known.unwrap_or_else(|| {
            self.hits.push(Hit { by, refused: 0, too_large: 0, first: at, last: at, longest_wait_nanos: None });
            self.hits.len() - 1
        });
        let Some(hit) = self.hits.get_mut(place) else { return };
        hit.by = by;
        hit.refused += 1;
        hit.last = at;
        match wait {
            Wait::Nanos(nanos) => hit.longest_wait_nanos = hit.longest_wait_nanos.max(Some(nanos)),
            Wait::Endless => hit.too_large += u64::from(by != RefusedBy::Model),
            Wait::Unknown => {}
        }
    }

    pub fn refused(&self) -> u64 {
        self.hits.iter().map(|hit| hit.refused).sum()
    }
}

impl Timeline {
    const MAX_SLOTS: u64 = 62;

    /// Stretches of a minute, an hour, a day or some weeks, whatever makes few enough of them.
    pub(super) fn over(from: UnixNanos, until: UnixNanos) -> Self {
        let (from_s, until_s) = (from.seconds(), until.0.div_ceil(1_000_000_000));
        let start = |width_s: u64| from_s / width_s.min(DAY_S) * width_s.min(DAY_S);
        let slots = |width_s: u64| until_s.saturating_sub(start(width_s)).div_ceil(width_s);
        let fits = |width_s: &u64| slots(*width_s) <= Self::MAX_SLOTS;
        let weeks = || slots(WEEK_S).div_ceil(Self::MAX_SLOTS) * WEEK_S;
        let width_s = [MINUTE_S, HOUR_S, DAY_S, WEEK_S].into_iter().find(fits).unwrap_or_else(weeks);
        let slots = usize::try_from(slots(width_s)).unwrap_or(0);
        Self { start_s: start(width_s), width_s, slots: vec![Slot::default(); slots] }
    }

    fn slot(&mut self, at: UnixNanos) -> Option<&mut Slot> {
        let place = usize::try_from(at.seconds().saturating_sub(self.start_s) / self.width_s).ok()?;
        self.slots.get_mut(place)
    }

    /// Each stretch that has a request in it or stands between such, with its first second.
    pub fn busy(&self) -> impl Iterator<Item = (u64, Slot)> {
        let is_busy = |slot: &Slot| slot.requests > 0;
        let first = self.slots.iter().position(is_busy).unwrap_or(self.slots.len());
        let end = self.slots.iter().rposition(is_busy).map_or(0, |last| last + 1);
        let all = (self.start_s..).step_by(usize::try_from(self.width_s).unwrap_or(1)).zip(self.slots.iter().copied());
        all.take(end).skip(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(from_s: u64, until_s: u64) -> (u64, u64, usize) {
        let Timeline { start_s, width_s, slots } =
            Timeline::over(UnixNanos::from_seconds(from_s), UnixNanos::from_seconds(until_s));
        (start_s, width_s, slots.len())
    }

    #[test]
    fn stretches_are_as_short_as_a_screen_holds_and_begin_where_a_clock_does() {
        const DAY: u64 = 20_000 * DAY_S;
        assert_eq!(layout(DAY + 61, DAY + 62), (DAY + 60, 60, 1));
        assert_eq!(layout(DAY, DAY + HOUR_S), (DAY, 60, 60));
        assert_eq!(layout(DAY + 1_800, DAY + DAY_S), (DAY, HOUR_S, 24));
        assert_eq!(layout(DAY, DAY + 30 * DAY_S), (DAY, DAY_S, 30));
        assert_eq!(layout(DAY + 5, DAY + 365 * DAY_S), (DAY, WEEK_S, 53));
        let (start_s, width_s, slots) = layout(0, DAY);
        assert_eq!((start_s, width_s % WEEK_S), (0, 0));
        assert!(slots <= 62 && width_s * slots as u64 >= DAY);
    }
}
