//! What holds for every answer: its headers, and that no key is taken from a URL.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONNECTION};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::urls;
use crate::{
    app::App,
    domain::{ids::RequestId, limits::Headrooms},
    openai::{
        error::{ApiError, Retry},
        headers,
    },
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const BUDGET_PERCENT: HeaderName = HeaderName::from_static("x-tollgate-budget-percent");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Gives each request its id, which the journal, the ledger, the log and the answer carry. Counts refused keys, whichever
/// door they were tried at: a 401 is always ours, the upstream's own never gets here. Turns away who puts a key into the
/// URL, before any handler could repeat it. A layer of its own kind and not `middleware::from_fn`, which would cost each
/// request an allocation and a copy of all services inside.
#[derive(Clone)]
pub(super) struct NameRequests(pub Arc<App>);

#[derive(Clone)]
pub(super) struct Naming<S> {
    app: Arc<App>,
    inner: S,
}

impl<S> Layer<S> for NameRequests {
    type Service = Naming<S>;

    fn layer(&self, inner: S) -> Naming<S> {
        Naming { app: Arc::clone(&self.0), inner }
    }
}

impl<S: Service<Request, Response = Response>> Service<Request> for Naming<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Named<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let request_id = self.app.request_ids.next(self.app.clock.now());
        request.extensions_mut().insert(request_id);
        let answering = (!urls::carry_key(request.uri())).then(|| self.inner.call(request));
        Named { answering, app: Arc::clone(&self.app), request_id }
    }
}

pin_project! {
    /// An answer that gets the id of its request, or the end of the gateway in its place.
    pub(super) struct Named<F> {
        // Nothing: the request is refused for its URL.
        #[pin]
        answering: Option<F>,
        app: Arc<App>,
        request_id: RequestId,
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for Named<F> {
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answering = this.answering.as_pin_mut();
        let answer = match answering.map_or_else(
            || Poll::Ready(Ok(ApiError::key_in_url().into_response())),
            |answering| answering.poll(context),
        ) {
            // The connection's task wakes this when the time is over; what is left of the request settles itself as it is dropped.
            Poll::Pending if this.app.proxy.drainer.is_stopped() => {
                Poll::Ready(Ok(ApiError::overloaded().into_response()))
            }
            answer => answer,
        };
        answer.map_ok(|mut response| {
            if response.status() == StatusCode::UNAUTHORIZED {
                this.app.metrics.unauthenticated.inc();
            }
            if let Ok(value) = HeaderValue::from_str(this.request_id.text().as_str()) {
                response.headers_mut().insert(REQUEST_ID, value);
            }
            // So that a client who keeps connections asks the next gateway, instead of this one just as it closes.
            if this.app.is_stopping() {
                response.headers_mut().insert(CONNECTION, CLOSE);
            }
            response
        })
    }
}

/// The six `x-ratelimit-*` headers, where there are limits.
pub(super) fn show_headrooms(headrooms: &Headrooms, answer: &mut HeaderMap) {
    headers::rate_limit(headrooms, |name, value| {
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            answer.insert(HeaderName::from_static(name), value);
        }
    });
}

/// How far a soft limit on money is used.
pub(super) fn show_budget(percent: Option<u64>, answer: &mut HeaderMap) {
    if let Some(percent) = percent {
        answer.insert(BUDGET_PERCENT, HeaderValue::from(percent));
    }
}

/// What clients read before they try again.
pub(super) fn show_retry(retry: Retry, answer: &mut HeaderMap) {
    if let Some(nanos) = retry.wait_nanos() {
        let (seconds, millis) = headers::retry_after(nanos);
        answer.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        answer.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
    }
    if retry.is_advised_against() {
        answer.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
}
