//! A look-alike of `OpenAI`'s chat completions API: the upstream of the demo, of the tests and of the benchmarks.
//!
//! Answers are deterministic and billed by `OpenAI`'s exact rates; streams have the recorded anatomy; every fault an upstream
//! can show is there for the asking (see [`faults`]). The optional log of received requests is what crash tests believe.

mod answer;
mod body;
mod delivery;
pub mod faults;
mod handler;
mod headers;
mod ids;
mod log;
mod models;
mod refusal;
mod request;
mod sound;
#[cfg(test)]
mod tests;
mod usage;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::handler::Simulator;

/// How long open connections may finish what they are sending once the simulator is told to stop.
const DRAIN: Duration = Duration::from_secs(1);
/// How long to wait when the process has no file descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct Options {
    /// Time from a request to the first byte of its answer.
    pub delay: Duration,
    /// Words in a text answer; each is one token, and one chunk of a stream.
    pub chunks: u32,
    /// Time between the chunks of a stream.
    pub chunk_gap: Duration,
    /// Where each received request is written down before it is answered.
    pub log: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { delay: Duration::ZERO, chunks: 16, chunk_gap: Duration::ZERO, log: None }
    }
}

/// Ready to serve: its log is open.
pub struct LookAlike(Arc<Simulator>);

impl LookAlike {
    /// Fails when the log cannot be opened.
    pub fn new(options: Options) -> io::Result<Self> {
        Ok(Self(Arc::new(Simulator::new(options)?)))
    }

    /// Answers on `listener` until `stop` is cancelled.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        serve_all(self.0, listener, stop).await;
    }
}

/// [`LookAlike::new`] and [`LookAlike::serve`] in one.
pub async fn serve(listener: TcpListener, options: Options, stop: CancellationToken) -> io::Result<()> {
    LookAlike::new(options)?.serve(listener, stop).await;
    Ok(())
}

async fn serve_all(simulator: Arc<Simulator>, listener: TcpListener, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                // A token of its own: a shared one is a lock that all connections would take on every poll.
                connections.spawn(converse(stream, Arc::clone(&simulator), stop.child_token()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    connections.close();
    connections.wait().await;
}

async fn converse(stream: TcpStream, simulator: Arc<Simulator>, stop: CancellationToken) {
    // Without it small chunks wait for the acknowledgement of the one before; a socket that refuses is still usable.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        let (simulator, reset) = (Arc::clone(&simulator), Arc::clone(&reset));
        async move { simulator.answer(request, reset).await }
    });
    let mut connection = http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(stream), service);
    let finished: Result<(), hyper::Error> = tokio::select! {
        biased;
        result = &mut connection => result,
        () = stop.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            // Hanging answers do not hold up the end.
            tokio::time::timeout(DRAIN, &mut connection).await.unwrap_or(Ok(()))
        }
    };
    if finished.is_err() && reset.load(Ordering::Acquire) {
        // Closing with nothing to linger for sends RST instead of FIN.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}
