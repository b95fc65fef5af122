//! What the organization API is asked, and its words for a request that cannot be read.

use serde_json::{Map, Value};

use super::fields::{
    above_maximum, allowed_models, below_minimum, boolean, budget, budget_change, integer, limits, name, no_amount,
    object, only, optional_name, wrong_type,
};
use crate::{
    domain::{
        ids::ServiceAccountId,
        keys::{AllowedModels, KeyTerms},
        limits::Limits,
        projects::{Role, TierId},
        spend::{Budget, BudgetChange},
        time::UnixNanos,
    },
    openai::{error::ApiError, report::query::enumeration},
};

pub(in crate::openai) const DEFAULT_PAGE_LENGTH: usize = 20;
pub(in crate::openai) const MAX_PAGE_LENGTH: usize = 100;
/// A hundred years, so that no sum of times overflows.
const MAX_EXPIRY_SECONDS: u64 = 100 * 366 * 86_400;
/// As `OpenAI`'s: a year.
const MAX_ADMIN_KEY_EXPIRY_SECONDS: u64 = 31_536_000;
const DEFAULT_OVERLAP_SECONDS: u64 = 86_400;
const MAX_OVERLAP_SECONDS: u64 = 7 * 86_400;
/// What `OpenAI` takes for a project, and we have no use for. Whoever manages projects there may send it here.
const OF_OPENAI_PROJECTS: &[&str] = &["residency", "geography", "external_key_id"];
const AUTOMATIC_TIER: &str = "automatic_tier";
const OF_PROJECTS: &[&str] = &["name", "tier", AUTOMATIC_TIER];
const EXPIRES_IN_SECONDS: &str = "expires_in_seconds";
/// The name of a key, and its terms.
const OF_KEYS: &[&str] = &["name", "scopes", "limits", "allowed_models", "budget", EXPIRES_IN_SECONDS];
/// The name that `OpenAI` gives to a service account's key.
const KEY_NAME: &str = "Secret Key";

/// `POST /v1/organization/projects`.
#[derive(Debug, PartialEq, Eq)]
pub struct NewProject {
    pub name: String,
    pub tier: Option<TierId>,
    pub automatic_tier: Option<bool>,
}

/// `POST /v1/organization/projects/{project_id}`; what is `None` stays.
#[derive(Debug, PartialEq, Eq)]
pub struct ProjectUpdate {
    pub name: Option<String>,
    pub tier: Option<TierId>,
    pub automatic_tier: Option<bool>,
}

/// `POST /v1/organization/projects/{project_id}/service_accounts`.
#[derive(Debug, PartialEq, Eq)]
pub struct NewServiceAccount {
    pub name: String,
    /// `None`: `create_service_account_only`.
    pub key: Option<NewKeyTerms>,
}

/// `POST /v1/organization/projects/{project_id}/service_accounts/{service_account_id}`; what is `None` stays.
#[derive(Debug, PartialEq, Eq)]
pub struct ServiceAccountUpdate {
    pub name: Option<String>,
    pub role: Option<Role>,
}

/// `POST /v1/organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys`, where the name may be left
/// out, and our own `POST /v1/organization/projects/{project_id}/api_keys`.
#[derive(Debug, PartialEq, Eq)]
pub struct NewKey {
    pub name: String,
    /// `None`: one is made for the key.
    pub service_account_id: Option<ServiceAccountId>,
    pub terms: NewKeyTerms,
}

/// What a new key may do, and for how long.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NewKeyTerms {
    pub limits: Limits,
    pub allowed_models: Option<AllowedModels>,
    pub budget: Option<Budget>,
    pub expires_in_seconds: Option<u64>,
}

/// `POST /v1/organization/projects/{project_id}/api_keys/{key_id}`; what is `None` stays.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyUpdateRequest {
    pub name: Option<String>,
    pub limits: Option<Limits>,
    pub allowed_models: Option<Option<AllowedModels>>,
    /// `Some(None)`: it has none any more.
    pub budget: Option<Option<BudgetChange>>,
    /// `Some(None)`: the key does not expire any more.
    pub expires_in_seconds: Option<Option<u64>>,
}

/// `POST /v1/organization/admin_api_keys`.
#[derive(Debug, PartialEq, Eq)]
pub struct NewAdminKey {
    pub name: String,
    pub expires_in_seconds: Option<u64>,
}

