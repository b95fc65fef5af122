//! Projects, service accounts, API keys and admin keys.

use std::{collections::HashMap, sync::Arc};

use sqlx::{FromRow, SqliteConnection};

use super::{Store, StoreError, change::Change};
use crate::domain::{
    audit::AuditEvent,
    ids::{AdminKeyId, KeyId, ProjectId, ServiceAccountId},
    keys::{ApiKey, KeyHash},
    projects::{Project, ServiceAccount, TierId},
    time::UnixNanos,
};

/// Everything of this page that is kept in memory, as it was saved.
#[derive(Debug, Default)]
pub struct Saved {
    pub projects: Vec<Arc<Project>>,
    /// Revoked ones among them.
    pub keys: Vec<ApiKey>,
}

/// An admin key that was generated here. A configured one is not stored.
#[derive(Debug)]
pub struct AdminKeyRow {
    pub id: AdminKeyId,
    pub name: String,
    pub hash: KeyHash,
    pub redacted_value: String,
    pub created_at: UnixNanos,
}

pub async fn load(store: &Store) -> Result<Saved, StoreError> {
    // One transaction, so that both tables are of one moment.
    let mut reading = store.reader().begin().await?;
    let projects: Vec<ProjectRow> =
        sqlx::query_as("SELECT id, name, tier, created_at, archived_at FROM projects").fetch_all(&mut *reading).await?;
    let keys: Vec<KeyRow> = sqlx::query_as(
        "SELECT id, project_id, service_account_id, name, hash, redacted_value, limits, created_at, expires_at, \
         revoked_at FROM api_keys",
    )
    .fetch_all(&mut *reading)
    .await?;
    let projects = projects.into_iter().map(|row| row.read().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let owners = projects.iter().map(|project| (project.id.clone(), Arc::clone(project))).collect();
    Ok(Saved { keys: keys.into_iter().map(|row| row.read(&owners)).collect::<Result<_, _>>()?, projects })
}

pub async fn insert_project(store: &Store, project: &Project, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query("INSERT INTO projects (id, name, tier, created_at, archived_at) VALUES (?, ?, ?, ?, ?)")
        .bind(project.id.as_str())
        .bind(&project.name)
        .bind(project.tier.as_str())
        .bind(stored(project.created_at))
        .bind(project.archived_at.map(stored))
        .execute(change.connection())
        .await?;
    change.commit().await
}

/// A service account and its key, both or none.
pub async fn insert_service_account(
    store: &Store,
    account: (&ServiceAccount, &AuditEvent),
    key: (&ApiKey, &AuditEvent),
) -> Result<(), StoreError> {
    let (account, event) = account;
    let mut change = Change::begin(store, event).await?;
    sqlx::query("INSERT INTO service_accounts (id, project_id, name, created_at) VALUES (?, ?, ?, ?)")
        .bind(account.id.as_str())
        .bind(account.project_id.as_str())
        .bind(&account.name)
        .bind(stored(account.created_at))
        .execute(change.connection())
        .await?;
    let (key, event) = key;
    change.also(event).await?;
    insert_key(change.connection(), key).await?;
    change.commit().await
}

async fn insert_key(connection: &mut SqliteConnection, key: &ApiKey) -> Result<(), StoreError> {
    let limits = serde_json::to_string(&key.limits).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO api_keys (id, project_id, service_account_id, name, hash, redacted_value, limits, created_at, \
         expires_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(key.id.as_str())
    .bind(key.project.id.as_str())
    .bind(key.service_account_id.as_str())
    .bind(&key.name)
    .bind(key.hash.as_bytes().as_slice())
    .bind(&key.redacted_value)
    .bind(limits)
    .bind(stored(key.created_at))
    .bind(key.expires_at.map(stored))
    .bind(key.revoked_at.map(stored))
    .execute(connection)
    .await?;
    Ok(())
}

/// The first revocation counts; a later one changes nothing.
pub async fn revoke_key(store: &Store, id: &KeyId, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
        .bind(stored(event.by.at))
        .bind(id.as_str())
        .execute(change.connection())
        .await?;
    change.commit().await
}

pub async fn insert_admin_key(store: &Store, key: &AdminKeyRow, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query("INSERT INTO admin_keys (id, name, hash, redacted_value, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(key.id.as_str())
        .bind(&key.name)
        .bind(key.hash.as_bytes().as_slice())
        .bind(&key.redacted_value)
        .bind(stored(key.created_at))
        .execute(change.connection())
        .await?;
    change.commit().await
}

pub async fn admin_keys(store: &Store) -> Result<Vec<(AdminKeyId, KeyHash)>, StoreError> {
    let rows: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT id, hash FROM admin_keys").fetch_all(store.reader()).await?;
    let read = |(id, bytes): &(String, Vec<u8>)| {
        let id = AdminKeyId::parse(id).ok_or_else(|| unreadable("admin_keys.id"))?;
        Ok((id, hash("admin_keys.hash", bytes)?))
    };
    rows.iter().map(read).collect()
}

/// Whether anything was hashed under the pepper: then no other pepper will do.
pub async fn has_keys(store: &Store) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys) OR EXISTS (SELECT 1 FROM admin_keys)")
        .fetch_one(store.reader())
        .await?;
    Ok(found)
}

// === rows ===

#[derive(FromRow)]
struct ProjectRow {
    id: String,
    name: String,
    tier: String,
    created_at: i64,
    archived_at: Option<i64>,
}

#[derive(FromRow)]
struct KeyRow {
    id: String,
    project_id: String,
    service_account_id: String,
    name: String,
    hash: Vec<u8>,
    redacted_value: String,
    limits: String,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
}

impl ProjectRow {
    fn read(self) -> Result<Project, sqlx::Error> {
        Ok(Project {
            id: ProjectId::parse(&self.id).ok_or_else(|| unreadable("projects.id"))?,
            name: self.name,
            tier: TierId::from(self.tier.as_str()),
            created_at: time(self.created_at),
            archived_at: self.archived_at.map(time),
        })
    }
}

impl KeyRow {
    fn read(self, owners: &HashMap<ProjectId, Arc<Project>>) -> Result<ApiKey, sqlx::Error> {
        let owner = ProjectId::parse(&self.project_id).and_then(|id| owners.get(&id));
        Ok(ApiKey {
            id: KeyId::parse(&self.id).ok_or_else(|| unreadable("api_keys.id"))?,
            service_account_id: ServiceAccountId::parse(&self.service_account_id)
                .ok_or_else(|| unreadable("api_keys.service_account_id"))?,
            project: owner.cloned().ok_or_else(|| unreadable("api_keys.project_id"))?,
            name: self.name,
            hash: hash("api_keys.hash", &self.hash)?,
            redacted_value: self.redacted_value,
            // Limits that cannot be read are refused, not taken for none.
            limits: serde_json::from_str(&self.limits).map_err(|_| unreadable("api_keys.limits"))?,
            created_at: time(self.created_at),
            expires_at: self.expires_at.map(time),
            revoked_at: self.revoked_at.map(time),
        })
    }
}

fn hash(column: &str, bytes: &[u8]) -> Result<KeyHash, sqlx::Error> {
    bytes.try_into().map(KeyHash::from_bytes).map_err(|_| unreadable(column))
}

/// Names the column only: its content may be a secret.
pub(super) fn unreadable(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: "not a value that was written here".into() }
}

/// `INTEGER` holds 63 bits, enough until the year 2262.
pub(super) fn stored(at: UnixNanos) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

pub(super) fn time(stored: i64) -> UnixNanos {
    UnixNanos(u64::try_from(stored).unwrap_or(0))
}
