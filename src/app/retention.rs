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

    async fn drop_old(&self, now: UnixNanos, stop: &CancellationToken) -> Result<(), StoreError> {
        let before = UnixNanos(now.0.saturating_sub(self.days.saturating_mul(DAY_NANOS)));
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
