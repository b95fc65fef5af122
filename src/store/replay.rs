//! What the records of the journal add up to: entries, and the level of every bucket. No I/O.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::buckets::StoredBucket;
use crate::{
    domain::{
        bucket::{Bucket, Rate},
        ids::{KeyId, ProjectId, RequestId},
        ledger::{Admission, Entry, Hold, Settlement},
        limits::{ByScope, Dimension, HoldNumbers, Limits, Scope},
        time::UnixNanos,
    },
    journal::{Batch, Record},
};

/// `None` in the place of the key: the project itself.
type Owner = (ProjectId, Option<KeyId>, Arc<str>);
/// Only those that there is a limit for: a handful.
type Shelf = Vec<(Dimension, Bucket)>;

/// Records are this much older than the one before them at most, unless the clock was set back. It holds up nobody for
/// longer when it is set back by less.
const MAX_DISORDER_NANOS: u64 = 60_000_000_000;
/// Every start begins a segment. After this many without a request between, the time of the last one is forgotten.
const MAX_STARTS_WITHOUT_RECORD: u64 = 16;

#[derive(Default)]
pub(super) struct Replay {
    open: HashMap<RequestId, Open>,
    buckets: HashMap<Owner, Shelf>,
    changed: HashSet<Owner>,
    /// Of keys in records that do not tell their project.
    projects: HashMap<KeyId, ProjectId>,
    /// The smallest id among the admissions of each segment.
    first_ids: BTreeMap<u64, RequestId>,
    /// The latest time that a record tells, since the clock was last set back.
    newest: UnixNanos,
    last_segment: Option<u64>,
}

struct Open {
    /// Where it was admitted: needed until the settlement is in the ledger.
    segment: u64,
    admission: Box<Admission>,
    numbers: ByScope<HoldNumbers>,
}

impl Replay {
    /// The keys in `batch` whose projects have to be told before it is applied or skipped.
    pub(super) fn keys_without_project(&self, batch: &Batch) -> Vec<KeyId> {
        let keys = batch.records.iter().filter_map(|record| match record {
            Record::Admitted(admission) if admission.hold.project_id.is_none() => Some(&admission.key_id),
            _ => None,
        });
        let unknown: HashSet<_> = keys.filter(|key_id| !self.projects.contains_key(key_id)).collect();
        unknown.into_iter().cloned().collect()
    }

    pub(super) fn learn_projects(&mut self, projects: HashMap<KeyId, ProjectId>) {
        self.projects.extend(projects);
    }

    /// Takes note of what is open after records that the ledger already has. The levels they make are not the stored ones
    /// where older records are gone, but never higher, and so is what their open holds may give back.
    pub(super) fn skip(&mut self, batch: Batch) {
        self.note_segment(&batch);
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
        for StoredBucket { project_id, key_id, limit_group, dimension, level } in stored {
            let buckets = self.buckets.entry((project_id, key_id, limit_group)).or_default();
            bucket_of(buckets, dimension).restore(level);
        }
        self.changed.clear();
    }

    /// Moves every bucket back with the clock, when `now` says that it was set back: a level is a time, and would be out of
    /// reach for as long. What was used stays used, and no time has passed. True when it was.
    pub(super) fn note_time(&mut self, now: UnixNanos) -> bool {
        let back_nanos = self.newest.since(now);
        if back_nanos <= MAX_DISORDER_NANOS {
            self.newest = self.newest.max(now);
            return false;
        }
        for (owner, buckets) in &mut self.buckets {
            for (_, bucket) in buckets.iter_mut() {
                bucket.set_back(back_nanos);
            }
            self.changed.insert(owner.clone());
        }
        self.newest = now;
        true
    }

    /// All of them, as they are now.
    pub(super) fn buckets(&self) -> Vec<StoredBucket> {
        self.buckets.keys().flat_map(|owner| self.buckets_of(owner)).collect()
    }

