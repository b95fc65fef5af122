//! What belongs to an owner and a limit group, found by both.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    sync::{Arc, PoisonError, RwLock},
};

use foldhash::fast::RandomState;

/// By one hash of both names: with the names themselves in the map, or a map of maps, each step to a key among very many
/// would wait for another part of the memory.
#[derive(Debug)]
pub(super) struct Table<T> {
    hashing: RandomState,
    places: RwLock<HashMap<u64, Arc<T>, RandomState>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { hashing: RandomState::default(), places: RwLock::default() }
    }
}

impl<T> Table<T> {
    /// The one of these `names`, for which `is_it` knows it; made, when there is none yet.
    pub(super) fn find_or_make(
        &self,
        names: impl Hash,
        is_it: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        self.at(self.hashing.hash_one(names), is_it, make)
    }

    pub(super) fn each(&self, see: impl FnMut(&T)) {
        self.places.read().unwrap_or_else(PoisonError::into_inner).values().map(|found| &**found).for_each(see);
    }

    /// Two that have the same hash have places one after the other, which nobody ever leaves.
    fn at(&self, mut hash: u64, is_it: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> Arc<T> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        while let Some(found) = places.get(&hash) {
            if is_it(found) {
                return Arc::clone(found);
            }
            hash = hash.wrapping_add(1);
        }
        drop(places);
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        while let Some(found) = places.get(&hash) {
            if is_it(found) {
                return Arc::clone(found);
            }
            hash = hash.wrapping_add(1);
        }
        let made = Arc::new(make());
        places.insert(hash, Arc::clone(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_hash_are_told_apart_and_made_once() {
        let table = Table::default();
        let of = |name: &'static str| table.at(u64::MAX, |it: &&str| *it == name, || name);
        let made = ["one", "two", "three"].map(of);
        assert_eq!(made.each_ref().map(|it| **it), ["one", "two", "three"]);
        assert!(["one", "two", "three"].map(of).iter().zip(&made).all(|(again, made)| Arc::ptr_eq(again, made)));
        assert_eq!(table.places.read().unwrap().len(), 3);
    }

    #[test]
    fn threads_that_come_at_once_find_the_same() {
        let (table, begin) = (Table::default(), std::sync::Barrier::new(8));
        for n in 0..200_u64 {
            let of = || {
                begin.wait();
                table.find_or_make(n, |it| *it == n, || n)
            };
            let found: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(of)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(found.iter().all(|it| **it == n && Arc::ptr_eq(it, &found[0])));
        }
    }
}
