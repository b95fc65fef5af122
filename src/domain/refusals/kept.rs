//! Which refusals go when there are too many: whoever floods pushes out its own.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
};

use crate::domain::ids::{KeyId, RequestId};

/// The refusals that are kept, by key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    of_key: HashMap<KeyId, BTreeSet<RequestId>>,
    total: usize,
}

impl Kept {
    pub const fn total(&self) -> usize {
        self.total
    }

    /// One that is there already stays one.
    pub fn add(&mut self, key: &KeyId, request_id: RequestId) {
        let added = match self.of_key.get_mut(key) {
            Some(ids) => ids.insert(request_id),
            None => self.of_key.entry(key.clone()).or_default().insert(request_id),
        };
        self.total = self.total.saturating_add(usize::from(added));
    }

    pub fn forget_before(&mut self, oldest: RequestId) {
        for ids in self.of_key.values_mut().filter(|ids| ids.first().is_some_and(|id| *id < oldest)) {
            *ids = ids.split_off(&oldest);
        }
        self.tidy();
    }

    /// Takes out what is more than `most`: one by one, the oldest of the key that has most.
    pub fn shed(&mut self, most: usize) -> Vec<RequestId> {
        let excess = self.total.saturating_sub(most);
        let mut gone = Vec::with_capacity(excess);
        if excess == 0 {
            return gone;
        }
        let ranked = |ids: &BTreeSet<RequestId>| Some((ids.len(), Reverse(*ids.first()?)));
        let ranks = self.of_key.values_mut().filter_map(|ids| Some((ranked(ids)?, ids)));
        let mut fullest: BinaryHeap<_> = ranks.collect();
        while gone.len() < excess {
            let Some((_, ids)) = fullest.pop() else { break };
            gone.extend(ids.pop_first());
            fullest.extend(ranked(ids).map(|rank| (rank, ids)));
        }
        self.tidy();
        gone
    }

    fn tidy(&mut self) {
        self.of_key.retain(|_, ids| !ids.is_empty());
        self.total = self.of_key.values().map(BTreeSet::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(numbers: &[(&str, std::ops::Range<u64>)]) -> Kept {
        let mut kept = Kept::default();
        for (key, numbers) in numbers {
            let key = KeyId::parse(key).unwrap();
            numbers.clone().for_each(|ms| kept.add(&key, RequestId::new(ms, 0)));
        }
        kept
    }

    fn shed(kept: &mut Kept, most: usize) -> Vec<u64> {
        kept.shed(most).into_iter().map(RequestId::arrived_ms).collect()
    }

    #[test]
    fn a_flood_pushes_out_its_own_and_nothing_of_others() {
        let mut kept = kept(&[("key_quiet", 0..3), ("key_flood", 10..110)]);
        assert_eq!(shed(&mut kept, 103), [0_u64; 0]);
        assert_eq!(shed(&mut kept, 100), [10, 11, 12]);
        assert_eq!(shed(&mut kept, 6), (13..107).collect::<Vec<_>>());
        // As many each: the oldest of all.
        assert_eq!((shed(&mut kept, 4), kept.total()), (vec![0, 107], 4));
        assert_eq!((shed(&mut kept, 0).len(), &kept), (4, &Kept::default()));
    }

    #[test]
    fn what_is_old_is_forgotten_and_nothing_is_counted_twice() {
        let mut kept = kept(&[("key_a", 0..5), ("key_a", 3..6), ("key_b", 0..2)]);
        assert_eq!(kept.total(), 8);
        kept.forget_before(RequestId::earliest(2));
        assert_eq!(kept, self::kept(&[("key_a", 2..6)]));
    }
}
