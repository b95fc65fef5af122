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
    domain::refusals::{Kept, RefusedRequest},
    proxy::refusals::Refusals,
    store::{self, Store, StoreError},
};

const PERIOD: Duration = Duration::from_secs(1);
/// While nothing is refused, what has become old is deleted so often: in periods.
const TIDY_PERIODS: u32 = 600;
/// About fifty megabytes.
const MOST_KEPT: usize = 100_000;

pub(super) struct RefusalWriter {
    store: Arc<Store>,
    refusals: Arc<Refusals>,
    clock: Clock,
    /// What the database holds; locked while it is written.
    kept: Mutex<Kept>,
    most_kept: usize,
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
        let kept = Mutex::new(store::refusals::kept(&store).await?);
        Ok(Self { store, refusals, clock, kept, most_kept: MOST_KEPT })
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
        if let Err(error) = self.save(&refused, &mut kept).await {
            self.refusals.lost(refused.len());
            tracing::warn!(%error, refusals = refused.len(), "refusals could not be written: nobody can look them up");
        }
    }

    async fn tidy(&self) {
        let mut kept = self.kept.lock().await;
        if let Err(error) = self.save(&[], &mut kept).await {
            tracing::warn!(%error, "old refusals could not be deleted; it is tried again");
        }
    }

    async fn save(&self, refused: &[RefusedRequest], kept: &mut Kept) -> Result<(), StoreError> {
        let saved = store::refusals::save(&self.store, refused, self.clock.now(), kept, self.most_kept).await;
        if saved.is_err() {
            // Some of them may be there: what is decides what goes.
            *kept = store::refusals::kept(&self.store).await.unwrap_or_else(|_| std::mem::take(kept));
        }
        saved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            ids::{KeyId, ProjectId, RequestId},
            limits::Headrooms,
            refusals::Reason,
            time::UnixNanos,
        },
        metrics::Metrics,
    };

    const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

    fn refused(key: &str, number: u128) -> RefusedRequest {
        RefusedRequest {
            request_id: RequestId::new(NOW.millis(), number),
            refused_at: NOW,
            project_id: ProjectId::parse("proj_a").unwrap(),
            key_id: KeyId::parse(key).unwrap(),
            endpoint: "chat.completions".into(),
            model: "m".into(),
            stream: false,
            status: 404,
            code: None,
            reason: Reason::UnknownModel,
            headrooms: Headrooms::default(),
        }
    }

    fn push(writer: &RefusalWriter, key: &str, number: u128) {
        writer.refusals.push(&KeyId::parse(key).unwrap(), || refused(key, number));
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
            push(&first, "key_a", number);
        }
        let stop = CancellationToken::new();
        stop.cancel();
        Arc::clone(&first).run(stop).await;
        let second = writer(directory.path(), &clock, &metrics).await;
        assert_eq!(second.kept.lock().await.total(), 3);
        clock.advance(crate::domain::refusals::KEPT_NANOS + 1_000_000);
        second.tidy().await;
        assert_eq!(second.kept.lock().await.total(), 0);
        assert_eq!(store::refusals::kept(&second.store).await.unwrap(), Kept::default());
    }

    #[tokio::test]
    async fn what_the_database_does_not_take_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (clock, metrics) = (Clock::manual(NOW), Arc::default());
        let writer = writer(directory.path(), &clock, &metrics).await;
        writer.store.close().await;
        push(&writer, "key_a", 1);
        writer.write().await;
        assert_eq!(metrics.refusals_not_kept.get(), 1);
    }

    #[tokio::test]
    async fn a_flood_of_refusals_is_counted_and_explained_as_far_as_it_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (clock, metrics) = (Clock::manual(NOW), Arc::default());
        let store = Arc::new(Store::open(&directory.path().join("tollgate.db")).await.unwrap());
        // A key may have 20 waiting at a time.
        let refusals = Arc::new(Refusals::at_most(160, Arc::clone(&metrics)));
        let loaded = RefusalWriter::load(store, refusals, clock).await.unwrap();
        let writer = RefusalWriter { most_kept: 50, ..loaded };
        push(&writer, "key_quiet", 0);
        for round in 1..=5 {
            for number in 0..30 {
                push(&writer, "key_flood", round * 100 + number);
            }
            writer.write().await;
        }
        assert_eq!(metrics.refusals_not_kept.get(), 5 * 10);
        let filter = store::requests::Filter {
            from: RequestId::earliest(0),
            before: RequestId::new(NOW.millis() + 1, 0),
            project_ids: Vec::new(),
            api_key_ids: Vec::new(),
            models: Vec::new(),
            outcomes: Vec::new(),
            finished: false,
            refused: true,
        };
        let page = store::requests::page(&writer.store, &filter, NOW, 1_000).await.unwrap();
        let explained: Vec<_> = page.iter().map(crate::domain::explanation::Explained::request_id).collect();
        // The newest of the flood, and the one that is no part of it.
        let flood = (500..520).rev().chain((400..420).rev()).chain((311..320).rev());
        let expected: Vec<_> = flood.chain([0]).map(|number| RequestId::new(NOW.millis(), number)).collect();
        assert_eq!(explained, expected);
        assert_eq!(*writer.kept.lock().await, store::refusals::kept(&writer.store).await.unwrap());
    }
}
