//! What the organization API answers.

use serde::Serialize;

use super::requests::{PageRequest, no_such_cursor};
use crate::{
    domain::{
        keys::{AllowedModels, ApiKey},
        limits::Limits,
        projects::{Project, ServiceAccount},
        spend::Budget,
        time::UnixNanos,
    },
    openai::error::ApiError,
};

#[derive(Debug, Serialize)]
pub struct ProjectObject<'a> {
    id: &'a str,
    object: &'static str,
    name: &'a str,
    created_at: u64,
    archived_at: Option<u64>,
    status: &'static str,
    external_key_id: Option<&'a str>,
    tier: &'a str,
    automatic_tier: bool,
}

impl<'a> From<&'a Project> for ProjectObject<'a> {
    fn from(project: &'a Project) -> Self {
        Self {
            id: project.id.as_str(),
            object: "organization.project",
            name: &project.name,
            created_at: project.created_at.seconds(),
            archived_at: project.archived_at.map(UnixNanos::seconds),
            status: if project.archived_at.is_some() { "archived" } else { "active" },
            external_key_id: None,
            tier: project.tier.as_str(),
            automatic_tier: project.automatic_tier,
        }
    }
}

/// A service account; when it has just been made, with its key.
#[derive(Debug, Serialize)]
pub struct ServiceAccountObject<'a> {
    object: &'static str,
    id: &'a str,
    name: &'a str,
    role: &'static str,
    created_at: u64,
}

impl<'a> From<&'a ServiceAccount> for ServiceAccountObject<'a> {
    fn from(account: &'a ServiceAccount) -> Self {
        Self {
            object: "organization.project.service_account",
            id: account.id.as_str(),
            name: &account.name,
            role: account.role.name(),
            created_at: account.created_at.seconds(),
        }
    }
}

/// The answer to the creation of a service account.
#[derive(Serialize)]
pub struct ServiceAccountCreated<'a> {
    #[serde(flatten)]
    account: ServiceAccountObject<'a>,
    /// `None`: it was made without one.
    api_key: Option<AccountKeyCreated<'a>>,
}

impl<'a> ServiceAccountCreated<'a> {
    pub fn new(account: &'a ServiceAccount, api_key: Option<AccountKeyCreated<'a>>) -> Self {
        Self { account: account.into(), api_key }
    }
}

/// A key of a service account, with its value, which no later answer has.
#[derive(Serialize)]
pub struct AccountKeyCreated<'a> {
    object: &'static str,
    id: &'a str,
    name: &'a str,
    value: &'a str,
    created_at: u64,
    expires_at: Option<u64>,
    limits: &'a Limits,
    allowed_models: Option<&'a AllowedModels>,
    budget: Option<&'a Budget>,
}

impl<'a> AccountKeyCreated<'a> {
    /// The first key of an account goes by the name that `OpenAI` gives it.
    pub fn first(key: &'a ApiKey, value: &'a str) -> Self {
        Self { name: "Secret Key", ..Self::new(key, value) }
    }

