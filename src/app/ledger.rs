//! The ledger of a data directory, for commands: whether or not a gateway runs on it.

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

use super::data_dir;
use crate::{
    config::Settings,
    domain::{
        audit::{AuditEvent, By, EventType},
        catalog::Catalog,
        ids::RequestId,
        money::MoneyError,
        reprice::{Booked, Repriced},
        time::UnixNanos,
    },
    journal::{JournalError, any_settled, end_of},
    store::{
        Store, StoreError,
        export::Settled,
        reprice::{self, Piece, Stretch, Touched},
    },
};

pub use crate::store::Store as Ledger;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(
        "the database was deleted or replaced while it was repriced: what was written may be gone with it, so run this again"
    )]
    Replaced,
    #[error("there is no database at {}: is it the right data directory (TOLLGATE_DATA_DIR)?", .0.display())]
    NoDatabase(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(
        "requests of this time are in the journal and not in the ledger yet: start the gateway, which takes them over, or see \
         in its log why its ledger does not move on, and try again"
    )]
    Behind,
    #[error("a sum of this run is too large: {0}")]
    Sum(#[from] MoneyError),
}

/// What a run is doing: it goes over the requests twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Finding,
    Adjusting,
}

/// Which requests are priced again, and why.
#[derive(Clone, Debug)]
pub struct Repricing {
    /// Requests settled from here on ...
    pub from: UnixNanos,
    /// ... and before this.
    pub to: UnixNanos,
    pub reason: String,
    /// Nothing is written.
    pub dry_run: bool,
}

/// The database file of the configured data directory.
pub(super) fn path(settings: &Settings) -> Result<PathBuf, LedgerError> {
    let path = data_dir::ledger(&settings.data_dir);
    if path.is_file() { Ok(path) } else { Err(LedgerError::NoDatabase(path)) }
}

/// The ledger as it is, for reports.
pub async fn open_ledger(settings: &Settings) -> Result<Ledger, LedgerError> {
    Ok(Store::open_existing(&path(settings)?).await?)
}

/// How long a running gateway may take to bring into the ledger what is in the journal.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Returns when the ledger has every request that was settled in this time, of those that are in the journal now.
pub(super) async fn wait_for_all(settings: &Settings, settled: Settled) -> Result<(), LedgerError> {
    let (ledger, journal) = (path(settings)?, data_dir::journal(&settings.data_dir));
    let Some(end) = end_of(&journal)? else { return Ok(()) };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reached = Store::projection_in(&ledger).await?.unwrap_or_default();
        let counts = |settled_at| settled.from <= settled_at && settled_at < settled.until;
        if reached >= end || !any_settled(&journal, reached, end, counts)? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LedgerError::Behind);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Corrects what requests cost by the prices of `catalog`, and says what that comes to; `looked_at` hears how many requests
/// a pass has looked at so far.
///
/// A first pass sums up; only then the second writes, and its first transaction has a row in the audit log with that sum as
/// the run's plan. A second row, at the end, says what was written: only these add up to what the books were changed by. A
/// run that is ended in the middle has its plan alone, and the next plans what is left.
pub async fn reprice(
    settings: &Settings,
    catalog: &Catalog,
    repricing: &Repricing,
    now: UnixNanos,
    mut looked_at: impl FnMut(Pass, u64),
) -> Result<Repriced, LedgerError> {
    let store = open_ledger(settings).await?;
    let Repricing { from, to, reason, dry_run } = repricing.clone();
    wait_for_all(settings, Settled { from, until: to }).await?;
    let run = Run { store: &store, catalog, stretch: Stretch { from, to, reason, adjusted_at: now } };
    let (mut found, mut after) = (Repriced::default(), None);
    loop {
        let piece = run.read(after).await?;
        sum_up(&mut found, &piece)?;
        looked_at(Pass::Finding, found.requests);
        after = piece.next;
        if after.is_none() {
            break;
        }
    }
    if !dry_run && found.corrected > 0 {
        found = run.write(&found, &mut looked_at).await?;
    }
    // Looked at last, as some may have been dropped meanwhile.
    found.dropped_before = Some(store.dropped_before().await?).filter(|horizon| *horizon > from);
    store.close().await;
    Ok(found)
}

fn sum_up(sums: &mut Repriced, piece: &Piece) -> Result<(), MoneyError> {
    piece.requests.iter().try_for_each(|(booked, verdict)| sums.add(booked, verdict))
}

struct Run<'a> {
    store: &'a Store,
    catalog: &'a Catalog,
    stretch: Stretch,
}

impl Run<'_> {
    async fn read(&self, after: Option<RequestId>) -> Result<Piece, StoreError> {
        reprice::read(self.store, &self.stretch, after, |booked| booked.judge(self.catalog)).await
    }

    /// Adjusts what is wrong. `found` is what the pass before has found.
    async fn write(&self, found: &Repriced, looked_at: &mut impl FnMut(Pass, u64)) -> Result<Repriced, LedgerError> {
        let judge = |booked: &Booked| booked.judge(self.catalog);
        let mut plan = Some(self.event(["planned_requests", "planned_difference"], found));
        let (mut written, mut touched, mut after) = (Repriced::default(), Touched::new(), None);
        loop {
            let mut piece = self.read(after).await?;
            if !piece.is_right() {
                piece = reprice::correct(self.store, &self.stretch, &piece, judge, &mut plan, &mut touched).await?;
            }
            sum_up(&mut written, &piece)?;
            looked_at(Pass::Adjusting, written.requests);
            if self.store.files_are_gone() {
                return Err(LedgerError::Replaced);
            }
            after = piece.next;
            if after.is_none() {
                break;
            }
        }
        if plan.is_none() {
            reprice::conclude(self.store, &self.event(["requests", "difference"], &written)).await?;
        }
        reprice::tidy(self.store, &touched).await?;
        if self.store.files_are_gone() {
            return Err(LedgerError::Replaced);
        }
        Ok(written)
    }

    /// `names` are those of the number of requests and of the difference.
    fn event(&self, names: [&str; 2], sums: &Repriced) -> AuditEvent {
        let [requests, difference] = names;
        let facts = serde_json::json!({
            "settled_from": self.stretch.from.seconds(),
            "settled_before": self.stretch.to.seconds(),
            requests: sums.corrected,
            // All digits: through a float they would be rounded.
            difference: sums.difference.to_string(),
            "reason": self.stretch.reason,
        });
        AuditEvent::new(EventType::PricesRepriced, &By::gateway(self.stretch.adjusted_at), "ledger").after(&facts)
    }
}
