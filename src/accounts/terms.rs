//! Changes to what is agreed on with projects and for the organization: rate limits, model permissions, spend limits.

use std::sync::Arc;

use serde_json::Value;

use super::{Accounts, AccountsError, to_the_end};
use crate::{
    domain::{
        audit::{AuditEvent, Audited, By, EventType},
        ids::ProjectId,
        projects::{ModelPermissions, Project, ProjectTerms, RateLimitUpdate},
        spend::{OrganizationLimit, SpendLimit},
    },
    store,
};

/// The object of an event about what is the organization's.
const ORGANIZATION: &str = "organization";

/// How the audit log calls a change to some of a project's terms.
struct Wording<F> {
    object_id: String,
    updated: EventType,
    /// When they are none afterwards.
    deleted: EventType,
    /// What the log says of them; `None` when there are none.
    audited: F,
}

impl Accounts {
    /// Limits of a project for the model of that id, in place of its tier's, and for all `sharing` its buckets, itself among
    /// them. The models are the caller's to check.
    pub async fn modify_rate_limit(
        self: &Arc<Self>,
        id: &ProjectId,
        (model, sharing): (&str, &[Arc<str>]),
        update: RateLimitUpdate,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        let (changed, logged) = (sharing.to_vec(), sharing.to_vec());
        let wording = Wording {
            object_id: format!("rl-{model}"),
            updated: EventType::RateLimitUpdated,
            deleted: EventType::RateLimitDeleted,
            audited: move |terms: &ProjectTerms| terms.own_limits(&logged).as_ref().map(Audited::audited),
        };
        self.change_terms(id, wording, by, move |terms| terms.update_rate_limit(&changed, &update)).await
    }

    /// `None` takes them away.
    pub async fn set_model_permissions(
        self: &Arc<Self>,
        id: &ProjectId,
        permissions: Option<ModelPermissions>,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        let wording = Wording {
            object_id: id.to_string(),
            updated: EventType::ModelPermissionsUpdated,
            deleted: EventType::ModelPermissionsDeleted,
            audited: |terms: &ProjectTerms| terms.model_permissions.as_ref().map(Audited::audited),
        };
        self.change_terms(id, wording, by, move |terms| terms.model_permissions = permissions).await
    }

    /// `None` takes it away.
    pub async fn set_spend_limit(
        self: &Arc<Self>,
        id: &ProjectId,
        limit: Option<SpendLimit>,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        let wording = Wording {
            object_id: id.to_string(),
            updated: EventType::SpendLimitUpdated,
            deleted: EventType::SpendLimitDeleted,
            audited: |terms: &ProjectTerms| terms.spend_limit.as_ref().map(Audited::audited),
        };
        self.change_terms(id, wording, by, move |terms| terms.spend_limit = limit).await
    }

    /// The organization's spend limit, for whoever enforces it: always the one in force.
    pub const fn organization_limit(&self) -> &Arc<OrganizationLimit> {
        &self.organization_limit
    }

    /// `None` takes it away.
    pub async fn set_organization_spend_limit(
        self: &Arc<Self>,
        limit: Option<SpendLimit>,
        by: &By,
    ) -> Result<(), AccountsError> {
        let (this, by) = (Arc::clone(self), by.clone());
        to_the_end(async move {
            let _turn = this.changing.lock().await;
            let before = this.organization_limit.current();
            if before == limit {
                return Ok(());
            }
            let event_type = if limit.is_some() { EventType::SpendLimitUpdated } else { EventType::SpendLimitDeleted };
            let event = AuditEvent {
                before: before.as_ref().map(Audited::audited),
                after: limit.as_ref().map(Audited::audited),
                ..AuditEvent::new(event_type, &by, ORGANIZATION)
            };
            store::accounts::update_organization_spend_limit(&this.store, limit, &event).await?;
            this.organization_limit.set(limit);
            Ok(())
        })
        .await
    }

    /// A change that changes nothing is none, and leaves no row in the audit log.
    async fn change_terms<F: Fn(&ProjectTerms) -> Option<Value> + Send + 'static>(
        self: &Arc<Self>,
        id: &ProjectId,
        wording: Wording<F>,
        by: &By,
        change: impl FnOnce(&mut ProjectTerms) + Send + 'static,
    ) -> Result<Arc<Project>, AccountsError> {
        let (this, id, by) = (Arc::clone(self), id.clone(), by.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let project = this.open_project(&id)?;
            let mut changed = Project::clone(&project);
            change(&mut changed.terms);
            if changed == *project {
                return Ok(project);
            }
            let (before, after) = ((wording.audited)(&project.terms), (wording.audited)(&changed.terms));
            let event_type = if after.is_some() { wording.updated } else { wording.deleted };
            let event = AuditEvent::new(event_type, &by, &wording.object_id).of(&changed);
            let event = AuditEvent { before, after, ..event };
            store::accounts::update_terms(&this.store, &changed, &event).await?;
            let changed = Arc::new(changed);
            this.show(&turn, |directory| directory.put_project(&changed));
            Ok(changed)
        })
        .await
    }
}
