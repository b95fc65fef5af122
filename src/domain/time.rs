//! Points in time. Nobody in `domain` reads a clock: `now` is an argument.

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01 UTC; reaches the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    pub const fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Days since 1970-01-01, which begin at midnight UTC.
    pub const fn day(self) -> u64 {
        self.seconds() / 86_400
    }

    #[must_use]
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to `self`, zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
