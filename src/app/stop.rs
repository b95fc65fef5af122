//! The end of a gateway, in order.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::{App, Running};
use crate::domain::money::Total;

/// A kept connection may be about to bring a request; with its answer it is closed in good order. Who is silent for longer is
/// taken to have none.
const LINGER: Duration = Duration::from_secs(1);
const AFTER_THE_CUT: Duration = Duration::from_secs(2);

/// What requests under way hold. Nothing when there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Admitted in the journal and not settled.
    pub admissions: u64,
    /// Settled, but not in the journal's file yet.
    pub settlements: u64,
    pub requests: u64,
    /// Units of limits that may still be given back, by the number of those who hold them.
    pub holds: u64,
    pub money: Total,
    /// Keys and projects that money is held for.
    pub payers: usize,
    pub drains: i64,
}

impl App {
    pub fn held(&self) -> Held {
        let journal = self.journal.state();
        let (requests, holds) = self.proxy.limiter.under_way();
        let (money, payers) = self.proxy.recorder.spending.held();
        Held {
            admissions: journal.open_admissions,
            settlements: journal.waiting_settlements,
            requests,
            holds,
            money,
            payers,
            drains: self.metrics.drains.get(),
        }
    }

    /// The ledger holds all that is in the journal.
    pub fn ledger_is_complete(&self) -> bool {
        self.projection.state().lag_bytes == 0
    }
}

impl Running {
    /// Takes no new connections, lets requests under way finish within the grace period (also those whose client has left), tells
    /// the rest that their time is over, settles everything, and brings the ledger up to the journal's end.
    pub async fn stop(self) {
        let grace_ends = Instant::now() + self.shutdown_grace;
        self.app.stopping.store(true, Ordering::Release);
        if self.handed_over.is_cancelled() {
            self.server.queue_stays.cancel();
        }
        self.server.stop.cancel();
        self.server.connections.close();
        self.tasks.close();
        let _ = timeout(LINGER.min(self.shutdown_grace), self.server.connections.wait()).await;
        self.server.last_call.cancel();
        let under_way = async { tokio::join!(self.server.connections.wait(), self.tasks.wait()) };
        if timeout_at(grace_ends, under_way).await.is_err() {
            let (connections, answers) = (self.server.connections.len(), self.tasks.len());
            tracing::warn!(connections, answers, "the grace period is over: cutting what is still open");
        }
        self.app.proxy.drainer.stop();
        self.server.cut.cancel();
        let _ = timeout(AFTER_THE_CUT, self.server.connections.wait()).await;
        if timeout(AFTER_THE_CUT, self.tasks.wait()).await.is_err() {
            tracing::warn!(open = self.tasks.len(), "answers still being read are settled at the next start");
        }
        self.stop_writing.cancel();
        if timeout(Duration::from_secs(10), self.projection).await.is_err() {
            tracing::warn!("the ledger is behind the journal; it catches up at the next start");
        }
        if timeout(AFTER_THE_CUT, self.writers.wait()).await.is_err() {
            tracing::warn!("what the ledger keeps beside requests could not be written in time");
        }
        let held = self.app.held();
        if held != Held::default() {
            tracing::warn!(?held, "requests are left that the next start settles");
        }
        if let Err(error) = self.app.store.put_back().await {
            tracing::error!(%error, "the ledger's files were deleted or replaced, and could not be put back");
        }
        // A listing that reads the whole ledger would be waited for, and whoever takes over waits for the data.
        if timeout(AFTER_THE_CUT, self.app.store.close()).await.is_err() {
            tracing::warn!("the ledger is still being read: its log is tidied up at the next start");
        }
    }
}
