//! `GET /v1/models` and `GET /v1/models/{id}`: the models of the catalog that the key, its project and its tier may use.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header::CONTENT_TYPE};

use super::urls::Path;
use crate::{
    app::AppState,
    domain::keys::Caller,
    openai::{error::ApiError, models},
};

pub(super) async fn list(State(AppState(app)): State<AppState>, caller: Caller) -> Response {
    json(models::list(&app.catalog, |name, named| app.catalog.may_use(&caller, name, Some(named))))
}

pub(super) async fn retrieve(
    State(AppState(app)): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let shown = models::one(&app.catalog, &id, |name, named| app.catalog.may_use(&caller, name, Some(named)));
    shown.map(json).ok_or_else(|| ApiError::no_such_model(&id))
}

fn json(body: impl Into<axum::body::Body>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.into()).into_response()
}
