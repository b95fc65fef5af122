//! Projects, service accounts and API keys: everything of them, to be kept in memory. Changes are in `changes`.

mod changes;
mod terms;

use std::{collections::HashMap, sync::Arc};

use sqlx::FromRow;

pub use self::changes::{
    insert_key, insert_project, insert_service_account, revoke_key, update_key, update_project, update_service_account,
};
use self::terms::TermsRow;
pub use self::terms::{update_organization_spend_limits, update_terms};
use super::{Store, StoreError};
use crate::domain::{
    ids::{KeyId, ProjectId, ServiceAccountId},
    keys::{ApiKey, KeyHash, KeyTerms, LastUsed, PreviousSecret},
    projects::{Project, ProjectTerms, Role, ServiceAccount, TierId},
    spend::SpendLimits,
    time::UnixNanos,
};

/// Everything of this page that is kept in memory, as it was saved: archived projects, deleted accounts and revoked keys
/// among the rest.
#[derive(Debug, Default)]
pub struct Saved {
    pub projects: HashMap<ProjectId, Arc<Project>>,
    pub service_accounts: HashMap<ServiceAccountId, Arc<ServiceAccount>>,
    pub keys: Vec<ApiKey>,
    pub organization_spend_limits: SpendLimits,
}

pub async fn load(store: &Store) -> Result<Saved, StoreError> {
    // One transaction, so that all tables are of one moment.
    let mut reading = store.reader().begin().await?;
    let projects: Vec<ProjectRow> =
        sqlx::query_as("SELECT id, name, tier, automatic_tier, created_at, archived_at FROM projects")
            .fetch_all(&mut *reading)
            .await?;
    let accounts: Vec<ServiceAccountRow> =
        sqlx::query_as("SELECT id, project_id, name, role, created_at, deleted_at FROM service_accounts")
            .fetch_all(&mut *reading)
            .await?;
    let keys: Vec<KeyRow> = sqlx::query_as(
        "SELECT id, project_id, service_account_id, name, hash, previous_hash, previous_expires_at, redacted_value, limits, \
         allowed_models, budget, created_at, expires_at, revoked_at, used_at_s FROM api_keys LEFT JOIN last_used ON key_id = id",
    )
    .fetch_all(&mut *reading)
    .await?;
    let terms = TermsRow::all(&mut reading).await?;
    let terms: Result<HashMap<_, _>, _> =
        terms.iter().map(|row| Ok::<_, sqlx::Error>((row.project_id.as_str(), row.read()?))).collect();
    let mut terms = terms?;
    let organization_spend_limits = terms::organization_spend_limits(&mut reading).await?;
    let mut saved = Saved { organization_spend_limits, ..Saved::default() };
    for row in projects {
        let terms = terms.remove(row.id.as_str()).unwrap_or_default();
        let project = row.read(terms)?;
        saved.projects.insert(project.id.clone(), Arc::new(project));
    }
    for row in accounts {
        let account = row.read()?;
        saved.service_accounts.insert(account.id.clone(), Arc::new(account));
    }
    saved.keys = keys.into_iter().map(|row| row.read(&saved)).collect::<Result<_, _>>()?;
    Ok(saved)
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
    automatic_tier: bool,
    created_at: i64,
    archived_at: Option<i64>,
}

#[derive(FromRow)]
struct ServiceAccountRow {
    id: String,
    project_id: String,
    name: String,
    role: String,
    created_at: i64,
    deleted_at: Option<i64>,
}

#[derive(FromRow)]
struct KeyRow {
    id: String,
    project_id: String,
    service_account_id: String,
    name: String,
    hash: Vec<u8>,
    previous_hash: Option<Vec<u8>>,
    previous_expires_at: Option<i64>,
    redacted_value: String,
    limits: String,
    allowed_models: Option<String>,
    budget: Option<String>,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    used_at_s: Option<i64>,
}

impl ProjectRow {
    fn read(self, terms: ProjectTerms) -> Result<Project, sqlx::Error> {
        Ok(Project {
            id: ProjectId::parse(&self.id).ok_or_else(|| unreadable("projects.id"))?,
            name: self.name,
            tier: TierId::from(self.tier.as_str()),
            automatic_tier: self.automatic_tier,
            terms,
            created_at: time(self.created_at),
            archived_at: self.archived_at.map(time),
        })
    }
}

impl ServiceAccountRow {
    fn read(self) -> Result<ServiceAccount, sqlx::Error> {
        Ok(ServiceAccount {
            id: ServiceAccountId::parse(&self.id).ok_or_else(|| unreadable("service_accounts.id"))?,
            project_id: ProjectId::parse(&self.project_id).ok_or_else(|| unreadable("service_accounts.project_id"))?,
            name: self.name,
            role: Role::parse(&self.role).ok_or_else(|| unreadable("service_accounts.role"))?,
            created_at: time(self.created_at),
            deleted_at: self.deleted_at.map(time),
        })
    }
}

impl KeyRow {
    fn read(self, saved: &Saved) -> Result<ApiKey, sqlx::Error> {
        let project = ProjectId::parse(&self.project_id).and_then(|id| saved.projects.get(&id));
        let account = ServiceAccountId::parse(&self.service_account_id).and_then(|id| saved.service_accounts.get(&id));
        let previous = match (&self.previous_hash, self.previous_expires_at) {
            (Some(bytes), Some(at)) => {
                Some(PreviousSecret { hash: hash("api_keys.previous_hash", bytes)?, expires_at: time(at) })
            }
            _ => None,
        };
        // Terms that cannot be read are refused, not taken for none.
        let allowed_models = self.allowed_models.as_deref().map(serde_json::from_str).transpose();
        let budget = self.budget.as_deref().map(serde_json::from_str).transpose();
        let terms = KeyTerms {
            limits: serde_json::from_str(&self.limits).map_err(|_| unreadable("api_keys.limits"))?,
            allowed_models: allowed_models.map_err(|_| unreadable("api_keys.allowed_models"))?,
            budget: budget.map_err(|_| unreadable("api_keys.budget"))?,
            expires_at: self.expires_at.map(time),
        };
        Ok(ApiKey {
            id: KeyId::parse(&self.id).ok_or_else(|| unreadable("api_keys.id"))?,
            service_account: account.cloned().ok_or_else(|| unreadable("api_keys.service_account_id"))?,
            project: project.cloned().ok_or_else(|| unreadable("api_keys.project_id"))?,
            name: self.name,
            hash: hash("api_keys.hash", &self.hash)?,
            previous,
            redacted_value: self.redacted_value,
            terms,
            created_at: time(self.created_at),
            revoked_at: self.revoked_at.map(time),
            last_used: last_used(self.used_at_s),
        })
    }
}

pub(super) fn last_used(used_at_s: Option<i64>) -> LastUsed {
    LastUsed::at(used_at_s.and_then(|seconds| u64::try_from(seconds).ok()))
}

pub(super) fn hash(column: &str, bytes: &[u8]) -> Result<KeyHash, sqlx::Error> {
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
