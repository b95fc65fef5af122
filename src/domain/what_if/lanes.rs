//! The buckets of a replay: a lane of them for each project and for each key, per limit group.

use std::{collections::HashMap, sync::Arc};

use super::Past;
use crate::domain::{
    bucket::{Bucket, HoldNumber, Refusal},
    ids::{KeyId, ProjectId},
    ledger::Used,
    limits::{ByScope, Dimension, Scope},
    time::UnixNanos,
};

/// Less than the ledger's times can tell apart.
const SHORTEST_WAIT_NANOS: u64 = 1_000_000;

/// Where what a request holds is found again; `None` where there is no limit.
pub(super) type Numbers = ByScope<[Option<HoldNumber>; Dimension::COUNT]>;

/// The limit that would have kept a request waiting longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub scope: Scope,
    pub dimension: Dimension,
    pub limit: u32,
    /// `None`: larger than the whole limit.
    pub wait_nanos: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Project(ProjectId),
    Key(KeyId),
}

#[derive(Debug, Default)]
struct Lane {
    buckets: [Bucket; Dimension::COUNT],
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
                    let wait_nanos = match refusal {
                        Refusal::Wait { nanos } => Some(nanos),
                        Refusal::TooLarge => None,
                    };
                    let refused = Refused { scope, dimension, limit: rate.limit(), wait_nanos };
                    if worst.is_none_or(|worst| refused.length() > worst.length()) {
                        worst = Some(refused);
                    }
                }
            }
        }
        let Some(refused) = worst else { return Ok(numbers) };
        self.settle(past, &numbers, Used::NOTHING, now);
        Err(refused)
    }

    pub(super) fn settle(&mut self, past: &Past, numbers: &Numbers, used: Used, now: UnixNanos) {
        for (scope, dimension) in places() {
            let number = numbers[scope].get(dimension.index()).copied().flatten();
            let Some(number) = number else { continue };
            let Some(bucket) = self.limit(past, scope, dimension) else { continue };
            bucket.settle(number, past.units(dimension), used.units(dimension), now);
        }
    }

    fn limit(&mut self, past: &Past, scope: Scope, dimension: Dimension) -> Option<&mut Bucket> {
        let owner = match scope {
            Scope::Project => Owner::Project(past.project_id.clone()),
            Scope::Key => Owner::Key(past.key_id.clone()),
        };
        let lane = self.0.entry((owner, Arc::clone(&past.terms.limit_group))).or_default();
        lane.buckets.get_mut(dimension.index())
    }
}

impl Refused {
    /// Never is longest.
    fn length(self) -> u64 {
        self.wait_nanos.unwrap_or(u64::MAX)
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
