//! Rate limits, model permissions and spend limits as the organization API writes them. Beyond `OpenAI`'s fields:
//! `max_tokens_per_1_day`, `max_audio_tokens_per_1_minute`, `max_audio_seconds_per_1_day`, `max_concurrent_requests` and `_streams`, `enforcement` when a spend limit is set, and null for a rate limit, which puts the tier's figure back.

use std::{collections::BTreeSet, num::NonZeroU32};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    fields::{MAX_CENTS, integer, model_names, object, wrong_type},
    requests::shown,
};
use crate::{
    domain::{
        limits::{Limits, MAX_AUDIO_SECONDS},
        projects::{ModelPermissions, PermissionMode, RateLimitUpdate},
        spend::{Enforcement, Interval, SpendLimit},
    },
    openai::{error::ApiError, report::query::choice},
};

/// What is shown for a limit that there is not, where `OpenAI`'s schema demands a number: the largest that can be set.
pub const NO_LIMIT: u32 = u32::MAX;
const MAX_BATCH_TOKENS: u64 = u64::MAX >> 1;

const RATES: [&str; 9] = [
    "max_requests_per_1_minute",
    "max_requests_per_1_day",
    "max_tokens_per_1_minute",
    "batch_1_day_max_input_tokens",
    "max_tokens_per_1_day",
    "max_concurrent_requests",
    "max_concurrent_streams",
    "max_audio_tokens_per_1_minute",
    "max_audio_seconds_per_1_day",
];
/// Limits of `OpenAI`'s that nothing here would enforce.
const UNSUPPORTED_RATES: [&str; 2] = ["max_images_per_1_minute", "max_audio_megabytes_per_1_minute"];

/// A number left unread would be a ceiling that somebody believes in, so unknown names are refused.
fn only(fields: &Map<String, Value>, known: &[&str]) -> Result<(), ApiError> {
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(ApiError::unknown_parameter(shown(unknown))),
        None => Ok(()),
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &'static str, param: &'static str) -> Result<&'a str, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Err(ApiError::missing_parameter(param)),
        Some(Value::String(text)) => Ok(shown(text)),
        Some(other) => Err(wrong_type(param, "a string", other)),
    }
}

// === rate limits ===

/// `POST /v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}`. What is left out stays.
pub fn rate_limit_update(body: &[u8]) -> Result<RateLimitUpdate, ApiError> {
    let fields = object(body)?;
    only(&fields, &[RATES.as_slice(), UNSUPPORTED_RATES.as_slice()].concat())?;
    if let Some(name) = UNSUPPORTED_RATES.into_iter().find(|name| fields.get(*name).is_some_and(|it| !it.is_null())) {
        let message = format!("Unsupported value: '{name}' is not supported by this gateway.");
        return Err(ApiError::invalid(message, Some(name.into()), Some("unsupported_value".into())));
    }
    let given = |name: &'static str, maximum| -> Result<Option<Option<u64>>, ApiError> {
        fields.contains_key(name).then(|| integer(&fields, "", name, maximum)).transpose()
    };
    let up_to = |name, maximum: u32| -> Result<Option<Option<NonZeroU32>>, ApiError> {
        let value = given(name, maximum.into())?;
        Ok(value.map(|value| value.and_then(|value| u32::try_from(value).ok()).and_then(NonZeroU32::new)))
    };
    let rate = |name| up_to(name, NO_LIMIT);
    Ok(RateLimitUpdate {
        requests_per_minute: rate(RATES[0])?,
        requests_per_day: rate(RATES[1])?,
        tokens_per_minute: rate(RATES[2])?,
        tokens_per_day: rate(RATES[4])?,
        concurrent_requests: rate(RATES[5])?,
        concurrent_streams: rate(RATES[6])?,
        audio_tokens_per_minute: rate(RATES[7])?,
        audio_seconds_per_day: up_to(RATES[8], MAX_AUDIO_SECONDS)?,
        batch_queue_tokens: given(RATES[3], MAX_BATCH_TOKENS)?,
    })
}

