//! `/v1/organization/projects`: projects, and the keys of their service accounts.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRef, FromRequestParts, Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{header::CACHE_CONTROL, request::Parts};
use serde::Deserialize;

use super::{auth::Admin, body::SmallBody};
use crate::{
    accounts::{Accounts, AccountsError},
    clock::Clock,
    domain::{
        catalog::Catalog,
        ids::{KeyId, ProjectId},
        keys::ApiKey,
        projects::{Project, TierId},
        time::UnixNanos,
    },
    openai::{
        error::ApiError,
        management::{
            answers::{ApiKeyDeleted, ApiKeyObject, Page, ProjectObject, ServiceAccountCreated},
            requests::{NewProject, NewServiceAccount, PageRequest, shown, unknown_tier},
        },
    },
};

/// The query of a list, as text: our own words for what is wrong with it.
#[derive(Deserialize)]
pub(super) struct ListQuery {
    after: Option<String>,
    limit: Option<String>,
    include_archived: Option<String>,
}

impl ListQuery {
    fn page(&self) -> Result<PageRequest<'_>, ApiError> {
        PageRequest::parse(self.after.as_deref(), self.limit.as_deref())
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
}

fn read(query: Result<Query<ListQuery>, QueryRejection>) -> Result<ListQuery, ApiError> {
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
    let NewProject { name, tier } = NewProject::parse(&body)?;
    let tier = tier.unwrap_or_else(|| TierId::from(TierId::DEFAULT));
    if catalog.tier(&tier).is_none() {
        return Err(unknown_tier(&tier, catalog.tiers().map(|tier| &tier.id)));
    }
    let by = admin.acts(clock.now());
    let project = accounts.create_project(&name, tier, &by).await.map_err(|error| refused(&error))?;
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

// === keys ===

pub(super) async fn create_service_account(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let NewServiceAccount { name, limits, expires_in_seconds } = NewServiceAccount::parse(&body)?;
    let now = clock.now();
    let expires_at = expires_in_seconds.map(|seconds| now.plus_nanos(UnixNanos::from_seconds(seconds).0));
    let created = accounts.create_service_account(&project.id, &name, limits, expires_at, &admin.acts(now)).await;
    let (account, key, plain) = created.map_err(|error| refused(&error))?;
    let answer = Json(ServiceAccountCreated::new(&account, &key, plain.reveal()));
    // No cache on the way may keep the key.
    Ok(([(CACHE_CONTROL, "no-store")], answer).into_response())
}

pub(super) async fn list_keys(
    _: Admin,
    State(accounts): State<Arc<Accounts>>,
    InProject(project): InProject,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let query = read(query)?;
    let keys = accounts.keys_of(&project.id);
    let listed = keys.iter().map(|key| (key.id.as_str(), key.revoked_at.is_none().then(|| ApiKeyObject::from(&**key))));
    Ok(Json(Page::cut(&query.page()?, listed.collect())?).into_response())
}

pub(super) async fn retrieve_key(_: Admin, OfProject(key): OfProject) -> Response {
    Json(ApiKeyObject::from(&*key)).into_response()
}

pub(super) async fn revoke_key(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    OfProject(key): OfProject,
) -> Result<Response, ApiError> {
    let by = admin.acts(clock.now());
    let revoked = accounts.revoke_key(&key.project.id, &key.id, &by).await.map_err(|error| refused(&error))?;
    // Two may have revoked it at once.
    if revoked {
        Ok(Json(ApiKeyDeleted::new(key.id.as_str())).into_response())
    } else {
        Err(no_such_key(key.id.as_str()))
    }
}

fn refused(error: &AccountsError) -> ApiError {
    match error {
        AccountsError::NoSuchProject(id) => ApiError::no_such("Project", id.as_str()),
        AccountsError::ProjectArchived(id) => {
            ApiError::invalid(format!("Project {id} is archived."), None, Some("project_archived".into()))
        }
        AccountsError::Store(_) | AccountsError::Stopped(_) => {
            tracing::error!(%error, "a change to projects or keys was not saved");
            ApiError::internal()
        }
    }
}

// === ids in paths ===

/// The project that the path names.
pub(super) struct InProject(Arc<Project>);

/// The key that the path names: of that project, and in force. Others are not there.
pub(super) struct OfProject(Arc<ApiKey>);

#[derive(Deserialize)]
struct Ids {
    project_id: String,
    #[serde(default)]
    key_id: String,
}

impl Ids {
    async fn read<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let ids = Path::from_request_parts(parts, state).await;
        ids.map(|Path(ids)| ids).map_err(|_| ApiError::unknown_url(parts.method.as_str(), parts.uri.path()))
    }

    fn project(&self, accounts: &Accounts) -> Result<Arc<Project>, ApiError> {
        let found = ProjectId::parse(&self.project_id).and_then(|id| accounts.project(&id));
        found.ok_or_else(|| ApiError::no_such("Project", shown(&self.project_id)))
    }

    fn key(&self, accounts: &Accounts) -> Result<Arc<ApiKey>, ApiError> {
        let project = self.project(accounts)?;
        let found = KeyId::parse(&self.key_id).and_then(|id| accounts.key(&id));
        let here = found.filter(|key| key.project.id == project.id && key.revoked_at.is_none());
        here.ok_or_else(|| no_such_key(&self.key_id))
    }
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
mod tests;
