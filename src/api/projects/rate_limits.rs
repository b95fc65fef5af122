//! `/v1/organization/projects/{project_id}/rate_limits`: one for each model of the catalog, showing what is in force.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{InProject, ListQuery, read, refused};
use crate::{
    accounts::Accounts,
    api::{auth::Admin, body::SmallBody, urls::Path},
    clock::Clock,
    domain::catalog::{Catalog, Model},
    openai::{
        error::ApiError,
        management::{
            answers::Page,
            requests::shown,
            terms::{RateLimitObject, rate_limit_update},
        },
    },
};

#[derive(Deserialize)]
pub(in crate::api) struct RateLimitId {
    rate_limit_id: String,
}

pub(in crate::api) async fn list(
    _: Admin,
    State(catalog): State<Arc<Catalog>>,
    InProject(project): InProject,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let query = read(query)?;
    let named: Vec<(String, &Arc<Model>)> =
        catalog.models().iter().map(|model| (RateLimitObject::id(&model.id), model)).collect();
    let listed = named.iter().map(|(id, model)| {
        let limits = catalog.limits_of(&project, Some(model));
        (id.as_str(), Some(RateLimitObject::new(id, &model.id, &limits)))
    });
    Ok(Json(Page::cut(&query.page_of_many()?, listed.collect())?).into_response())
}

/// A figure replaces the tier's, larger or smaller; null puts the tier's back; what is left out stays. It is so for all
/// models of the limit group.
pub(in crate::api) async fn modify(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(catalog): State<Arc<Catalog>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
    Path(RateLimitId { rate_limit_id: id }): Path<RateLimitId>,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let model = RateLimitObject::model(&id).and_then(|id| catalog.models().iter().find(|model| *model.id == *id));
    let model = model.ok_or_else(|| ApiError::no_such("Rate limit", shown(&id)))?;
    let (update, by) = (rate_limit_update(&body)?, admin.acts(clock.now()));
    let models = (&*model.id, catalog.sharing(model));
    let modified = accounts.modify_rate_limit(&project.id, models, update, &by).await;
    let project = modified.map_err(|error| refused(&error))?;
    let limits = catalog.limits_of(&project, Some(model));
    Ok(Json(RateLimitObject::new(&id, &model.id, &limits)).into_response())
}

#[cfg(test)]
mod tests;
