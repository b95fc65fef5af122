//! `/health` for those who start and watch the gateway, `/metrics` for those who draw it.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};

use crate::app::AppState;

/// `{"status":"ok"}`, or 503 while new requests are not taken. An upstream that cannot be reached is told and is no 503: to
/// start the gateway again would not help. Says no more: it answers without a key.
pub(super) async fn health(State(AppState(app)): State<AppState>) -> Response {
    let (status, body) = if app.takes_requests() {
        let unreachable = app.proxy.upstream.out_of_service().unreachable;
        let body = if unreachable { r#"{"status":"ok","upstream":"unreachable"}"# } else { r#"{"status":"ok"}"# };
        (StatusCode::OK, body)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"unavailable"}"#)
    };
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Counters only, no names of teams and no secrets, so collectors need no key.
pub(super) async fn metrics(State(AppState(app)): State<AppState>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    app.refresh_gauges();
    ([(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS))], app.metrics.page()).into_response()
}
