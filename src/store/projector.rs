//! Feeds the ledger from the journal. Reports wait for it, requests never do.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Store, StoreError, buckets::StoredBucket, ledger::LedgerBatch, replay::Replay};
use crate::{
    domain::{ids::RequestId, time::UnixNanos},
    journal::{Batch, Failing, Journal, JournalError, Position},
};

/// About a thousand records.
const BATCH_BYTES: u64 = 512 << 10;
/// How long records are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(100);
/// How often the journal is asked to try again what failed.
const TICK: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub struct Projector {
    journal: Arc<Journal>,
    store: Store,
    /// Filled with the first step.
    view: Option<View>,
    progress: Progress,
}

/// Where the projector stands.
struct View {
    replay: Replay,
    /// As the ledger has it; `position` is ahead of it by what is pending.
    stored: Option<Position>,
    position: Position,
    /// Read from the journal, and not in the ledger yet.
    pending: Option<LedgerBatch>,
}

/// For health and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectorState {
    pub position: Position,
    /// Bytes of the journal that are not in the ledger yet.
    pub lag_bytes: u64,
    /// Why the ledger does not move on at the moment.
    pub failing: Option<Failing>,
}

/// A view of the projector from outside, while it runs.
#[derive(Clone)]
pub struct Progress {
    journal: Arc<Journal>,
    state: Arc<Mutex<Noted>>,
}

#[derive(Clone, Default)]
struct Noted {
    position: Position,
    failing: Option<Failing>,
    /// The smallest among the ids of the requests that the journal holds.
    first_id: Option<RequestId>,
}

impl Progress {
    pub fn state(&self) -> ProjectorState {
        let Noted { position, failing, .. } = self.state.lock().map(|state| state.clone()).unwrap_or_default();
        ProjectorState { position, lag_bytes: self.journal.bytes_after(position), failing }
    }

    /// The journal holds no request with a smaller id, of those that the ledger has; `None` when it holds none at all.
    pub fn first_id(&self) -> Option<RequestId> {
        self.state.lock().map_or(Some(RequestId::from_bytes([0; 16])), |state| state.first_id)
    }

    fn note(&self, result: &Result<Noted, StoreError>) {
        let Ok(mut state) = self.state.lock() else { return };
        match result {
            Ok(noted) => {
                if state.failing.is_some() {
                    tracing::info!("the ledger moves on again");
                }
                state.clone_from(noted);
            }
            Err(error) => {
                if state.failing.is_none() {
                    tracing::error!(%error, "the ledger does not move on: reports are behind, requests are not affected");
                }
                state.failing = Some(Failing { cause: error.cause(), text: error.to_string() });
            }
        }
    }
}

impl Projector {
    pub fn new(journal: Arc<Journal>, store: Store) -> Self {
        let state = Arc::new(Mutex::new(Noted { position: journal.start(), ..Noted::default() }));
        let progress = Progress { journal: Arc::clone(&journal), state };
        Self { journal, store, view: None, progress }
    }

    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Returns when everything in the journal is in the ledger.
    pub async fn catch_up(&mut self) -> Result<(), StoreError> {
        while self.step().await? {}
        Ok(())
    }

    /// Every bucket as of everything that the journal holds, for a limiter that starts at `now`. Where the clock was set back
    /// since the last record, so are they; the ledger learns of it with the next record, and until then the journal still
    /// tells it.
    pub async fn buckets(&mut self, now: UnixNanos) -> Result<Vec<StoredBucket>, StoreError> {
        self.catch_up().await?;
        let Some(view) = &mut self.view else { return self.store.limit_buckets().await };
        if view.replay.note_time(now) {
            tracing::warn!("the clock was set back since the last request: the limits go on as they were then");
        }
        Ok(view.replay.buckets())
    }

    /// Follows the journal until `stop`, then to its end. A database that fails is tried again for ever.
    pub async fn run(self, stop: CancellationToken) {
        let journal = Arc::clone(&self.journal);
        // Beside the ledger and not between its steps: a ledger that is away must not keep the journal from healing.
        tokio::select! {
            () = self.follow(stop) => {}
            () = retry_journal(journal) => {}
        }
    }

    async fn follow(mut self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.step().await {
                Ok(moved) if stop.is_cancelled() => {
                    if !moved {
                        return;
                    }
                }
                Ok(_) => {
                    pause = FIRST_PAUSE;
                    self.gather(&stop).await;
                }
                // The journal keeps what is missing here for the next start.
                Err(_) if stop.is_cancelled() => return,
                Err(_) => {
                    let _ = tokio::time::timeout(pause, stop.cancelled()).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            }
        }
    }

    /// Waits until there is enough to be worth a transaction.
    async fn gather(&self, stop: &CancellationToken) {
        let lag_bytes = || self.progress.state().lag_bytes;
        while lag_bytes() == 0 && !stop.is_cancelled() {
            tokio::select! {
                () = self.journal.changed() => {}
                () = stop.cancelled() => {}
            }
        }
        if lag_bytes() < BATCH_BYTES {
            let _ = tokio::time::timeout(GATHER, stop.cancelled()).await;
        }
    }

