//! The directory of the journal and the ledger, held by one process at a time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{sleep, timeout};

/// Requests wait meanwhile.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(5);

/// Dropping it lets another process in.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("cannot use the data directory {path}: {error}; choose another one with TOLLGATE_DATA_DIR")]
    Unusable { path: PathBuf, error: io::Error },
    #[error("the data directory {0} is not a directory; choose another one with TOLLGATE_DATA_DIR")]
    NoDirectory(PathBuf),
    #[error(
        "another gateway uses the data directory {0}: two would count the same limits and write the same ledger; stop it, or \
         give this one its own with TOLLGATE_DATA_DIR"
    )]
    InUse(PathBuf),
    #[error(
        "{ledger} is missing or empty, but there is a journal beside it: a new ledger would know neither the keys nor what they have \
         used. Restore the ledger from a copy (beside it, {ledger}.copy or a file that begins with {ledger}.replaced may be one); \
         or, to begin anew without all that, move {journal} away too"
    )]
    LedgerMissing { ledger: PathBuf, journal: PathBuf },
}

impl DataDir {
    pub(super) fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |error| DataDirError::Unusable { path: path.to_owned(), error };
        if path.exists() && !path.is_dir() {
            return Err(DataDirError::NoDirectory(path.to_owned()));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// The ledger is made before the journal, so a journal without a ledger has lost it.
    pub(super) fn check_ledger(&self) -> Result<(), DataDirError> {
        let (ledger, journal) = (self.ledger(), self.journal());
        let has = |path: &Path| fs::metadata(path).is_ok_and(|found| found.is_dir() || found.len() > 0);
        if has(&journal) && !has(&ledger) {
            return Err(DataDirError::LedgerMissing { ledger, journal });
        }
        Ok(())
    }

    /// Waits for a gateway that is about to leave it.
    pub(super) async fn open_within(path: &Path, wait: Duration) -> Result<Self, DataDirError> {
        let opening = async {
            loop {
                match Self::open(path) {
                    Err(DataDirError::InUse(_)) => sleep(BETWEEN_ATTEMPTS).await,
                    opened => return opened,
                }
            }
        };
        if wait.is_zero() {
            return Self::open(path);
        }
        timeout(wait, opening).await.unwrap_or_else(|_| Err(DataDirError::InUse(path.to_owned())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn journal(&self) -> PathBuf {
        journal(&self.path)
    }

    pub(super) fn ledger(&self) -> PathBuf {
        ledger(&self.path)
    }
}

/// Where the journal of a data directory is.
pub(super) fn journal(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

/// The database of a data directory.
pub(super) fn ledger(data_dir: &Path) -> PathBuf {
    data_dir.join("tollgate.db")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gateway_on_the_same_data_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(&dir.path().join("data")).unwrap();
        assert!(matches!(DataDir::open(first.path()), Err(DataDirError::InUse(_))));
        let path = first.path().to_owned();
        drop(first);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::open(file.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{} is not a directory", file.path().display())), "{error}");
    }
}