impl NewProject {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = object(body)?;
        only(&fields, &[OF_PROJECTS, OF_OPENAI_PROJECTS])?;
        Ok(Self { tier: tier(&fields)?, automatic_tier: boolean(&fields, AUTOMATIC_TIER)?, name: name(&fields)? })
    }
}

impl ProjectUpdate {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = object(body)?;
        only(&fields, &[OF_PROJECTS, OF_OPENAI_PROJECTS])?;
        let automatic_tier = boolean(&fields, AUTOMATIC_TIER)?;
        Ok(Self { tier: tier(&fields)?, automatic_tier, name: optional_name(&fields)? })
    }
}

impl NewServiceAccount {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = object(body)?;
        only(&fields, &[OF_KEYS, &["create_service_account_only"]])?;
        let without_key = boolean(&fields, "create_service_account_only")?.unwrap_or(false);
        let terms = NewKeyTerms::read(&fields)?;
        Ok(Self { name: name(&fields)?, key: (!without_key).then_some(terms) })
    }
}

impl ServiceAccountUpdate {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = object(body)?;
        only(&fields, &[&["name", "role"]])?;
        let role = match fields.get("role") {
            None | Some(Value::Null) => None,
            Some(Value::String(role)) => match Role::parse(role) {
                Some(role @ (Role::Member | Role::Owner)) => Some(role),
                _ => {
                    let message =
                        format!("Invalid value: '{}'. Supported values are: 'member' and 'owner'.", shown(role));
                    return Err(ApiError::invalid(message, Some("role".into()), Some("invalid_value".into())));
                }
            },
            Some(other) => return Err(wrong_type("role", "a string", other)),
        };
        Ok(Self { name: optional_name(&fields)?, role })
    }
}

impl NewKey {
    /// A key of the account that the path names.
    pub fn of_account(body: &[u8]) -> Result<Self, ApiError> {
        // Every field may be left out, and with them the body.
        let fields = if body.is_empty() { Map::new() } else { object(body)? };
        only(&fields, &[OF_KEYS])?;
        let name = optional_name(&fields)?.unwrap_or_else(|| KEY_NAME.to_owned());
        Ok(Self { name, service_account_id: None, terms: NewKeyTerms::read(&fields)? })
    }

    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = object(body)?;
        only(&fields, &[OF_KEYS, &["service_account_id"]])?;
        let terms = NewKeyTerms::read(&fields)?;
        let service_account_id = match fields.get("service_account_id") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => {
                Some(ServiceAccountId::parse(id).ok_or_else(|| ApiError::no_such("Service account", shown(id)))?)
            }
            Some(other) => return Err(wrong_type("service_account_id", "a string", other)),
        };
        Ok(Self { name: name(&fields)?, service_account_id, terms })
    }
}

impl NewKeyTerms {
    fn read(fields: &Map<String, Value>) -> Result<Self, ApiError> {
        no_scopes(fields)?;
        let (limits, allowed_models, budget) = (limits(fields)?, allowed_models(fields)?, budget(fields)?);
        Ok(Self { limits, allowed_models, budget, expires_in_seconds: expiry_seconds(fields)? })
    }

    pub fn from(self, now: UnixNanos) -> KeyTerms {
        let Self { limits, allowed_models, budget, expires_in_seconds } = self;
        KeyTerms { limits, allowed_models, budget, expires_at: expires_in_seconds.map(|seconds| after(now, seconds)) }
    }
}

impl KeyUpdateRequest {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = object(body)?;
        only(&fields, &[OF_KEYS])?;
        no_scopes(&fields)?;
        let given = |name: &str| fields.contains_key(name);
        Ok(Self {
            name: optional_name(&fields)?,
            // Null takes them away.
            limits: given("limits").then(|| limits(&fields)).transpose()?,
            allowed_models: given("allowed_models").then(|| allowed_models(&fields)).transpose()?,
            budget: given("budget").then(|| budget_change(&fields)).transpose()?,
            expires_in_seconds: given(EXPIRES_IN_SECONDS).then(|| expiry_seconds(&fields)).transpose()?,
        })
    }

    /// A key without a budget gets one only by an amount.
    pub fn check(&self, of: &KeyTerms) -> Result<(), ApiError> {
        match self.budget {
            Some(Some(change)) if of.budget.is_none() && change.of(None).is_none() => Err(no_amount()),
            _ => Ok(()),
        }
    }
}

