//! Keys for administration.

use super::{
    ids::AdminKeyId,
    keys::{KeyHash, LastUsed},
    time::UnixNanos,
};

/// An admin key that was issued, or is configured.
#[derive(Clone, Debug)]
pub struct AdminKey {
    pub id: AdminKeyId,
    pub name: String,
    pub hash: KeyHash,
    pub redacted_value: String,
    pub created_at: UnixNanos,
    pub expires_at: Option<UnixNanos>,
    pub last_used: LastUsed,
}

impl AdminKey {
    pub fn opens(&self, presented: &KeyHash, now: UnixNanos) -> bool {
        self.hash.matches(presented) & self.in_force(now)
    }

    pub fn in_force(&self, now: UnixNanos) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }

    /// From the settings, where alone it can be changed.
    pub fn is_configured(&self) -> bool {
        self.id == AdminKeyId::configured()
    }
}
