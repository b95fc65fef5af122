//! The state behind the journal's one lock: what is written where, and how much room is promised to open admissions.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    path::PathBuf,
    sync::Arc,
};

use super::{
    Durability, Failing, JournalError, JournalState, Options, Position, Ticket,
    record::{Continues, LineRef, MAX_ADMISSION_BYTES, MAX_SETTLEMENT_BYTES, encode, encode_settled},
    segment::{self, Segment},
};
use crate::domain::ledger::{Admission, Settlement};

/// More than the first line of a segment takes.
pub(super) const MAX_CONTINUES_BYTES: u64 = 128;

/// What is known of a segment file.
#[derive(Clone, Copy, Default)]
pub(super) struct Kept {
    pub bytes: u64,
    pub open_admissions: u64,
}

/// A settlement that could not be written yet.
struct Waiting {
    start: Position,
    line: Vec<u8>,
}

pub(super) struct Writer {
    options: Options,
    current: Segment,
    kept: BTreeMap<u64, Kept>,
    open_admissions: u64,
    waiting: VecDeque<Waiting>,
    failing: Option<Failing>,
    /// A sync of the current segment has failed: nobody knows what the disk holds of it, and it takes nothing any more. Until
    /// the disk has proved itself, nothing is written at all: each failed sync would begin another segment.
    abandoned: bool,
    line: Vec<u8>,
    /// Files that were left for a new segment and not yet synced.
    unsynced: Vec<Arc<File>>,
}

impl Writer {
    pub(super) fn new(options: Options, current: Segment, mut kept: BTreeMap<u64, Kept>) -> Self {
        kept.insert(current.number, Kept { bytes: current.length, open_admissions: 0 });
        Self {
            options,
            current,
            kept,
            open_admissions: 0,
            waiting: VecDeque::new(),
            failing: None,
            abandoned: false,
            line: Vec::with_capacity(MAX_SETTLEMENT_BYTES),
            unsynced: Vec::new(),
        }
    }

    pub(super) fn admit(&mut self, admission: &Admission) -> Result<Ticket, JournalError> {
        encode(&mut self.line, &LineRef::Admitted(admission))?;
        if self.line.len() > MAX_ADMISSION_BYTES {
            return Err(JournalError::TooLarge { max_bytes: MAX_ADMISSION_BYTES });
        }
        let written = if self.abandoned { Err(JournalError::NotDurable) } else { self.write_admission() };
        if !self.abandoned {
            self.note(&written);
        }
        written?;
        self.open_admissions += 1;
        if let Some(kept) = self.kept.get_mut(&self.current.number) {
            kept.open_admissions += 1;
        }
        Ok(Ticket { request_id: admission.request_id, position: self.end() })
    }

    fn write_admission(&mut self) -> Result<(), JournalError> {
        self.write_waiting()?;
        self.make_room(self.line.len() as u64)?;
        self.current.append(&self.line).map_err(JournalError::io("write to", &self.current.path))?;
        self.grown();
        Ok(())
    }

    /// Cannot refuse: what cannot be written now waits in memory and is written before anything else.
    pub(super) fn settle(&mut self, admitted_in: u64, settlement: &Settlement) -> Position {
        self.open_admissions = self.open_admissions.saturating_sub(1);
        if let Some(kept) = self.kept.get_mut(&admitted_in) {
            kept.open_admissions = kept.open_admissions.saturating_sub(1);
        }
        let written = self.write_settlement(settlement);
        // A settlement always has its room: that it is written does not mean that the next admission can be.
        if !self.abandoned && (written.is_err() || self.fits(MAX_ADMISSION_BYTES as u64)) {
            self.note(&written);
        }
        self.promised_end()
    }

    pub(super) fn write_settlement(&mut self, settlement: &Settlement) -> Result<(), JournalError> {
        encode_settled(&mut self.line, settlement)?;
        let written = self
            .write_waiting()
            .and_then(|()| self.current.append(&self.line).map_err(JournalError::io("write to", &self.current.path)));
        match written {
            Ok(()) => self.grown(),
            Err(_) => self.waiting.push_back(Waiting { start: self.promised_end(), line: self.line.clone() }),
        }
        written
    }

    /// Tries what failed again; in a new segment if the current one takes nothing any more.
    pub(super) fn retry(&mut self) -> Result<(), JournalError> {
        if self.waiting.is_empty() && self.failing.is_none() {
            return Ok(());
        }
        if self.abandoned {
            self.leave_abandoned()?;
        }
        let retried = self.write_waiting().or_else(|_| {
            self.rotate(MAX_SETTLEMENT_BYTES as u64 * self.waiting.len() as u64, u64::MAX)?;
            self.write_waiting()
        });
        let retried = retried.and_then(|()| self.make_room(MAX_ADMISSION_BYTES as u64));
        self.note(&retried);
        retried
    }

    /// A later sync of a file whose sync has failed proves nothing: what comes next goes into another one, once a file that
    /// holds nothing was synced.
    fn leave_abandoned(&mut self) -> Result<(), JournalError> {
        segment::probe(&self.options.dir)?;
        let settlements = 1 + self.waiting.len() as u64 + self.open_admissions;
        self.rotate(MAX_SETTLEMENT_BYTES as u64 * settlements, u64::MAX)
    }

    fn write_waiting(&mut self) -> Result<(), JournalError> {
        if self.abandoned {
            return Err(JournalError::NotDurable);
        }
        while let Some(waiting) = self.waiting.front() {
            self.current.append(&waiting.line).map_err(JournalError::io("write to", &self.current.path))?;
            self.waiting.pop_front();
            self.grown();
        }
        Ok(())
    }

