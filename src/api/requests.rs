//! `GET /v1/organization/requests` and one of them: what single requests asked for, and why they cost what they cost or were
//! refused. Only admins get here.

use std::fmt::Display;

use axum::{
    Json,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};

use super::{auth::Admin, urls::Path};
use crate::{
    app::{App, AppState},
    domain::{explanation::Explained, ids::RequestId},
    openai::{
        error::ApiError,
        explain::{RequestObject, RequestPage, RequestsQuery},
        management::requests::shown,
    },
    store::requests::{self, Filter},
};

pub(super) async fn retrieve(
    _: Admin,
    State(AppState(app)): State<AppState>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let unknown = || ApiError::no_such("request", shown(&id));
    let request_id = RequestId::parse(&id).ok_or_else(unknown)?;
    let found = find(&app, request_id).await?.ok_or_else(unknown)?;
    let object = RequestObject::new(&found).map_err(|error| failed(&error))?;
    Ok(Json(object).into_response())
}

/// A request that has just ended may be on its way from the journal to the ledger.
async fn find(app: &App, request_id: RequestId) -> Result<Option<Explained>, ApiError> {
    app.write_refusals().await;
    let find = || requests::find(&app.store, request_id, app.clock.now());
    let found = find().await.map_err(|error| failed(&error))?;
    if found.is_some() {
        return Ok(found);
    }
    app.await_ledger().await;
    find().await.map_err(|error| failed(&error))
}

pub(super) async fn list(
    _: Admin,
    State(AppState(app)): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = RequestsQuery::parse(&query.unwrap_or_default())?;
    let limit = query.limit;
    let filter = Filter {
        from: query.from,
        before: query.before,
        project_ids: query.project_ids,
        api_key_ids: query.api_key_ids,
        models: query.models,
        outcomes: query.outcomes,
        finished: query.finished,
        refused: query.refused,
    };
    app.write_refusals().await;
    let found = requests::page(&app.store, &filter, app.clock.now(), limit.saturating_add(1)).await;
    let mut found = found.map_err(|error| failed(&error))?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let page = RequestPage::new(&found, has_more).map_err(|error| failed(&error))?;
    Ok(Json(page).into_response())
}

fn failed(error: &dyn Display) -> ApiError {
    tracing::error!(%error, "requests could not be read");
    ApiError::internal()
}
