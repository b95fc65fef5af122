//! What happens to an answer whose client has left: it is read on for its true usage, within bounds of time, bytes and
//! number, or cancelled and estimated.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
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
    /// The same as `stop`, for those who look at it with every piece of an answer.
    is_stopped: AtomicBool,
    runtime: Handle,
}

impl Drainer {
    pub fn new(options: DrainOptions, tasks: TaskTracker, metrics: Arc<Metrics>) -> Self {
        let places = Arc::new(Semaphore::new(options.max_requests));
        let (stop, is_stopped) = (CancellationToken::new(), AtomicBool::new(false));
        Self { options, places, tasks, metrics, stop, is_stopped, runtime: Handle::current() }
    }

    /// Reads nothing on any more: what is being read is settled as far as it got.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.stop.cancel();
    }

    /// The time that answers had to finish is over.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Reads a stream to its end in the background, or settles it at once where that is not allowed.
    pub(super) fn read_on(&self, upstream: Incoming, mut stream: Stream) {
        let Some(drain) = self.begin() else {
            drop(upstream);
            stream.settle(self.outcome());
            return;
        };
        self.spawn(async move { drain.read_on(upstream, &mut stream).await });
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
        let ends_at = Instant::now() + self.options.max_time;
        Some(Drain { metrics, stop, ends_at, max_bytes: self.options.max_bytes, _place: place })
    }
}

/// One answer being read on: counted, and in one of the places, until it is dropped.
pub(super) struct Drain {
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// Counted from when the client left, whatever the answer turns out to be.
    ends_at: Instant,
    pub(super) max_bytes: u64,
    _place: OwnedSemaphorePermit,
}

impl Drain {
    /// `None` when `work` was cut off.
    pub(super) async fn within_bounds<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            finished = tokio::time::timeout_at(self.ends_at, work) => finished.ok(),
            () = self.stop.cancelled() => None,
        }
    }

    /// Reads a stream to its end or to the first bound, and settles it.
    pub(super) async fn read_on(&self, upstream: Incoming, stream: &mut Stream) {
        self.within_bounds(read_to_end(upstream, stream, self.max_bytes)).await;
        stream.settle(Outcome::ClientLeft);
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.metrics.drains.dec();
    }
}

async fn read_to_end(mut upstream: Incoming, stream: &mut Stream, max_bytes: u64) {
    let up_to = stream.scanner.seen().bytes.saturating_add(max_bytes);
    while let Some(Ok(frame)) = upstream.frame().await {
        if let Ok(data) = frame.into_data() {
            stream.scanner.push(data, &mut drop);
        }
        let seen = stream.scanner.seen();
        if seen.done || seen.error || seen.bytes > up_to {
            return;
        }
    }
    stream.scanner.finish(&mut drop);
}
