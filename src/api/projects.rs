//! `/v1/organization/projects`: projects here, what belongs to them in rooms of its own.

pub(super) mod keys;
pub(super) mod model_permissions;
pub(super) mod rate_limits;
pub(super) mod service_accounts;
pub(super) mod spend_limit;

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRef, FromRequestParts, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{header::CACHE_CONTROL, request::Parts};
use serde::{Deserialize, Serialize};

use super::{auth::Admin, body::SmallBody, urls::Path};
use crate::{
    accounts::{Accounts, AccountsError},
    clock::Clock,
    domain::{
        catalog::Catalog,
        ids::{KeyId, ProjectId, ServiceAccountId},
        keys::ApiKey,
        projects::{Project, ServiceAccount, TierId},
    },
    openai::{
        error::ApiError,
        management::{
            answers::{Page, ProjectObject},
            requests::{NewProject, PageRequest, ProjectUpdate, shown, unknown_tier},
        },
    },
};

/// The query of a list, as text: our own words for what is wrong with it.
#[derive(Deserialize)]
pub(super) struct ListQuery {
    after: Option<String>,
    before: Option<String>,
    limit: Option<String>,
    include_archived: Option<String>,
    owner_project_access: Option<String>,
    order: Option<String>,
}

impl ListQuery {
    pub(super) fn page(&self) -> Result<PageRequest<'_>, ApiError> {
        PageRequest::parse(self.after.as_deref(), self.limit.as_deref())
    }

    /// Of a list that is paged both ways.
    fn page_of_many(&self) -> Result<PageRequest<'_>, ApiError> {
        PageRequest::both_ways(self.after.as_deref(), self.before.as_deref(), self.limit.as_deref())
    }

    fn includes_archived(&self) -> Result<bool, ApiError> {
        match self.include_archived.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => {
                let message = "Invalid type for 'include_archived': expected a boolean.";
                Err(ApiError::invalid(message, Some("include_archived".into()), Some("invalid_type".into())))
            }
        }
    }

    /// `None`: any.
    fn project_access(&self) -> Result<Option<&'static str>, ApiError> {
        let access =
            one_of("owner_project_access", self.owner_project_access.as_deref(), &["active", "inactive", "any"])?;
        Ok(access.filter(|access| *access != "any"))
    }

    /// Newest first.
    pub(super) fn is_descending(&self) -> Result<bool, ApiError> {
        Ok(one_of("order", self.order.as_deref(), &["asc", "desc"])? == Some("desc"))
    }
}

fn one_of(param: &'static str, given: Option<&str>, values: &[&'static str]) -> Result<Option<&'static str>, ApiError> {
    let Some(given) = given else { return Ok(None) };
    let found = values.iter().copied().find(|value| *value == given);
    found.map(Some).ok_or_else(|| {
        let values: Vec<_> = values.iter().map(|value| format!("'{value}'")).collect();
        let message = format!("Invalid value: '{}'. Supported values are: {}.", shown(given), values.join(", "));
        ApiError::invalid(message, Some(param.into()), Some("invalid_value".into()))
    })
}

pub(super) fn read<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|rejection| ApiError::invalid(rejection.body_text(), None, None))
}

// === projects ===

pub(super) async fn create(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(catalog): State<Arc<Catalog>>,
    State(clock): State<Clock>,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let NewProject { name, tier, automatic_tier } = NewProject::parse(&body)?;
    let tier = tier.unwrap_or_else(|| catalog.default_tier());
    check_tier(&catalog, &tier)?;
    let by = admin.acts(clock.now());
    let created = accounts.create_project_with(&name, tier, automatic_tier.unwrap_or(true), &by).await;
    let project = created.map_err(|error| refused(&error))?;
    Ok(Json(ProjectObject::from(&*project)).into_response())
}

pub(super) async fn list(
    _: Admin,
    State(accounts): State<Arc<Accounts>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let query = read(query)?;
    let archived_too = query.includes_archived()?;
    let projects = accounts.projects();
    let listed = projects.iter().map(|project| {
        let visible = archived_too || project.archived_at.is_none();
        (project.id.as_str(), visible.then(|| ProjectObject::from(&**project)))
    });
    Ok(Json(Page::cut(&query.page()?, listed.collect())?).into_response())
}

pub(super) async fn retrieve(_: Admin, InProject(project): InProject) -> Response {
    Json(ProjectObject::from(&*project)).into_response()
}

