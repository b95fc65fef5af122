//! A file that appears under its name when it is whole, and leaves nothing behind when it is not.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{BUFFER_BYTES, Failure};

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
        let unfinished = path.with_file_name(format!(".{name}.{}.unfinished", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
        Ok(Self { out: BufWriter::with_capacity(BUFFER_BYTES, file), path: path.to_owned(), unfinished })
    }

    /// The file gets its name once the disk has all of it.
    pub(super) fn keep(mut self) -> Result<(), Failure> {
        let kept = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        let kept = kept.and_then(|()| fs::rename(&self.unfinished, &self.path));
        kept.map_err(|error| Failure::File { path: self.path.clone(), error })
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
