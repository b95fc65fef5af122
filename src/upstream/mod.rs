//! HTTP out: the one service behind us, over a pool of HTTP/1.1 connections (HTTP/2 would make long streams wait for each
//! other at the peer's limit of concurrent streams).

mod body;
mod breaker;
mod breakers;
mod budget;
mod compact;
mod connect;
pub mod webhook;

use std::{io, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri,
    header::{ACCEPT_ENCODING, AUTHORIZATION, HOST},
};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{
        Client, Error as ClientError,
        connect::{HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpStream, time::Instant};
use tower::util::{MapResponse, ServiceExt as _};

pub use self::{
    body::SliceBody,
    breakers::{OutOfService, Withheld},
};
use self::{
    breakers::{Breakers, Leaving, Place, Shown},
    budget::RetryBudget,
    compact::Compact,
    connect::{FewLookups, InTime},
};
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
    /// Failures in a row after which calls are withheld for a while; 0 for never.
    pub most_failures: u32,
}

/// Of plain connections and of those with TLS, see [`compact`].
type Secured =
    MapResponse<HttpsConnector<HttpConnector<FewLookups>>, fn(MaybeHttpsStream<TokioIo<TcpStream>>) -> Compact>;
type Connector = InTime<Secured>;

pub struct Upstream {
    client: Client<Connector, SliceBody>,
    /// By path: made once, not for each request.
    uris: Vec<(&'static str, Uri)>,
    authorization: HeaderValue,
    first_byte_timeout: Duration,
    breakers: Breakers,
    retries: RetryBudget,
}

/// A call goes out: for the first time, or again, since the first time has provably reached nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    First,
    Second,
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
    #[error("the upstream has failed too often in a row and is not asked for another {:?}", .0.wait)]
    Withheld(Withheld),
}

impl UpstreamError {
    /// True when no byte of the request can have reached the upstream.
    pub const fn nothing_was_sent(&self) -> bool {
        matches!(self, Self::NotReached(_) | Self::ConnectTimedOut(_) | Self::Closed(_) | Self::Withheld(_))
    }
}

/// A model that is overloaded says 503 and an intermediary 502 or 504; a 500 may be about one request only.
fn shown(answered: &Result<Response<Incoming>, UpstreamError>) -> Shown {
    match answered {
        Ok(response) if matches!(response.status().as_u16(), 502..=504) => Shown::Unavailable,
        Ok(_) => Shown::Answered,
        Err(UpstreamError::TimedOut(_) | UpstreamError::Broken(_)) => Shown::Unavailable,
        Err(_) => Shown::Unreachable,
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
        let mut http = HttpConnector::new_with_resolver(FewLookups::new());
        http.set_nodelay(true);
        http.enforce_http(false);
        // Shared out among the addresses of a name: one that is dead must not take the time of the others.
        http.set_connect_timeout(Some(options.connect_timeout));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let secured: Secured = https.map_response(Compact::from as fn(_) -> _);
        let connector = InTime::new(secured, options.connect_timeout);
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
        let breakers = Breakers::new(options.most_failures);
        Ok(Self { client, uris, authorization, first_byte_timeout, breakers, retries: RetryBudget::full() })
    }

    pub fn out_of_service(&self) -> OutOfService {
        self.breakers.out_of_service()
    }

    /// Sends a call and waits for the head of the answer, unless what it asks has failed too often. `on_attempt` is told when
    /// it is sent: a second time only if it provably was not sent the first time, and there is no third.
    pub async fn send(
        &self,
        call: &Call,
        model: &Arc<str>,
        mut on_attempt: impl FnMut(Attempt),
    ) -> Result<Response<Incoming>, UpstreamError> {
        let place = Place { path: call.path, model: Arc::clone(model) };
        let mut leaving = self.breakers.ask(place, Instant::now()).map_err(UpstreamError::Withheld)?;
        on_attempt(Attempt::First);
        self.retries.sent();
        let mut is_retry = false;
        let answered = match self.attempt(call, &mut leaving).await {
            Err(UpstreamError::NotReached(error) | UpstreamError::Closed(error))
                if !leaving.is_probe() && self.retries.take() =>
            {
                tracing::debug!(request_id = %call.request_id, %error, "nothing was sent, one more try");
                on_attempt(Attempt::Second);
                is_retry = true;
                let answered = self.attempt(call, &mut leaving).await;
                if answered.is_ok() {
                    self.retries.give_back();
                }
                answered
            }
            answered => answered,
        };
        // A kept connection that was closed just now tells nothing about the next; one that was made for this call does.
        if is_retry || !matches!(answered, Err(UpstreamError::Closed(_))) {
            leaving.end(shown(&answered), Instant::now);
        }
        answered
    }

    async fn attempt(&self, call: &Call, leaving: &mut Leaving<'_>) -> Result<Response<Incoming>, UpstreamError> {
        let mut request = self.request(call);
        let answered = if leaving.probes_reach() {
            let mut connection = capture_connection(&mut request);
            let mut answering = self.client.request(request);
            let answering = async move {
                tokio::select! {
                    answered = &mut answering => return answered,
                    connected = connection.wait_for_connection_metadata() => {
                        if connected.is_some() {
                            leaving.reached(Instant::now());
                        }
                    }
                }
                answering.await
            };
            tokio::time::timeout(self.first_byte_timeout, answering).await
        } else {
            tokio::time::timeout(self.first_byte_timeout, self.client.request(request)).await
        };
        match answered {
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
