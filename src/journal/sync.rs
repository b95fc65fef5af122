//! Power mode: one `fdatasync` for all who wait.

use std::sync::{Arc, atomic::Ordering};

use super::{Durability, Journal, JournalError, Position};

/// How far the disk has confirmed the journal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Synced {
    up_to: Position,
    /// What the last failed sync was about: its start, exclusive, and its end.
    lost: Option<(Position, Position)>,
}

impl Synced {
    fn verdict(&self, position: Position) -> Option<Result<(), JournalError>> {
        if self.lost.is_some_and(|(after, to)| after < position && position <= to) {
            return Some(Err(JournalError::NotDurable));
        }
        (position <= self.up_to).then_some(Ok(()))
    }
}

impl Journal {
    /// Returns when everything before `position` survives what [`Durability`] promises.
    pub async fn durable(self: &Arc<Self>, position: Position) -> Result<(), JournalError> {
        if self.durability == Durability::Process {
            return Ok(());
        }
        let mut synced = self.synced.subscribe();
        loop {
            if let Some(verdict) = synced.borrow_and_update().verdict(position) {
                return verdict;
            }
            {
                let writer = self.writer();
                if writer.is_waiting(position) || writer.is_abandoned() {
                    return Err(JournalError::NotDurable);
                }
            }
            if !self.syncing.swap(true, Ordering::AcqRel) {
                let journal = Arc::clone(self);
                tokio::task::spawn_blocking(move || journal.sync());
            }
            synced.changed().await.map_err(|_| JournalError::NotDurable)?;
        }
    }

    /// Blocks on the disk, for all who wait.
    fn sync(&self) {
        let (files, end) = self.writer().unsynced();
        let result = files.iter().try_for_each(|file| file.sync_data()).map_err(|error| {
            let mut writer = self.writer();
            let path = writer.segment_path(end.segment);
            // What came meanwhile is in the same file.
            writer.abandon(JournalError::Io { action: "sync", path, source: std::io::Error::from(error.kind()) })
        });
        // Cleared before the news goes out: who missed this round must be able to start the next.
        self.syncing.store(false, Ordering::Release);
        self.synced.send_modify(|synced| match result {
            Ok(()) => synced.up_to = synced.up_to.max(end),
            Err(end) => synced.lost = Some((synced.up_to, end)),
        });
    }
}