pub(super) async fn modify(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(catalog): State<Arc<Catalog>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let ProjectUpdate { name, tier, automatic_tier } = ProjectUpdate::parse(&body)?;
    tier.iter().try_for_each(|tier| check_tier(&catalog, tier))?;
    let by = admin.acts(clock.now());
    let modified = accounts.modify_project(&project.id, name, tier, automatic_tier, &catalog, &by).await;
    let project = modified.map_err(|error| refused(&error))?;
    Ok(Json(ProjectObject::from(&*project)).into_response())
}

pub(super) async fn archive(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
) -> Result<Response, ApiError> {
    let archived = accounts.archive_project(&project.id, &admin.acts(clock.now())).await;
    let project = archived.map_err(|error| refused(&error))?;
    Ok(Json(ProjectObject::from(&*project)).into_response())
}

fn check_tier(catalog: &Catalog, tier: &TierId) -> Result<(), ApiError> {
    match catalog.tier(tier) {
        Some(_) => Ok(()),
        None => Err(unknown_tier(tier, catalog.tiers().map(|tier| &tier.id))),
    }
}

// === answers ===

/// No cache on the way may keep the key.
pub(super) fn with_secret(answer: &impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

fn refused(error: &AccountsError) -> ApiError {
    match error {
        AccountsError::NoSuchProject(id) => ApiError::no_such("Project", id.as_str()),
        AccountsError::ProjectArchived(id) => {
            ApiError::invalid(format!("Project {id} is archived."), None, Some("project_archived".into()))
        }
        AccountsError::NoSuchServiceAccount(id) => no_such_service_account(id.as_str()),
        AccountsError::NoSuchKey(id) => no_such_key(id.as_str()),
        AccountsError::Store(_) | AccountsError::Stopped(_) => {
            tracing::error!(%error, "a change to projects or keys was not saved");
            ApiError::internal()
        }
    }
}

// === ids in paths ===

/// The project that the path names.
pub(super) struct InProject(Arc<Project>);

/// The service account that the path names: of that project, and not deleted. Others are not there.
pub(super) struct InAccount {
    project: Arc<Project>,
    account: Arc<ServiceAccount>,
}

/// The key that the path names: of that project, and in force. Others are not there.
pub(super) struct OfProject(Arc<ApiKey>);

#[derive(Deserialize)]
struct Ids {
    project_id: String,
    #[serde(default)]
    service_account_id: String,
    #[serde(default)]
    key_id: String,
}

impl Ids {
    async fn read<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Path::from_request_parts(parts, state).await.map(|Path(ids)| ids)
    }

    fn project(&self, accounts: &Accounts) -> Result<Arc<Project>, ApiError> {
        let found = ProjectId::parse(&self.project_id).and_then(|id| accounts.project(&id));
        found.ok_or_else(|| ApiError::no_such("Project", shown(&self.project_id)))
    }

    fn account(&self, accounts: &Accounts) -> Result<InAccount, ApiError> {
        let project = self.project(accounts)?;
        let found = ServiceAccountId::parse(&self.service_account_id).and_then(|id| accounts.service_account(&id));
        let here = found.filter(|account| account.project_id == project.id && account.deleted_at.is_none());
        let account = here.ok_or_else(|| no_such_service_account(&self.service_account_id))?;
        Ok(InAccount { project, account })
    }

    fn key(&self, accounts: &Accounts) -> Result<Arc<ApiKey>, ApiError> {
        let project = self.project(accounts)?;
        let found = KeyId::parse(&self.key_id).and_then(|id| accounts.key(&id));
        let here = found.filter(|key| key.project.id == project.id && key.revoked_at.is_none());
        here.ok_or_else(|| no_such_key(&self.key_id))
    }
}

fn no_such_service_account(id: &str) -> ApiError {
    ApiError::no_such("Service account", shown(id))
}

fn no_such_key(id: &str) -> ApiError {
    ApiError::no_such("API key", shown(id))
}

impl<S> FromRequestParts<S> for InProject
where
    S: Send + Sync,
    Arc<Accounts>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ids::read(parts, state).await?.project(&Arc::from_ref(state)).map(Self)
    }
}

impl<S> FromRequestParts<S> for InAccount
where
    S: Send + Sync,
    Arc<Accounts>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ids::read(parts, state).await?.account(&Arc::from_ref(state))
    }
}

impl<S> FromRequestParts<S> for OfProject
where
    S: Send + Sync,
    Arc<Accounts>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ids::read(parts, state).await?.key(&Arc::from_ref(state)).map(Self)
    }
}

#[cfg(test)]
mod changes_tests;
#[cfg(test)]
pub(super) mod tests;