    /// Sees to it that a record fits, and after it the settlements of all that are open then.
    fn make_room(&mut self, record_bytes: u64) -> Result<(), JournalError> {
        if self.fits(record_bytes) {
            return Ok(());
        }
        self.rotate(self.needed_bytes(record_bytes), self.options.max_bytes)
    }

    /// The current segment has room for a record and for all settlements that are then to come.
    fn fits(&self, record_bytes: u64) -> bool {
        self.current.length + self.needed_bytes(record_bytes) <= self.current.capacity
    }

    const fn needed_bytes(&self, record_bytes: u64) -> u64 {
        record_bytes + (self.open_admissions + 1) * MAX_SETTLEMENT_BYTES as u64
    }

    fn rotate(&mut self, needed_bytes: u64, max_bytes: u64) -> Result<(), JournalError> {
        let capacity = self.options.segment_bytes.max(2 * needed_bytes + MAX_CONTINUES_BYTES);
        if self.bytes() + capacity > max_bytes {
            return Err(JournalError::Full { max_bytes });
        }
        let continues = Continues { segment: self.current.number, bytes: self.current.length };
        let next = Segment::create(&self.options.dir, self.current.number + 1, capacity, Some(continues))?;
        if self.options.durability == Durability::Power {
            // It says already where the one before it ends, which may go on to grow: without its name it says nothing.
            segment::sync_dir(&self.options.dir).inspect_err(|_| drop(std::fs::remove_file(&next.path)))?;
        }
        let left = std::mem::replace(&mut self.current, next);
        // The error of a file is told once: to sync an abandoned one again would seem to succeed.
        if self.options.durability == Durability::Power && !std::mem::take(&mut self.abandoned) {
            self.unsynced.push(left.file);
        }
        self.grown();
        Ok(())
    }

    /// Readers see what is counted here.
    fn grown(&mut self) {
        self.kept.entry(self.current.number).or_default().bytes = self.current.length;
    }

    fn note<T>(&mut self, result: &Result<T, JournalError>) {
        match result {
            Ok(_) if self.failing.is_none() => {}
            Ok(_) => {
                tracing::info!("the journal can be written again");
                self.failing = None;
            }
            Err(error) => {
                if self.failing.is_none() {
                    tracing::error!(%error, "the journal cannot be written: new requests are refused until it can");
                }
                self.failing = Some(Failing { cause: error.cause(), text: error.to_string() });
            }
        }
    }

    pub(super) fn start(&self) -> Position {
        let segment = self.kept.keys().next().copied().unwrap_or(self.current.number);
        Position { segment, offset: 0 }
    }

    /// After the last record written.
    pub(super) fn end(&self) -> Position {
        Position { segment: self.current.number, offset: self.current.length }
    }

    /// After the last record, counting those that wait.
    fn promised_end(&self) -> Position {
        let waiting_bytes: u64 = self.waiting.iter().map(|waiting| waiting.line.len() as u64).sum();
        Position { offset: self.end().offset + waiting_bytes, ..self.end() }
    }

    pub(super) fn is_waiting(&self, position: Position) -> bool {
        self.waiting.front().is_some_and(|first| position > first.start)
    }

    pub(super) fn kept(&self, segment: u64) -> Option<Kept> {
        self.kept.get(&segment).copied()
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.options.dir.clone()
    }

    pub(super) fn segment_path(&self, segment: u64) -> PathBuf {
        segment::path(&self.options.dir, segment)
    }

    /// Bytes between two positions.
    pub(super) fn bytes_after(&self, position: Position) -> u64 {
        let after: u64 = self.kept.range(position.segment..).map(|(_, kept)| kept.bytes).sum();
        after.saturating_sub(position.offset)
    }

    /// Segments before `up_to` that nobody needs any more, oldest first and without a gap.
    pub(super) fn releasable(&self, up_to: Position) -> Vec<u64> {
        let before = self.kept.range(..up_to.segment.min(self.current.number));
        before.take_while(|(_, kept)| kept.open_admissions == 0).map(|(number, _)| *number).collect()
    }

    pub(super) fn forget(&mut self, segment: u64) {
        self.kept.remove(&segment);
    }

    /// The files to sync, and the position that is safe when all of them are.
    pub(super) fn unsynced(&mut self) -> (Vec<Arc<File>>, Position) {
        let mut files = std::mem::take(&mut self.unsynced);
        files.push(Arc::clone(&self.current.file));
        (files, self.waiting.front().map_or(self.end(), |first| first.start.min(self.end())))
    }

    /// After a failed sync nobody knows what the disk holds of what is written until now: the end of that is returned.
    pub(super) fn abandon(&mut self, error: JournalError) -> Position {
        self.current.capacity = 0;
        self.abandoned = true;
        self.unsynced.clear();
        self.note::<()>(&Err(error));
        self.promised_end()
    }

    pub(super) const fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    #[cfg(test)]
    pub(super) const fn current_mut(&mut self) -> &mut Segment {
        &mut self.current
    }

    fn bytes(&self) -> u64 {
        self.kept.values().map(|kept| kept.bytes).sum()
    }

    pub(super) fn state(&self) -> JournalState {
        JournalState {
            bytes: self.bytes(),
            open_admissions: self.open_admissions,
            waiting_settlements: self.waiting.len() as u64,
            failing: self.failing.clone(),
        }
    }
}
