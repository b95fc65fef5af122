//! The files of a journal that another process may be writing: nothing is locked, and nothing written.

use std::{fs, io, path::Path};

use super::{JournalError, Position, read::Lines, record::Line, recover::segments, segment};
use crate::domain::time::UnixNanos;

/// After the last whole record of the journal in `dir`; `None` where there is no journal.
pub fn end_of(dir: &Path) -> Result<Option<Position>, JournalError> {
    if !dir.is_dir() {
        return Ok(None);
    }
    let Some(segment) = segments(dir)?.last().copied() else { return Ok(None) };
    Ok(Some(Position { segment, offset: whole(dir, segment)?.len() as u64 }))
}

/// Whether a settlement whose time `counts` is among the records from `from` to `until`. Blocks on the disk.
pub fn any_settled(
    dir: &Path,
    from: Position,
    until: Position,
    counts: impl Fn(UnixNanos) -> bool,
) -> Result<bool, JournalError> {
    for number in segments(dir)?.into_iter().filter(|number| (from.segment..=until.segment).contains(number)) {
        let bytes = whole(dir, number)?;
        let in_here = |position: Position| {
            (position.segment == number).then(|| usize::try_from(position.offset).unwrap_or(usize::MAX))
        };
        let end = in_here(until).map_or(bytes.len(), |end| end.min(bytes.len()));
        // A place between no two records is one of another journal, from before it was put back from a copy.
        let is_place =
            |at: &usize| at.checked_sub(1).is_none_or(|last| bytes.get(last).is_none_or(|byte| *byte == b'\n'));
        let start = in_here(from).filter(is_place).unwrap_or(0);
        let records = bytes.get(start..end).unwrap_or_default();
        for line in Lines::of(records) {
            let damaged = |(offset, reason)| JournalError::Damaged {
                path: segment::path(dir, number),
                offset: offset + start as u64,
                reason,
            };
            if let Line::Settled(settlement) = line.map_err(damaged)?
                && counts(settlement.settled_at)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The whole records of a segment; none of one that was let go of meanwhile, as the ledger has those.
fn whole(dir: &Path, number: u64) -> Result<Vec<u8>, JournalError> {
    let path = segment::path(dir, number);
    let mut bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(JournalError::io("read", &path))?,
    };
    bytes.truncate(memchr::memrchr(b'\n', &bytes).map_or(0, |last| last + 1));
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write as _};

    use super::{
        super::{Journal, samples::*},
        *,
    };

    #[test]
    fn what_is_settled_is_found_from_outside_while_the_journal_is_open() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(end_of(&dir.path().join("none")).unwrap(), None);
        let (journal, _) = Journal::open(small(dir.path(), 100), NOW).unwrap();
        let start = journal.end();
        let open = journal.admit(&admission(0)).unwrap();
        let time = |number: u64| settlement(&admission(number)).settled_at;
        let found = |from, number| {
            let until = end_of(dir.path()).unwrap().unwrap();
            any_settled(dir.path(), from, until, |settled_at| settled_at == time(number)).unwrap()
        };
        assert!(!found(start, 0), "it is admitted, and no more");
        let before = journal.end();
        finish(&journal, 1);
        let between = journal.end();
        (2..300).for_each(|number| finish(&journal, number));
        let end = journal.end();
        assert!(end.segment > between.segment + 1);
        assert_eq!(end_of(dir.path()).unwrap(), Some(end));
        assert!(found(before, 1) && !found(between, 1) && found(between, 299) && found(Position::default(), 299));
        assert!(!found(end, 299) && !found(before, 300));
        let until_then = |until| any_settled(dir.path(), before, until, |settled_at| settled_at == time(299)).unwrap();
        assert!(until_then(end) && !until_then(between));
        // What a kill left of a record is none.
        let last = OpenOptions::new().append(true).open(segment::path(dir.path(), end.segment));
        last.unwrap().write_all(b"{\"half").unwrap();
        assert_eq!(end_of(dir.path()).unwrap(), Some(end));
        drop(open);
    }
}
