//! What happens to an answer whose client has left: it is read on for its true usage, within bounds of time, bytes and
//! number, or cancelled and estimated.

use std::{future::Future, sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

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
}

impl Drainer {
    pub fn new(options: DrainOptions, tasks: TaskTracker, metrics: Arc<Metrics>) -> Self {
        Self { places: Arc::new(Semaphore::new(options.max_requests)), options, tasks, metrics }
    }

    /// Reads a stream to its end in the background, or settles it at once where that is not allowed.
    pub(super) fn read_on(&self, upstream: Incoming, mut stream: Stream) {
        let Some(place) = self.place() else {
            let ending = stream.ending(Outcome::ClientLeft);
            stream.meter.settle(ending);
            return;
        };
        let (max_time, max_bytes) = (self.options.max_time, self.options.max_bytes);
        self.metrics.drains.inc();
        let metrics = Arc::clone(&self.metrics);
        self.tasks.spawn(async move {
            let read = read_to_end(upstream, &mut stream, max_bytes);
            let _ = tokio::time::timeout(max_time, read).await;
            let ending = stream.ending(Outcome::ClientLeft);
            stream.meter.settle(ending);
            metrics.drains.dec();
            drop(place);
        });
    }

    /// Lets `work` go on for a client that left before there was an answer. `None`: it was cut off.
    pub(super) async fn go_on<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let _place = self.place()?;
        self.metrics.drains.inc();
        let finished = tokio::time::timeout(self.options.max_time, work).await.ok();
        self.metrics.drains.dec();
        finished
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        match self.options.policy {
            OnClientDisconnect::Drain => Arc::clone(&self.places).try_acquire_owned().ok(),
            OnClientDisconnect::Cancel => None,
        }
    }
}

async fn read_to_end(mut upstream: Incoming, stream: &mut Stream, max_bytes: u64) {
    while let Some(Ok(frame)) = upstream.frame().await {
        if let Ok(data) = frame.into_data() {
            stream.scanner.push(data, &mut drop);
        }
        let seen = stream.scanner.seen();
        if seen.done || seen.bytes > max_bytes {
            return;
        }
    }
    stream.scanner.finish(&mut drop);
}
