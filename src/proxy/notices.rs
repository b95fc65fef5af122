//! Whose limits on money have passed a mark. A settlement finds out and leaves the key on a list; whoever takes the list looks
//! which marks they are, and tells of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::domain::{ids::KeyId, keys::ApiKey, spend::Interval, time::UnixNanos};

/// What is left away while so many wait is found when all keys are looked at.
const MOST_WAITING: usize = 10_000;

#[derive(Default)]
pub struct Notices {
    /// By key and the start of a day: once for each, however often it is put here.
    waiting: Mutex<HashMap<(KeyId, u64), Passing>>,
    arrived: Notify,
}

/// A key that has paid for a request which passed a mark: its own, or one of those it shares a limit with.
#[derive(Clone, Debug)]
pub struct Passing {
    pub key: Arc<ApiKey>,
    /// When the request was settled.
    pub at: UnixNanos,
}

impl Notices {
    /// To be looked at.
    pub fn put(&self, key: &Arc<ApiKey>, at: UnixNanos) {
        let day = (key.id.clone(), Interval::Day.around(at).start_s);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST_WAITING {
            waiting.insert(day, Passing { key: Arc::clone(key), at });
            self.arrived.notify_one();
        }
    }

    /// All that wait now, by key and time.
    pub fn take_now(&self) -> Vec<Passing> {
        let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut taken: Vec<_> = taken.into_values().collect();
        taken.sort_unstable_by(|a, b| (&a.key.id, a.at).cmp(&(&b.key.id, b.at)));
        taken
    }

    /// Waits until there is somebody to look at, and takes all of them.
    pub async fn take(&self) -> Vec<Passing> {
        loop {
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
            self.arrived.notified().await;
        }
    }
}
