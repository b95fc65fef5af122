//! How many calls may be sent a second time: one in twenty, and a few at once, so that a failing upstream meets hardly more
//! than what was asked of it. A second attempt that is answered costs nothing: the first one has not reached anybody.

use std::sync::atomic::{AtomicU32, Ordering};

/// In twentieths of a retry.
const RETRY: u32 = 20;
/// So many in a row while nothing else is sent.
const MOST: u32 = 10 * RETRY;

pub(super) struct RetryBudget(AtomicU32);

impl RetryBudget {
    pub(super) const fn full() -> Self {
        Self(AtomicU32::new(MOST))
    }

    /// A call is sent for the first time.
    pub(super) fn sent(&self) {
        // Mostly it is full, and then nothing is written.
        if self.0.load(Ordering::Relaxed) < MOST {
            self.add(1);
        }
    }

    /// Takes one retry. False: there is none left.
    pub(super) fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(RETRY)).is_ok()
    }

    /// The retry was answered.
    pub(super) fn give_back(&self) {
        self.add(RETRY);
    }

    fn add(&self, part: u32) {
        let filled = |left: u32| Some(left.saturating_add(part).min(MOST));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, filled).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_twenty_is_sent_again_and_ten_more() {
        let budget = RetryBudget::full();
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.sent();
            retries += u32::from(budget.take());
        }
        assert_eq!(retries, 10 + 10_000 / 20 - 1, "the first adds nothing to what is full");
    }

    #[test]
    fn a_retry_that_is_answered_costs_nothing() {
        let budget = RetryBudget::full();
        for _ in 0..1_000 {
            budget.sent();
            assert!(budget.take());
            budget.give_back();
        }
        budget.give_back();
        assert_eq!((0..100).filter(|_| budget.take()).count(), 10, "never more than full");
    }
}
