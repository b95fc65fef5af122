//! HTTP out: the one service behind us, over a pool of HTTP/1.1 connections (HTTP/2 would make long streams wait for each
//! other at the peer's limit of concurrent streams).

mod body;
mod compact;
pub mod webhook;

use std::{io, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri,
    header::{ACCEPT_ENCODING, AUTHORIZATION, HOST},
};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::TcpStream;
use tower::util::{MapResponse, ServiceExt as _};

pub use self::body::SliceBody;
use self::compact::Compact;
use crate::domain::ids::RequestId;

/// Read from an upstream at one time; also the largest head of an answer.
const MAX_READ_BYTES: usize = 32 << 10;

/// Where the upstream is, and how long to wait for it.
pub struct Options {
    /// `https://api.openai.com/v1`
    pub url: Uri,
    /// Below it, everything that will be called.
    pub paths: Vec<&'static str>,
    /// `Bearer` and the upstream key.
    pub authorization: HeaderValue,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub idle_connections: usize,
}

/// Of plain connections and of those with TLS, see [`compact`].
type Connector = MapResponse<HttpsConnector<HttpConnector>, fn(MaybeHttpsStream<TokioIo<TcpStream>>) -> Compact>;

pub struct Upstream {
    client: Client<Connector, SliceBody>,
    /// By path: made once, not for each request.
    uris: Vec<(&'static str, Uri)>,
    authorization: HeaderValue,
    first_byte_timeout: Duration,
}

/// What we forward.
pub struct Call {
    pub request_id: RequestId,
    /// Below the upstream's URL: `/chat/completions`.
    pub path: &'static str,
    /// Only what may pass, see [`forwarded`].
    pub headers: HeaderMap,
    pub body: SliceBody,
}

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("cannot connect to the upstream: {0}")]
    NotReached(ClientError),
    #[error("the upstream did not accept the connection in time: {0}")]
    ConnectTimedOut(ClientError),
    #[error("a connection to the upstream was closed before the request went out: {0}")]
    Closed(ClientError),
    #[error("no answer from the upstream within {0:?}")]
    TimedOut(Duration),
    #[error("the connection to the upstream broke: {0}")]
    Broken(ClientError),
}

impl UpstreamError {
    /// True when no byte of the request can have reached the upstream.
    pub const fn nothing_was_sent(&self) -> bool {
        matches!(self, Self::NotReached(_) | Self::ConnectTimedOut(_) | Self::Closed(_))
    }
}

/// Request headers that pass on to the upstream; everything else stays here. The `x-simulate` ones ask the look-alike for
/// its faults and mean nothing to anyone else.
const FORWARDED: [&str; 7] = [
    "accept",
    "content-type",
    "idempotency-key",
    "openai-beta",
    "user-agent",
    "x-simulate",
    "x-simulate-audio-seconds",
];

/// The upstream accepts a caller's own id for a request under this name, and logs it.
pub const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");

/// The part of a caller's headers that the upstream may see.
pub fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(FORWARDED.len() + 4);
    for name in FORWARDED {
        if let Some(value) = headers.get(name) {
            passed.insert(HeaderName::from_static(name), value.clone());
        }
    }
    passed
}

impl Upstream {
    pub fn new(options: Options) -> Result<Self, rustls::Error> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        http.set_connect_timeout(Some(options.connect_timeout));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let connector: Connector = https.map_response(Compact::from as fn(_) -> _);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_mins(1))
            .pool_max_idle_per_host(options.idle_connections)
            // Pieces that wait for a slow client are slices of what was read at once, and keep all of it in memory.
            .http1_max_buf_size(MAX_READ_BYTES)
            // Its own retries have no end and are not counted: `send` sees to the one there is.
            .retry_canceled_requests(false)
            .build(connector);
        let mut authorization = options.authorization;
        authorization.set_sensitive(true);
        let first_byte_timeout = options.first_byte_timeout;
        let uris = options.paths.iter().map(|path| (*path, below(&options.url, path))).collect();
        Ok(Self { client, uris, authorization, first_byte_timeout })
    }

    /// Sends a call and waits for the head of the answer. `on_retry` is told when a call that provably was not sent is
    /// sent a second time; there is no third.
    pub async fn send(&self, call: &Call, on_retry: impl FnOnce()) -> Result<Response<Incoming>, UpstreamError> {
        match self.attempt(call).await {
            Err(UpstreamError::NotReached(error) | UpstreamError::Closed(error)) => {
                tracing::debug!(request_id = %call.request_id, %error, "nothing was sent, one more try");
                on_retry();
                self.attempt(call).await
            }
            answered => answered,
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Response<Incoming>, UpstreamError> {
        let request = self.request(call);
        match tokio::time::timeout(self.first_byte_timeout, self.client.request(request)).await {
            Err(_elapsed) => Err(UpstreamError::TimedOut(self.first_byte_timeout)),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() && timed_out(&error) => Err(UpstreamError::ConnectTimedOut(error)),
            Ok(Err(error)) if error.is_connect() => Err(UpstreamError::NotReached(error)),
            Ok(Err(error)) if was_not_begun(&error) => Err(UpstreamError::Closed(error)),
            Ok(Err(error)) => Err(UpstreamError::Broken(error)),
        }
    }

    fn request(&self, call: &Call) -> Request<SliceBody> {
        let mut request = Request::new(call.body.clone());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri(call.path);
        let headers = request.headers_mut();
        *headers = call.headers.clone();
        headers.remove(HOST);
        headers.insert(AUTHORIZATION, self.authorization.clone());
        // Usage is read from the answer, so it must not be compressed.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Ok(id) = HeaderValue::from_str(call.request_id.text().as_str()) {
            headers.insert(CLIENT_REQUEST_ID, id);
        }
        request
    }

    fn uri(&self, path: &str) -> Uri {
        self.uris.iter().find(|(known, _)| *known == path).map(|(_, uri)| uri.clone()).unwrap_or_default()
    }
}

fn below(url: &Uri, path: &str) -> Uri {
    let base = url.path().trim_end_matches('/');
    let mut parts = url.clone().into_parts();
    // The configured URL was checked at start and `path` is a constant: this cannot fail, and never leaves the base.
    parts.path_and_query = format!("{base}{path}").try_into().ok();
    Uri::from_parts(parts).unwrap_or_default()
}

/// hyper cancels a request only while it still holds all of it: a pooled connection was closed at the same moment.
fn was_not_begun(error: &ClientError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<hyper::Error>());
    source.is_some_and(hyper::Error::is_canceled)
}

fn timed_out(error: &ClientError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_headers_pass() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "cookie", "x-forwarded-host", "x-tollgate-dry-run", "host", "content-type"] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        let passed = forwarded(&headers);
        assert_eq!(passed.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
    }

    #[test]
    fn paths_are_added_to_the_upstream_url() {
        let upstream = |url: &'static str| below(&Uri::from_static(url), "/chat/completions").to_string();
        assert_eq!(upstream("https://api.openai.com/v1"), "https://api.openai.com/v1/chat/completions");
        assert_eq!(upstream("http://127.0.0.1:9/"), "http://127.0.0.1:9/chat/completions");
    }
}