    /// Takes one batch over; false when there is none.
    async fn step(&mut self) -> Result<bool, StoreError> {
        let result = self.advance().await;
        match result {
            Ok((noted, moved)) => {
                self.progress.note(&Ok(noted));
                Ok(moved)
            }
            Err(error) => {
                let result = Err(error);
                self.progress.note(&result);
                result.map(|_| false)
            }
        }
    }

    async fn advance(&mut self) -> Result<(Noted, bool), StoreError> {
        let mut view = match self.view.take() {
            Some(view) => view,
            None => self.load().await?,
        };
        let moved = self.advance_view(&mut view).await;
        let noted = Noted {
            position: view.stored.unwrap_or(view.position),
            failing: None,
            first_id: view.replay.first_id(self.journal.start().segment),
        };
        self.view = Some(view);
        Ok((noted, moved?))
    }

    async fn advance_view(&self, view: &mut View) -> Result<bool, StoreError> {
        if view.pending.is_none() {
            let batch = self.read(view.position, BATCH_BYTES).await?;
            if batch.next == view.position {
                return Ok(false);
            }
            self.learn_projects(&mut view.replay, &batch).await?;
            view.position = batch.next;
            let entries = view.replay.apply(batch);
            let buckets = view.replay.take_changed();
            view.pending = Some(LedgerBatch { entries, buckets, from: view.stored, up_to: view.position });
        }
        if let Some(batch) = &view.pending {
            if view.stored.is_none_or(|stored| stored.segment != batch.up_to.segment) {
                // The ledger must not know of a segment that a power failure could still undo.
                self.blocking(Journal::sync_names).await?;
            }
            match self.store.append(batch).await {
                // The commit of an earlier try succeeded, though its answer did not reach us.
                Err(StoreError::Moved { stored, .. }) if stored == batch.up_to => {}
                other => other?,
            }
            view.stored = Some(batch.up_to);
            view.pending = None;
        }
        self.release(view).await?;
        Ok(true)
    }

    /// Lets go of segments that only the ledger needed, once the ledger's own disk has them.
    async fn release(&self, view: &View) -> Result<(), StoreError> {
        let first = self.journal.start().segment;
        // A ledger in files without a name is gone with the process: the journal must be able to feed it again.
        if view.position.segment == first || self.store.files_are_gone() {
            return Ok(());
        }
        let needed = view
            .replay
            .oldest_needed(view.position.segment)
            .map_or(view.position.segment, |oldest| oldest.min(view.position.segment));
        if needed > first && self.store.checkpoint().await? {
            self.blocking(move |journal| journal.release(Position { segment: needed, offset: 0 })).await?;
        }
        Ok(())
    }

    async fn load(&self) -> Result<View, StoreError> {
        let stored = self.store.projection().await?;
        let position = self.resume(stored).await?;
        let mut replay = Replay::default();
        let mut passed = self.journal.start();
        while passed < position {
            let within = if passed.segment == position.segment { position.offset - passed.offset } else { BATCH_BYTES };
            let batch = self.read(passed, within.min(BATCH_BYTES)).await?;
            passed = batch.next;
            self.learn_projects(&mut replay, &batch).await?;
            replay.skip(batch);
        }
        replay.restore(self.store.limit_buckets().await?);
        // A change of place is written down at once, before new records make the old place look right.
        let moved = stored.is_some_and(|stored| stored != position);
        let pending = moved.then(|| LedgerBatch { from: stored, up_to: position, ..LedgerBatch::default() });
        Ok(View { replay, stored, position, pending })
    }

    /// Records of before projects had buckets do not tell whose their keys are.
    async fn learn_projects(&self, replay: &mut Replay, batch: &Batch) -> Result<(), StoreError> {
        let keys = replay.keys_without_project(batch);
        if !keys.is_empty() {
            replay.learn_projects(self.store.projects_of(keys).await?);
        }
        Ok(())
    }

    /// Where to read on. The ledger and the journal differ only after a power failure, or when one of them was put back
    /// from a copy; requests that come twice are counted once.
    async fn resume(&self, stored: Option<Position>) -> Result<Position, StoreError> {
        let Some(stored) = stored else { return Ok(self.journal.start()) };
        match self.read(stored, 1).await {
            Err(StoreError::Journal(JournalError::NotKept(_))) => {
                let nearest = self.journal.nearest(stored);
                tracing::error!(ledger = %stored, journal = %nearest, "the journal does not go on where the ledger ends: \
                    one of them was put back from a copy, or a power failure took the journal's end");
                Ok(nearest)
            }
            read => read.map(|_| stored),
        }
    }

    async fn read(&self, from: Position, max_bytes: u64) -> Result<Batch, StoreError> {
        self.blocking(move |journal| journal.read(from, max_bytes)).await
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    {
        let journal = Arc::clone(&self.journal);
        Ok(tokio::task::spawn_blocking(move || work(&journal)).await??)
    }
}

async fn retry_journal(journal: Arc<Journal>) {
    loop {
        tokio::time::sleep(TICK).await;
        let journal = Arc::clone(&journal);
        // The journal reports its own failures.
        let _ = tokio::task::spawn_blocking(move || journal.retry()).await;
    }
}
