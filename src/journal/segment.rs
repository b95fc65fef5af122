//! One file of the journal, open for appending.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{
    JournalError,
    record::{Continues, LineRef, encode},
};

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.jsonl"))
}

pub(super) fn number(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".jsonl")?;
    (digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(super) struct Segment {
    pub number: u64,
    pub path: PathBuf,
    pub file: Arc<File>,
    /// Bytes of whole records. The file may be longer while it is torn.
    pub length: u64,
    /// Bytes the disk has set aside for this file; writes below it cannot find the disk full.
    pub capacity: u64,
    /// A write went wrong and its remains could not be cut off yet: nothing may be appended after them.
    pub torn: bool,
}

impl Segment {
    /// A new file with `capacity` bytes set aside, or none at all.
    pub(super) fn create(
        dir: &Path,
        number: u64,
        capacity: u64,
        continues: Option<Continues>,
    ) -> Result<Self, JournalError> {
        let path = path(dir, number);
        let file = options().create_new(true).open(&path).map_err(JournalError::io("create", &path))?;
        let segment = Self { number, path, file: Arc::new(file), length: 0, capacity, torn: false };
        let path = segment.path.clone();
        segment.begin(continues).inspect_err(|_| {
            // One that stays is begun again at the next start.
            let _ = std::fs::remove_file(path);
        })
    }

    /// The last segment of an earlier run, cut to its whole records. No room is set aside for more.
    pub(super) fn reopen(dir: &Path, number: u64, length: u64) -> Result<Self, JournalError> {
        let path = path(dir, number);
        let file = options().open(&path).map_err(JournalError::io("open", &path))?;
        let mut segment = Self { number, path, file: Arc::new(file), length, capacity: length, torn: true };
        segment.repair().map_err(JournalError::io("cut the torn end off", &segment.path))?;
        Ok(segment)
    }

    fn begin(mut self, continues: Option<Continues>) -> Result<Self, JournalError> {
        preallocate(&self.file, self.capacity).map_err(JournalError::io("reserve room for", &self.path))?;
        if let Some(continues) = continues {
            let mut line = Vec::new();
            encode(&mut line, &LineRef::Continues(continues))?;
            self.append(&line).map_err(JournalError::io("write to", &self.path))?;
        }
        Ok(self)
    }

    /// Writes all of `line` or nothing.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.repair()?;
        }
        if let Err(error) = (&*self.file).write_all(line) {
            self.torn = true;
            // A failure is tried again before the next write.
            let _ = self.repair();
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    fn repair(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.torn = false;
        // Cutting the file also gave back the room past its end.
        if preallocate(&self.file, self.capacity).is_err() {
            self.capacity = self.length;
        }
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).read(true).mode(0o600);
    options
}

/// Sets `capacity` bytes aside; false where the file system has no such promise to give.
pub(super) fn preallocate(file: &File, capacity: u64) -> io::Result<bool> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, capacity.max(1)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the disk takes a file that is synced; it holds nothing, and is gone again.
pub(super) fn probe(dir: &Path) -> Result<(), JournalError> {
    let path = dir.join("probe");
    let mut create = OpenOptions::new();
    let file = create.create(true).truncate(true).write(true).mode(0o600).open(&path);
    let mut file = file.map_err(JournalError::io("create", &path))?;
    let probed = file.write_all(b"probe\n").and_then(|()| file.sync_data());
    probed.and_then(|()| std::fs::remove_file(&path)).map_err(JournalError::io("sync", &path))
}

/// Makes new and deleted names in `dir` survive a power failure.
pub(super) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(JournalError::io("sync", dir))
}
