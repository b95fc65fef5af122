//! The audit log of a data directory, checked without starting anything.

use super::ledger::{self, LedgerError};
use crate::{
    config::Settings,
    domain::audit::AuditHash,
    store::audit::{self, Verified},
};

/// Reads the database file of the configured data directory, whether or not a gateway runs on it.
pub async fn verify_audit_log(settings: &Settings, expected: Option<AuditHash>) -> Result<Verified, LedgerError> {
    Ok(audit::verify(&ledger::path(settings)?, expected).await?)
}
