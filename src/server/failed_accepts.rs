//! Connections that cannot be accepted: no file descriptor is left, say. The kernel keeps them waiting meanwhile.

use std::{io, time::Duration};

use tokio::time::{Instant, sleep};

/// After a failed accept: long enough not to spin, short enough not to be felt.
const BACK_OFF: Duration = Duration::from_millis(50);
/// The trouble may last: one line in this time says it as well as twenty a second.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(5);

/// Of one listener.
#[derive(Default)]
pub(super) struct FailedAccepts {
    warned_at: Option<Instant>,
    since: u64,
}

impl FailedAccepts {
    /// Waits until it makes sense to try again.
    pub(super) async fn back_off(&mut self, error: &io::Error) {
        // That client went away; the next one has nothing to do with it.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        if let Some(failed) = self.due(Instant::now()) {
            tracing::warn!(%error, failed, "cannot accept connections at the moment");
        }
        sleep(BACK_OFF).await;
    }

    /// One more; how many there were since the last time that somebody was told, when it is time to tell.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.since = self.since.saturating_add(1);
        let is_early = self.warned_at.is_some_and(|then| now.saturating_duration_since(then) < BETWEEN_WARNINGS);
        if is_early {
            return None;
        }
        self.warned_at = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_at_once_and_the_next_ones_together() {
        let (mut failed, began) = (FailedAccepts::default(), Instant::now());
        let mut told_after = |millis| failed.due(began + Duration::from_millis(millis));
        assert_eq!(told_after(0), Some(1));
        let told: Vec<_> = (1..=240).filter_map(|step| told_after(step * 50)).collect();
        assert_eq!(told, [100, 100], "twelve seconds of failures are two more lines");
    }

    #[tokio::test]
    async fn only_trouble_of_our_own_is_waited_for() {
        let (mut failed, began) = (FailedAccepts::default(), Instant::now());
        failed.back_off(&io::ErrorKind::ConnectionAborted.into()).await;
        assert!(began.elapsed() < BACK_OFF);
        // EMFILE.
        failed.back_off(&io::Error::from_raw_os_error(24)).await;
        assert!(began.elapsed() >= BACK_OFF);
    }
}
