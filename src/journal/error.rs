use std::{io, path::PathBuf};

use super::Position;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged at byte {offset}: {reason}. Restore the file from a copy; or overwrite that one line with spaces \
         to give up its record, and start again",
        path.display()
    )]
    Damaged { path: PathBuf, offset: u64, reason: &'static str },
    #[error("{} is shorter than the {expected} bytes that were written to it: restore it from a copy", path.display())]
    Shortened { path: PathBuf, expected: u64 },
    #[error("{} is missing between its neighbours: restore it from a copy", path.display())]
    Missing { path: PathBuf },
    #[error("{} is in use by another running gateway", dir.display())]
    InUse { dir: PathBuf },
    #[error("the journal may not grow past {max_bytes} bytes: the ledger is behind, or the limit is too small")]
    Full { max_bytes: u64 },
    #[error("the record is larger than {max_bytes} bytes")]
    TooLarge { max_bytes: usize },
    #[error("cannot write the record as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("the journal does not hold {0}")]
    NotKept(Position),
    /// What was written may be gone after a power failure; the process still has it.
    #[error("the disk did not confirm that the record is stored")]
    NotDurable,
}

/// Why what is to be kept is not written: a word for `/health` and the metrics, without paths. The log tells the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    NoSpace,
    ReadOnly,
    NotAllowed,
    /// The journal has the size that it may have, because the ledger is behind.
    JournalFull,
    Locked,
    Damaged,
    DiskError,
    Other,
}

impl Cause {
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSpace => "no_space",
            Self::ReadOnly => "read_only",
            Self::NotAllowed => "not_allowed",
            Self::JournalFull => "journal_full",
            Self::Locked => "locked",
            Self::Damaged => "damaged",
            Self::DiskError => "disk_error",
            Self::Other => "other",
        }
    }

    pub(crate) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::PermissionDenied => Self::NotAllowed,
            _ => Self::DiskError,
        }
    }
}

/// A failure that lasts, until a later try succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    pub cause: Cause,
    pub text: String,
}

impl JournalError {
    pub fn cause(&self) -> Cause {
        match self {
            Self::Io { source, .. } => Cause::of_io(source),
            Self::Full { .. } => Cause::JournalFull,
            Self::NotDurable => Cause::DiskError,
            Self::Damaged { .. } | Self::Shortened { .. } | Self::Missing { .. } => Cause::Damaged,
            Self::InUse { .. } => Cause::Locked,
            Self::TooLarge { .. } | Self::Encode(_) | Self::NotKept(_) => Cause::Other,
        }
    }

    /// For `map_err` on a file operation.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
