//! Administrators on a thread of their own: in the queue of the callers they would wait as long as a crowd of callers does,
//! and could neither see why nor do anything about it.

use std::{io, thread};

use axum::Router;
use tokio::{net::TcpListener, runtime::Builder};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::server::Server;

/// Serves until the server is told to stop, or what is returned is dropped: until then connections may still be open.
pub(super) fn serve(server: Server, listener: TcpListener, router: Router) -> io::Result<DropGuard> {
    let listener = listener.into_std()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let until = CancellationToken::new();
    let gone = until.clone();
    // Whoever waits for the end of all connections waits for those that are still to be accepted, too.
    let accepting = server.connections.token();
    let serving = async move {
        match TcpListener::from_std(listener) {
            Ok(listener) => server.run(listener, router).await,
            Err(error) => tracing::error!(%error, "administrators cannot be served"),
        }
        drop(accepting);
        std::future::pending::<()>().await;
    };
    thread::Builder::new()
        .name("administration".to_owned())
        .spawn(move || runtime.block_on(gone.run_until_cancelled(serving)))?;
    Ok(until.drop_guard())
}