/// The limits that are in force for a project and model: the tier's, or in their place the project's own.
#[derive(Debug, Serialize)]
pub struct RateLimitObject<'a> {
    object: &'static str,
    id: &'a str,
    model: &'a str,
    max_requests_per_1_minute: u32,
    max_tokens_per_1_minute: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_requests_per_1_day: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens_per_1_day: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_audio_tokens_per_1_minute: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_audio_seconds_per_1_day: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrent_requests: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrent_streams: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_1_day_max_input_tokens: Option<u64>,
}

impl<'a> RateLimitObject<'a> {
    const PREFIX: &'static str = "rl-";

    pub fn id(model: &str) -> String {
        format!("{}{model}", Self::PREFIX)
    }

    /// The model's id of a rate limit's.
    pub fn model(id: &str) -> Option<&str> {
        id.strip_prefix(Self::PREFIX)
    }

    pub fn new(id: &'a str, model: &'a str, limits: &Limits) -> Self {
        let shown = |limit: Option<NonZeroU32>| limit.map_or(NO_LIMIT, NonZeroU32::get);
        Self {
            object: "project.rate_limit",
            id,
            model,
            max_requests_per_1_minute: shown(limits.requests_per_minute),
            max_tokens_per_1_minute: shown(limits.tokens_per_minute),
            max_requests_per_1_day: limits.requests_per_day,
            max_tokens_per_1_day: limits.tokens_per_day,
            max_audio_tokens_per_1_minute: limits.audio_tokens_per_minute,
            max_audio_seconds_per_1_day: limits.audio_seconds_per_day,
            max_concurrent_requests: limits.concurrent_requests,
            max_concurrent_streams: limits.concurrent_streams,
            batch_1_day_max_input_tokens: limits.batch_queue_tokens,
        }
    }
}

// === model permissions ===

/// `POST /v1/organization/projects/{project_id}/model_permissions`. A list that allows nothing is refused: it would close the
/// project.
pub fn model_permissions(body: &[u8]) -> Result<ModelPermissions, ApiError> {
    const MODEL_IDS: &str = "model_ids";
    let fields = object(body)?;
    only(&fields, &["mode", MODEL_IDS])?;
    let mode = choice("mode", text(&fields, "mode", "mode")?, &PermissionMode::ALL, PermissionMode::name)?;
    let model_ids: BTreeSet<_> = match fields.get(MODEL_IDS) {
        None | Some(Value::Null) => return Err(ApiError::missing_parameter(MODEL_IDS)),
        Some(Value::Array(listed)) => model_names(MODEL_IDS, listed)?.into_iter().collect(),
        Some(other) => return Err(wrong_type(MODEL_IDS, "an array", other)),
    };
    if mode == PermissionMode::AllowList && model_ids.is_empty() {
        return Err(ApiError::empty_array(MODEL_IDS));
    }
    Ok(ModelPermissions { mode, model_ids })
}

/// A permission about a model that is not in the catalog would be one about nothing.
pub fn unknown_model_id(id: &str) -> ApiError {
    let message = format!("The model '{}' does not exist", shown(id));
    ApiError::invalid(message, Some("model_ids".into()), Some("model_not_found".into()))
}

#[derive(Debug, Serialize)]
pub struct ModelPermissionsObject<'a> {
    object: &'static str,
    mode: &'static str,
    model_ids: &'a BTreeSet<String>,
}

impl<'a> From<&'a ModelPermissions> for ModelPermissionsObject<'a> {
    fn from(permissions: &'a ModelPermissions) -> Self {
        Self { object: "project.model_permissions", mode: permissions.mode.name(), model_ids: &permissions.model_ids }
    }
}

// === spend limits ===

