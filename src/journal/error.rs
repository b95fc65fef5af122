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

impl JournalError {
    /// For `map_err` on a file operation.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
