//! Projects own keys and limits.

mod terms;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::terms::{ModelPermissions, PermissionMode, ProjectTerms, RateLimitUpdate};
use super::{
    ids::{ProjectId, ServiceAccountId},
    time::UnixNanos,
};

/// The name of a set of limits, from `config/tiers.toml`. Any name: the tiers are data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TierId(pub Arc<str>);

impl TierId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TierId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    pub id: ProjectId,
    pub name: String,
    pub tier: TierId,
    /// It may move to a higher tier by itself.
    pub automatic_tier: bool,
    pub terms: ProjectTerms,
    pub created_at: UnixNanos,
    pub archived_at: Option<UnixNanos>,
}

/// A machine that calls on behalf of a project; each API key belongs to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    pub id: ServiceAccountId,
    pub project_id: ProjectId,
    pub name: String,
    pub role: Role,
    pub created_at: UnixNanos,
    pub deleted_at: Option<UnixNanos>,
}

/// A service account's role in its project. It is shown as `OpenAI` shows it; what a key may do, its own terms say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Owner,
    Member,
    None,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Owner, Self::Member, Self::None];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
            Self::None => "none",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}
