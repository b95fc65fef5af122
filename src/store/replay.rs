//! What the records of the journal add up to: entries, and the level of every bucket. No I/O.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::buckets::StoredBucket;
use crate::{
    domain::{
        bucket::Bucket,
        ids::{KeyId, RequestId},
        ledger::{Admission, Entry, Settlement},
        limits::Dimension,
    },
    journal::{Batch, Record},
};

type BucketsOf = (KeyId, Arc<str>);

#[derive(Default)]
pub(super) struct Replay {
    /// With the segment each was admitted in, which is needed until the settlement is in the ledger.
    open: HashMap<RequestId, (u64, Admission)>,
    buckets: HashMap<BucketsOf, [Option<Bucket>; Dimension::COUNT]>,
    changed: HashSet<BucketsOf>,
}

impl Replay {
    pub(super) fn restored(stored: Vec<StoredBucket>) -> Self {
        let mut replay = Self::default();
        for StoredBucket { key_id, limit_group, dimension, arrival } in stored {
            let buckets = replay.buckets.entry((key_id, limit_group)).or_default();
            if let Some(place) = buckets.get_mut(dimension.index()) {
                *place = Some(Bucket::restored(arrival));
            }
        }
        replay
    }

    /// Takes note of what is open after records that the ledger already has.
    pub(super) fn skip(&mut self, batch: Batch) {
        for record in batch.records {
            match record {
                Record::Admitted(admission) => {
                    self.open.insert(admission.request_id, (batch.segment, admission));
                }
                Record::Settled(settlement) => {
                    self.open.remove(&settlement.request_id);
                }
            }
        }
    }

    /// The requests that are finished with these records.
    pub(super) fn apply(&mut self, batch: Batch) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(batch.records.len() / 2 + 1);
        for record in batch.records {
            match record {
                Record::Admitted(admission) => {
                    self.hold(&admission);
                    self.open.insert(admission.request_id, (batch.segment, admission));
                }
                Record::Settled(settlement) => {
                    let Some((_, admission)) = self.open.remove(&settlement.request_id) else {
                        let request_id = settlement.request_id.to_string();
                        tracing::warn!(request_id, "the journal settles a request that is not open: ignored");
                        continue;
                    };
                    self.correct(&admission, &settlement);
                    entries.push(Entry { admission, settlement });
                }
            }
        }
        entries
    }

    fn hold(&mut self, admission: &Admission) {
        let hold = &admission.hold;
        for dimension in Dimension::ALL {
            if let Some(rate) = hold.limits.rate(dimension) {
                let units = u64::from(hold.units(dimension).get());
                self.bucket(admission, dimension, |bucket| bucket.charge(units, rate, admission.admitted_at));
            }
        }
    }

    fn correct(&mut self, admission: &Admission, settlement: &Settlement) {
        let hold = &admission.hold;
        for dimension in Dimension::ALL {
            if let Some(rate) = hold.limits.rate(dimension) {
                let (taken, used) = (u64::from(hold.units(dimension).get()), settlement.used.units(dimension));
                self.bucket(admission, dimension, |bucket| match used.checked_sub(taken) {
                    None => bucket.give_back(taken - used, rate, settlement.settled_at),
                    Some(0) => {}
                    Some(excess) => bucket.charge(excess, rate, settlement.settled_at),
                });
            }
        }
    }

    fn bucket(&mut self, admission: &Admission, dimension: Dimension, change: impl FnOnce(&Bucket)) {
        let owner = (admission.key_id.clone(), Arc::clone(&admission.hold.limit_group));
        let buckets = self.buckets.entry(owner.clone()).or_default();
        if let Some(place) = buckets.get_mut(dimension.index()) {
            change(place.get_or_insert_default());
            self.changed.insert(owner);
        }
    }

    /// The buckets that changed since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<StoredBucket> {
        let mut stored = Vec::new();
        for (key_id, limit_group) in self.changed.drain() {
            let owner = (key_id, limit_group);
            let buckets = self.buckets.get(&owner).into_iter().flatten();
            for (dimension, bucket) in Dimension::ALL.into_iter().zip(buckets) {
                if let Some(bucket) = bucket {
                    let (key_id, limit_group) = owner.clone();
                    stored.push(StoredBucket { key_id, limit_group, dimension, arrival: bucket.arrival() });
                }
            }
        }
        stored
    }

    /// The first segment that an open request still needs.
    pub(super) fn oldest_open(&self) -> Option<u64> {
        self.open.values().map(|(segment, _)| *segment).min()
    }
}
