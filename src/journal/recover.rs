//! Opening: every kept record is checked, a half-written last one is dropped, and what was left open is settled.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::Read,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use tokio::sync::{Notify, watch};

use super::{
    Durability, Journal, JournalError, Options, Recovered,
    read::Lines,
    record::{Continues, Line},
    segment::{self, Segment},
    sync::Synced,
    writer::{Kept, MAX_CONTINUES_BYTES, Writer},
};
use crate::domain::{ids::RequestId, ledger::Admission, time::UnixNanos};

impl Journal {
    /// Opens the journal in `options.dir`, or starts one. Blocks on the disk.
    pub fn open(options: Options, now: UnixNanos) -> Result<(Arc<Self>, Recovered), JournalError> {
        let lock = lock(&options.dir)?;
        let mut found = Found::default();
        let current = match segments(&options.dir)?.as_slice() {
            [] => Segment::create(&options.dir, 1, options.segment_bytes, None)?,
            numbers => {
                let last = found.read_all(&options.dir, numbers)?;
                found.begin(&options, last)?
            }
        };
        if options.durability == Durability::Power {
            segment::sync_dir(&options.dir)?;
        }
        if !segment::preallocate(&current.file, current.capacity).unwrap_or(true) {
            tracing::warn!(dir = %options.dir.display(), "this file system cannot reserve room: a full disk may delay settlements");
        }
        let durability = options.durability;
        let open = found.still_open();
        let mut writer = Writer::new(options, current, found.kept);
        let run_start = writer.end();
        for admission in open {
            writer.write_settlement(&admission.interrupted(now))?;
            found.recovered.interrupted += 1;
        }
        let journal = Self {
            writer: Mutex::new(writer),
            changed: Notify::new(),
            durability,
            // Nothing of an earlier run is taken as confirmed; the first sync covers it.
            synced: watch::Sender::new(Synced::default()),
            syncing: AtomicBool::new(false),
            run_start,
            _lock: lock,
        };
        Ok((Arc::new(journal), found.recovered))
    }
}

/// What the kept segments hold.
#[derive(Default)]
struct Found {
    kept: BTreeMap<u64, Kept>,
    /// With their rank among all admissions, so that they are settled in the order they came.
    open: HashMap<RequestId, (u64, Admission)>,
    admissions: u64,
    recovered: Recovered,
}

impl Found {
    /// Reads every segment; returns the number and the length of the last.
    fn read_all(&mut self, dir: &Path, numbers: &[u64]) -> Result<(u64, u64), JournalError> {
        let mut last = (0, 0);
        let following = numbers.iter().skip(1).map(Some).chain([None]);
        for (number, next) in numbers.iter().copied().zip(following) {
            let path = segment::path(dir, number);
            if next.is_some_and(|next| *next != number + 1) {
                return Err(JournalError::Missing { path: segment::path(dir, number + 1) });
            }
            let mut bytes = fs::read(&path).map_err(JournalError::io("read", &path))?;
            let written = next.map_or(Ok(None), |next| length_before(dir, *next))?;
            let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |last| last as u64 + 1);
            let length = written.unwrap_or(whole);
            if length > bytes.len() as u64 {
                return Err(JournalError::Shortened { path, expected: length });
            }
            self.recovered.torn_bytes += bytes.len() as u64 - length;
            bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            self.read_segment(&bytes, &path)?;
            self.kept.insert(number, Kept { bytes: length, open_admissions: 0 });
            last = (number, length);
        }
        Ok(last)
    }

    /// Every run writes segments of its own, so that a position past the end of an older one can only mean that a power
    /// failure took that end.
    fn begin(&mut self, options: &Options, (number, length): (u64, u64)) -> Result<Segment, JournalError> {
        let create = |number, continues| Segment::create(&options.dir, number, options.segment_bytes, continues);
        if length == 0 {
            let path = segment::path(&options.dir, number);
            fs::remove_file(&path).map_err(JournalError::io("begin again", &path))?;
            let before = number.checked_sub(1).and_then(|before| Some((before, self.kept.get(&before)?)));
            return create(number, before.map(|(segment, kept)| Continues { segment, bytes: kept.bytes }));
        }
        let last = Segment::reopen(&options.dir, number, length)?;
        create(number + 1, Some(Continues { segment: number, bytes: length })).or_else(|error| {
            tracing::error!(%error, "requests are refused until the journal can be written");
            Ok(last)
        })
    }

    fn read_segment(&mut self, bytes: &[u8], path: &Path) -> Result<(), JournalError> {
        for line in Lines::of(bytes) {
            let damaged = |(offset, reason)| JournalError::Damaged { path: path.to_owned(), offset, reason };
            match line.map_err(damaged)? {
                Line::Admitted(admission) => {
                    self.admissions += 1;
                    self.open.insert(admission.request_id, (self.admissions, *admission));
                }
                Line::Settled(settlement) => {
                    if self.open.remove(&settlement.request_id).is_none() {
                        self.recovered.unmatched_settlements += 1;
                    }
                }
                Line::Continues(_) | Line::Blank => {}
            }
        }
        Ok(())
    }

    fn still_open(&mut self) -> Vec<Admission> {
        let mut open: Vec<_> = std::mem::take(&mut self.open).into_values().collect();
        open.sort_unstable_by_key(|(rank, _)| *rank);
        open.into_iter().map(|(_, admission)| admission).collect()
    }
}

/// How long the segment before `number` was when `number` was begun; `None` when a crash came before it said so.
fn length_before(dir: &Path, number: u64) -> Result<Option<u64>, JournalError> {
    let path = segment::path(dir, number);
    let file = File::open(&path).map_err(JournalError::io("open", &path))?;
    let mut first = Vec::new();
    file.take(MAX_CONTINUES_BYTES).read_to_end(&mut first).map_err(JournalError::io("read", &path))?;
    let damaged = |reason| JournalError::Damaged { path, offset: 0, reason };
    match Lines::of(&first).next() {
        Some(Ok(Line::Continues(continues))) if continues.segment + 1 == number => Ok(Some(continues.bytes)),
        None if first.len() as u64 == MAX_CONTINUES_BYTES => Err(damaged("the first line is too long")),
        Some(Ok(Line::Blank)) | None => Ok(None),
        Some(Ok(_)) => Err(damaged("the first line does not name the segment before")),
        Some(Err((_, reason))) => Err(damaged(reason)),
    }
}

/// The segment numbers in `dir`, in order.
pub(super) fn segments(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(JournalError::io("list", dir))?;
    let mut numbers: Vec<u64> =
        entries.iter().filter_map(|entry| entry.file_name().to_str().and_then(segment::number)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn lock(dir: &Path) -> Result<File, JournalError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(JournalError::io("create", dir))?;
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).map_err(JournalError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(JournalError::io("lock", &path)(source)),
    }
}
