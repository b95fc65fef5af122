//! What the organization API answers.

use serde::Serialize;

use super::requests::{PageRequest, no_such_cursor};
use crate::{
    domain::{
        keys::ApiKey,
        limits::Limits,
        projects::{Project, ServiceAccount},
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
        }
    }
}

/// The answer to the creation of a service account, and the only one that ever has a key's value.
#[derive(Serialize)]
pub struct ServiceAccountCreated<'a> {
    object: &'static str,
    id: &'a str,
    name: &'a str,
    role: &'static str,
    created_at: u64,
    api_key: CreatedKey<'a>,
}

#[derive(Serialize)]
struct CreatedKey<'a> {
    object: &'static str,
    id: &'a str,
    name: &'static str,
    value: &'a str,
    created_at: u64,
    expires_at: Option<u64>,
    limits: &'a Limits,
}

impl<'a> ServiceAccountCreated<'a> {
    pub fn new(account: &'a ServiceAccount, key: &'a ApiKey, value: &'a str) -> Self {
        Self {
            object: "organization.project.service_account",
            id: account.id.as_str(),
            name: &account.name,
            role: "member",
            created_at: account.created_at.seconds(),
            api_key: CreatedKey {
                object: "organization.project.service_account.api_key",
                id: key.id.as_str(),
                name: "Secret Key",
                value,
                created_at: key.created_at.seconds(),
                expires_at: key.expires_at.map(UnixNanos::seconds),
                limits: &key.limits,
            },
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
    owner: Owner<'a>,
    owner_project_access: &'static str,
    limits: &'a Limits,
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
        Self {
            object: "organization.project.api_key",
            id: key.id.as_str(),
            name: &key.name,
            redacted_value: &key.redacted_value,
            created_at: key.created_at.seconds(),
            last_used_at: None,
            expires_at: key.expires_at.map(UnixNanos::seconds),
            // A key and its account are made in one go, under one name.
            owner: Owner {
                kind: "service_account",
                service_account: OwnerAccount {
                    id: key.service_account_id.as_str(),
                    name: &key.name,
                    created_at: key.created_at.seconds(),
                    role: "member",
                },
            },
            owner_project_access: if key.project.archived_at.is_none() { "active" } else { "inactive" },
            limits: &key.limits,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct ApiKeyDeleted<'a> {
    object: &'static str,
    id: &'a str,
    deleted: bool,
}

impl<'a> ApiKeyDeleted<'a> {
    pub const fn new(id: &'a str) -> Self {
        Self { object: "organization.project.api_key.deleted", id, deleted: true }
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
        let start = match request.after {
            None => 0,
            Some(after) => listed
                .iter()
                .position(|(id, _)| *id == after)
                .map(|at| at + 1)
                .ok_or_else(|| no_such_cursor("after", after))?,
        };
        let visible = |(id, object): (&'a str, Option<T>)| object.map(|object| (id, object));
        let mut rest = listed.into_iter().skip(start).filter_map(visible);
        let (ids, data): (Vec<_>, Vec<_>) = rest.by_ref().take(request.limit).unzip();
        let (first_id, last_id) = (ids.first().copied(), ids.last().copied());
        Ok(Self { object: "list", data, first_id, last_id, has_more: rest.next().is_some() })
    }
}
