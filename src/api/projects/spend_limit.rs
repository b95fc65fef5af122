//! `/v1/organization/projects/{project_id}/spend_limit`, and `/v1/organization/spend_limit` for all projects together: one of the month and one of
//! the day.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};

use serde::Deserialize;

use super::{InProject, read, refused};
use crate::{
    accounts::Accounts,
    api::{auth::Admin, body::SmallBody},
    clock::Clock,
    domain::spend::{SpendLimit, SpendLimitChange, SpendLimits},
    openai::{
        error::ApiError,
        management::terms::{SpendLimitObject, TermsDeleted, interval, spend_limit},
    },
};

const ORGANIZATION: &str = "organization";

/// Which of the two is meant.
#[derive(Deserialize)]
pub(in crate::api) struct IntervalQuery {
    interval: Option<String>,
}

impl IntervalQuery {
    /// Where nothing is said it is the month's, or the day's where that is the only one.
    fn of(&self, limits: &SpendLimits) -> Result<Option<SpendLimit>, ApiError> {
        match self.interval.as_deref() {
            None => Ok(limits.iter().next()),
            Some(text) => Ok(limits.of(interval(text)?)),
        }
    }

    /// As [`Self::of`], but never a guess where there are two: a request that is sent again would take the other one away.
    fn of_deleted(&self, limits: &SpendLimits) -> Result<Option<SpendLimit>, ApiError> {
        if self.interval.is_none() && limits.iter().count() > 1 {
            return Err(ApiError::missing_parameter("interval"));
        }
        self.of(limits)
    }
}

pub(in crate::api) async fn retrieve(
    _: Admin,
    InProject(project): InProject,
    query: Result<Query<IntervalQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let limit = read(query)?.of(&project.terms.spend_limits)?.ok_or_else(|| none(project.id.as_str()))?;
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
    let set = accounts.change_spend_limit(&project.id, SpendLimitChange::Set(limit), &admin.acts(clock.now())).await;
    set.map_err(|error| refused(&error))?;
    Ok(Json(SpendLimitObject::of_project(&limit)).into_response())
}

pub(in crate::api) async fn delete(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
    query: Result<Query<IntervalQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let limit = read(query)?.of_deleted(&project.terms.spend_limits)?.ok_or_else(|| none(project.id.as_str()))?;
    let change = SpendLimitChange::Delete(limit.interval);
    let deleted = accounts.change_spend_limit(&project.id, change, &admin.acts(clock.now())).await;
    deleted.map_err(|error| refused(&error))?;
    Ok(Json(TermsDeleted::PROJECT_SPEND_LIMIT).into_response())
}

pub(in crate::api) async fn retrieve_common(
    _: Admin,
    State(accounts): State<Arc<Accounts>>,
    query: Result<Query<IntervalQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let limits = accounts.organization_limits().current();
    let limit = read(query)?.of(&limits)?.ok_or_else(|| none(ORGANIZATION))?;
    Ok(Json(SpendLimitObject::of_organization(&limit)).into_response())
}

pub(in crate::api) async fn update_common(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let limit = spend_limit(&body)?;
    let set = accounts.change_organization_spend_limit(SpendLimitChange::Set(limit), &admin.acts(clock.now())).await;
    set.map_err(|error| refused(&error))?;
    Ok(Json(SpendLimitObject::of_organization(&limit)).into_response())
}

pub(in crate::api) async fn delete_common(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    query: Result<Query<IntervalQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let limits = accounts.organization_limits().current();
    let limit = read(query)?.of_deleted(&limits)?.ok_or_else(|| none(ORGANIZATION))?;
    let change = SpendLimitChange::Delete(limit.interval);
    let deleted = accounts.change_organization_spend_limit(change, &admin.acts(clock.now())).await;
    deleted.map_err(|error| refused(&error))?;
    Ok(Json(TermsDeleted::ORGANIZATION_SPEND_LIMIT).into_response())
}

fn none(of: &str) -> ApiError {
    ApiError::no_such("Spend limit", of)
}

#[cfg(test)]
mod tests;