/// Left unread they would make a key that may do more than was asked for.
fn no_scopes(fields: &Map<String, Value>) -> Result<(), ApiError> {
    match fields.get("scopes") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(scopes)) if scopes.is_empty() => Ok(()),
        Some(_) => {
            let message = "Unsupported parameter: 'scopes' is not supported by this gateway. Narrow a key with \
                'allowed_models' and 'limits'.";
            Err(ApiError::invalid(message, Some("scopes".into()), Some("unsupported_parameter".into())))
        }
    }
}

fn expiry_seconds(fields: &Map<String, Value>) -> Result<Option<u64>, ApiError> {
    integer(fields, "", EXPIRES_IN_SECONDS, MAX_EXPIRY_SECONDS)
}

impl NewAdminKey {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = object(body)?;
        only(&fields, &[&["name", EXPIRES_IN_SECONDS]])?;
        let expires_in_seconds = integer(&fields, "", EXPIRES_IN_SECONDS, MAX_ADMIN_KEY_EXPIRY_SECONDS)?;
        Ok(Self { name: name(&fields)?, expires_in_seconds })
    }
}

/// `POST .../api_keys/{key_id}/rotate`: for how many seconds the secret from before opens the key. 0 is not at all.
pub fn overlap_seconds(body: &[u8]) -> Result<u64, ApiError> {
    const PARAM: &str = "overlap_seconds";
    let fields = if body.is_empty() { Map::new() } else { object(body)? };
    only(&fields, &[&[PARAM]])?;
    if fields.get(PARAM).is_some_and(|value| value.as_u64() == Some(0)) {
        return Ok(0);
    }
    let seconds = integer(&fields, "", PARAM, MAX_OVERLAP_SECONDS)?;
    Ok(seconds.unwrap_or(DEFAULT_OVERLAP_SECONDS))
}

/// `seconds` after `now`.
pub const fn after(now: UnixNanos, seconds: u64) -> UnixNanos {
    now.plus_nanos(UnixNanos::from_seconds(seconds).0)
}

fn tier(fields: &Map<String, Value>) -> Result<Option<TierId>, ApiError> {
    match fields.get("tier") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(tier)) => Ok(Some(TierId::from(tier.as_str()))),
        Some(other) => Err(wrong_type("tier", "a string", other)),
    }
}

/// The query of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest<'a> {
    pub after: Option<&'a str>,
    pub before: Option<&'a str>,
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
        Ok(Self { after, before: None, limit })
    }

    /// Of a list that goes both ways, and comes in the longest pages unless a length is given.
    pub fn both_ways(after: Option<&'a str>, before: Option<&'a str>, limit: Option<&str>) -> Result<Self, ApiError> {
        if after.is_some() && before.is_some() {
            return Err(both_cursors());
        }
        let page = Self::parse(after, limit)?;
        Ok(Self { before, limit: limit.map_or(MAX_PAGE_LENGTH, |_| page.limit), ..page })
    }
}

pub fn unknown_tier<'a>(tier: &TierId, known: impl Iterator<Item = &'a TierId>) -> ApiError {
    let known: Vec<_> = known.map(|tier| format!("'{}'", tier.as_str())).collect();
    let (tier, known) = (shown(tier.as_str()), enumeration(&known));
    let message = format!("Invalid value: '{tier}'. Supported values are: {known}.");
    ApiError::invalid(message, Some("tier".into()), Some("invalid_value".into()))
}

/// A page either follows an object or comes before one.
pub(super) fn both_cursors() -> ApiError {
    let message = "Invalid 'before': 'after' and 'before' cannot be given together.";
    ApiError::invalid(message, Some("before".into()), Some("invalid_value".into()))
}

/// `after` or `before` names nothing in the list.
pub(in crate::openai) fn no_such_cursor(param: &'static str, id: &str) -> ApiError {
    let message = format!("Invalid '{param}': no object in this list has the id '{}'.", shown(id));
    ApiError::invalid(message, Some(param.into()), Some("invalid_value".into()))
}

/// `text` short enough to be repeated to its sender.
pub fn shown(text: &str) -> &str {
    const LENGTH: usize = 64;
    text.char_indices().nth(LENGTH).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}
