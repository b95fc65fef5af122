//! `/v1/organization/admin_api_keys`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};

use super::{
    auth::Admin,
    body::SmallBody,
    projects::{ListQuery, read, with_secret},
    urls::Path,
};
use crate::{
    accounts::{AdminKeyError, AdminKeys},
    clock::Clock,
    domain::{admin_keys::AdminKey, ids::AdminKeyId},
    openai::{
        error::ApiError,
        management::{
            admin::{AdminKeyCreated, AdminKeyObject},
            answers::{Deleted, Page},
            requests::{NewAdminKey, after, shown},
        },
    },
};

pub(super) async fn create(
    admin: Admin,
    State(admin_keys): State<Arc<AdminKeys>>,
    State(clock): State<Clock>,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let NewAdminKey { name, expires_in_seconds } = NewAdminKey::parse(&body)?;
    let by = admin.acts(clock.now());
    let expires_at = expires_in_seconds.map(|seconds| after(by.at, seconds));
    let created = admin_keys.create(&name, expires_at, &by).await;
    let (key, plain) = created.map_err(|error| refused(&error))?;
    Ok(with_secret(&AdminKeyCreated::new(&key, plain.reveal())))
}

pub(super) async fn list(
    _: Admin,
    State(admin_keys): State<Arc<AdminKeys>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let query = read(query)?;
    let keys = admin_keys.list();
    let mut listed: Vec<_> = keys.iter().map(|key| (key.id.as_str(), Some(AdminKeyObject::from(&**key)))).collect();
    if query.is_descending()? {
        listed.reverse();
    }
    Ok(Json(Page::cut(&query.page()?, listed)?).into_response())
}

pub(super) async fn retrieve(
    _: Admin,
    State(admin_keys): State<Arc<AdminKeys>>,
    Path(key_id): Path<String>,
) -> Result<Response, ApiError> {
    let key = find(&admin_keys, &key_id)?;
    Ok(Json(AdminKeyObject::from(&*key)).into_response())
}

pub(super) async fn delete(
    admin: Admin,
    State(admin_keys): State<Arc<AdminKeys>>,
    State(clock): State<Clock>,
    Path(key_id): Path<String>,
) -> Result<Response, ApiError> {
    let key = find(&admin_keys, &key_id)?;
    admin_keys.delete(&key.id, &admin.acts(clock.now())).await.map_err(|error| refused(&error))?;
    Ok(Json(Deleted::admin_key(key.id.as_str())).into_response())
}

fn find(admin_keys: &AdminKeys, id: &str) -> Result<Arc<AdminKey>, ApiError> {
    let found = AdminKeyId::parse(id).and_then(|id| admin_keys.find(&id));
    found.ok_or_else(|| ApiError::no_such("admin API key", shown(id)))
}

fn refused(error: &AdminKeyError) -> ApiError {
    let invalid =
        |message: String, code: &'static str| ApiError::invalid(message, Some("key_id".into()), Some(code.into()));
    match error {
        AdminKeyError::NoSuchKey(id) => ApiError::no_such("admin API key", id.as_str()),
        AdminKeyError::Configured(id) => invalid(
            format!(
                "The admin API key {id} comes from the gateway's settings and cannot be deleted here: remove it there."
            ),
            "configured_admin_key",
        ),
        AdminKeyError::LastUsable(id) => invalid(
            format!(
                "The admin API key {id} is the last one that works and cannot be deleted: create another one first."
            ),
            "last_admin_key",
        ),
        AdminKeyError::Store(_) | AdminKeyError::Stopped(_) => {
            tracing::error!(%error, "a change to the admin keys was not saved");
            ApiError::internal()
        }
    }
}

#[cfg(test)]
mod tests;
