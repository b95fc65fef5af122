//! What the audit log says of an object: what can be changed about it, and no secret.

use serde_json::{Value, json};

use crate::domain::{
    admin_keys::AdminKey,
    keys::ApiKey,
    limits::Limits,
    projects::{ModelPermissions, Project, ServiceAccount},
    spend::{Mark, SpendLimit},
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
            "automatic_tier": self.automatic_tier,
            "status": if self.archived_at.is_some() { "archived" } else { "active" },
        })
    }
}

impl Audited for ServiceAccount {
    fn audited(&self) -> Value {
        json!({ "name": self.name, "role": self.role.name() })
    }
}

impl Audited for AdminKey {
    fn audited(&self) -> Value {
        json!({
            "name": self.name,
            "redacted_value": self.redacted_value,
            "expires_at": self.expires_at.map(UnixNanos::seconds),
        })
    }
}

impl Audited for ApiKey {
    fn audited(&self) -> Value {
        json!({
            "name": self.name,
            "redacted_value": self.redacted_value,
            "service_account_id": self.service_account.id,
            "limits": self.terms.limits,
            "allowed_models": self.terms.allowed_models,
            "budget": self.terms.budget,
            "expires_at": self.terms.expires_at.map(UnixNanos::seconds),
            "previous_expires_at": self.previous.as_ref().map(|previous| previous.expires_at.seconds()),
        })
    }
}

/// A project's own limits for a model, in the words of `OpenAI`'s rate limits; null is the tier's figure.
impl Audited for Limits {
    fn audited(&self) -> Value {
        json!({
            "max_requests_per_1_minute": self.requests_per_minute,
            "max_requests_per_1_day": self.requests_per_day,
            "max_tokens_per_1_minute": self.tokens_per_minute,
            "max_tokens_per_1_day": self.tokens_per_day,
            "max_audio_tokens_per_1_minute": self.audio_tokens_per_minute,
            "max_audio_seconds_per_1_day": self.audio_seconds_per_day,
            "max_concurrent_requests": self.concurrent_requests,
            "max_concurrent_streams": self.concurrent_streams,
            "batch_1_day_max_input_tokens": self.batch_queue_tokens,
        })
    }
}

impl Audited for ModelPermissions {
    fn audited(&self) -> Value {
        json!({ "mode": self.mode.name(), "model_ids": self.model_ids })
    }
}

impl Audited for SpendLimit {
    fn audited(&self) -> Value {
        json!({
            "threshold_amount": self.threshold_cents,
            "interval": self.interval.name(),
            "enforcement": { "status": self.enforcement.name() },
        })
    }
}

/// Read back as [`crate::domain::spend::Told`].
impl Audited for Mark {
    fn audited(&self) -> Value {
        let Self { spender, limit, period, percent, spent } = self;
        json!({
            "spender": spender.name(),
            "threshold_amount": limit.threshold_cents,
            "interval": limit.interval.name(),
            "enforcement": { "status": limit.enforcement.name() },
            "percent": percent,
            "spent_dollars": spent.to_string(),
            "start_time": period.start_s,
            "end_time": period.end_s,
        })
    }
}
