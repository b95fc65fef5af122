//! `GET /v1/organization/openapi.json`: this API described for programs. It needs an admin key, as everything beside it
//! does: whoever may not manage the gateway learns nothing about it here.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header::CONTENT_TYPE};

use super::auth::Admin;

/// Written by hand. Tests hold it against the routes and against what they answer.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn retrieve(_: Admin) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT).into_response()
}
