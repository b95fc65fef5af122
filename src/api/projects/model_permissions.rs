//! `/v1/organization/projects/{project_id}/model_permissions`. They hold for all keys of the project.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};

use super::{InProject, refused};
use crate::{
    accounts::Accounts,
    api::{auth::Admin, body::SmallBody},
    clock::Clock,
    domain::{catalog::Catalog, projects::Project},
    openai::{
        error::ApiError,
        management::terms::{ModelPermissionsObject, TermsDeleted, model_permissions, unknown_model_id},
    },
};

pub(in crate::api) async fn retrieve(_: Admin, InProject(project): InProject) -> Result<Response, ApiError> {
    let permissions = project.terms.model_permissions.as_ref().ok_or_else(|| none(&project))?;
    Ok(Json(ModelPermissionsObject::from(permissions)).into_response())
}

pub(in crate::api) async fn update(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(catalog): State<Arc<Catalog>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let permissions = model_permissions(&body)?;
    if let Some(unknown) = permissions.model_ids.iter().find(|id| catalog.resolve(id).is_none()) {
        return Err(unknown_model_id(unknown));
    }
    let answer = Json(ModelPermissionsObject::from(&permissions)).into_response();
    let set = accounts.set_model_permissions(&project.id, Some(permissions), &admin.acts(clock.now())).await;
    set.map(|_| answer).map_err(|error| refused(&error))
}

pub(in crate::api) async fn delete(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
) -> Result<Response, ApiError> {
    if project.terms.model_permissions.is_none() {
        return Err(none(&project));
    }
    let deleted = accounts.set_model_permissions(&project.id, None, &admin.acts(clock.now())).await;
    deleted.map_err(|error| refused(&error))?;
    Ok(Json(TermsDeleted::MODEL_PERMISSIONS).into_response())
}

fn none(project: &Project) -> ApiError {
    ApiError::no_such("Model permissions", project.id.as_str())
}

#[cfg(test)]
mod tests;
