//! Reading back, for the projector.

use std::{fs::File, os::unix::fs::FileExt};

use super::{
    Journal, JournalError, Position, Record,
    record::{Line, decode},
};

/// Whole records of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub segment: u64,
    pub records: Vec<Record>,
    /// Where to read on; equal to [`Journal::end`] when everything is read.
    pub next: Position,
}

impl Journal {
    /// About `max_bytes` of records after `from`, at least one if there is one. Blocks on the disk.
    pub fn read(&self, from: Position, max_bytes: u64) -> Result<Batch, JournalError> {
        let Some((from, available)) = self.readable(from) else {
            return Err(JournalError::NotKept(from));
        };
        let path = self.writer().segment_path(from.segment);
        let file = File::open(&path).map_err(JournalError::io("open", &path))?;
        if from.offset > 0 && read_at(&file, from.offset - 1, 1).map_err(JournalError::io("read", &path))? != b"\n" {
            return Err(JournalError::NotKept(from));
        }
        let mut wanted = max_bytes.max(1);
        let lines = loop {
            let length = wanted.min(available);
            let mut bytes = read_at(&file, from.offset, length).map_err(JournalError::io("read", &path))?;
            let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |last| last + 1);
            if whole > 0 || length == available {
                bytes.truncate(whole);
                break bytes;
            }
            wanted = wanted.saturating_mul(2);
        };
        let damaged = |(offset, reason)| JournalError::Damaged { path, offset: from.offset + offset, reason };
        let records = records(&lines).map_err(damaged)?;
        let read_to = Position { offset: from.offset + lines.len() as u64, ..from };
        // At the end of a finished segment reading goes on in the one after it.
        let next = self.readable(read_to).map_or(read_to, |(next, _)| next);
        Ok(Batch { segment: from.segment, records, next })
    }

    /// The place to read at, past the end of a finished segment at the start of the next, and how much there is.
    fn readable(&self, from: Position) -> Option<(Position, u64)> {
        let writer = self.writer();
        let available = writer.kept(from.segment)?.bytes.checked_sub(from.offset)?;
        if available == 0
            && let Some(next) = writer.kept(from.segment + 1)
        {
            return Some((Position { segment: from.segment + 1, offset: 0 }, next.bytes));
        }
        Some((from, available))
    }
}

fn read_at(file: &File, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn records(bytes: &[u8]) -> Result<Vec<Record>, (u64, &'static str)> {
    let mut records = Vec::new();
    for line in Lines::of(bytes) {
        records.extend(line?.record());
    }
    Ok(records)
}

/// The newline-terminated lines of `bytes`, read one by one; an error is an offset and what is wrong there.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    offset: u64,
}

impl<'a> Lines<'a> {
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Line, (u64, &'static str)>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at_checked(end)?;
        let offset = self.offset;
        self.offset += end as u64 + 1;
        self.rest = rest.get(1..).unwrap_or_default();
        Some(decode(line).map_err(|reason| (offset, reason)))
    }
}
