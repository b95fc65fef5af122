//! The accept loop. `axum::serve` has no timer, so a slow client would hold a connection for ever: this one has a deadline
//! for headers and for unread answers, a cap on connections, back-off when file descriptors run out, and a drain with an end.

mod failed_accepts;
mod strict;
mod unread;

use std::{future::Future, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{failed_accepts::FailedAccepts, strict::Strict, unread::GivesUp};
use crate::metrics::Metrics;

/// Enough for long keys and many headers; hyper's own default is 400 KiB a connection.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;

#[derive(Clone)]
pub struct Server {
    /// For the head of a request, and for the next one on a connection that is kept open.
    pub header_timeout: Duration,
    /// How long a client may leave its answer unread.
    pub unread_timeout: Duration,
    /// Of one listener: callers who take all of theirs do not lock out the administrators.
    pub places: Arc<Semaphore>,
    pub metrics: Arc<Metrics>,
    pub connections: TaskTracker,
    /// Until it is cancelled, connections wait in the kernel's queue.
    pub open: CancellationToken,
    /// No new connections; open ones finish their request.
    pub stop: CancellationToken,
    /// Open connections are cut.
    pub cut: CancellationToken,
}

impl Server {
    /// Accepts until `stop`. Returns when nothing more is accepted; open connections live on in `connections`.
    pub async fn run(self, listener: TcpListener, router: Router) {
        if self.unless_stopped(self.open.cancelled()).await.is_none() {
            return;
        }
        let mut failed = FailedAccepts::default();
        loop {
            // A place first: while there is none, connections wait in the kernel's queue.
            let Some(place) = self.unless_stopped(Arc::clone(&self.places).acquire_owned()).await else { return };
            let Ok(place) = place else { return };
            match self.unless_stopped(listener.accept()).await {
                None => return,
                Some(Ok((stream, _peer))) => self.serve(stream, router.clone(), place),
                Some(Err(error)) => failed.back_off(&error).await,
            }
        }
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            done = work => Some(done),
        }
    }

    fn serve(&self, stream: TcpStream, router: Router, place: OwnedSemaphorePermit) {
        // Without it, small writes wait for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
        let (stop, cut, metrics) = (self.stop.clone(), self.cut.clone(), Arc::clone(&self.metrics));
        // Without `pipeline_flush`: it holds an answer back while more bytes wait to be read (a line end after the body is
        // enough), and loses it when the connection is closed then.
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS);
        // Not `pipeline_flush`: with it hyper buffers without bound for a client that does not read.
        metrics.connections.inc();
        let stream = GivesUp::after(self.unread_timeout, stream);
        self.connections.spawn(async move {
            let connection = http.serve_connection(TokioIo::new(stream), Strict::new(router));
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = stop.cancelled() => None,
                () = cut.cancelled() => Some(Ok(())),
            };
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = cut.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended with an error");
            }
            metrics.connections.dec();
            drop(place);
        });
    }
}
