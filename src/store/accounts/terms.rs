//! What is agreed on with projects and for the organization: read at the start, written with its event for the audit log.

use serde::de::DeserializeOwned;
use sqlx::{FromRow, SqliteConnection};

use super::{changes::json, unreadable};
use crate::{
    domain::{
        audit::AuditEvent,
        projects::{Project, ProjectTerms},
        spend::SpendLimits,
    },
    store::{Store, StoreError, change::Change},
};

#[derive(FromRow)]
pub(super) struct TermsRow {
    pub(super) project_id: String,
    rate_limits: String,
    model_permissions: Option<String>,
    spend_limit: Option<String>,
}

impl TermsRow {
    pub(super) async fn all(reading: &mut SqliteConnection) -> Result<Vec<Self>, sqlx::Error> {
        sqlx::query_as("SELECT project_id, rate_limits, model_permissions, spend_limit FROM project_terms")
            .fetch_all(reading)
            .await
    }

    /// Terms that cannot be read are refused, not taken for none.
    pub(super) fn read(&self) -> Result<ProjectTerms, sqlx::Error> {
        Ok(ProjectTerms {
            rate_limits: parsed("project_terms.rate_limits", &self.rate_limits)?,
            model_permissions: optional("project_terms.model_permissions", self.model_permissions.as_deref())?,
            spend_limits: optional("project_terms.spend_limit", self.spend_limit.as_deref())?.unwrap_or_default(),
        })
    }
}

pub(super) async fn organization_spend_limits(reading: &mut SqliteConnection) -> Result<SpendLimits, sqlx::Error> {
    let row: Option<Option<String>> =
        sqlx::query_scalar("SELECT spend_limit FROM organization_terms").fetch_optional(reading).await?;
    Ok(optional("organization_terms.spend_limit", row.flatten().as_deref())?.unwrap_or_default())
}

/// Writes the terms of a project.
pub async fn update_terms(store: &Store, project: &Project, event: &AuditEvent) -> Result<(), StoreError> {
    let terms = &project.terms;
    let mut change = Change::begin(store, event).await?;
    sqlx::query(
        "INSERT INTO project_terms (project_id, rate_limits, model_permissions, spend_limit) VALUES (?, ?, ?, ?) \
         ON CONFLICT DO UPDATE SET rate_limits = excluded.rate_limits, model_permissions = excluded.model_permissions, \
         spend_limit = excluded.spend_limit",
    )
    .bind(project.id.as_str())
    .bind(json(&terms.rate_limits)?)
    .bind(terms.model_permissions.as_ref().map(json).transpose()?)
    .bind(spend_limits(&terms.spend_limits)?)
    .execute(change.connection())
    .await?;
    change.commit().await
}

/// Writes the organization's spend limits, or that there are none.
pub async fn update_organization_spend_limits(
    store: &Store,
    limits: &SpendLimits,
    event: &AuditEvent,
) -> Result<(), StoreError> {
    let mut change = Change::begin(store, event).await?;
    sqlx::query(
        "INSERT INTO organization_terms (id, spend_limit) VALUES (1, ?) \
         ON CONFLICT DO UPDATE SET spend_limit = excluded.spend_limit",
    )
    .bind(spend_limits(limits)?)
    .execute(change.connection())
    .await?;
    change.commit().await
}

/// NULL is none.
fn spend_limits(limits: &SpendLimits) -> Result<Option<String>, sqlx::Error> {
    (!limits.is_empty()).then(|| json(limits)).transpose()
}

fn parsed<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|_| unreadable(column))
}

fn optional<T: DeserializeOwned>(column: &str, text: Option<&str>) -> Result<Option<T>, sqlx::Error> {
    text.map(|text| parsed(column, text)).transpose()
}
