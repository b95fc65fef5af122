//! `GET /v1/models` and `GET /v1/models/{id}`: the models of the catalog.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

use super::auth;
use crate::{
    app::App,
    openai::{error::ApiError, models},
};

pub(super) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    auth::caller(&app.accounts, &headers, app.clock.now())?;
    Ok(json(models::list(&app.catalog)))
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    auth::caller(&app.accounts, &headers, app.clock.now())?;
    models::one(&app.catalog, &id).map(json).ok_or_else(|| ApiError::no_such_model(&id))
}

fn json(body: impl Into<axum::body::Body>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.into()).into_response()
}
