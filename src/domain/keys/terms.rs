//! What a key may do and until when, and when it was last used.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::KeyHash;
use crate::domain::{limits::Limits, spend::Budget, time::UnixNanos};

/// What is agreed on when a key is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyTerms {
    /// Narrower limits than the project's tier.
    pub limits: Limits,
    /// `None`: every model.
    pub allowed_models: Option<AllowedModels>,
    pub budget: Option<Budget>,
    pub expires_at: Option<UnixNanos>,
}

/// The models that a key may call, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AllowedModels(Arc<BTreeSet<String>>);

impl AllowedModels {
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(names.into_iter().collect()))
    }

    /// A model's own name allows its snapshots too; the name of a snapshot allows nothing else. `page` is the name of the
    /// model that `requested` belongs to, where it has a page.
    pub fn allows(&self, requested: &str, page: Option<&str>) -> bool {
        self.0.contains(requested) || page.is_some_and(|page| self.0.contains(page))
    }
}

/// The secret that a rotation has replaced: it opens the key a while longer.
#[derive(Clone, Debug)]
pub struct PreviousSecret {
    pub hash: KeyHash,
    pub expires_at: UnixNanos,
}

/// When a key was last used, to the second. Clones are about the same key. Marking it takes no lock, and writes to memory
/// once a second at most.
#[derive(Clone, Debug, Default)]
pub struct LastUsed(Arc<AtomicU64>);

impl LastUsed {
    /// `None`: never.
    pub fn at(seconds: Option<u64>) -> Self {
        Self(Arc::new(AtomicU64::new(seconds.unwrap_or(0))))
    }

    pub fn mark(&self, now: UnixNanos) {
        let now_s = now.seconds();
        if self.0.load(Ordering::Relaxed) < now_s {
            self.0.fetch_max(now_s, Ordering::Relaxed);
        }
    }

    pub fn seconds(&self) -> Option<u64> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            seconds => Some(seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_allows_its_snapshots_and_a_snapshot_itself_alone() {
        let allowed = AllowedModels::new(["gpt-4o".to_owned(), "gpt-audio-2025-08-28".to_owned()]);
        for (requested, page, expected) in [
            ("gpt-4o", Some("gpt-4o"), true),
            ("gpt-4o-2024-08-06", Some("gpt-4o"), true),
            ("gpt-4o-mini", Some("gpt-4o-mini"), false),
            ("gpt-audio-2025-08-28", Some("gpt-audio"), true),
            ("gpt-audio", Some("gpt-audio"), false),
            ("unlisted", None, false),
        ] {
            assert_eq!(allowed.allows(requested, page), expected, "{requested}");
        }
    }

    #[test]
    fn the_last_use_is_the_latest_of_all_clones() {
        let used = LastUsed::default();
        assert_eq!(used.seconds(), None);
        used.clone().mark(UnixNanos::from_seconds(9));
        used.mark(UnixNanos::from_seconds(5));
        assert_eq!(used.seconds(), Some(9));
    }
}
