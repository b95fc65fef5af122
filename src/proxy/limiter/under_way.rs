//! What requests under way have taken from all limits together.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{Arc, PoisonError, RwLock},
};

use super::{Groups, Limiter};
use crate::domain::limits::Dimension;

impl Limiter {
    /// Requests under way, and holds on the limits that are not settled. Both are nothing when nothing is under way.
    pub fn under_way(&self) -> (u64, u64) {
        let (mut requests, mut holds) = (0_u64, 0_u64);
        each(&self.projects, |shared| {
            requests = requests.saturating_add(shared.under_way.count(Dimension::ConcurrentRequests).into());
            holds = holds.saturating_add(shared.cells.open_holds());
        });
        each(&self.keys, |buckets| {
            holds = holds.saturating_add(buckets.of_key.get().map_or(0, |cells| cells.open_holds()));
        });
        (requests, holds)
    }
}

fn each<K, T, S: BuildHasher>(map: &RwLock<HashMap<K, Arc<Groups<T>>, S>>, mut see: impl FnMut(&T)) {
    for groups in map.read().unwrap_or_else(PoisonError::into_inner).values() {
        for (_, found) in groups.read().unwrap_or_else(PoisonError::into_inner).iter() {
            see(found);
        }
    }
}
