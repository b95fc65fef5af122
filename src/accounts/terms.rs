//! Changes to what is agreed on with projects and for the organization: rate limits, model permissions, spend limits.

use std::sync::Arc;

use serde_json::Value;

use super::{Accounts, AccountsError, to_the_end};
use crate::{
    domain::{
        audit::{AuditEvent, Audited, By, EventType, ORGANIZATION},
        ids::ProjectId,
        projects::{ModelPermissions, Project, ProjectTerms, RateLimitUpdate},
        spend::{OrganizationLimits, SpendLimitChange, SpendLimits},
    },
    store,
};

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

    pub async fn change_spend_limit(
        self: &Arc<Self>,
        id: &ProjectId,
        change: SpendLimitChange,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        let wording = Wording {
            object_id: id.to_string(),
            updated: EventType::SpendLimitUpdated,
            deleted: EventType::SpendLimitDeleted,
            audited: move |terms: &ProjectTerms| {
                terms.spend_limits.of(change.interval()).as_ref().map(Audited::audited)
            },
        };
        self.change_terms(id, wording, by, move |terms| terms.spend_limits = terms.spend_limits.after(change)).await
    }

    /// The organization's spend limits, for whoever enforces them: always those in force.
    pub const fn organization_limits(&self) -> &Arc<OrganizationLimits> {
        &self.organization_limits
    }

    pub async fn change_organization_spend_limit(
        self: &Arc<Self>,
        change: SpendLimitChange,
        by: &By,
    ) -> Result<(), AccountsError> {
        let (this, by) = (Arc::clone(self), by.clone());
        to_the_end(async move {
            let _turn = this.changing.lock().await;
            let before = this.organization_limits.current();
            let limits = before.after(change);
            if before == limits {
                return Ok(());
            }
            let of_interval = |limits: SpendLimits| limits.of(change.interval()).as_ref().map(Audited::audited);
            let (before, after) = (of_interval(before), of_interval(limits));
            let event_type = if after.is_some() { EventType::SpendLimitUpdated } else { EventType::SpendLimitDeleted };
            let event = AuditEvent { before, after, ..AuditEvent::new(event_type, &by, ORGANIZATION) };
            store::accounts::update_organization_spend_limits(&this.store, &limits, &event).await?;
            this.organization_limits.set(limits);
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
