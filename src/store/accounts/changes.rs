//! Changes to projects, service accounts and API keys, each with its events for the audit log.

use serde::Serialize;
use sqlx::SqliteConnection;

use super::stored;
use crate::{
    domain::{
        audit::AuditEvent,
        keys::ApiKey,
        projects::{Project, ServiceAccount},
    },
    store::{Store, StoreError, change::Change},
};

pub async fn insert_project(store: &Store, project: &Project, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query(
        "INSERT INTO projects (id, name, tier, automatic_tier, created_at, archived_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(project.id.as_str())
    .bind(&project.name)
    .bind(project.tier.as_str())
    .bind(project.automatic_tier)
    .bind(stored(project.created_at))
    .bind(project.archived_at.map(stored))
    .execute(change.connection())
    .await?;
    change.commit().await
}

/// Writes what of a project can change.
pub async fn update_project(store: &Store, project: &Project, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query("UPDATE projects SET name = ?, tier = ?, automatic_tier = ?, archived_at = ? WHERE id = ?")
        .bind(&project.name)
        .bind(project.tier.as_str())
        .bind(project.automatic_tier)
        .bind(project.archived_at.map(stored))
        .bind(project.id.as_str())
        .execute(change.connection())
        .await?;
    change.commit().await
}

/// A service account, and its first key if it has one: both or none.
pub async fn insert_service_account(
    store: &Store,
    account: &ServiceAccount,
    event: &AuditEvent,
    key: Option<(&ApiKey, &AuditEvent)>,
) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query("INSERT INTO service_accounts (id, project_id, name, role, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(account.id.as_str())
        .bind(account.project_id.as_str())
        .bind(&account.name)
        .bind(account.role.name())
        .bind(stored(account.created_at))
        .execute(change.connection())
        .await?;
    if let Some((key, event)) = key {
        change.also(event).await?;
        insert(change.connection(), key).await?;
    }
    change.commit().await
}

/// Writes what of a service account can change, and revokes those of its keys that go with it.
pub async fn update_service_account(
    store: &Store,
    account: &ServiceAccount,
    event: &AuditEvent,
    revoked: &[(ApiKey, AuditEvent)],
) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query("UPDATE service_accounts SET name = ?, role = ?, deleted_at = ? WHERE id = ?")
        .bind(&account.name)
        .bind(account.role.name())
        .bind(account.deleted_at.map(stored))
        .bind(account.id.as_str())
        .execute(change.connection())
        .await?;
    for (key, event) in revoked {
        change.also(event).await?;
        revoke(change.connection(), key, event).await?;
    }
    change.commit().await
}

/// A further key of a service account.
pub async fn insert_key(store: &Store, key: &ApiKey, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    insert(change.connection(), key).await?;
    change.commit().await
}

/// Writes what of a key can change: its name, its terms, its secrets.
pub async fn update_key(store: &Store, key: &ApiKey, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    let previous = key.previous.as_ref();
    sqlx::query(
        "UPDATE api_keys SET name = ?, hash = ?, previous_hash = ?, previous_expires_at = ?, redacted_value = ?, \
         limits = ?, allowed_models = ?, budget = ?, expires_at = ? WHERE id = ?",
    )
    .bind(&key.name)
    .bind(key.hash.as_bytes().as_slice())
    .bind(previous.map(|previous| previous.hash.as_bytes().as_slice()))
    .bind(previous.map(|previous| stored(previous.expires_at)))
    .bind(&key.redacted_value)
    .bind(json(&key.terms.limits)?)
    .bind(key.terms.allowed_models.as_ref().map(json).transpose()?)
    .bind(key.terms.budget.as_ref().map(json).transpose()?)
    .bind(key.terms.expires_at.map(stored))
    .bind(key.id.as_str())
    .execute(change.connection())
    .await?;
    change.commit().await
}

/// The first revocation counts; a later one changes nothing.
pub async fn revoke_key(store: &Store, key: &ApiKey, event: &AuditEvent) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    revoke(change.connection(), key, event).await?;
    change.commit().await
}

async fn insert(connection: &mut SqliteConnection, key: &ApiKey) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_keys (id, project_id, service_account_id, name, hash, redacted_value, limits, allowed_models, \
         budget, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(key.id.as_str())
    .bind(key.project.id.as_str())
    .bind(key.service_account.id.as_str())
    .bind(&key.name)
    .bind(key.hash.as_bytes().as_slice())
    .bind(&key.redacted_value)
    .bind(json(&key.terms.limits)?)
    .bind(key.terms.allowed_models.as_ref().map(json).transpose()?)
    .bind(key.terms.budget.as_ref().map(json).transpose()?)
    .bind(stored(key.created_at))
    .bind(key.terms.expires_at.map(stored))
    .execute(connection)
    .await?;
    Ok(())
}

async fn revoke(connection: &mut SqliteConnection, key: &ApiKey, event: &AuditEvent) -> Result<(), StoreError> {
    sqlx::query("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
        .bind(stored(event.by.at))
        .bind(key.id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) fn json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}
