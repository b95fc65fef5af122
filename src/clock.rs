//! The one place that reads the time. [`crate::app::App`] holds the clock; everyone else is given `now`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::domain::time::UnixNanos;

#[derive(Clone, Debug)]
pub enum Clock {
    System(Arc<Anchor>),
    /// Stands still until a test moves it.
    Manual(Arc<AtomicU64>),
}

/// Wall time read once, and counted on with the processor's steady counter: it never jumps back.
#[derive(Debug)]
pub struct Anchor {
    counter: quanta::Clock,
    counter_start: u64,
    unix_start: UnixNanos,
}

impl Clock {
    pub fn system() -> Self {
        let counter = quanta::Clock::new();
        let counter_start = counter.raw();
        Self::System(Arc::new(Anchor { counter, counter_start, unix_start: wall_time() }))
    }

    pub fn manual(start: UnixNanos) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(start.0)))
    }

    pub fn now(&self) -> UnixNanos {
        match self {
            Self::System(anchor) => {
                let passed = anchor.counter.delta_as_nanos(anchor.counter_start, anchor.counter.raw());
                anchor.unix_start.plus_nanos(passed)
            }
            Self::Manual(nanos) => UnixNanos(nanos.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock on; a system clock does not move.
    pub fn advance(&self, nanos: u64) {
        if let Self::Manual(now) = self {
            now.fetch_add(nanos, Ordering::AcqRel);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where the wall clock is read")]
fn wall_time() -> UnixNanos {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixNanos(since_epoch.map_or(0, |passed| u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)))
}
