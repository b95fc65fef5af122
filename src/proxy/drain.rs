//! What happens to an answer whose client has left: it is read on for its true usage, within bounds of time, bytes and
//! number, or cancelled and estimated.

use std::{future::Future, sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::body::Stream;
use crate::{config::OnClientDisconnect, domain::ledger::Outcome, metrics::Metrics};

#[derive(Clone, Copy, Debug)]
pub struct DrainOptions {
    pub policy: OnClientDisconnect,
    pub max_time: Duration,
    pub max_bytes: u64,
    /// Answers that may be read on at the same time.
    pub max_requests: usize,
}

pub struct Drainer {
    options: DrainOptions,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    runtime: Handle,
}

impl Drainer {
    pub fn new(options: DrainOptions, tasks: TaskTracker, metrics: Arc<Metrics>) -> Self {
        let places = Arc::new(Semaphore::new(options.max_requests));
        Self { options, places, tasks, metrics, stop: CancellationToken::new(), runtime: Handle::current() }
    }

    /// Reads nothing on any more: what is being read is settled as far as it got.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Reads a stream to its end in the background, or settles it at once where that is not allowed.
    pub(super) fn read_on(&self, upstream: Incoming, mut stream: Stream) {
        let Some(drain) = self.begin() else {
            drop(upstream);
            stream.settle(self.outcome());
            return;
        };
        let max_bytes = self.options.max_bytes;
        self.spawn(async move {
            drain.within_bounds(read_to_end(upstream, &mut stream, max_bytes)).await;
            stream.settle(Outcome::ClientLeft);
        });
    }

    /// Also from a drop outside of any task, as when the runtime ends.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(work, &self.runtime);
    }

    /// Why an answer is left that is not read on.
    pub(super) fn outcome(&self) -> Outcome {
        if self.stop.is_cancelled() { Outcome::Interrupted } else { Outcome::ClientLeft }
    }

    /// A place among the answers that are read on; `None` when this one is not.
    pub(super) fn begin(&self) -> Option<Drain> {
        if self.options.policy == OnClientDisconnect::Cancel || self.stop.is_cancelled() {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.metrics.drains.inc();
        let (metrics, stop) = (Arc::clone(&self.metrics), self.stop.clone());
        Some(Drain { metrics, stop, max_time: self.options.max_time, _place: place })
    }
}

/// One answer being read on: counted, and in one of the places, until it is dropped.
pub(super) struct Drain {
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    max_time: Duration,
    _place: OwnedSemaphorePermit,
}

impl Drain {
    /// `None` when `work` was cut off.
    pub(super) async fn within_bounds<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            finished = tokio::time::timeout(self.max_time, work) => finished.ok(),
            () = self.stop.cancelled() => None,
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.metrics.drains.dec();
    }
}

async fn read_to_end(mut upstream: Incoming, stream: &mut Stream, max_bytes: u64) {
    while let Some(Ok(frame)) = upstream.frame().await {
        if let Ok(data) = frame.into_data() {
            stream.scanner.push(data, &mut drop);
        }
        let seen = stream.scanner.seen();
        if seen.done || seen.error || seen.bytes > max_bytes {
            return;
        }
    }
    stream.scanner.finish(&mut drop);
}
