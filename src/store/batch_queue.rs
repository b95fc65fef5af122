//! The batches whose tokens are enqueued. Traffic and no change that an administrator makes, so it leaves no row in the audit
//! log; but a batch that the queue has forgotten would let too many in, so each write waits for the disk.

use std::sync::Arc;

use sqlx::{SqlSafeStr as _, Sqlite, Transaction};

use super::{
    Store, StoreError,
    accounts::{stored, unreadable},
};
use crate::domain::{
    batch_queue::Reserved,
    ids::{BatchId, ProjectId},
    time::UnixNanos,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnqueuedBatch {
    pub id: BatchId,
    pub project_id: ProjectId,
    pub limit_group: Arc<str>,
    pub tokens: u64,
}

/// All that wait, for the queue to count again at the start.
pub async fn enqueued(store: &Store) -> Result<Vec<EnqueuedBatch>, StoreError> {
    let rows: Vec<(String, String, String, i64)> =
        sqlx::query_as("SELECT batch_id, project_id, limit_group, tokens FROM enqueued_batches ORDER BY batch_id")
            .fetch_all(store.reader())
            .await?;
    let read = |(id, project_id, limit_group, tokens): (String, String, String, i64)| {
        Ok(EnqueuedBatch {
            id: BatchId::parse(&id).ok_or_else(|| unreadable("enqueued_batches.batch_id"))?,
            project_id: ProjectId::parse(&project_id).ok_or_else(|| unreadable("enqueued_batches.project_id"))?,
            limit_group: limit_group.into(),
            tokens: u64::try_from(tokens).map_err(|_| unreadable("enqueued_batches.tokens"))?,
        })
    };
    rows.into_iter().map(read).collect()
}

/// Once this returns, no crash loses the batch. An id that is there already is an error.
pub async fn enqueue(store: &Store, id: &BatchId, reserved: &Reserved, now: UnixNanos) -> Result<(), StoreError> {
    let tokens = i64::try_from(reserved.tokens()).map_err(|_| StoreError::SumOverflow)?;
    let mut transaction = durable(store).await?;
    sqlx::query(
        "INSERT INTO enqueued_batches (batch_id, project_id, limit_group, tokens, enqueued_at) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(id.as_str())
    .bind(reserved.project_id().as_str())
    .bind(&**reserved.limit_group())
    .bind(tokens)
    .bind(stored(now))
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

pub async fn dequeue(store: &Store, id: &BatchId) -> Result<(), StoreError> {
    let mut transaction = durable(store).await?;
    sqlx::query("DELETE FROM enqueued_batches WHERE batch_id = ?").bind(id.as_str()).execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

/// Its commit is on the disk when it returns; the pool sets that back.
async fn durable(store: &Store) -> Result<Transaction<'static, Sqlite>, StoreError> {
    let mut connection = store.writer().acquire().await?;
    sqlx::query("PRAGMA synchronous = FULL").execute(&mut *connection).await?;
    Ok(Transaction::begin(connection, Some("BEGIN IMMEDIATE".into_sql_str())).await?)
}
