//! Admin keys as `OpenAI` writes them.

use serde::Serialize;

use crate::domain::{admin_keys::AdminKey, time::UnixNanos};

#[derive(Debug, Serialize)]
pub struct AdminKeyObject<'a> {
    object: &'static str,
    id: &'a str,
    name: &'a str,
    redacted_value: &'a str,
    created_at: u64,
    expires_at: Option<u64>,
    last_used_at: Option<u64>,
    owner: Owner,
    /// It comes from the gateway's settings, and is changed there alone.
    configured: bool,
}

/// Admin keys belong to nobody in particular here: whoever administers the organization.
#[derive(Debug, Serialize)]
struct Owner {
    #[serde(rename = "type")]
    kind: &'static str,
    object: &'static str,
    id: &'static str,
    name: &'static str,
    created_at: u64,
    role: &'static str,
}

impl<'a> From<&'a AdminKey> for AdminKeyObject<'a> {
    fn from(key: &'a AdminKey) -> Self {
        let created_at = key.created_at.seconds();
        Self {
            object: "organization.admin_api_key",
            id: key.id.as_str(),
            name: &key.name,
            redacted_value: &key.redacted_value,
            created_at,
            expires_at: key.expires_at.map(UnixNanos::seconds),
            last_used_at: key.last_used.seconds(),
            owner: Owner {
                kind: "user",
                object: "organization.user",
                id: "user-administrators",
                name: "Administrators",
                created_at,
                role: "owner",
            },
            configured: key.is_configured(),
        }
    }
}

/// A key with its value, which no later answer has.
#[derive(Serialize)]
pub struct AdminKeyCreated<'a> {
    #[serde(flatten)]
    key: AdminKeyObject<'a>,
    value: &'a str,
}

impl<'a> AdminKeyCreated<'a> {
    pub fn new(key: &'a AdminKey, value: &'a str) -> Self {
        Self { key: key.into(), value }
    }
}
