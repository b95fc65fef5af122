//! The audit log of a data directory, checked without starting anything.

use std::path::PathBuf;

use super::data_dir;
use crate::{
    config::Settings,
    domain::audit::AuditHash,
    store::{
        StoreError,
        audit::{self, Verified},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("there is no database at {}: is it the right data directory (TOLLGATE_DATA_DIR)?", .0.display())]
    NoDatabase(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads the database file of the configured data directory, whether or not a gateway runs on it.
pub async fn verify_audit_log(settings: &Settings, expected: Option<AuditHash>) -> Result<Verified, AuditError> {
    let path = data_dir::ledger(&settings.data_dir);
    if !path.is_file() {
        return Err(AuditError::NoDatabase(path));
    }
    Ok(audit::verify(&path, expected).await?)
}
