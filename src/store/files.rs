//! The database's files, which somebody may delete or replace while they are open. What the program writes then goes to
//! files without a name, and is gone with the process: so this is looked for, and the database put back as it is.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, SqliteConnection};
use tokio::time::Instant;

use super::{Store, StoreError, create_private, options};
use crate::journal::Cause;

/// Which files the writer has open, by device and inode.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Identity>,
    /// The copy that was put in place last, and since when it is there: readers from before have the other one.
    put_back: Option<(Inode, Instant)>,
    /// Why it cannot be put back.
    trouble: Option<Cause>,
}

type Inode = (u64, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    database: Inode,
    log: Inode,
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
    /// By its true path, which is what the log is named by.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which files a new connection of the writer has open, and refuses another database than the last one had.
    pub(super) fn opened(&self) -> io::Result<()> {
        let found = self.in_place()?;
        let mut state = self.state();
        let is_known = |open: Identity| {
            open.database == found.database || state.put_back.is_some_and(|(copy, _)| copy == found.database)
        };
        if state.open.is_some_and(|open| !is_known(open)) {
            return Err(io::Error::other("another database stands where the ledger was"));
        }
        state.open = Some(found);
        Ok(())
    }

    /// Whether a reader of this `age` reads the database that is in place.
    pub(super) fn are_read_by(&self, age: Duration) -> bool {
        self.state().put_back.is_none_or(|(_, since)| age < since.elapsed())
    }

    fn in_place(&self) -> io::Result<Identity> {
        Ok(Identity { database: inode(&self.path)?, log: inode(&beside(&self.path, "-wal"))? })
    }

    /// The files that are open are not those that a new connection would find.
    fn are_gone(&self) -> bool {
        let open = self.state().open;
        open.is_some_and(|open| !self.in_place().is_ok_and(|found| found == open))
    }

    /// It is only the log that is gone.
    fn have_the_database(&self) -> bool {
        let open = self.state().open;
        open.is_some_and(|open| inode(&self.path).is_ok_and(|found| found == open.database))
    }
}

impl Store {
    /// What is written now would be gone with this process.
    pub fn files_are_gone(&self) -> bool {
        self.files.are_gone()
    }

    /// Why the files, which are gone, cannot be put back.
    pub fn files_trouble(&self) -> Option<Cause> {
        self.files.state().trouble
    }

    /// Looks whether the files are still there. If not, the database is written anew from what is open, and takes its place:
    /// nothing that was committed is lost. Writers wait meanwhile.
    pub async fn put_back(&self) -> Result<Option<PutBack>, StoreError> {
        if !self.files.are_gone() {
            return Ok(None);
        }
        let done = self.put_back_now().await;
        self.files.state().trouble = done.as_ref().err().map(StoreError::cause);
        done
    }

    async fn put_back_now(&self) -> Result<Option<PutBack>, StoreError> {
        // A full disk may have cost the writer its connection; a reader has the same files open.
        let writer = self.writer.acquire().await;
        let is_new = writer.is_ok() && !self.files.are_gone();
        if is_new {
            return Ok(None);
        }
        let mut connection = match writer {
            Ok(writer) => writer,
            Err(_) => {
                let mut reader = self.reader.acquire().await?;
                // A copy counts as a write; the reader is closed after it.
                sqlx::query("PRAGMA query_only = OFF").execute(&mut *reader).await?;
                reader
            }
        };
        let path = &self.files.path;
        let copy = beside(path, ".copy");
        let in_file = |source| StoreError::File { path: copy.clone(), source };
        for left in ["", "-wal", "-shm"] {
            gone(&beside(&copy, left)).map_err(in_file)?;
        }
        create_private(&copy).map_err(in_file)?;
        sqlx::query("VACUUM INTO ?1").bind(copy.to_string_lossy().into_owned()).execute(&mut *connection).await?;
        // In the mode that those who only read expect to find it in.
        SqliteConnection::connect_with(&options(&copy)).await?.close().await?;
        let in_place = |source| StoreError::File { path: path.clone(), source };
        let set_aside = if self.files.have_the_database() { None } else { set_aside(path).map_err(in_place)? };
        self.files.state().put_back = Some((inode(&copy).map_err(in_file)?, Instant::now()));
        replace(path, &copy).map_err(in_place)?;
        connection.close().await?;
        drop(self.writer.acquire().await?);
        Ok(Some(PutBack { database: path.clone(), set_aside }))
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Somebody else's file, with its log: it may be the copy that they brought back. None that was set aside before is
/// overwritten.
fn set_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    const MOST: u32 = 1_000;
    if !path.exists() {
        return Ok(None);
    }
    let free = (1..MOST).map(|number| beside(path, &format!(".replaced-{number}"))).find(|aside| !aside.exists());
    let aside = free.ok_or_else(|| io::Error::other("too many files were set aside"))?;
    for log in ["-wal", "-shm"] {
        match fs::rename(beside(path, log), beside(&aside, log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, &aside)?;
    Ok(Some(aside))
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
