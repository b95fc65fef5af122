//! Whose limits on money have passed a mark. A settlement finds out and leaves the key and the marks on a list; whoever takes the
//! list tells of them, and of others that it finds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::domain::{
    ids::KeyId,
    keys::ApiKey,
    spend::{Interval, Mark},
    time::UnixNanos,
};

/// What is left away while so many wait is found when all limits are looked at.
const MOST_WAITING: usize = 10_000;
/// Of one key and day: twice as many as its seven limits have. What is left away is found unless its limit is another by then.
const MOST_MARKS: usize = 42;

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
    /// When the request was settled, or the first of several.
    pub at: UnixNanos,
    /// Of the limits that the request was held to. They may be others by now.
    pub marks: Vec<Mark>,
}

impl Notices {
    /// To be told of, and looked at.
    pub fn put(&self, passing: Passing) {
        let day = (passing.key.id.clone(), Interval::Day.around(passing.at).start_s);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = waiting.get_mut(&day) {
            known.marks.extend(passing.marks);
            known.marks.truncate(MOST_MARKS);
        } else if waiting.len() < MOST_WAITING {
            waiting.insert(day, passing);
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
