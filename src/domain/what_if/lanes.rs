//! The buckets of a replay: a lane of them for each project and for each key, per limit group.

use std::{collections::HashMap, sync::Arc};

use super::{
    Past,
    found::{Refused, RefusedBy, Wait},
};
use crate::domain::{
    bucket::{Bucket, HoldNumber, Refusal},
    ids::{KeyId, ProjectId},
    ledger::Used,
    limits::{ByScope, Dimension, HoldNumbers, Scope},
    time::UnixNanos,
};

/// Less than the ledger's times can tell apart.
const SHORTEST_WAIT_NANOS: u64 = 1_000_000;

/// Where what a request holds is found again; `None` where there is no limit.
pub(super) type Numbers = ByScope<HoldNumbers>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Project(ProjectId),
    Key(KeyId),
}

#[derive(Debug, Default)]
struct Lane {
    buckets: [Bucket; Dimension::COUNT],
    under_way: [u32; Dimension::COUNT],
}

#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<(Owner, Arc<str>), Lane>);

impl Lanes {
    /// Takes from all limits of the request, or from none and says which would have kept it longest.
    pub(super) fn reserve(&mut self, past: &Past) -> Result<Numbers, Refused> {
        let now = past.admitted_at;
        let mut numbers = Numbers::default();
        let mut worst: Option<Refused> = None;
        for (scope, dimension) in places() {
            let Some(rate) = past.rate(scope, dimension) else { continue };
            let Some(bucket) = self.limit(past, scope, dimension) else { continue };
            let units = past.units(dimension);
            let taken = match bucket.take(units, rate, now) {
                Err(Refusal::Wait { nanos }) if nanos < SHORTEST_WAIT_NANOS => Ok(bucket.retake(units, rate, now)),
                taken => taken,
            };
            match taken {
                Ok(number) => put(&mut numbers, scope, dimension, number),
                Err(refusal) => {
                    let wait = match refusal {
                        Refusal::Wait { nanos } => Wait::Nanos(nanos),
                        Refusal::TooLarge => Wait::Endless,
                    };
                    let limit = u32::try_from(dimension.shown(rate.limit().into())).unwrap_or(u32::MAX);
                    let refused = Refused { by: RefusedBy::Limit { scope, dimension, limit }, wait };
                    if worst.is_none_or(|worst| refused.is_worse_than(worst)) {
                        worst = Some(refused);
                    }
                }
            }
        }
        for (scope, dimension) in places() {
            let Some(limit) = past.concurrent(scope, dimension) else { continue };
            let is_full = self.under_way(past, scope, dimension).is_some_and(|under_way| *under_way >= limit);
            if is_full && worst.is_none() {
                worst = Some(Refused { by: RefusedBy::Limit { scope, dimension, limit }, wait: Wait::Unknown });
            }
        }
        if worst.is_none() {
            self.count(past, |under_way| under_way.saturating_add(1));
        }
        let Some(refused) = worst else { return Ok(numbers) };
        self.settle(past, &numbers, Used::NOTHING, now, |_| true);
        Err(refused)
    }

    /// In those dimensions that `which` says.
    pub(super) fn settle(
        &mut self,
        past: &Past,
        numbers: &Numbers,
        used: Used,
        now: UnixNanos,
        which: impl Fn(Dimension) -> bool,
    ) {
        for (scope, dimension) in places().filter(|(_, dimension)| which(*dimension)) {
            let number = numbers[scope].get(dimension.index()).copied().flatten();
            let Some(number) = number else { continue };
            let Some(bucket) = self.limit(past, scope, dimension) else { continue };
            bucket.settle(number, past.units(dimension), used.units(dimension), now);
        }
    }

    /// It is not under way any more.
    pub(super) fn leave(&mut self, past: &Past) {
        self.count(past, |under_way| under_way.saturating_sub(1));
    }

    fn count(&mut self, past: &Past, change: impl Fn(u32) -> u32) {
        for (scope, dimension) in places() {
            if past.concurrent(scope, dimension).is_none() {
                continue;
            }
            if let Some(under_way) = self.under_way(past, scope, dimension) {
                *under_way = change(*under_way);
            }
        }
    }

    fn limit(&mut self, past: &Past, scope: Scope, dimension: Dimension) -> Option<&mut Bucket> {
        self.lane(past, scope).buckets.get_mut(dimension.index())
    }

    fn under_way(&mut self, past: &Past, scope: Scope, dimension: Dimension) -> Option<&mut u32> {
        self.lane(past, scope).under_way.get_mut(dimension.index())
    }

    fn lane(&mut self, past: &Past, scope: Scope) -> &mut Lane {
        let owner = match scope {
            Scope::Project => Owner::Project(past.project_id.clone()),
            Scope::Key => Owner::Key(past.key_id.clone()),
        };
        self.0.entry((owner, Arc::clone(&past.terms.limit_group))).or_default()
    }
}

fn places() -> impl Iterator<Item = (Scope, Dimension)> {
    Scope::ALL.into_iter().flat_map(|scope| Dimension::ALL.map(|dimension| (scope, dimension)))
}

fn put(numbers: &mut Numbers, scope: Scope, dimension: Dimension, number: HoldNumber) {
    if let Some(place) = numbers[scope].get_mut(dimension.index()) {
        *place = Some(number);
    }
}
