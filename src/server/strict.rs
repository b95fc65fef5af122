//! What hyper lets pass and we do not: a request that does not say once, and legibly, whom it is for (RFC 9112, section
//! 3.2), because two hops that read different names in it would not agree on whose request it is; and a head over the bound
//! that came with one read.

use std::convert::Infallible;

use axum::{Router, body::Body};
use futures_util::future::{Either, Ready, ready};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, HOST},
};
use hyper::{body::Incoming, service::Service};
use hyper_util::service::TowerToHyperService;

use super::MAX_HEAD_BYTES;

/// Such a request is answered without a body, as hyper answers what is no HTTP, and the connection is closed.
pub(super) struct Strict {
    router: TowerToHyperService<Router>,
}

type Refused = Ready<Result<Response<Body>, Infallible>>;
type Answered = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

impl Strict {
    pub(super) fn new(router: Router) -> Self {
        Self { router: TowerToHyperService::new(router) }
    }
}

impl Service<Request<Incoming>> for Strict {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Refused, Answered>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if !is_addressed(request.version(), request.headers()) {
            Either::Left(ready(Ok(refusal(StatusCode::BAD_REQUEST))))
        } else if head_bytes(request.uri(), request.headers()) > MAX_HEAD_BYTES {
            Either::Left(ready(Ok(refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))))
        } else {
            Either::Right(self.router.call(request))
        }
    }
}

fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn is_addressed(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => host.as_bytes().iter().all(|byte| is_of_a_host(*byte)),
        (Some(_), Some(_)) => false,
    }
}

/// What may stand in a host and its port; empty is allowed.
const fn is_of_a_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// About what it took on the wire.
fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    const AROUND: usize = ": \r\n".len();
    let target = uri.path().len() + uri.query().map_or(0, str::len);
    headers.iter().fold(target, |sum, (name, value)| sum + name.as_str().len() + value.len() + AROUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: Version, hosts: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        is_addressed(version, &headers)
    }

    #[test]
    fn a_host_is_told_once_and_is_no_more_than_a_host() {
        for host in ["gateway", "gateway:8080", "127.0.0.1:80", "[::1]:8080", "xn--bcher-kva.example", ""] {
            assert!(told(Version::HTTP_11, &[host]), "{host}");
        }
        for host in ["a b", "a/b", "user@a", "a#b", "a?b", "a\tb"] {
            assert!(!told(Version::HTTP_11, &[host]), "{host}");
        }
        assert!(!told(Version::HTTP_11, &[]));
        assert!(!told(Version::HTTP_11, &["a", "a"]));
        assert!(told(Version::HTTP_10, &[]), "older clients know no host");
        assert!(!told(Version::HTTP_10, &["a", "b"]));
    }
}
