//! What the organization API is asked, and its words for a request that cannot be read.

use std::{fmt::Display, num::NonZeroU32};

use serde_json::{Map, Value};

use crate::{
    domain::{limits::Limits, projects::TierId},
    openai::error::ApiError,
};

const MAX_NAME_CHARACTERS: usize = 128;
pub(super) const DEFAULT_PAGE_LENGTH: usize = 20;
pub(super) const MAX_PAGE_LENGTH: usize = 100;
const MAX_TOKENS_IN_A_QUEUE: u64 = u64::MAX >> 1;
/// A hundred years, so that no sum of times overflows.
const MAX_EXPIRY_SECONDS: u64 = 100 * 366 * 86_400;

/// `POST /v1/organization/projects`.
#[derive(Debug, PartialEq, Eq)]
pub struct NewProject {
    pub name: String,
    pub tier: Option<TierId>,
}

/// `POST /v1/organization/projects/{project_id}/service_accounts`.
#[derive(Debug, PartialEq, Eq)]
pub struct NewServiceAccount {
    pub name: String,
    pub limits: Limits,
    pub expires_in_seconds: Option<u64>,
}

impl NewProject {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = object(body)?;
        let tier = match fields.get("tier") {
            None | Some(Value::Null) => None,
            Some(Value::String(tier)) => Some(TierId::from(tier.as_str())),
            Some(other) => return Err(wrong_type("tier", "a string", other)),
        };
        Ok(Self { name: name(&fields)?, tier })
    }
}

impl NewServiceAccount {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = object(body)?;
        if fields.get("create_service_account_only").and_then(Value::as_bool) == Some(true) {
            let message = "Unsupported value: 'create_service_account_only' does not support true with this gateway. \
                Each service account has an API key.";
            return Err(ApiError::invalid(
                message,
                Some("create_service_account_only".into()),
                Some("unsupported_value".into()),
            ));
        }
        Ok(Self {
            name: name(&fields)?,
            limits: limits(&fields)?,
            expires_in_seconds: integer(&fields, "", "expires_in_seconds", MAX_EXPIRY_SECONDS)?,
        })
    }
}

/// The query of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest<'a> {
    pub after: Option<&'a str>,
    pub limit: usize,
}

impl<'a> PageRequest<'a> {
    pub fn parse(after: Option<&'a str>, limit: Option<&str>) -> Result<Self, ApiError> {
        let limit = match limit {
            None => DEFAULT_PAGE_LENGTH,
            Some(text) => {
                let number = text.parse::<i64>().map_err(|_| {
                    let message = "Invalid type for 'limit': expected an integer.";
                    ApiError::invalid(message, Some("limit".into()), Some("invalid_type".into()))
                })?;
                if number < 1 {
                    return Err(below_minimum("limit", 1, number));
                }
                usize::try_from(number)
                    .ok()
                    .filter(|limit| *limit <= MAX_PAGE_LENGTH)
                    .ok_or_else(|| above_maximum("limit", MAX_PAGE_LENGTH, number))?
            }
        };
        Ok(Self { after, limit })
    }
}

pub fn unknown_tier<'a>(tier: &TierId, known: impl Iterator<Item = &'a TierId>) -> ApiError {
    let known: Vec<_> = known.map(|tier| format!("'{}'", tier.as_str())).collect();
    let message = format!("Invalid value: '{}'. Supported values are: {}.", shown(tier.as_str()), known.join(", "));
    ApiError::invalid(message, Some("tier".into()), Some("invalid_value".into()))
}

/// `after` or `before` names nothing in the list.
pub(super) fn no_such_cursor(param: &'static str, id: &str) -> ApiError {
    let message = format!("Invalid '{param}': no object in this list has the id '{}'.", shown(id));
    ApiError::invalid(message, Some(param.into()), Some("invalid_value".into()))
}

/// `text` short enough to be repeated to its sender.
pub fn shown(text: &str) -> &str {
    const LENGTH: usize = 64;
    text.char_indices().nth(LENGTH).map_or(text, |(end, _)| &text[..end])
}

fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(ApiError::invalid_json()),
    }
}

fn name(fields: &Map<String, Value>) -> Result<String, ApiError> {
    let invalid =
        |message: String, code: &'static str| Err(ApiError::invalid(message, Some("name".into()), Some(code.into())));
    let text = match fields.get("name") {
        None | Some(Value::Null) => return Err(ApiError::missing_parameter("name")),
        Some(Value::String(text)) => text.trim(),
        Some(other) => return Err(wrong_type("name", "a string", other)),
    };
    let length = text.chars().count();
    if length == 0 {
        let message = "Invalid 'name': empty string. Expected a string with minimum length 1, but got an empty string \
            instead.";
        return invalid(message.to_owned(), "empty_string");
    }
    if length > MAX_NAME_CHARACTERS {
        let message = format!(
            "Invalid 'name': string too long. Expected a string with maximum length {MAX_NAME_CHARACTERS}, but got a \
             string with length {length} instead."
        );
        return invalid(message, "string_above_max_length");
    }
    if text.chars().any(char::is_control) {
        return invalid("Invalid 'name': control characters are not allowed.".to_owned(), "invalid_value");
    }
    Ok(text.to_owned())
}

/// A ceiling that is misspelt would be no ceiling, so here unknown names are refused.
fn limits(fields: &Map<String, Value>) -> Result<Limits, ApiError> {
    const NAMES: [&str; 4] = ["requests_per_minute", "requests_per_day", "tokens_per_minute", "batch_queue_tokens"];
    let limits = match fields.get("limits") {
        None | Some(Value::Null) => return Ok(Limits::default()),
        Some(Value::Object(limits)) => limits,
        Some(other) => return Err(wrong_type("limits", "an object", other)),
    };
    if let Some(unknown) = limits.keys().find(|name| !NAMES.contains(&name.as_str())) {
        let param = format!("limits.{}", shown(unknown));
        let message = format!("Unknown parameter: '{param}'.");
        return Err(ApiError::invalid(message, Some(param.into()), Some("unknown_parameter".into())));
    }
    let rate = |name| {
        let value = integer(limits, "limits.", name, u32::MAX.into())?;
        Ok(value.and_then(|value| u32::try_from(value).ok()).and_then(NonZeroU32::new))
    };
    Ok(Limits {
        requests_per_minute: rate(NAMES[0])?,
        requests_per_day: rate(NAMES[1])?,
        tokens_per_minute: rate(NAMES[2])?,
        batch_queue_tokens: integer(limits, "limits.", NAMES[3], MAX_TOKENS_IN_A_QUEUE)?,
    })
}

/// A whole number from 1 to `maximum`; `None` when it is left out or null.
fn integer(
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

fn wrong_type(param: &str, expected: &str, value: &Value) -> ApiError {
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

fn below_minimum(param: &str, minimum: impl Display, found: impl Display) -> ApiError {
    let message = format!(
        "Invalid '{param}': integer below minimum value. Expected a value >= {minimum}, but got {found} instead."
    );
    ApiError::invalid(message, Some(param.to_owned().into()), Some("integer_below_min_value".into()))
}

fn above_maximum(param: &str, maximum: impl Display, found: impl Display) -> ApiError {
    let message = format!(
        "Invalid '{param}': integer above maximum value. Expected a value <= {maximum}, but got {found} instead."
    );
    ApiError::invalid(message, Some(param.to_owned().into()), Some("integer_above_max_value".into()))
}
