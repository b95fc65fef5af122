//! The accept loop. `axum::serve` has no timer, so a slow client would hold a connection for ever: this one has a deadline
//! for headers and for unread answers, a cap on connections, back-off when file descriptors run out, and a drain with an end.

mod failed_accepts;
mod strict;
mod unread;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{failed_accepts::FailedAccepts, strict::Strict, unread::GivesUp};
use crate::metrics::Metrics;

/// Enough for long keys and many headers; hyper's own default is 400 KiB a connection.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// For the words to those whose request is cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    /// No new connections.
    pub stop: CancellationToken,
    /// The sockets stay open elsewhere, and the connections in their queues with them.
    pub queue_stays: CancellationToken,
    /// Connections without a request are closed; the others finish theirs.
    pub last_call: CancellationToken,
    /// Requests are told that their time is over, and their connections are closed.
    pub cut: CancellationToken,
}

impl Server {
    /// Accepts until `stop`. Returns when nothing more is accepted; open connections live on in `connections`.
    pub async fn run(self, listener: TcpListener, router: Router) {
        if self.unless_stopped(self.open.cancelled()).await.is_none() {
            return;
        }
        self.accept(&listener, &router).await;
        if !self.queue_stays.is_cancelled() {
            self.serve_queue(listener, &router);
        }
    }

    /// Who is in the queue when the socket is closed would be reset.
    fn serve_queue(&self, listener: TcpListener, router: &Router) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok(place) = Arc::clone(&self.places).try_acquire_owned()
            && let Ok((stream, _peer)) = listener.accept()
        {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.serve(stream, router.clone(), place);
            }
        }
    }

    async fn accept(&self, listener: &TcpListener, router: &Router) {
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
        let (last_call, cut, metrics) = (self.last_call.clone(), self.cut.clone(), Arc::clone(&self.metrics));
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
        // Made out here and not moved in there: the task would keep room for it twice, and for what it is made of.
        let mut connection = http.serve_connection(TokioIo::new(stream), Strict::new(router));
        self.connections.spawn(async move {
            let mut connection = Pin::new(&mut connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = last_call.cancelled() => None,
            };
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection.as_mut() => ended,
                        () = cut.cancelled() => timeout(LAST_WORDS, connection).await.unwrap_or(Ok(())),
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
