//! Values of parameters: what type they must have, and in which range they must be.

use std::ops::RangeInclusive;

use serde_json::value::RawValue;

use crate::openai::{error::ApiError, json};

/// `null` is as good as absent for every optional parameter.
pub(super) fn boolean(param: &'static str, raw: &RawValue) -> Result<Option<bool>, ApiError> {
    match raw.get() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        "null" => Ok(None),
        _ => Err(ApiError::invalid_type(param, "a boolean", json::kind(raw))),
    }
}

pub(super) fn integer(
    param: &'static str,
    raw: &RawValue,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, ApiError> {
    let text = raw.get();
    if json::is_null(raw) {
        return Ok(None);
    }
    if !json::is_integer(text) {
        return Err(ApiError::invalid_type(param, "an integer", json::kind(raw)));
    }
    // Parsing digits only fails for more of them than 64 bits hold.
    match if text.starts_with('-') { Ok(0) } else { text.parse::<u64>() } {
        Ok(value) if value < *range.start() => Err(ApiError::integer_below_min(param, *range.start(), text)),
        Ok(value) if value <= *range.end() => Ok(Some(value)),
        _ => Err(ApiError::integer_above_max(param, *range.end(), text)),
    }
}

/// Nothing is read from it; a wrong type is refused here so that it cannot mean something else upstream.
pub(super) fn optional(param: &'static str, raw: &RawValue, expected: &'static str) -> Result<(), ApiError> {
    let kind = json::kind(raw);
    if kind == expected || kind == "null" { Ok(()) } else { Err(ApiError::invalid_type(param, expected, kind)) }
}
