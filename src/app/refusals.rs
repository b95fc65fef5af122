//! Writes refusals into the database, about once a second: in batches, and only so many.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::App;
use crate::{
    clock::Clock,
    proxy::refusals::Refusals,
    store::{self, Store, StoreError},
};

const PERIOD: Duration = Duration::from_secs(1);
/// While nothing is refused, what has become old is deleted so often: in periods.
const TIDY_PERIODS: u32 = 600;
/// About fifty megabytes.
const MOST_KEPT: u64 = 100_000;

pub(super) struct RefusalWriter {
    store: Arc<Store>,
    refusals: Arc<Refusals>,
    clock: Clock,
    /// How many the database holds; locked while they are written.
    kept: Mutex<u64>,
}

impl App {
    /// Returns when every refusal so far is in the database, or after a second. In a task of its own: whoever asks may leave,
    /// and what has been taken from the list must not go with them.
    pub async fn write_refusals(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let writer = Arc::clone(&self.refusals);
        let _ = timeout(PATIENCE, tokio::spawn(async move { writer.write().await })).await;
    }

    /// Returns when the ledger holds all of the journal, or after a second.
    pub async fn await_ledger(&self) {
        const STEP: Duration = Duration::from_millis(20);
        const STEPS: u32 = 50;
        for _ in 0..STEPS {
            if self.projection.state().lag_bytes == 0 {
                return;
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

impl RefusalWriter {
    pub(super) async fn load(store: Arc<Store>, refusals: Arc<Refusals>, clock: Clock) -> Result<Self, StoreError> {
        let kept = Mutex::new(store::refusals::count(&store).await?);
        Ok(Self { store, refusals, clock, kept })
    }

    /// Until it is told to stop, and then once more.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut periods: u32 = 0;
        loop {
            let stopping = timeout_at(Instant::now() + PERIOD, stop.cancelled()).await.is_ok();
            periods = periods.wrapping_add(1);
            if periods.is_multiple_of(TIDY_PERIODS) {
                self.tidy().await;
            }
            self.write().await;
            if stopping {
                return;
            }
        }
    }

    /// Returns when every refusal of before the call is in the database, or lost to it.
    pub(super) async fn write(&self) {
        // Taken under the lock: who finds nothing left has waited for whoever took it.
        let mut kept = self.kept.lock().await;
        let refused = self.refusals.take();
        if refused.is_empty() {
            return;
        }
        match store::refusals::save(&self.store, &refused, self.clock.now(), *kept, MOST_KEPT).await {
            Ok(now_kept) => *kept = now_kept,
            Err(error) => {
                self.refusals.lost(refused.len());
                // Some of them may be there: the number decides what is deleted.
                *kept = store::refusals::count(&self.store).await.unwrap_or(*kept);
                tracing::warn!(%error, refusals = refused.len(), "refusals could not be written: nobody can look them up");
            }
        }
    }

    async fn tidy(&self) {
        let mut kept = self.kept.lock().await;
        match store::refusals::save(&self.store, &[], self.clock.now(), *kept, MOST_KEPT).await {
            Ok(now_kept) => *kept = now_kept,
            Err(error) => tracing::warn!(%error, "old refusals could not be deleted; it is tried again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            ids::{KeyId, ProjectId, RequestId},
            limits::Headrooms,
            refusals::{Reason, RefusedRequest},
            time::UnixNanos,
        },
        metrics::Metrics,
    };

    const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

    fn refused(number: u128) -> RefusedRequest {
        RefusedRequest {
            request_id: RequestId::new(NOW.millis(), number),
            refused_at: NOW,
            project_id: ProjectId::parse("proj_a").unwrap(),
            key_id: KeyId::parse("key_a").unwrap(),
            endpoint: "chat.completions".into(),
            model: "m".into(),
            stream: false,
            status: 404,
            code: None,
            reason: Reason::UnknownModel,
            headrooms: Headrooms::default(),
        }
    }

    async fn writer(directory: &std::path::Path, clock: &Clock, metrics: &Arc<Metrics>) -> Arc<RefusalWriter> {
        let store = Arc::new(Store::open(&directory.join("tollgate.db")).await.unwrap());
        let refusals = Arc::new(Refusals::new(Arc::clone(metrics)));
        Arc::new(RefusalWriter::load(store, refusals, clock.clone()).await.unwrap())
    }

    #[tokio::test]
    async fn what_waits_is_written_at_the_stop_and_counted_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let (clock, metrics) = (Clock::manual(NOW), Arc::default());
        let first = writer(directory.path(), &clock, &metrics).await;
        for number in 0..3 {
            first.refusals.push(|| refused(number));
        }
        let stop = CancellationToken::new();
        stop.cancel();
        Arc::clone(&first).run(stop).await;
        let second = writer(directory.path(), &clock, &metrics).await;
        assert_eq!(*second.kept.lock().await, 3);
        clock.advance(crate::domain::refusals::KEPT_NANOS + 1_000_000);
        second.tidy().await;
        assert_eq!((*second.kept.lock().await, store::refusals::count(&second.store).await.unwrap()), (0, 0));
    }

    #[tokio::test]
    async fn what_the_database_does_not_take_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (clock, metrics) = (Clock::manual(NOW), Arc::default());
        let writer = writer(directory.path(), &clock, &metrics).await;
        writer.store.close().await;
        writer.refusals.push(|| refused(1));
        writer.write().await;
        assert_eq!(metrics.refusals_not_kept.get(), 1);
    }
}
