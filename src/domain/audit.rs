//! The audit log: who changed what and when, from what to what. Each row is sealed with a hash over itself and the seal
//! before it, so that a row cannot be altered, taken out or put in without breaking every seal after it.

mod chain;
mod objects;

use std::fmt;

use serde_json::Value;

pub use self::{
    chain::{AuditHash, AuditRow, Broken, BrokenBy, Chain},
    objects::Audited,
};
use super::{
    ids::{AdminKeyId, ProjectId},
    projects::Project,
    time::UnixNanos,
};

/// The object of an event about what is the organization's.
pub const ORGANIZATION: &str = "organization";

/// Who makes a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The holder of an admin key.
    AdminKey(AdminKeyId),
    /// The gateway itself: at its first start, or for a demo.
    Gateway,
}

impl Actor {
    pub fn id(&self) -> &str {
        match self {
            Self::AdminKey(id) => id.as_str(),
            Self::Gateway => "gateway",
        }
    }
}

/// Who makes a change, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    pub actor: Actor,
    pub at: UnixNanos,
}

impl By {
    pub const fn gateway(at: UnixNanos) -> Self {
        Self { actor: Actor::Gateway, at }
    }
}

macro_rules! event_types {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// What happened, in the words of `OpenAI`'s audit log where it has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EventType {
            $($variant),*
        }

        impl EventType {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }
        }
    };
}

event_types! {
    ApiKeyCreated = "api_key.created",
    ApiKeyUpdated = "api_key.updated",
    ApiKeyDeleted = "api_key.deleted",
    ModelPermissionsUpdated = "model_permissions.updated",
    ModelPermissionsDeleted = "model_permissions.deleted",
    PricesRepriced = "prices.repriced",
    ProjectCreated = "project.created",
    ProjectUpdated = "project.updated",
    ProjectArchived = "project.archived",
    RateLimitUpdated = "rate_limit.updated",
    RateLimitDeleted = "rate_limit.deleted",
    ServiceAccountCreated = "service_account.created",
    ServiceAccountUpdated = "service_account.updated",
    ServiceAccountDeleted = "service_account.deleted",
    SpendLimitUpdated = "spend_limit.updated",
    SpendLimitDeleted = "spend_limit.deleted",
    SpendLimitMarkPassed = "spend_limit.mark_passed",
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One change, as it is about to be written. `before` and `after` hold no secrets: see [`Audited`].
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEvent {
    pub event_type: EventType,
    pub by: By,
    /// Of the object that is changed.
    pub object_id: String,
    /// The project that the object belongs to, and its name at that time; none for what is the organization's.
    pub project: Option<(ProjectId, String)>,
    /// `None` for what is new.
    pub before: Option<Value>,
    /// `None` for what is gone.
    pub after: Option<Value>,
}

impl AuditEvent {
    pub fn new(event_type: EventType, by: &By, object_id: &str) -> Self {
        let (by, object_id) = (by.clone(), object_id.to_owned());
        Self { event_type, by, object_id, project: None, before: None, after: None }
    }

    #[must_use]
    pub fn of(self, project: &Project) -> Self {
        Self { project: Some((project.id.clone(), project.name.clone())), ..self }
    }

    #[must_use]
    pub fn before(self, object: &impl Audited) -> Self {
        Self { before: Some(object.audited()), ..self }
    }

    #[must_use]
    pub fn after(self, object: &impl Audited) -> Self {
        Self { after: Some(object.audited()), ..self }
    }
}
