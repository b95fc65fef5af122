//! Headers that every answer has.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::{
    app::AppState,
    domain::limits::Headrooms,
    openai::{error::Retry, headers},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// The longest time that a client of `OpenAI` waits before it tries again; told to wait longer, some try at once instead.
const LONGEST_WAIT_NANOS: u64 = 120_000_000_000;
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Gives the request its id, which the journal, the ledger, the log and the answer carry. Counts refused keys, whichever
/// door they were tried at: a 401 is always ours, the upstream's own never gets here.
pub(super) async fn name_request(State(AppState(app)): State<AppState>, mut request: Request, next: Next) -> Response {
    let request_id = app.request_ids.next(app.clock.now());
    request.extensions_mut().insert(request_id);
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        app.metrics.unauthenticated.inc();
    }
    if let Ok(value) = HeaderValue::try_from(request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The six `x-ratelimit-*` headers, where there are limits.
pub(super) fn show_headrooms(headrooms: &Headrooms, answer: &mut HeaderMap) {
    for (name, value) in headers::rate_limit(headrooms) {
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.insert(HeaderName::from_static(name), value);
        }
    }
}

/// What clients read before they try again.
pub(super) fn show_retry(retry: Retry, answer: &mut HeaderMap) {
    match retry {
        Retry::Unsaid => {}
        Retry::No => show_no_retry(answer),
        Retry::After { nanos } => {
            show_wait(nanos, answer);
            if nanos > LONGEST_WAIT_NANOS {
                show_no_retry(answer);
            }
        }
        Retry::NotByItself { nanos } => {
            show_wait(nanos, answer);
            show_no_retry(answer);
        }
    }
}

fn show_wait(nanos: u64, answer: &mut HeaderMap) {
    let (seconds, millis) = headers::retry_after(nanos);
    answer.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    answer.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
}

fn show_no_retry(answer: &mut HeaderMap) {
    answer.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
}
