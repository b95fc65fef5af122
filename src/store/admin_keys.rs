//! Admin keys that were made here. A configured one is not stored.

use sqlx::FromRow;

use super::{
    Store, StoreError,
    accounts::{hash, last_used, stored, time, unreadable},
    change::Change,
};
use crate::domain::{admin_keys::AdminKey, audit::AuditEvent, ids::AdminKeyId};

/// Those that were not deleted, expired ones among them.
pub async fn load(store: &Store) -> Result<Vec<AdminKey>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, name, hash, redacted_value, created_at, expires_at, used_at_s \
         FROM admin_keys LEFT JOIN last_used ON key_id = id WHERE deleted_at IS NULL",
    )
    .fetch_all(store.reader())
    .await?;
    Ok(rows.into_iter().map(Row::read).collect::<Result<_, _>>()?)
}

pub async fn insert(store: &Store, key: &AdminKey, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query(
        "INSERT INTO admin_keys (id, name, hash, redacted_value, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(key.id.as_str())
    .bind(&key.name)
    .bind(key.hash.as_bytes().as_slice())
    .bind(&key.redacted_value)
    .bind(stored(key.created_at))
    .bind(key.expires_at.map(stored))
    .execute(change.connection())
    .await?;
    change.commit().await
}

/// The row stays: the audit log names it.
pub async fn delete(store: &Store, id: &AdminKeyId, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query("UPDATE admin_keys SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL")
        .bind(stored(event.by.at))
        .bind(id.as_str())
        .execute(change.connection())
        .await?;
    change.commit().await
}

#[derive(FromRow)]
struct Row {
    id: String,
    name: String,
    hash: Vec<u8>,
    redacted_value: String,
    created_at: i64,
    expires_at: Option<i64>,
    used_at_s: Option<i64>,
}

impl Row {
    fn read(self) -> Result<AdminKey, sqlx::Error> {
        Ok(AdminKey {
            id: AdminKeyId::parse(&self.id).ok_or_else(|| unreadable("admin_keys.id"))?,
            name: self.name,
            hash: hash("admin_keys.hash", &self.hash)?,
            redacted_value: self.redacted_value,
            created_at: time(self.created_at),
            expires_at: self.expires_at.map(time),
            last_used: last_used(self.used_at_s),
        })
    }
}
