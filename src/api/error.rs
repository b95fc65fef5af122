//! The one place that turns an error into an HTTP answer.

use std::any::Any;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, Uri, header::CONTENT_TYPE};

use super::headers::show_retry;
use crate::openai::error::ApiError;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body().into());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        show_retry(self.retry, response.headers_mut());
        response
    }
}

pub(super) async fn unknown_url(method: Method, uri: Uri) -> ApiError {
    ApiError::unknown_url(method.as_str(), uri.path())
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(method.as_str(), uri.path())
}

/// What the panic said goes to the log (the panic hook writes it), never to the caller.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::internal().into_response()
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing};
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    #[tokio::test]
    async fn what_a_panic_says_is_not_told() {
        async fn panics() -> &'static str {
            std::panic::resume_unwind(Box::new("the-canary-of-a-panic".to_owned()))
        }
        let router = Router::new().route("/", routing::get(panics)).layer(CatchPanicLayer::custom(panicked));
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), 500);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, ApiError::internal().body());
    }
}
