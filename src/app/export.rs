//! The ledger of a data directory, read entry by entry without starting anything.

use super::ledger::{self, LedgerError};
use crate::{
    config::Settings,
    store::export::{Export, Settled},
};

/// Reads the database file of the configured data directory, whether or not a gateway runs on it. Fails when it lacks
/// requests that were settled then.
pub async fn open_export(settings: &Settings, settled: Settled) -> Result<Export, LedgerError> {
    let export = Export::open(&ledger::path(settings)?, settled).await?;
    ledger::wait_for_all(settings, settled).await?;
    Ok(export)
}
