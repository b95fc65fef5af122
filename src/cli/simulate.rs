//! `simulate`: the look-alike of `OpenAI` as a server of its own.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use crate::simulator::{LookAlike, Options};

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
    /// In the place of the option that all commands have: this one reads no settings.
    #[arg(long, hide = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    #[error("simulate reads no configuration file: leave --config out")]
    Configuration,
    #[error("cannot open {0}")]
    Log(io::Error),
    #[error("cannot listen on {0}: {1}; choose another address with --listen")]
    Listen(SocketAddr, io::Error),
    #[error("no signals: {0}")]
    Signals(io::Error),
}

/// Serves until SIGINT or SIGTERM. The address is printed only when everything that can fail has gone well.
pub async fn run(args: SimulateArgs) -> Result<(), SimulateError> {
    if args.config.is_some() {
        return Err(SimulateError::Configuration);
    }
    let options = Options {
        delay: Duration::from_millis(args.delay_ms),
        chunks: args.chunks,
        chunk_gap: Duration::from_millis(args.chunk_gap_ms),
        log: args.log,
    };
    let look_alike = LookAlike::new(options).map_err(SimulateError::Log)?;
    let unusable = |error| SimulateError::Listen(args.listen, error);
    let listener = TcpListener::bind(args.listen).await.map_err(unusable)?;
    let mut signals = Signals::listen().map_err(SimulateError::Signals)?;
    println!("http://{}/v1", listener.local_addr().map_err(unusable)?);
    let stop = CancellationToken::new();
    let until_told = async {
        signals.next().await;
        stop.cancel();
    };
    tokio::join!(look_alike.serve(listener, stop.clone()), until_told);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(listen: SocketAddr, log: Option<PathBuf>) -> SimulateArgs {
        SimulateArgs { listen, delay_ms: 0, chunks: 1, chunk_gap_ms: 0, log, config: None }
    }

    #[tokio::test]
    async fn what_it_cannot_use_is_named_and_it_does_not_start() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = run(args(address, None)).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
        let log = PathBuf::from("/does/not/exist/log");
        let error = run(args(address, Some(log))).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot open the log /does/not/exist/log: No such file"), "{error}");
    }
}
