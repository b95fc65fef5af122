//! Projects, service accounts, API keys and admin keys.

use std::{collections::HashMap, sync::Arc};

use sqlx::{Connection as _, FromRow, Sqlite, pool::PoolConnection};

use super::{Store, StoreError};
use crate::domain::{
    ids::{KeyId, ProjectId, ServiceAccountId},
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
    pub id: String,
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

pub async fn insert_project(store: &Store, project: &Project) -> Result<(), StoreError> {
    let mut connection = durable(store).await?;
    sqlx::query("INSERT INTO projects (id, name, tier, created_at, archived_at) VALUES (?, ?, ?, ?, ?)")
        .bind(project.id.as_str())
        .bind(&project.name)
        .bind(project.tier.as_str())
        .bind(stored(project.created_at))
        .bind(project.archived_at.map(stored))
        .execute(&mut *connection)
        .await?;
    usual(connection).await;
    Ok(())
}

/// A service account and its key, both or none.
pub async fn insert_service_account(store: &Store, account: &ServiceAccount, key: &ApiKey) -> Result<(), StoreError> {
    let limits = serde_json::to_string(&key.limits).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let mut connection = durable(store).await?;
    let mut writing = connection.begin().await?;
    sqlx::query("INSERT INTO service_accounts (id, project_id, name, created_at) VALUES (?, ?, ?, ?)")
        .bind(account.id.as_str())
        .bind(account.project_id.as_str())
        .bind(&account.name)
        .bind(stored(account.created_at))
        .execute(&mut *writing)
        .await?;
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
    .execute(&mut *writing)
    .await?;
    writing.commit().await?;
    usual(connection).await;
    Ok(())
}

/// The first revocation counts; a later one changes nothing.
pub async fn revoke_key(store: &Store, id: &KeyId, at: UnixNanos) -> Result<(), StoreError> {
    let mut connection = durable(store).await?;
    sqlx::query("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
        .bind(stored(at))
        .bind(id.as_str())
        .execute(&mut *connection)
        .await?;
    usual(connection).await;
    Ok(())
}

pub async fn insert_admin_key(store: &Store, key: &AdminKeyRow) -> Result<(), StoreError> {
    let mut connection = durable(store).await?;
    sqlx::query("INSERT INTO admin_keys (id, name, hash, redacted_value, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(&key.id)
        .bind(&key.name)
        .bind(key.hash.as_bytes().as_slice())
        .bind(&key.redacted_value)
        .bind(stored(key.created_at))
        .execute(&mut *connection)
        .await?;
    usual(connection).await;
    Ok(())
}

pub async fn admin_key_hashes(store: &Store) -> Result<Vec<KeyHash>, StoreError> {
    let hashes: Vec<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM admin_keys").fetch_all(store.reader()).await?;
    hashes.iter().map(|bytes| Ok(hash("admin_keys.hash", bytes)?)).collect()
}

/// Whether anything was hashed under the pepper: then no other pepper will do.
pub async fn has_keys(store: &Store) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys) OR EXISTS (SELECT 1 FROM admin_keys)")
        .fetch_one(store.reader())
        .await?;
    Ok(found)
}

/// The writer, set so that a commit is on the disk when it returns. The ledger can be fed again from the journal after a
/// power cut and needs no such thing; a key or a revocation would be lost.
async fn durable(store: &Store) -> Result<PoolConnection<Sqlite>, StoreError> {
    let mut connection = store.writer().acquire().await?;
    sqlx::query("PRAGMA synchronous = FULL").execute(&mut *connection).await?;
    Ok(connection)
}

/// Back to the ledger's setting. After an error nobody does this: then the ledger's commits are slower until the next
/// change, and as right.
async fn usual(mut connection: PoolConnection<Sqlite>) {
    sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut *connection).await.ok();
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
fn unreadable(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: "not a value that was written here".into() }
}

/// `INTEGER` holds 63 bits, enough until the year 2262.
fn stored(at: UnixNanos) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn time(stored: i64) -> UnixNanos {
    UnixNanos(u64::try_from(stored).unwrap_or(0))
}
