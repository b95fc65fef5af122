use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    domain::ids::{KeyId, RequestId},
    journal::{Cause, JournalError, Position},
};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the database {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the database {} is damaged, or none at all ({cause}): restore a copy of it, or move it away to begin a new one without the keys and \
        the ledger that it holds",
        path.display()
    )]
    Damaged { path: PathBuf, cause: Box<StoreError> },
    #[error("the database: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("bringing the database up to date: {0}")]
    Migrate(sqlx::migrate::MigrateError),
    #[error(
        "the database was written by a newer version of this program (its schema has step {version}, which this one does \
         not know): run that version, or restore a copy from before the upgrade"
    )]
    NewerDatabase { version: i64 },
    #[error("the database has no audit log yet: it was written by an older version; start the gateway once")]
    NoAuditLog,
    #[error(
        "the database was written by an older version of this program: start the gateway once, which brings it up to date"
    )]
    OlderDatabase,
    #[error("SQLite {found} is too old: 3.51.3 is the first version that cannot lose commits")]
    OldSqlite { found: String },
    #[error("the ledger is at {stored}, not at {expected}: another process has written to it")]
    Moved { stored: Position, expected: Position },
    #[error("the database does not know the API key {0} of a request in the journal")]
    UnknownKey(KeyId),
    #[error("a number of request {0} does not fit the ledger")]
    Overflow(RequestId),
    #[error("a sum does not fit the ledger")]
    SumOverflow,
    #[error("the database holds {0:?}, which is not what this program writes")]
    Unreadable(String),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("a background task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl StoreError {
    /// With the file that is damaged.
    pub(super) fn in_file(self, path: &Path) -> Self {
        Self::Damaged { path: path.to_owned(), cause: Box::new(self) }
    }

    /// The file does not hold what `SQLite` expects.
    pub(super) fn is_damage(&self) -> bool {
        self.sqlite_cause() == Some(Cause::Damaged)
    }

    pub fn cause(&self) -> Cause {
        match self {
            Self::File { source, .. } | Self::Sql(sqlx::Error::Io(source)) => Cause::of_io(source),
            // The one connection that writes is kept by somebody who waits for a lock.
            Self::Sql(sqlx::Error::PoolTimedOut) => Cause::Locked,
            Self::Damaged { .. } | Self::Unreadable(_) => Cause::Damaged,
            Self::Journal(error) => error.cause(),
            other => other.sqlite_cause().unwrap_or(Cause::Other),
        }
    }

    /// By the lowest byte of an extended result code.
    fn sqlite_cause(&self) -> Option<Cause> {
        let (Self::Sql(error) | Self::Migrate(sqlx::migrate::MigrateError::Execute(error))) = self else {
            return None;
        };
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code)?;
        Some(match code.parse::<u32>().ok()? & 0xff {
            3 | 23 => Cause::NotAllowed,
            5 | 6 => Cause::Locked,
            8 => Cause::ReadOnly,
            10 | 14 => Cause::DiskError,
            11 | 26 => Cause::Damaged,
            13 => Cause::NoSpace,
            _ => Cause::Other,
        })
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migrate(error)
    }
}
