//! The database's files, which somebody may delete or replace while they are open. What the program writes then goes to
//! files without a name, and is gone with the process: so this is looked for, and the database put back as it is.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sqlx::{Connection as _, SqliteConnection};

use super::{READERS, Store, StoreError, create_private, options};

/// Which files the writer has open, by device and inode.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    open: Mutex<Option<Identity>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    database: (u64, u64),
    log: (u64, u64),
}

/// What was done about files that were deleted or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// The database, with all that was committed.
    pub database: PathBuf,
    /// Where somebody else's file was moved, that stood in its place.
    pub set_aside: Option<PathBuf>,
}

impl Files {
    pub(super) const fn at(path: PathBuf) -> Self {
        Self { path, open: Mutex::new(None) }
    }

    /// Notes which files a new connection of the writer has open, and refuses another database than the last one had.
    pub(super) fn opened(&self) -> io::Result<()> {
        let found = self.in_place()?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_some_and(|open| open.database != found.database) {
            return Err(io::Error::other("another database stands where the ledger was"));
        }
        *open = Some(found);
        Ok(())
    }

    fn in_place(&self) -> io::Result<Identity> {
        Ok(Identity { database: identity(&self.path)?, log: identity(&beside(&self.path, "-wal"))? })
    }

    /// The files that are open are not those that a new connection would find.
    fn are_gone(&self) -> bool {
        let open = *self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.is_some_and(|open| !self.in_place().is_ok_and(|found| found == open))
    }

    /// It is only the log that is gone.
    fn have_the_database(&self) -> bool {
        let open = *self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.is_some_and(|open| identity(&self.path).is_ok_and(|found| found == open.database))
    }

    fn forget(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Store {
    /// Looks whether the files are still there. If not, the database is written anew from what is open, and takes its place:
    /// nothing that was committed is lost. Writers wait meanwhile.
    pub async fn put_back(&self) -> Result<Option<PutBack>, StoreError> {
        if !self.files.are_gone() {
            return Ok(None);
        }
        let mut writer = self.writer.acquire().await?;
        // A connection that was made just now has looked for itself.
        if !self.files.are_gone() {
            return Ok(None);
        }
        let path = &self.files.path;
        let copy = beside(path, ".copy");
        let in_file = |source| StoreError::File { path: copy.clone(), source };
        for left in ["", "-wal", "-shm"] {
            gone(&beside(&copy, left)).map_err(in_file)?;
        }
        create_private(&copy).map_err(in_file)?;
        sqlx::query("VACUUM INTO ?1").bind(copy.to_string_lossy().into_owned()).execute(&mut *writer).await?;
        // In the mode that those who only read expect to find it in.
        SqliteConnection::connect_with(&options(&copy)).await?.close().await?;
        let in_place = |source| StoreError::File { path: path.clone(), source };
        let set_aside = if self.files.have_the_database() { None } else { set_aside(path).map_err(in_place)? };
        replace(path, &copy).map_err(in_place)?;
        self.files.forget();
        writer.close().await?;
        drop(self.writer.acquire().await?);
        self.renew_readers().await;
        Ok(Some(PutBack { database: path.clone(), set_aside }))
    }

    /// Those that are open read what has no name any more.
    async fn renew_readers(&self) {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.extend(self.reader.acquire().await);
        }
        for reader in readers {
            let _ = reader.close().await;
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Somebody else's file: it may be the copy that they brought back.
fn set_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    let aside = beside(path, ".replaced");
    match fs::rename(path, &aside) {
        Ok(()) => Ok(Some(aside)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts `copy` where the database was.
fn replace(path: &Path, copy: &Path) -> io::Result<()> {
    File::open(copy)?.sync_all()?;
    // They belong to the database that was there before, and would be read into the one that comes.
    for log in ["-wal", "-shm"] {
        gone(&beside(path, log))?;
    }
    fs::rename(copy, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `tollgate.db` and `-wal` make `tollgate.db-wal`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