    /// The requests that are finished with these records.
    pub(super) fn apply(&mut self, batch: Batch) -> Vec<Entry> {
        self.note_segment(&batch);
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
                    entries.push(Entry { admission, settlement: *settlement });
                }
            }
        }
        entries
    }

    fn note_segment(&mut self, batch: &Batch) {
        if !batch.records.is_empty() {
            self.last_segment = Some(batch.segment);
        }
    }

    fn admit(&mut self, segment: u64, admission: Box<Admission>) {
        let (hold, now) = (&admission.hold, admission.admitted_at);
        self.note_time(now);
        let mut numbers = ByScope::<HoldNumbers>::default();
        self.change(&admission, |scope, dimension, rate, bucket| {
            if let Some(number) = numbers[scope].get_mut(dimension.index()) {
                *number = Some(bucket.retake(hold.units(dimension), rate, now));
            }
        });
        let first = self.first_ids.entry(segment).or_insert(admission.request_id);
        *first = admission.request_id.min(*first);
        self.open.insert(admission.request_id, Open { segment, admission, numbers });
    }

    fn settle(&mut self, settlement: &Settlement) -> Option<Admission> {
        let Open { admission, numbers, .. } = self.open.remove(&settlement.request_id)?;
        let (hold, now) = (&admission.hold, settlement.settled_at);
        self.newest = self.newest.max(now);
        self.change(&admission, |scope, dimension, _, bucket| {
            if let Some(Some(number)) = numbers[scope].get(dimension.index()) {
                bucket.settle(*number, hold.units(dimension), settlement.used.units(dimension), now);
            }
        });
        Some(*admission)
    }

    /// Each bucket that the request was taken from.
    fn change(&mut self, admission: &Admission, mut change: impl FnMut(Scope, Dimension, Rate, &mut Bucket)) {
        let hold = &admission.hold;
        let Some(project_id) = hold.project_id.as_ref().or_else(|| self.projects.get(&admission.key_id)) else {
            return;
        };
        let (project_id, limits) = (project_id.clone(), taken(hold));
        for scope in Scope::ALL.into_iter().filter(|scope| limits[*scope].has_rates()) {
            let key_id = (scope == Scope::Key).then(|| admission.key_id.clone());
            let owner = (project_id.clone(), key_id, Arc::clone(&hold.limit_group));
            let buckets = self.buckets.entry(owner.clone()).or_default();
            for dimension in Dimension::ALL {
                if let Some(rate) = limits[scope].rate(dimension) {
                    change(scope, dimension, rate, bucket_of(buckets, dimension));
                }
            }
            self.changed.insert(owner);
        }
    }

    /// The buckets that changed since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<StoredBucket> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().flat_map(|owner| self.buckets_of(owner)).collect()
    }

    fn buckets_of(&self, owner: &Owner) -> impl Iterator<Item = StoredBucket> {
        let buckets = self.buckets.get(owner).into_iter().flatten();
        buckets.map(move |(dimension, bucket)| {
            let (project_id, key_id, limit_group) = owner.clone();
            StoredBucket { project_id, key_id, limit_group, dimension: *dimension, level: bucket.level() }
        })
    }

    /// The smallest id among the admissions of this segment and those after it; the ones before it are forgotten.
    pub(super) fn first_id(&mut self, segment: u64) -> Option<RequestId> {
        self.first_ids = self.first_ids.split_off(&segment);
        self.first_ids.values().copied().min()
    }

    /// The first segment that is still needed for those from `current` on: by an open request, or for the last record, which
    /// tells the next start the time.
    pub(super) fn oldest_needed(&self, current: u64) -> Option<u64> {
        let last = self.last_segment.filter(|last| current.saturating_sub(*last) <= MAX_STARTS_WITHOUT_RECORD);
        self.open.values().map(|open| open.segment).chain(last).min()
    }
}

#[expect(clippy::indexing_slicing, reason = "the place was just found, or made")]
fn bucket_of(buckets: &mut Shelf, dimension: Dimension) -> &mut Bucket {
    let known = buckets.iter().position(|(known, _)| *known == dimension);
    let place = known.unwrap_or_else(|| {
        buckets.reserve_exact(1);
        buckets.push((dimension, Bucket::default()));
        buckets.len() - 1
    });
    &mut buckets[place].1
}

/// The limits whose buckets `hold` took from. What an earlier version took from a key's is taken from its project's too,
/// which did not have any: the key alone may have used up what all of them share now.
fn taken(hold: &Hold) -> ByScope<Limits> {
    let of_before = ByScope { project: hold.limits.key, key: hold.limits.key };
    if hold.project_id.is_some() { hold.limits } else { of_before }
}
