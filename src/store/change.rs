//! The one way to change what administrators manage: a transaction that starts with its row in the audit log.

use sqlx::{SqlSafeStr as _, Sqlite, SqliteConnection, Transaction};

use super::{Store, StoreError, audit};
use crate::domain::audit::{AuditEvent, AuditRow};

/// A change under way. Dropped without [`Change::commit`], neither it nor its audit row has ever been.
pub(super) struct Change {
    transaction: Transaction<'static, Sqlite>,
}

impl Change {
    pub(super) async fn begin(store: &Store, event: &AuditEvent) -> Result<Self, StoreError> {
        let mut change = Self::resume(store).await?;
        change.also(event).await?;
        Ok(change)
    }

    /// A further piece of a change that is too large for one transaction. The first piece has its row in the audit log.
    pub(super) async fn resume(store: &Store) -> Result<Self, StoreError> {
        let mut connection = store.writer().acquire().await?;
        // The commit is on the disk when it returns. The ledger can be fed again from the journal after a power cut and
        // needs no such thing; a key or a revocation would be lost. The pool sets it back.
        sqlx::query("PRAGMA synchronous = FULL").execute(&mut *connection).await?;
        let transaction = Transaction::begin(connection, Some("BEGIN IMMEDIATE".into_sql_str())).await?;
        Ok(Self { transaction })
    }

    /// One more row in the audit log, where one change is several to a reader.
    pub(super) async fn also(&mut self, event: &AuditEvent) -> Result<AuditRow, StoreError> {
        audit::append(&mut self.transaction, event).await
    }

    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}
