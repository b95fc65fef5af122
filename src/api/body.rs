//! The bodies of management requests: small, whole, and here in time.

use std::{error::Error, time::Duration};

use axum::{
    body::to_bytes,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::LengthLimitError;

use crate::openai::error::ApiError;

const LIMIT_BYTES: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

/// A body of at most 64 KiB, not parsed yet.
pub struct SmallBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for SmallBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let headers = request.headers();
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(ApiError::unsupported_encoding());
        }
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let too_large = |read_bytes| ApiError::too_large(LIMIT_BYTES as u64, read_bytes);
        if let Some(length) = announced.filter(|length| *length > LIMIT_BYTES as u64) {
            return Err(too_large(length));
        }
        match tokio::time::timeout(TIMEOUT, to_bytes(request.into_body(), LIMIT_BYTES)).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(error)) if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) => {
                Err(too_large(LIMIT_BYTES as u64 + 1))
            }
            Ok(Err(_)) => Err(ApiError::invalid_json()),
            Err(_) => Err(ApiError::request_timeout()),
        }
    }
}
