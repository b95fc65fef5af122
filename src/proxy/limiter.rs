//! Takes from all limits of a key and model or from none, and corrects afterwards.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::estimate::OutputAverage;
use crate::domain::{
    bucket::{Bucket, Headroom, Refusal},
    ids::KeyId,
    ledger::{Hold, Used},
    limits::{Dimension, Headrooms, LimitExceeded, Limits},
    time::UnixNanos,
};

/// The live buckets of every key and limit group that has been used.
#[derive(Debug, Default)]
pub struct Limiter {
    keys: RwLock<HashMap<KeyId, Arc<KeyBuckets>>>,
}

#[derive(Debug, Default)]
struct KeyBuckets {
    groups: RwLock<HashMap<Arc<str>, Arc<Buckets>>>,
}

/// The buckets of one key and limit group, and what this pair has been answering.
#[derive(Debug, Default)]
pub struct Buckets {
    /// Held while several buckets are taken from, so that nobody sees a half-made reservation and is refused for it.
    taking: Mutex<()>,
    buckets: [Bucket; Dimension::COUNT],
    pub average: OutputAverage,
}

impl Limiter {
    pub fn buckets(&self, key: &KeyId, limit_group: &Arc<str>) -> Arc<Buckets> {
        let of_key = find_or_add(&self.keys, key);
        find_or_add(&of_key.groups, limit_group)
    }

    /// Puts back the state of a bucket from before a restart.
    pub fn restore(&self, key: &KeyId, limit_group: &Arc<str>, dimension: Dimension, arrival: UnixNanos) {
        self.buckets(key, limit_group).buckets[dimension.index()].restore(arrival);
    }
}

fn find_or_add<K: Eq + std::hash::Hash + Clone, V: Default>(map: &RwLock<HashMap<K, Arc<V>>>, key: &K) -> Arc<V> {
    if let Some(found) = map.read().unwrap_or_else(PoisonError::into_inner).get(key) {
        return Arc::clone(found);
    }
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(map.entry(key.clone()).or_default())
}

impl Buckets {
    /// Takes one request and `tokens` tokens, or nothing.
    pub fn reserve(
        self: &Arc<Self>,
        limits: &Limits,
        limit_group: &Arc<str>,
        tokens: NonZeroU32,
        now: UnixNanos,
    ) -> Result<Reservation, LimitExceeded> {
        let taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use =
            |dimension: Dimension| limits.rate(dimension).map(|rate| self.buckets[dimension.index()].used(rate, now));
        let in_use = Dimension::ALL.map(in_use);
        let hold = Hold { limit_group: Arc::clone(limit_group), limits: *limits, tokens, in_use };
        for dimension in Dimension::ALL {
            if let Err(exceeded) = self.take(&hold, dimension, now) {
                let taken = Dimension::ALL.into_iter().take(dimension.index());
                taken.for_each(|earlier| self.correct(&hold, earlier, 0, now));
                return Err(exceeded);
            }
        }
        drop(taking);
        Ok(Reservation { buckets: Arc::clone(self), hold, open: true })
    }

    fn take(&self, hold: &Hold, dimension: Dimension, now: UnixNanos) -> Result<(), LimitExceeded> {
        let Some(rate) = hold.limits.rate(dimension) else { return Ok(()) };
        let (bucket, units) = (&self.buckets[dimension.index()], hold.units(dimension));
        bucket.take(units, rate, now).map_err(|refusal| LimitExceeded {
            dimension,
            limit: rate.limit(),
            used: bucket.used(rate, now),
            requested: units.get(),
            wait_nanos: match refusal {
                Refusal::Wait { nanos } => Some(nanos),
                Refusal::TooLarge => None,
            },
        })
    }

    /// Gives back what was held but not used, or books what was used but not held.
    fn correct(&self, hold: &Hold, dimension: Dimension, used: u64, now: UnixNanos) {
        let Some(rate) = hold.limits.rate(dimension) else { return };
        let (bucket, held) = (&self.buckets[dimension.index()], u64::from(hold.units(dimension).get()));
        match used.cmp(&held) {
            std::cmp::Ordering::Less => bucket.give_back(held - used, rate, now),
            std::cmp::Ordering::Greater => bucket.charge(used - held, rate, now),
            std::cmp::Ordering::Equal => {}
        }
    }

    pub fn headrooms(&self, limits: &Limits, now: UnixNanos) -> Headrooms {
        let headroom = |dimension: Dimension| -> Option<Headroom> {
            limits.rate(dimension).map(|rate| self.buckets[dimension.index()].headroom(rate, now))
        };
        Headrooms {
            requests: headroom(Dimension::RequestsPerDay).or_else(|| headroom(Dimension::RequestsPerMinute)),
            tokens: headroom(Dimension::TokensPerMinute),
        }
    }
}

/// What one request holds of its limits. Settle it with what was used; dropped unsettled, it gives everything back.
#[derive(Debug)]
pub struct Reservation {
    buckets: Arc<Buckets>,
    hold: Hold,
    open: bool,
}

impl Reservation {
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    pub fn buckets(&self) -> &Arc<Buckets> {
        &self.buckets
    }

    pub fn headrooms(&self, now: UnixNanos) -> Headrooms {
        self.buckets.headrooms(&self.hold.limits, now)
    }

    pub fn settle(mut self, used: Used, now: UnixNanos) {
        self.close(used, now);
    }

    fn close(&mut self, used: Used, now: UnixNanos) {
        if std::mem::take(&mut self.open) {
            for dimension in Dimension::ALL {
                self.buckets.correct(&self.hold, dimension, used.units(dimension), now);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Only a reservation that was never admitted is dropped open: nothing was sent, and no time worth counting passed.
        self.close(Used::NOTHING, UnixNanos(0));
    }
}
