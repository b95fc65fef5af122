//! Fields of request bodies, each with its words for what is wrong with it.

use std::{
    fmt::Display,
    num::{NonZeroU32, NonZeroU64},
};

use serde_json::{Map, Value};

use super::requests::shown;
use crate::{
    domain::{
        keys::AllowedModels,
        limits::{Limits, MAX_AUDIO_SECONDS},
        spend::{Budget, BudgetChange, Enforcement},
    },
    openai::{error::ApiError, report::query::choice},
};

const MAX_NAME_CHARACTERS: usize = 128;
const MAX_LISTED_MODELS: usize = 500;
/// Exact in every reader of JSON, and more money than there is.
pub(super) const MAX_CENTS: u64 = (1 << 53) - 1;

pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(ApiError::invalid_json()),
    }
}

/// A field that is misspelt would be left unread, and the object made without what was asked for.
pub(super) fn only(fields: &Map<String, Value>, known: &[&[&str]]) -> Result<(), ApiError> {
    match fields.keys().find(|name| !known.iter().any(|names| names.contains(&name.as_str()))) {
        Some(unknown) => Err(ApiError::unknown_parameter(shown(unknown))),
        None => Ok(()),
    }
}

/// Required.
pub(super) fn name(fields: &Map<String, Value>) -> Result<String, ApiError> {
    optional_name(fields)?.ok_or_else(|| ApiError::missing_parameter("name"))
}

/// `None` when it is left out or null.
pub(super) fn optional_name(fields: &Map<String, Value>) -> Result<Option<String>, ApiError> {
    let text = match fields.get("name") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim(),
        Some(other) => return Err(wrong_type("name", "a string", other)),
    };
    words("name", text).map(|text| Some(text.to_owned()))
}

/// `text` if people can read it: neither empty nor long, and without control characters.
fn words<'a>(param: &str, text: &'a str) -> Result<&'a str, ApiError> {
    let invalid = |message: String, code: &'static str| {
        Err(ApiError::invalid(message, Some(param.to_owned().into()), Some(code.into())))
    };
    let length = text.chars().count();
    if length == 0 {
        let message = format!(
            "Invalid '{param}': empty string. Expected a string with minimum length 1, but got an empty string instead."
        );
        return invalid(message, "empty_string");
    }
    if length > MAX_NAME_CHARACTERS {
        let message = format!(
            "Invalid '{param}': string too long. Expected a string with maximum length {MAX_NAME_CHARACTERS}, but got a \
             string with length {length} instead."
        );
        return invalid(message, "string_above_max_length");
    }
    if text.chars().any(char::is_control) {
        return invalid(format!("Invalid '{param}': control characters are not allowed."), "invalid_value");
    }
    Ok(text)
}

/// `None` when it is left out or null. An empty list would make a key for nothing, so it is refused.
pub(super) fn allowed_models(fields: &Map<String, Value>) -> Result<Option<AllowedModels>, ApiError> {
    const PARAM: &str = "allowed_models";
    let listed = match fields.get(PARAM) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(listed)) if listed.is_empty() => return Err(ApiError::empty_array(PARAM)),
        Some(Value::Array(listed)) => listed,
        Some(other) => return Err(wrong_type(PARAM, "an array", other)),
    };
    Ok(Some(AllowedModels::new(model_names(PARAM, listed)?)))
}

pub(super) fn model_names(param: &'static str, listed: &[Value]) -> Result<Vec<String>, ApiError> {
    if listed.len() > MAX_LISTED_MODELS {
        let message = format!(
            "Invalid '{param}': array too long. Expected an array with maximum length {MAX_LISTED_MODELS}, but got an \
             array with length {} instead.",
            listed.len()
        );
        return Err(ApiError::invalid(message, Some(param.into()), Some("array_above_max_length".into())));
    }
    let name = |(index, value): (usize, &Value)| {
        let param = format!("{param}[{index}]");
        match value {
            Value::String(text) => words(&param, text.trim()).map(str::to_owned),
            other => Err(wrong_type(&param, "a string", other)),
        }
    };
    listed.iter().enumerate().map(name).collect()
}

