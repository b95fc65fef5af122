//! Response headers as `OpenAI` sends them, built once and copied per answer.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::ids::Letters;

const LIMIT_REQUESTS: &str = "30000";
const LIMIT_TOKENS: u64 = 150_000_000;
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header sets of the recordings.
#[derive(Clone, Debug)]
pub(super) struct Templates(Arc<Sets>);

#[derive(Debug)]
struct Sets {
    json: HeaderMap,
    stream: HeaderMap,
    /// 401, 403 and 404 come from a door that knows no organization and no limits.
    refused: HeaderMap,
    /// Models, unknown URLs, and our own trouble: no limits.
    unlimited: HeaderMap,
}

impl Templates {
    pub(super) fn new(delay_ms: u64) -> Self {
        let limited = |content_type| with_limits(unlimited(content_type, delay_ms));
        Self(Arc::new(Sets {
            json: limited("application/json"),
            stream: limited("text/event-stream; charset=utf-8"),
            refused: refused(),
            unlimited: unlimited("application/json", delay_ms),
        }))
    }

    pub(super) fn json(&self, charged_tokens: u64, letters: &mut Letters) -> HeaderMap {
        charged(&self.0.json, charged_tokens, letters)
    }

    pub(super) fn stream(&self, charged_tokens: u64, letters: &mut Letters) -> HeaderMap {
        charged(&self.0.stream, charged_tokens, letters)
    }

    pub(super) fn refused(&self, letters: &mut Letters) -> HeaderMap {
        identified(self.0.refused.clone(), letters)
    }

    pub(super) fn unlimited(&self, letters: &mut Letters) -> HeaderMap {
        identified(self.0.unlimited.clone(), letters)
    }
}

fn charged(template: &HeaderMap, tokens: u64, letters: &mut Letters) -> HeaderMap {
    let mut headers = identified(template.clone(), letters);
    headers.insert(REMAINING_TOKENS, LIMIT_TOKENS.saturating_sub(tokens).into());
    headers
}

fn identified(mut headers: HeaderMap, letters: &mut Letters) -> HeaderMap {
    let mut id = b"req_".to_vec();
    letters.hex(32, &mut id);
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(id)) {
        headers.insert(REQUEST_ID, value);
    }
    headers
}

fn unlimited(content_type: &'static str, delay_ms: u64) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(24);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("access-control-expose-headers", HeaderValue::from_static("X-Request-ID"));
    headers.insert("openai-organization", HeaderValue::from_static("org-simulator"));
    headers.insert("openai-processing-ms", delay_ms.into());
    headers.insert("openai-project", HeaderValue::from_static("proj_simulator"));
    headers.insert("openai-version", HeaderValue::from_static("2020-10-01"));
    headers.insert("x-openai-proxy-wasm", HeaderValue::from_static("v0.1"));
    everywhere(&mut headers);
    headers
}

fn refused() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    everywhere(&mut headers);
    headers
}

fn everywhere(headers: &mut HeaderMap) {
    headers.insert(header::SERVER, HeaderValue::from_static("tollgate-simulator"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Replaced per answer; a place in the template keeps the copy from growing.
    headers.insert(REQUEST_ID, HeaderValue::from_static("req_0"));
}

fn with_limits(mut headers: HeaderMap) -> HeaderMap {
    headers.insert("x-ratelimit-limit-requests", HeaderValue::from_static(LIMIT_REQUESTS));
    headers.insert("x-ratelimit-limit-tokens", LIMIT_TOKENS.into());
    headers.insert("x-ratelimit-remaining-requests", HeaderValue::from_static("29999"));
    headers.insert(REMAINING_TOKENS, LIMIT_TOKENS.into());
    headers.insert("x-ratelimit-reset-requests", HeaderValue::from_static("2ms"));
    headers.insert("x-ratelimit-reset-tokens", HeaderValue::from_static("0s"));
    headers
}
