//! `/health` for those who start and watch the gateway, `/metrics` for those who draw it.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};

use crate::app::{AppState, Trouble};

#[derive(serde::Serialize)]
struct Health {
    status: &'static str,
    #[serde(flatten)]
    trouble: Trouble,
}

/// `{"status":"ok"}`, or 503 while new requests are not taken. A ledger that is behind, and an upstream that cannot be reached,
/// are told and are no 503: to start the gateway again would not help. Says why in a word and no more: it answers without a key.
pub(super) async fn health(State(AppState(app)): State<AppState>) -> Response {
    let taken = app.takes_requests();
    let (code, status) = if taken { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    (code, Json(Health { status, trouble: app.trouble() })).into_response()
}

/// Counters only, no names of teams and no secrets, so collectors need no key.
pub(super) async fn metrics(State(AppState(app)): State<AppState>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    app.refresh_gauges();
    ([(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS))], app.metrics.page()).into_response()
}
