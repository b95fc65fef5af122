//! What the records of the journal add up to: entries, and the level of every bucket. No I/O.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::buckets::StoredBucket;
use crate::{
    domain::{
        bucket::{Bucket, HoldNumber, Holds},
        ids::{KeyId, RequestId},
        ledger::{Admission, Entry, Settlement},
        limits::Dimension,
    },
    journal::{Batch, Record},
};

type BucketsOf = (KeyId, Arc<str>);

#[derive(Default)]
pub(super) struct Replay {
    open: HashMap<RequestId, Open>,
    buckets: HashMap<BucketsOf, [Option<Held>; Dimension::COUNT]>,
    changed: HashSet<BucketsOf>,
    /// The smallest id among the admissions of each segment.
    first_ids: BTreeMap<u64, RequestId>,
}

struct Open {
    /// Where it was admitted: needed until the settlement is in the ledger.
    segment: u64,
    admission: Admission,
    numbers: [HoldNumber; Dimension::COUNT],
}

#[derive(Default)]
struct Held {
    bucket: Bucket,
    holds: Holds,
}

impl Replay {
    /// Takes note of what is open after records that the ledger already has. The levels they make are not the stored ones
    /// where older records are gone, but never higher, and so is what their open holds may give back.
    pub(super) fn skip(&mut self, batch: Batch) {
        for record in batch.records {
            match record {
                Record::Admitted(admission) => self.admit(batch.segment, admission),
                Record::Settled(settlement) => {
                    self.settle(&settlement);
                }
            }
        }
    }

    /// Puts the levels right after everything that the ledger has was skipped.
    pub(super) fn restore(&mut self, stored: Vec<StoredBucket>) {
        for StoredBucket { key_id, limit_group, dimension, arrival } in stored {
            let buckets = self.buckets.entry((key_id, limit_group)).or_default();
            if let Some(place) = buckets.get_mut(dimension.index()) {
                place.get_or_insert_default().bucket.restore(arrival);
            }
        }
        self.changed.clear();
    }

    /// The requests that are finished with these records.
    pub(super) fn apply(&mut self, batch: Batch) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(batch.records.len() / 2 + 1);
        for record in batch.records {
            match record {
                Record::Admitted(admission) => self.admit(batch.segment, admission),
                Record::Settled(settlement) => {
                    let Some(admission) = self.settle(&settlement) else {
                        let request_id = settlement.request_id.to_string();
                        tracing::warn!(request_id, "the journal settles a request that is not open: ignored");
                        continue;
                    };
                    entries.push(Entry { admission, settlement });
                }
            }
        }
        entries
    }

    fn admit(&mut self, segment: u64, admission: Admission) {
        let (hold, now) = (&admission.hold, admission.admitted_at);
        let mut numbers = [HoldNumber::default(); Dimension::COUNT];
        for (dimension, number) in Dimension::ALL.into_iter().zip(&mut numbers) {
            if let Some(rate) = hold.limits.rate(dimension) {
                let units = hold.units(dimension);
                self.change(&admission, dimension, |Held { bucket, holds }| {
                    *number = holds.retake(bucket, units, rate, now);
                });
            }
        }
        let first = self.first_ids.entry(segment).or_insert(admission.request_id);
        *first = admission.request_id.min(*first);
        self.open.insert(admission.request_id, Open { segment, admission, numbers });
    }

    fn settle(&mut self, settlement: &Settlement) -> Option<Admission> {
        let Open { admission, numbers, .. } = self.open.remove(&settlement.request_id)?;
        let (hold, now) = (&admission.hold, settlement.settled_at);
        for (dimension, number) in Dimension::ALL.into_iter().zip(numbers) {
            if let Some(rate) = hold.limits.rate(dimension) {
                let (units, used) = (hold.units(dimension), settlement.used.units(dimension));
                self.change(&admission, dimension, |Held { bucket, holds }| {
                    holds.settle(bucket, number, units, used, rate, now);
                });
            }
        }
        Some(admission)
    }

    fn change(&mut self, admission: &Admission, dimension: Dimension, change: impl FnOnce(&mut Held)) {
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
                if let Some(Held { bucket, .. }) = bucket {
                    let (key_id, limit_group) = owner.clone();
                    stored.push(StoredBucket { key_id, limit_group, dimension, arrival: bucket.arrival() });
                }
            }
        }
        stored
    }

    /// The smallest id among the admissions of this segment and those after it; the ones before it are forgotten.
    pub(super) fn first_id(&mut self, segment: u64) -> Option<RequestId> {
        self.first_ids = self.first_ids.split_off(&segment);
        self.first_ids.values().copied().min()
    }

    /// The first segment that an open request still needs.
    pub(super) fn oldest_open(&self) -> Option<u64> {
        self.open.values().map(|open| open.segment).min()
    }
}
