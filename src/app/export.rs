//! The ledger of a data directory, read entry by entry without starting anything.

use std::path::PathBuf;

use super::data_dir;
use crate::{
    config::Settings,
    store::{
        StoreError,
        export::{Export, Settled},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("there is no ledger at {}: is it the right data directory (TOLLGATE_DATA_DIR)?", .0.display())]
    NoLedger(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads the database file of the configured data directory, whether or not a gateway runs on it.
pub async fn open_export(settings: &Settings, settled: Settled) -> Result<Export, ExportError> {
    let path = data_dir::ledger(&settings.data_dir);
    if !path.is_file() {
        return Err(ExportError::NoLedger(path));
    }
    Ok(Export::open(&path, settled).await?)
}
