//! Changes to projects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Accounts, AccountsError, to_the_end};
use crate::{
    domain::{
        audit::{AuditEvent, Audited, By, EventType},
        catalog::Catalog,
        ids::ProjectId,
        projects::{Project, ProjectTerms, TierId},
        standing::Standing,
    },
    secrets::random,
    store,
};

impl Accounts {
    /// A project that may move to a higher tier by itself.
    pub async fn create_project(
        self: &Arc<Self>,
        name: &str,
        tier: TierId,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        self.create_project_with(name, tier, true, by).await
    }

    /// The tier is the caller's to check: tiers are in the catalog.
    pub async fn create_project_with(
        self: &Arc<Self>,
        name: &str,
        tier: TierId,
        automatic_tier: bool,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        let id = ProjectId::generate(&mut random);
        let (name, terms) = (name.to_owned(), ProjectTerms::default());
        let project = Project { id, name, tier, automatic_tier, terms, created_at: by.at, archived_at: None };
        let project = Arc::new(project);
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

    /// Another name, another tier, whether it changes by itself; what is `None` stays, but a project that is put into a lower tier
    /// no longer moves up by itself: what it has spent would undo that at once. The tier is the caller's to check.
    pub async fn modify_project(
        self: &Arc<Self>,
        id: &ProjectId,
        name: Option<String>,
        tier: Option<TierId>,
        automatic_tier: Option<bool>,
        catalog: &Arc<Catalog>,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        let catalog = Arc::clone(catalog);
        self.change_project(id, EventType::ProjectUpdated, by, None, move |project| {
            project.name = name.unwrap_or_else(|| project.name.clone());
            let tier = tier.unwrap_or_else(|| project.tier.clone());
            let goes_down = catalog.is_below(&tier, &project.tier);
            project.automatic_tier = automatic_tier.unwrap_or(project.automatic_tier && !goes_down);
            project.tier = tier;
        })
        .await
    }

    /// To the tier that a project has earned by its `standing`, if it is still the one that was looked at: an administrator may
    /// have put it elsewhere meanwhile, and is right: then it is `None`.
    pub async fn promote_project(
        self: &Arc<Self>,
        seen: &Project,
        tier: TierId,
        standing: &Standing,
        by: &By,
    ) -> Result<Option<Arc<Project>>, AccountsError> {
        let qualified_by = json!({
            "spent_dollars": standing.spent.to_string(),
            "days_since_first_spend": standing.days_since_first_spend(by.at),
        });
        let (from, to) = (seen.tier.clone(), tier.clone());
        let change = move |project: &mut Project| {
            if project.automatic_tier && project.tier == from {
                project.tier = to;
            }
        };
        let project = self.change_project(&seen.id, EventType::ProjectUpdated, by, Some(qualified_by), change).await?;
        Ok((project.tier == tier).then_some(project))
    }

    /// For good: its keys are refused from the next request on, and it can no longer be changed.
    pub async fn archive_project(self: &Arc<Self>, id: &ProjectId, by: &By) -> Result<Arc<Project>, AccountsError> {
        let at = by.at;
        self.change_project(id, EventType::ProjectArchived, by, None, move |project| project.archived_at = Some(at))
            .await
    }

    /// A change that changes nothing is none, and leaves no row in the audit log. `qualified_by` are the figures behind a change
    /// that nobody asked for.
    async fn change_project(
        self: &Arc<Self>,
        id: &ProjectId,
        event_type: EventType,
        by: &By,
        qualified_by: Option<Value>,
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
            let mut facts = after.audited();
            if let (Some(facts), Some(figures)) = (facts.as_object_mut(), qualified_by) {
                facts.insert("qualified_by".to_owned(), figures);
            }
            let event = AuditEvent::new(event_type, &by, id.as_str()).of(&after).before(&*before).after(&facts);
            store::accounts::update_project(&this.store, &after, &event).await?;
            let after = Arc::new(after);
            this.show(&turn, |directory| directory.put_project(&after));
            Ok(after)
        })
        .await
    }
}
