//! Drops entries of the ledger that are older than the operator keeps them, a few at a time and never the sums.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    domain::time::UnixNanos,
    metrics::Metrics,
    store::{Progress, Store, StoreError},
};

const PERIOD: Duration = Duration::from_mins(10);
/// Between two transactions, for whoever else wants the disk.
const PAUSE: Duration = Duration::from_millis(5);
const DAY_NANOS: u64 = 86_400_000_000_000;

pub(super) struct Retention {
    pub(super) store: Arc<Store>,
    pub(super) progress: Progress,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// 0 is for ever.
    pub(super) days: u64,
}

impl Retention {
    /// Until it is told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        if self.days == 0 {
            return;
        }
        loop {
            let now = self.clock.now();
            if let Err(error) = self.drop_old(now, &stop).await {
                tracing::warn!(%error, "old entries of the ledger could not be dropped; it is tried again");
            }
            if timeout(PERIOD, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// What is `days` older than `now`, and than the newest request.
    async fn drop_old(&self, now: UnixNanos, stop: &CancellationToken) -> Result<(), StoreError> {
        let Some(newest) = self.store.newest_arrival().await? else { return Ok(()) };
        // A clock that is far ahead for once must not make everything old.
        let before = UnixNanos(now.min(newest).0.saturating_sub(self.days.saturating_mul(DAY_NANOS)));
        let mut dropping = self.store.begin_dropping(before, self.progress.first_id()).await?;
        let (mut entries, mut adjustments) = (0, 0);
        let mut result = Ok(());
        while !stop.is_cancelled() {
            match dropping.step(&self.store).await {
                Ok(Some(dropped)) => {
                    entries += dropped.entries;
                    adjustments += dropped.adjustments;
                    self.metrics.entries_dropped.inc_by(dropped.entries);
                }
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        if entries > 0 || adjustments > 0 {
            let (before_s, retention_days) = (before.seconds(), self.days);
            tracing::info!(entries, adjustments, before_s, retention_days, "dropped old entries of the ledger");
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::ledger::Entry,
        journal::{Journal, Options, samples::*},
        store::{Projector, ledger::LedgerBatch, seeded},
    };

    const DAY_MS: u64 = 86_400_000;

    #[tokio::test]
    async fn a_clock_that_is_years_ahead_makes_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        let store = seeded(dir.path()).await;
        let (journal, _) = Journal::open(Options::new(dir.path().join("journal")), NOW).unwrap();
        let progress = Projector::new(journal, store.clone()).progress();
        let (metrics, clock) = (Arc::new(Metrics::new()), Clock::manual(NOW));
        let retention = Retention { store: Arc::new(store.clone()), progress, metrics, clock, days: 30 };
        let years_ahead = NOW.plus_nanos(3_650 * DAY_NANOS);
        retention.drop_old(years_ahead, &CancellationToken::new()).await.unwrap();
        let entries = [0, 1, 29 * DAY_MS].map(|number| {
            let admission = admission(number);
            Entry { settlement: settlement(&admission), admission }
        });
        store.append(&LedgerBatch { entries: entries.to_vec(), ..LedgerBatch::default() }).await.unwrap();
        let count = async || {
            retention.drop_old(years_ahead, &CancellationToken::new()).await.unwrap();
            let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM entries").fetch_one(store.reader());
            count.await.unwrap()
        };
        assert_eq!(count().await, 3);
        let admission = admission(32 * DAY_MS);
        let newer = Entry { settlement: settlement(&admission), admission };
        let from = store.projection().await.unwrap();
        store.append(&LedgerBatch { entries: vec![newer], from, ..LedgerBatch::default() }).await.unwrap();
        assert_eq!(count().await, 2, "the first two are thirty days older than the newest");
    }
}
