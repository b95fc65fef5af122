//! What the audit log says of an object: what can be changed about it, and no secret.

use serde_json::{Value, json};

use crate::domain::{
    keys::ApiKey,
    projects::{Project, ServiceAccount},
    time::UnixNanos,
};

pub trait Audited {
    fn audited(&self) -> Value;
}

impl Audited for Value {
    fn audited(&self) -> Value {
        self.clone()
    }
}

impl Audited for Project {
    fn audited(&self) -> Value {
        json!({
            "name": self.name,
            "tier": self.tier,
            "status": if self.archived_at.is_some() { "archived" } else { "active" },
        })
    }
}

impl Audited for ServiceAccount {
    fn audited(&self) -> Value {
        json!({ "name": self.name })
    }
}

impl Audited for ApiKey {
    fn audited(&self) -> Value {
        json!({
            "name": self.name,
            "redacted_value": self.redacted_value,
            "service_account_id": self.service_account_id,
            "limits": self.limits,
            "expires_at": self.expires_at.map(UnixNanos::seconds),
        })
    }
}
