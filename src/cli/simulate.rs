//! `simulate`: the look-alike of `OpenAI` as a server of its own.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use crate::simulator::{self, Options};

#[derive(Clone, Debug, clap::Args)]
pub struct SimulateArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    listen: SocketAddr,
    /// Time from a request to its answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_ms: u64,
    /// Words in a text answer: one token and one chunk of a stream each.
    #[arg(long, value_name = "N", default_value_t = 16)]
    chunks: u32,
    /// Time between the chunks of a stream.
    #[arg(long, value_name = "N", default_value_t = 0)]
    chunk_gap_ms: u64,
    /// Append each received request to this file, before it is answered.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(args: SimulateArgs) -> io::Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    let mut signals = Signals::listen()?;
    println!("http://{}/v1", listener.local_addr()?);
    let stop = CancellationToken::new();
    let options = Options {
        delay: Duration::from_millis(args.delay_ms),
        chunks: args.chunks,
        chunk_gap: Duration::from_millis(args.chunk_gap_ms),
        log: args.log,
    };
    let server = tokio::spawn(simulator::serve(listener, options, stop.clone()));
    signals.next().await;
    stop.cancel();
    server.await.map_err(io::Error::other)?
}
