//! The append-only journal: a request is in it before the upstream is called and settled in it before the client has its
//! last byte, so that a crash at any moment loses none.

mod error;
mod outside;
mod read;
mod record;
mod recover;
mod segment;
mod sync;
mod writer;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::File,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use tokio::sync::{Notify, watch};

use crate::domain::{
    ids::RequestId,
    ledger::{Admission, Settlement},
};

pub use error::{Cause, Failing, JournalError};
pub use outside::{any_settled, end_of};
pub use read::Batch;
pub use record::Record;
use writer::Writer;

#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    /// A segment is left for a new one when it has no room for another admission and all open settlements.
    pub segment_bytes: u64,
    /// With more than this, requests are refused until the ledger has caught up.
    pub max_bytes: u64,
    pub durability: Durability,
}

impl Options {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), segment_bytes: 16 << 20, max_bytes: 1 << 30, durability: Durability::Process }
    }
}

/// What a record survives once it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the process.
    #[default]
    Process,
    /// A power failure: records wait for a grouped fdatasync.
    Power,
}

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub segment: u64,
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of segment {}", self.offset, self.segment)
    }
}

/// Proof of an admission, to be given back with its settlement. One that is lost is settled at the next start.
#[derive(Debug)]
#[must_use = "an admission is to be settled"]
pub struct Ticket {
    request_id: RequestId,
    position: Position,
}

impl Ticket {
    /// Where the admission ends in the journal, for [`Journal::durable`].
    pub const fn position(&self) -> Position {
        self.position
    }
}

/// What was found at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Requests that were open and are now settled at their estimates.
    pub interrupted: u64,
    /// Bytes of a half-written record at the end, dropped.
    pub torn_bytes: u64,
    /// Settlements whose admission is not kept any more, or that were there twice.
    pub unmatched_settlements: u64,
}

/// For health and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalState {
    pub bytes: u64,
    pub open_admissions: u64,
    /// Settlements that could not be written yet and are kept in memory.
    pub waiting_settlements: u64,
    /// Why requests are refused at the moment.
    pub failing: Option<Failing>,
}

pub struct Journal {
    writer: Mutex<Writer>,
    changed: Notify,
    durability: Durability,
    synced: watch::Sender<sync::Synced>,
    syncing: AtomicBool,
    run_start: Position,
    /// Held so that a second gateway cannot settle our open requests as its own.
    _lock: File,
}

impl Journal {
    /// Writes the admission, or refuses: then the request must not be sent.
    pub fn admit(&self, admission: &Admission) -> Result<Ticket, JournalError> {
        let ticket = self.writer().admit(admission)?;
        self.changed.notify_one();
        Ok(ticket)
    }

    /// Writes the settlement; if the disk fails it is kept in memory and written as soon as possible.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is good for one settlement")]
    pub fn settle(&self, ticket: Ticket, settlement: &Settlement) -> Position {
        debug_assert_eq!(ticket.request_id, settlement.request_id);
        let position = self.writer().settle(ticket.position.segment, settlement);
        self.changed.notify_one();
        position
    }

    /// Tries again what failed, for a background tick; nothing to do in a healthy journal.
    pub fn retry(&self) -> Result<(), JournalError> {
        self.writer().retry()?;
        self.changed.notify_one();
        Ok(())
    }

    /// Returns when something was written since the last call. For one waiter, the projector.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Before the first record kept.
    pub fn start(&self) -> Position {
        self.writer().start()
    }

    /// After the last record.
    pub fn end(&self) -> Position {
        self.writer().end()
    }

    /// Where to read on for a reader whose `position` was lost, so that it misses nothing that is kept.
    pub fn nearest(&self, position: Position) -> Position {
        let writer = self.writer();
        let segment = position.segment;
        match writer.kept(segment) {
            Some(kept) if kept.bytes < position.offset => Position { segment, offset: kept.bytes },
            Some(_) => Position { segment, offset: 0 },
            None if position < writer.start() => writer.start(),
            None => self.run_start,
        }
    }

    /// How much is written after `position`.
    pub fn bytes_after(&self, position: Position) -> u64 {
        self.writer().bytes_after(position)
    }

    /// Deletes the segments before that of `up_to`, except where an admission is open. Blocks on the disk.
    pub fn release(&self, up_to: Position) -> Result<(), JournalError> {
        let releasable = self.writer().releasable(up_to);
        for segment in releasable {
            let path = self.writer().segment_path(segment);
            std::fs::remove_file(&path).map_err(JournalError::io("delete", &path))?;
            self.writer().forget(segment);
        }
        Ok(())
    }

    /// Makes the files' names survive a power failure. Blocks on the disk.
    pub fn sync_names(&self) -> Result<(), JournalError> {
        let dir = self.writer().dir();
        segment::sync_dir(&dir)
    }

    pub fn state(&self) -> JournalState {
        self.writer().state()
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic elsewhere leaves the state whole: every step of the writer is complete before the next begins.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