/// `POST /v1/organization/spend_limit` and `POST /v1/organization/projects/{project_id}/spend_limit`. Without a word on
/// enforcement the limit is enforced. An interval of a day is ours, and a limit of each at the same time.
pub fn spend_limit(body: &[u8]) -> Result<SpendLimit, ApiError> {
    let fields = object(body)?;
    only(&fields, &["threshold_amount", "currency", "interval", "enforcement"])?;
    let threshold_cents = integer(&fields, "", "threshold_amount", MAX_CENTS)?;
    let threshold_cents = threshold_cents.and_then(std::num::NonZeroU64::new);
    let threshold_cents = threshold_cents.ok_or_else(|| ApiError::missing_parameter("threshold_amount"))?;
    choice("currency", text(&fields, "currency", "currency")?, &["USD"], |name| name)?;
    let interval = interval(text(&fields, "interval", "interval")?)?;
    let enforcement = match fields.get("enforcement") {
        None | Some(Value::Null) => Enforcement::Enforcing,
        Some(Value::Object(enforcement)) => {
            const STATUS: &str = "enforcement.status";
            if let Some(unknown) = enforcement.keys().find(|name| *name != "status") {
                return Err(ApiError::unknown_parameter(&format!("enforcement.{}", shown(unknown))));
            }
            choice(STATUS, text(enforcement, "status", STATUS)?, &Enforcement::ALL, Enforcement::name)?
        }
        Some(other) => return Err(wrong_type("enforcement", "an object", other)),
    };
    Ok(SpendLimit { threshold_cents, interval, enforcement })
}

pub fn interval(text: &str) -> Result<Interval, ApiError> {
    choice("interval", shown(text), &Interval::ALL, Interval::name)
}

#[derive(Debug, Serialize)]
pub struct SpendLimitObject {
    object: &'static str,
    threshold_amount: u64,
    currency: &'static str,
    interval: &'static str,
    enforcement: EnforcementObject,
}

#[derive(Debug, Serialize)]
struct EnforcementObject {
    status: &'static str,
}

impl SpendLimitObject {
    pub const fn of_project(limit: &SpendLimit) -> Self {
        Self::new("project.spend_limit", limit)
    }

    pub const fn of_organization(limit: &SpendLimit) -> Self {
        Self::new("organization.spend_limit", limit)
    }

    const fn new(object: &'static str, limit: &SpendLimit) -> Self {
        Self {
            object,
            threshold_amount: limit.threshold_cents.get(),
            currency: "USD",
            interval: limit.interval.name(),
            enforcement: EnforcementObject { status: limit.enforcement.name() },
        }
    }
}

/// Something that has no id of its own is gone.
#[derive(Debug, Serialize)]
pub struct TermsDeleted {
    object: &'static str,
    deleted: bool,
}

impl TermsDeleted {
    pub const MODEL_PERMISSIONS: Self = Self { object: "project.model_permissions.deleted", deleted: true };
    pub const PROJECT_SPEND_LIMIT: Self = Self { object: "project.spend_limit.deleted", deleted: true };
    pub const ORGANIZATION_SPEND_LIMIT: Self = Self { object: "organization.spend_limit.deleted", deleted: true };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told<T>(result: Result<T, ApiError>) -> (String, String) {
        let error = result.err().unwrap();
        assert_eq!(error.status, 400);
        (error.param.unwrap_or_default().into_owned(), error.code.unwrap_or_default().into_owned())
    }

    #[test]
    fn a_rate_limit_is_set_left_or_put_back() {
        let body = json!({"max_requests_per_1_minute": 5, "max_tokens_per_1_minute": null});
        let expected = RateLimitUpdate {
            requests_per_minute: Some(NonZeroU32::new(5)),
            tokens_per_minute: Some(None),
            ..RateLimitUpdate::default()
        };
        assert_eq!(rate_limit_update(body.to_string().as_bytes()).unwrap(), expected);
        assert_eq!(rate_limit_update(b"{}").unwrap(), RateLimitUpdate::default());
    }

