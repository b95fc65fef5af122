//! A file that appears under its name when it is whole, and leaves nothing behind when it is not.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{BUFFER_BYTES, Failure};
use crate::secrets;

pub(super) struct NewFile {
    out: BufWriter<File>,
    path: PathBuf,
    /// Beside `path`, until it is whole.
    unfinished: PathBuf,
}

impl NewFile {
    /// What others may not read in the data directory they may not read here: the file is its owner's.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::Exists(path.to_owned()));
        }
        let failed = |error| Failure::File { path: path.to_owned(), error };
        let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?.to_string_lossy();
        let mut random = [0; 8];
        secrets::random(&mut random);
        // Unlike a process id, it is not that of an earlier run that was killed.
        let unfinished = path.with_file_name(format!(".{name}.{:016x}.unfinished", u64::from_ne_bytes(random)));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
        Ok(Self { out: BufWriter::with_capacity(BUFFER_BYTES, file), path: path.to_owned(), unfinished })
    }

    /// The file gets its name once the disk has all of it, and takes no other file's place.
    pub(super) fn keep(mut self) -> Result<(), Failure> {
        let whole = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        let kept = whole.and_then(|()| self.give_name()).and_then(|()| self.sync_name());
        kept.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::Exists(self.path.clone()),
            _ => Failure::File { path: self.path.clone(), error },
        })
    }

    fn give_name(&self) -> io::Result<()> {
        use io::ErrorKind::{PermissionDenied, Unsupported};
        match fs::hard_link(&self.unfinished, &self.path) {
            // Some file systems know no links. There a file that comes in this very moment is still replaced.
            Err(error)
                if matches!(error.kind(), PermissionDenied | Unsupported) && self.path.symlink_metadata().is_err() =>
            {
                fs::rename(&self.unfinished, &self.path)
            }
            linked => linked.and_then(|()| fs::remove_file(&self.unfinished)),
        }
    }

    /// The name survives a power failure too.
    fn sync_name(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The file that was kept has its other name by then.
impl Drop for NewFile {
    fn drop(&mut self) {
        fs::remove_file(&self.unfinished).ok();
    }
}
