//! Answers that are not completions: errors, and what a broken service says instead of one.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    body::AnswerBody,
    faults::{Exceeded, Fault, Wish},
    headers::Templates,
    ids::Letters,
};
use crate::{
    domain::{
        keys::redact,
        limits::{Dimension, LimitExceeded, Scope},
    },
    openai::error::{ApiError, Retry},
};

const NANOS_PER_MS: u64 = 1_000_000;
const LIMIT_REQUESTS: u32 = 500;
const LIMIT_TOKENS: u32 = 30_000;
const LIMIT_DAY: u32 = 10_000;
const HTML: &str =
    "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in to the network.</body></html>";

pub(super) struct Refusal {
    status: u16,
    body: Vec<u8>,
    content_type: Option<&'static str>,
    /// Name and value; values come from the request and may be anything.
    headers: Vec<(&'static str, String)>,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let headers = match error.retry {
            Retry::Unsaid => Vec::new(),
            Retry::After { nanos } | Retry::NotByItself { nanos } => retry_headers(nanos / NANOS_PER_MS),
            Retry::No => vec![("x-should-retry", "false".to_owned())],
        };
        Self { status: error.status, body: error.body(), content_type: None, headers }
    }
}

/// What `fault` answers in place of a completion; `None` for a fault that spoils a real answer.
pub(super) fn for_fault(fault: Fault, wish: &Wish, model: &str, key: &str) -> Option<Refusal> {
    let spoiled = |status, content_type, text: &str| Refusal {
        status,
        body: text.as_bytes().to_vec(),
        content_type: Some(content_type),
        headers: Vec::new(),
    };
    match fault {
        Fault::Status(429) => Some(too_many(wish, model)),
        Fault::Status(status) => {
            let mut refusal = Refusal::from(error_for(status, model, key));
            refusal.headers.extend(wish.retry_after.clone().map(|value| ("retry-after", value)));
            Some(refusal)
        }
        Fault::Garbage => Some(spoiled(200, "application/json", r#"{"id":"chatcmpl-broken","choices":[{"ind"#)),
        Fault::Html => Some(spoiled(200, "text/html; charset=utf-8", HTML)),
        Fault::Redirect => {
            let mut refusal = spoiled(302, "text/html; charset=utf-8", "Moved.");
            refusal.headers.push(("location", "https://elsewhere.invalid/v1/chat/completions".to_owned()));
            Some(refusal)
        }
        _ => None,
    }
}

pub(super) fn response(refusal: &Refusal, templates: &Templates, letters: &mut Letters) -> Response<AnswerBody> {
    let mut headers = match refusal.status {
        401 | 403 | 404 => templates.refused(letters),
        // Even a request that is not valid is charged.
        400 | 429 => templates.json(1, letters),
        _ => templates.unlimited(letters),
    };
    if let Some(content_type) = refusal.content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, value) in &refusal.headers {
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value.as_bytes())) {
            headers.insert(*name, value);
        }
    }
    let mut response = Response::new(AnswerBody::from(refusal.body.clone()));
    *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

pub(super) fn wrong_key(key: &str) -> ApiError {
    ApiError::wrong_key(&redact(key))
}

pub(super) fn unknown_wish(word: &str) -> ApiError {
    let message = format!("Unknown fault or parameter in x-simulate: '{word}'.");
    ApiError::invalid(message, Cow::from("x-simulate"), Cow::from("invalid_value"))
}

pub(super) fn server_error() -> ApiError {
    let message = "The server had an error processing your request. Sorry about that! You can retry your request, or contact \
                   us through our help center at help.openai.com if you keep seeing this error.";
    ApiError::new(500, "server_error", message, None, None)
}

fn error_for(status: u16, model: &str, key: &str) -> ApiError {
    let mut error = match status {
        400 => ApiError::invalid("Simulated: the request is not valid.", None, Cow::from("invalid_value")),
        401 => wrong_key(key),
        403 => {
            let message = format!("Project `proj_simulator` does not have access to model `{model}`");
            ApiError::new(403, "invalid_request_error", message, None, Cow::from("model_not_found"))
        }
        404 => ApiError::unknown_model(model),
        503 => {
            let message = "The engine is currently overloaded, please try again later.";
            ApiError::new(503, "service_unavailable_error", message, None, Cow::from("server_is_overloaded"))
        }
        _ => server_error(),
    };
    error.status = status;
    error
}

fn too_many(wish: &Wish, model: &str) -> Refusal {
    if wish.exceeded == Exceeded::Quota {
        let message = "You exceeded your current quota, please check your plan and billing details. For more information on \
                       this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.";
        let quota = "insufficient_quota";
        return ApiError::new(429, quota, message, None, Cow::from(quota)).into();
    }
    let (dimension, limit, requested) = match wish.exceeded {
        Exceeded::Tokens => (Dimension::TokensPerMinute, LIMIT_TOKENS, 1_000),
        Exceeded::Day => (Dimension::RequestsPerDay, LIMIT_DAY, 1),
        Exceeded::Requests | Exceeded::Quota => (Dimension::RequestsPerMinute, LIMIT_REQUESTS, 1),
    };
    let wait_nanos = Some(wish.retry_after_ms.saturating_mul(NANOS_PER_MS));
    let exceeded = LimitExceeded { scope: Scope::Project, dimension, limit, used: limit.into(), requested, wait_nanos };
    let mut refusal = Refusal::from(ApiError::limit_exceeded(&exceeded, model, None, "org-simulator"));
    if let Some(value) = &wish.retry_after {
        refusal.headers = vec![("retry-after", value.clone())];
    }
    let names = if dimension.is_tokens() {
        ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens"]
    } else {
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"]
    };
    refusal.headers.extend(names.into_iter().zip([limit.to_string(), "0".to_owned()]));
    refusal
}

fn retry_headers(wait_ms: u64) -> Vec<(&'static str, String)> {
    let seconds = wait_ms.div_ceil(1_000).max(1);
    vec![("retry-after-ms", wait_ms.to_string()), ("retry-after", seconds.to_string())]
}