    #[test]
    fn a_rate_limit_that_would_be_none_is_refused() {
        for (body, param, code) in [
            (json!({"max_requests_per_1_minute": 0}), RATES[0], "integer_below_min_value"),
            (json!({"max_requests_per_1_day": 4_294_967_296_u64}), RATES[1], "integer_above_max_value"),
            (json!({"max_tokens_per_1_minute": "5"}), RATES[2], "invalid_type"),
            (json!({"max_images_per_1_minute": 5}), UNSUPPORTED_RATES[0], "unsupported_value"),
            (json!({"max_audio_megabytes_per_1_minute": 5}), UNSUPPORTED_RATES[1], "unsupported_value"),
            (json!({"max_request_per_1_minute": 5}), "max_request_per_1_minute", "unknown_parameter"),
        ] {
            let expected = (param.to_owned(), code.to_owned());
            assert_eq!(told(rate_limit_update(body.to_string().as_bytes())), expected, "{body}");
        }
    }

    #[test]
    fn permissions_that_cannot_be_meant_are_refused() {
        for (body, param, code) in [
            (json!({"model_ids": []}), "mode", "missing_required_parameter"),
            (json!({"mode": "allow_list"}), "model_ids", "missing_required_parameter"),
            (json!({"mode": "allow", "model_ids": ["m"]}), "mode", "invalid_value"),
            (json!({"mode": "allow_list", "model_ids": []}), "model_ids", "empty_array"),
            (json!({"mode": "allow_list", "model_ids": "m"}), "model_ids", "invalid_type"),
            (json!({"mode": "deny_list", "model_ids": ["m", 5]}), "model_ids[1]", "invalid_type"),
            (json!({"mode": "deny_list", "models": ["m"], "model_ids": ["m"]}), "models", "unknown_parameter"),
        ] {
            let expected = (param.to_owned(), code.to_owned());
            assert_eq!(told(model_permissions(body.to_string().as_bytes())), expected, "{body}");
        }
        let none_denied = model_permissions(br#"{"mode":"deny_list","model_ids":[]}"#).unwrap();
        assert!(none_denied.allow("m", None, None));
    }

    #[test]
    fn a_spend_limit_is_enforced_unless_it_says_otherwise() {
        let body = |more: &Value| {
            let mut body = json!({"threshold_amount": 500, "currency": "USD", "interval": "month"});
            more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
            body.to_string()
        };
        let enforcement = |more: &Value| spend_limit(body(more).as_bytes()).map(|limit| limit.enforcement);
        assert_eq!(enforcement(&json!({})), Ok(Enforcement::Enforcing));
        assert_eq!(enforcement(&json!({"enforcement": {"status": "inactive"}})), Ok(Enforcement::Inactive));
        for (more, param, code) in [
            (json!({"threshold_amount": 0}), "threshold_amount", "integer_below_min_value"),
            (json!({"threshold_amount": null}), "threshold_amount", "missing_required_parameter"),
            (json!({"threshold_amount": 1.5}), "threshold_amount", "invalid_type"),
            (json!({"currency": "EUR"}), "currency", "invalid_value"),
            (json!({"interval": "week"}), "interval", "invalid_value"),
            (json!({"interval": null}), "interval", "missing_required_parameter"),
            (json!({"enforcement": {}}), "enforcement.status", "missing_required_parameter"),
            (json!({"enforcement": {"status": "on"}}), "enforcement.status", "invalid_value"),
            (json!({"enforcement": {"state": "on"}}), "enforcement.state", "unknown_parameter"),
            (json!({"threshold": 5}), "threshold", "unknown_parameter"),
        ] {
            let expected = (param.to_owned(), code.to_owned());
            assert_eq!(told(spend_limit(body(&more).as_bytes())), expected, "{more}");
        }
    }
}