/// A ceiling that is misspelt would be no ceiling, so here unknown names are refused.
pub(super) fn limits(fields: &Map<String, Value>) -> Result<Limits, ApiError> {
    const NAMES: [&str; 8] = [
        "requests_per_minute",
        "requests_per_day",
        "tokens_per_minute",
        "tokens_per_day",
        "concurrent_requests",
        "concurrent_streams",
        "audio_tokens_per_minute",
        "audio_seconds_per_day",
    ];
    /// Batches count for a project and all its keys together.
    const OF_PROJECTS: &str = "batch_queue_tokens";
    let limits = match fields.get("limits") {
        None | Some(Value::Null) => return Ok(Limits::default()),
        Some(Value::Object(limits)) => limits,
        Some(other) => return Err(wrong_type("limits", "an object", other)),
    };
    if let Some(unknown) = limits.keys().find(|name| !NAMES.contains(&name.as_str()) && *name != OF_PROJECTS) {
        return Err(ApiError::unknown_parameter(&format!("limits.{}", shown(unknown))));
    }
    if limits.get(OF_PROJECTS).is_some_and(|value| !value.is_null()) {
        let message = "Unsupported value: 'limits.batch_queue_tokens' is not supported for API keys, because batches count for \
                       the project. Set 'batch_1_day_max_input_tokens' of the project's rate limits instead.";
        return Err(ApiError::invalid(
            message,
            Some(format!("limits.{OF_PROJECTS}").into()),
            Some("unsupported_value".into()),
        ));
    }
    let up_to = |name, maximum: u32| {
        let value = integer(limits, "limits.", name, maximum.into())?;
        Ok(value.and_then(|value| u32::try_from(value).ok()).and_then(NonZeroU32::new))
    };
    let rate = |name| up_to(name, u32::MAX);
    Ok(Limits {
        requests_per_minute: rate(NAMES[0])?,
        requests_per_day: rate(NAMES[1])?,
        tokens_per_minute: rate(NAMES[2])?,
        tokens_per_day: rate(NAMES[3])?,
        concurrent_requests: rate(NAMES[4])?,
        concurrent_streams: rate(NAMES[5])?,
        audio_tokens_per_minute: rate(NAMES[6])?,
        audio_seconds_per_day: up_to(NAMES[7], MAX_AUDIO_SECONDS)?,
        batch_queue_tokens: None,
    })
}

/// Of a new key. `None` when it is left out or null.
pub(super) fn budget(fields: &Map<String, Value>) -> Result<Option<Budget>, ApiError> {
    let Some(change) = budget_change(fields)? else { return Ok(None) };
    change.of(None).map(Some).ok_or_else(no_amount)
}

/// `None` when it is left out or null. One that says nothing would look like one that was set.
pub(super) fn budget_change(fields: &Map<String, Value>) -> Result<Option<BudgetChange>, ApiError> {
    const NAMES: [&str; 3] = ["monthly_cents", "daily_cents", "enforcement"];
    const ENFORCEMENT: &str = "budget.enforcement";
    let budget = match fields.get("budget") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(budget)) => budget,
        Some(other) => return Err(wrong_type("budget", "an object", other)),
    };
    if let Some(unknown) = budget.keys().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(ApiError::unknown_parameter(&format!("budget.{}", shown(unknown))));
    }
    let cents = |name| -> Result<_, ApiError> {
        let cents = integer(budget, "budget.", name, MAX_CENTS)?.and_then(NonZeroU64::new);
        Ok(budget.contains_key(name).then_some(cents))
    };
    let enforcement = match budget.get(NAMES[2]) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(choice(ENFORCEMENT, text, &Enforcement::ALL, Enforcement::name)?),
        Some(other) => return Err(wrong_type(ENFORCEMENT, "a string", other)),
    };
    let change = BudgetChange { monthly_cents: cents(NAMES[0])?, daily_cents: cents(NAMES[1])?, enforcement };
    if change == BudgetChange::default() { Err(no_amount()) } else { Ok(Some(change)) }
}

/// A budget of no amount would be none.
pub(super) fn no_amount() -> ApiError {
    ApiError::missing_parameter("budget.monthly_cents")
}

/// A whole number from 1 to `maximum`; `None` when it is left out or null.
pub(super) fn integer(
    fields: &Map<String, Value>,
    prefix: &str,
    name: &'static str,
    maximum: u64,
) -> Result<Option<u64>, ApiError> {
    let param = format!("{prefix}{name}");
    let number = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) if !number.is_f64() => number,
        Some(other) => return Err(wrong_type(&param, "an integer", other)),
    };
    match number.as_u64() {
        Some(value) if value > maximum => Err(above_maximum(&param, maximum, value)),
        Some(0) | None => Err(below_minimum(&param, 1, number)),
        Some(value) => Ok(Some(value)),
    }
}

/// `None` when it is left out or null.
pub(super) fn boolean(fields: &Map<String, Value>, param: &str) -> Result<Option<bool>, ApiError> {
    match fields.get(param) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(wrong_type(param, "a boolean", other)),
    }
}

pub(super) fn wrong_type(param: &str, expected: &str, value: &Value) -> ApiError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    let message = format!("Invalid type for '{param}': expected {expected}, but got {found} instead.");
    ApiError::invalid(message, Some(param.to_owned().into()), Some("invalid_type".into()))
}

pub(super) fn below_minimum(param: &str, minimum: impl Display, found: impl Display) -> ApiError {
    let message = format!(
        "Invalid '{param}': integer below minimum value. Expected a value >= {minimum}, but got {found} instead."
    );
    ApiError::invalid(message, Some(param.to_owned().into()), Some("integer_below_min_value".into()))
}

pub(super) fn above_maximum(param: &str, maximum: impl Display, found: impl Display) -> ApiError {
    let message = format!(
        "Invalid '{param}': integer above maximum value. Expected a value <= {maximum}, but got {found} instead."
    );
    ApiError::invalid(message, Some(param.to_owned().into()), Some("integer_above_max_value".into()))
}
