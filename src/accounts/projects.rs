//! Changes to projects.

use std::sync::Arc;

use super::{Accounts, AccountsError, to_the_end};
use crate::{
    domain::{
        audit::{AuditEvent, By, EventType},
        ids::ProjectId,
        projects::{Project, ProjectTerms, TierId},
    },
    secrets::random,
    store,
};

impl Accounts {
    /// The tier is the caller's to check: tiers are in the catalog.
    pub async fn create_project(
        self: &Arc<Self>,
        name: &str,
        tier: TierId,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        let id = ProjectId::generate(&mut random);
        let (name, terms) = (name.to_owned(), ProjectTerms::default());
        let project = Arc::new(Project { id, name, tier, terms, created_at: by.at, archived_at: None });
        let event = AuditEvent::new(EventType::ProjectCreated, by, project.id.as_str()).of(&project).after(&*project);
        let this = Arc::clone(self);
        to_the_end(async move {
            let turn = this.changing.lock().await;
            store::accounts::insert_project(&this.store, &project, &event).await?;
            this.show(&turn, |directory| directory.put_project(&project));
            Ok(project)
        })
        .await
    }

    /// Another name, another tier; what is `None` stays. The tier is the caller's to check.
    pub async fn modify_project(
        self: &Arc<Self>,
        id: &ProjectId,
        name: Option<String>,
        tier: Option<TierId>,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        self.change_project(id, EventType::ProjectUpdated, by, |project| {
            project.name = name.unwrap_or_else(|| project.name.clone());
            project.tier = tier.unwrap_or_else(|| project.tier.clone());
        })
        .await
    }

    /// For good: its keys are refused from the next request on, and it can no longer be changed.
    pub async fn archive_project(self: &Arc<Self>, id: &ProjectId, by: &By) -> Result<Arc<Project>, AccountsError> {
        let at = by.at;
        self.change_project(id, EventType::ProjectArchived, by, move |project| project.archived_at = Some(at)).await
    }

    /// A change that changes nothing is none, and leaves no row in the audit log.
    async fn change_project(
        self: &Arc<Self>,
        id: &ProjectId,
        event_type: EventType,
        by: &By,
        change: impl FnOnce(&mut Project) + Send + 'static,
    ) -> Result<Arc<Project>, AccountsError> {
        let (this, id, by) = (Arc::clone(self), id.clone(), by.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let before = this.open_project(&id)?;
            let mut after = Project::clone(&before);
            change(&mut after);
            if after == *before {
                return Ok(before);
            }
            let event = AuditEvent::new(event_type, &by, id.as_str()).of(&after).before(&*before).after(&after);
            store::accounts::update_project(&this.store, &after, &event).await?;
            let after = Arc::new(after);
            this.show(&turn, |directory| directory.put_project(&after));
            Ok(after)
        })
        .await
    }
}
