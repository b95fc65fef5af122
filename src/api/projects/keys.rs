//! `/v1/organization/projects/{project_id}/api_keys`. Creating, modifying and rotating are ours; `OpenAI` has no API for it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};

use super::{InProject, ListQuery, OfProject, no_such_key, read, refused, with_secret};
use crate::{
    accounts::{Accounts, KeyUpdate},
    api::{auth::Admin, body::SmallBody},
    clock::Clock,
    domain::time::UnixNanos,
    openai::{
        error::ApiError,
        management::{
            answers::{ApiKeyCreated, ApiKeyObject, Deleted, Page, project_access},
            requests::{KeyUpdateRequest, NewKey, after, overlap_seconds},
        },
    },
};

pub(in crate::api) async fn create(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let NewKey { name, service_account_id, terms } = NewKey::parse(&body)?;
    let by = admin.acts(clock.now());
    let terms = terms.from(by.at);
    let created = match service_account_id {
        Some(account_id) => accounts.create_key(&project.id, &account_id, &name, terms, &by).await,
        None => {
            let created = accounts.create_service_account(&project.id, &name, terms, &by).await;
            created.map(|(_, key, plain)| (key, plain))
        }
    };
    let (key, plain) = created.map_err(|error| refused(&error))?;
    Ok(with_secret(&ApiKeyCreated::new(&key, plain.reveal())))
}

pub(in crate::api) async fn list(
    _: Admin,
    State(accounts): State<Arc<Accounts>>,
    InProject(project): InProject,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let query = read(query)?;
    let asked_for = query.project_access()?.is_none_or(|access| access == project_access(&project));
    let keys = accounts.keys_of(&project.id);
    let listed = keys.iter().map(|key| {
        let shown = asked_for && key.revoked_at.is_none();
        (key.id.as_str(), shown.then(|| ApiKeyObject::from(&**key)))
    });
    Ok(Json(Page::cut(&query.page()?, listed.collect())?).into_response())
}

pub(in crate::api) async fn retrieve(_: Admin, OfProject(key): OfProject) -> Response {
    Json(ApiKeyObject::from(&*key)).into_response()
}

pub(in crate::api) async fn modify(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    OfProject(key): OfProject,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let request = KeyUpdateRequest::parse(&body)?;
    request.check(&key.terms)?;
    let KeyUpdateRequest { name, limits, allowed_models, budget, expires_in_seconds } = request;
    let by = admin.acts(clock.now());
    if expires_in_seconds.is_some() && key.terms.expires_at.is_some_and(|at| at <= by.at) {
        return Err(expired(key.id.as_str()));
    }
    let expires_at = expires_in_seconds.map(|seconds| seconds.map(|seconds| after(by.at, seconds)));
    let update = KeyUpdate { name, limits, allowed_models, budget, expires_at };
    let modified = accounts.modify_key(&key.project.id, &key.id, update, &by).await;
    let key = modified.map_err(|error| refused(&error))?;
    Ok(Json(ApiKeyObject::from(&*key)).into_response())
}

pub(in crate::api) async fn rotate(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    OfProject(key): OfProject,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let overlap_nanos = UnixNanos::from_seconds(overlap_seconds(&body)?).0;
    let by = admin.acts(clock.now());
    let rotated = accounts.rotate_key(&key.project.id, &key.id, overlap_nanos, &by).await;
    let (key, plain) = rotated.map_err(|error| refused(&error))?;
    Ok(with_secret(&ApiKeyCreated::new(&key, plain.reveal())))
}

pub(in crate::api) async fn revoke(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    OfProject(key): OfProject,
) -> Result<Response, ApiError> {
    let by = admin.acts(clock.now());
    let revoked = accounts.revoke_key(&key.project.id, &key.id, &by).await.map_err(|error| refused(&error))?;
    // Two may have revoked it at once.
    if revoked {
        Ok(Json(Deleted::api_key(key.id.as_str())).into_response())
    } else {
        Err(no_such_key(key.id.as_str()))
    }
}

/// Whoever was told that a key has ended can rely on it.
fn expired(id: &str) -> ApiError {
    let message = format!("The API key {id} has expired and cannot be given more time: make another one.");
    ApiError::invalid(message, Some("expires_in_seconds".into()), Some("api_key_expired".into()))
}

#[cfg(test)]
mod tests;