    pub fn new(key: &'a ApiKey, value: &'a str) -> Self {
        Self {
            object: "organization.project.service_account.api_key",
            id: key.id.as_str(),
            name: &key.name,
            value,
            created_at: key.created_at.seconds(),
            expires_at: key.terms.expires_at.map(UnixNanos::seconds),
            limits: &key.terms.limits,
            allowed_models: key.terms.allowed_models.as_ref(),
            budget: key.terms.budget.as_ref(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct ApiKeyObject<'a> {
    object: &'static str,
    id: &'a str,
    name: &'a str,
    redacted_value: &'a str,
    created_at: u64,
    last_used_at: Option<u64>,
    expires_at: Option<u64>,
    /// Until when the secret from before the last rotation opens the key.
    previous_expires_at: Option<u64>,
    owner: Owner<'a>,
    owner_project_access: &'static str,
    limits: &'a Limits,
    allowed_models: Option<&'a AllowedModels>,
    budget: Option<&'a Budget>,
}

#[derive(Debug, Serialize)]
struct Owner<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    service_account: OwnerAccount<'a>,
}

#[derive(Debug, Serialize)]
struct OwnerAccount<'a> {
    id: &'a str,
    name: &'a str,
    created_at: u64,
    role: &'static str,
}

impl<'a> From<&'a ApiKey> for ApiKeyObject<'a> {
    fn from(key: &'a ApiKey) -> Self {
        let account = &key.service_account;
        Self {
            object: "organization.project.api_key",
            id: key.id.as_str(),
            name: &key.name,
            redacted_value: &key.redacted_value,
            created_at: key.created_at.seconds(),
            last_used_at: key.last_used.seconds(),
            expires_at: key.terms.expires_at.map(UnixNanos::seconds),
            previous_expires_at: key.previous.as_ref().map(|previous| previous.expires_at.seconds()),
            owner: Owner {
                kind: "service_account",
                service_account: OwnerAccount {
                    id: account.id.as_str(),
                    name: &account.name,
                    created_at: account.created_at.seconds(),
                    role: account.role.name(),
                },
            },
            owner_project_access: project_access(&key.project),
            limits: &key.terms.limits,
            allowed_models: key.terms.allowed_models.as_ref(),
            budget: key.terms.budget.as_ref(),
        }
    }
}

/// Whether the owner of a key gets into the project, as `OpenAI` says it.
pub const fn project_access(project: &Project) -> &'static str {
    if project.archived_at.is_none() { "active" } else { "inactive" }
}

/// A key with its value, which no later answer has.
#[derive(Serialize)]
pub struct ApiKeyCreated<'a> {
    #[serde(flatten)]
    key: ApiKeyObject<'a>,
    value: &'a str,
}

impl<'a> ApiKeyCreated<'a> {
    pub fn new(key: &'a ApiKey, value: &'a str) -> Self {
        Self { key: key.into(), value }
    }
}

#[derive(Debug, Serialize)]
pub struct Deleted<'a> {
    object: &'static str,
    id: &'a str,
    deleted: bool,
}

impl<'a> Deleted<'a> {
    pub const fn api_key(id: &'a str) -> Self {
        Self { object: "organization.project.api_key.deleted", id, deleted: true }
    }

    pub const fn service_account(id: &'a str) -> Self {
        Self { object: "organization.project.service_account.deleted", id, deleted: true }
    }

    pub const fn admin_key(id: &'a str) -> Self {
        Self { object: "organization.admin_api_key.deleted", id, deleted: true }
    }
}

/// The envelope of every list.
#[derive(Debug, Serialize)]
pub struct Page<'a, T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
    has_more: bool,
}

impl<'a, T> Page<'a, T> {
    /// `listed` holds ids with their objects in order, hidden ones as `None`: a page may follow an object that has been
    /// hidden since, as when a script revokes the keys of one page and asks for the next.
    pub fn cut(request: &PageRequest<'_>, listed: Vec<(&'a str, Option<T>)>) -> Result<Self, ApiError> {
        let place = |param, id: &str| {
            let found = listed.iter().position(|(listed, _)| *listed == id);
            found.ok_or_else(|| no_such_cursor(param, id))
        };
        let visible = |(id, object): (&'a str, Option<T>)| object.map(|object| (id, object));
        if let Some(before) = request.before {
            let end = place("before", before)?;
            let mut rest = listed.into_iter().take(end).rev().filter_map(visible);
            let mut page: Vec<_> = rest.by_ref().take(request.limit).collect();
            page.reverse();
            return Ok(Self::new(page, rest.next().is_some()));
        }
        let start = request.after.map(|after| place("after", after).map(|at| at + 1)).transpose()?;
        let mut rest = listed.into_iter().skip(start.unwrap_or(0)).filter_map(visible);
        let page = rest.by_ref().take(request.limit).collect();
        Ok(Self::new(page, rest.next().is_some()))
    }

    fn new(page: Vec<(&'a str, T)>, has_more: bool) -> Self {
        let (ids, data): (Vec<_>, Vec<_>) = page.into_iter().unzip();
        Self { object: "list", data, first_id: ids.first().copied(), last_id: ids.last().copied(), has_more }
    }
}
