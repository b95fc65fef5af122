//! `/v1/organization/projects/{project_id}/spend_limit`, and `/v1/organization/spend_limit` for all projects together.

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
    openai::{
        error::ApiError,
        management::terms::{SpendLimitObject, TermsDeleted, spend_limit},
    },
};

pub(in crate::api) async fn retrieve(_: Admin, InProject(project): InProject) -> Result<Response, ApiError> {
    let limit = project.terms.spend_limit.ok_or_else(|| none(project.id.as_str()))?;
    Ok(Json(SpendLimitObject::of_project(&limit)).into_response())
}

pub(in crate::api) async fn update(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let limit = spend_limit(&body)?;
    let set = accounts.set_spend_limit(&project.id, Some(limit), &admin.acts(clock.now())).await;
    set.map_err(|error| refused(&error))?;
    Ok(Json(SpendLimitObject::of_project(&limit)).into_response())
}

pub(in crate::api) async fn delete(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
) -> Result<Response, ApiError> {
    if project.terms.spend_limit.is_none() {
        return Err(none(project.id.as_str()));
    }
    let deleted = accounts.set_spend_limit(&project.id, None, &admin.acts(clock.now())).await;
    deleted.map_err(|error| refused(&error))?;
    Ok(Json(TermsDeleted::PROJECT_SPEND_LIMIT).into_response())
}

pub(in crate::api) async fn retrieve_common(
    _: Admin,
    State(accounts): State<Arc<Accounts>>,
) -> Result<Response, ApiError> {
    let limit = accounts.organization_limit().current().ok_or_else(|| none("organization"))?;
    Ok(Json(SpendLimitObject::of_organization(&limit)).into_response())
}

pub(in crate::api) async fn update_common(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let limit = spend_limit(&body)?;
    let set = accounts.set_organization_spend_limit(Some(limit), &admin.acts(clock.now())).await;
    set.map_err(|error| refused(&error))?;
    Ok(Json(SpendLimitObject::of_organization(&limit)).into_response())
}

pub(in crate::api) async fn delete_common(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
) -> Result<Response, ApiError> {
    if accounts.organization_limit().current().is_none() {
        return Err(none("organization"));
    }
    let deleted = accounts.set_organization_spend_limit(None, &admin.acts(clock.now())).await;
    deleted.map_err(|error| refused(&error))?;
    Ok(Json(TermsDeleted::ORGANIZATION_SPEND_LIMIT).into_response())
}

fn none(of: &str) -> ApiError {
    ApiError::no_such("Spend limit", of)
}

#[cfg(test)]
mod tests;
