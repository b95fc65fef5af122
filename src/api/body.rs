//! Takes in request bodies: bounded, into one buffer, with an end to waiting.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
};
use http_body_util::BodyExt as _;

use crate::openai::error::ApiError;

/// A client that announces more than this is believed only as far as it sends.
const MAX_FIRST_ALLOCATION: u64 = 32 << 20;
/// How long the rest of a refused body is still read, so that the client gets to see the refusal.
const DISCARD_TIME: Duration = Duration::from_secs(10);
/// How much of it, in bodies of the allowed size. Who announces more would not come to its end anyway.
const DISCARD_BODIES: u64 = 8;

pub(super) struct BodyLimits {
    pub max_bytes: u64,
    pub idle: Duration,
}

/// Why there is no body.
pub(super) enum NoBody {
    Refused(ApiError),
    /// The client went away: there is nobody to answer.
    Gone,
}

pub(super) async fn read(headers: &HeaderMap, mut body: Body, limits: &BodyLimits) -> Result<Bytes, NoBody> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        discard(body, limits);
        return Err(NoBody::Refused(ApiError::unsupported_encoding()));
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(announced) = announced.filter(|length| *length > limits.max_bytes) {
        if announced <= limits.max_bytes.saturating_mul(DISCARD_BODIES) {
            discard(body, limits);
        }
        return Err(NoBody::Refused(ApiError::too_large(limits.max_bytes, announced)));
    }
    let mut whole = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(limits.idle, body.frame()).await {
            Err(_elapsed) => return Err(NoBody::Refused(ApiError::request_timeout())),
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(_broken))) => return Err(NoBody::Gone),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        let read = whole.len() as u64 + data.len() as u64;
        if read > limits.max_bytes {
            discard(body, limits);
            return Err(NoBody::Refused(ApiError::too_large(limits.max_bytes, read)));
        }
        if whole.is_empty() {
            if announced == Some(read) {
                // The usual small body: one frame, nothing to copy.
                return Ok(data);
            }
            let expected = announced.unwrap_or(0).min(MAX_FIRST_ALLOCATION);
            whole.reserve(usize::try_from(expected).unwrap_or(0));
        }
        whole.extend_from_slice(&data);
    }
}

/// Many clients read the answer only after they have sent everything: the rest of a refused body is read and thrown
/// away beside the answer, so that they see the refusal and not a broken connection. Bounded in bytes and time.
fn discard(mut body: Body, limits: &BodyLimits) {
    let max_bytes = limits.max_bytes.saturating_mul(DISCARD_BODIES);
    tokio::spawn(tokio::time::timeout(DISCARD_TIME, async move {
        let mut read = 0_u64;
        while let Some(Ok(frame)) = body.frame().await {
            read = read.saturating_add(frame.data_ref().map_or(0, |data| data.len() as u64));
            if read > max_bytes {
                return;
            }
        }
    }));
}

/// The body of a management request: at most 64 KiB, not parsed yet.
pub(super) struct SmallBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for SmallBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        let limits = BodyLimits { max_bytes: 64 << 10, idle: Duration::from_secs(30) };
        match read(&head.headers, body, &limits).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(NoBody::Refused(error)) => Err(error),
            Err(NoBody::Gone) => Err(ApiError::invalid_json()),
        }
    }
}
