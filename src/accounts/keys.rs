//! Changes to API keys.

use std::sync::Arc;

use super::{Accounts, AccountsError, to_the_end};
use crate::{
    domain::{
        audit::{AuditEvent, By, EventType},
        ids::{KeyId, ProjectId, ServiceAccountId},
        keys::{AllowedModels, ApiKey, KeyTerms, LastUsed, PlainKey, PreviousSecret},
        limits::Limits,
        projects::{Project, ServiceAccount},
        spend::BudgetChange,
        time::UnixNanos,
    },
    secrets::random,
    store,
};

/// What is to be different about a key; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUpdate {
    pub name: Option<String>,
    pub limits: Option<Limits>,
    /// `Some(None)`: every model.
    pub allowed_models: Option<Option<AllowedModels>>,
    /// `Some(None)`: none.
    pub budget: Option<Option<BudgetChange>>,
    /// `Some(None)`: never.
    pub expires_at: Option<Option<UnixNanos>>,
}

impl Accounts {
    /// A further key of a service account. The plain key is nowhere else: show it, or it is lost.
    pub async fn create_key(
        self: &Arc<Self>,
        project_id: &ProjectId,
        account_id: &ServiceAccountId,
        name: &str,
        terms: KeyTerms,
        by: &By,
    ) -> Result<(Arc<ApiKey>, PlainKey), AccountsError> {
        let (this, name, by) = (Arc::clone(self), name.to_owned(), by.clone());
        let (project_id, account_id) = (project_id.clone(), account_id.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let (project, account) = this.open_service_account(&project_id, &account_id)?;
            let (key, plain) = this.new_key(&project, &account, name, terms, &by);
            let event = AuditEvent::new(EventType::ApiKeyCreated, &by, key.id.as_str()).of(&project).after(&key);
            store::accounts::insert_key(&this.store, &key, &event).await?;
            let key = Arc::new(key);
            this.show(&turn, |directory| directory.put_key(&key));
            Ok((key, plain))
        })
        .await
    }

    /// A change that changes nothing leaves no row in the audit log.
    pub async fn modify_key(
        self: &Arc<Self>,
        project_id: &ProjectId,
        key_id: &KeyId,
        update: KeyUpdate,
        by: &By,
    ) -> Result<Arc<ApiKey>, AccountsError> {
        let change = move |key: &mut ApiKey| {
            key.name = update.name.unwrap_or_else(|| key.name.clone());
            key.terms.limits = update.limits.unwrap_or(key.terms.limits);
            key.terms.allowed_models = update.allowed_models.unwrap_or_else(|| key.terms.allowed_models.clone());
            if let Some(change) = update.budget {
                key.terms.budget = change.and_then(|change| change.of(key.terms.budget));
            }
            key.terms.expires_at = update.expires_at.unwrap_or(key.terms.expires_at);
        };
        self.change_key(project_id, key_id, by, change).await
    }

    /// Another secret for the key, which keeps its id, its limits and what it has used of them. The secret before opens it
    /// for `overlap_nanos` more; one from before that, no longer.
    pub async fn rotate_key(
        self: &Arc<Self>,
        project_id: &ProjectId,
        key_id: &KeyId,
        overlap_nanos: u64,
        by: &By,
    ) -> Result<(Arc<ApiKey>, PlainKey), AccountsError> {
        let plain = PlainKey::renew(key_id, &mut random);
        let (hash, redacted_value) = (plain.hash(&self.pepper), plain.redacted());
        let expires_at = by.at.plus_nanos(overlap_nanos);
        let change = move |key: &mut ApiKey| {
            key.previous = (overlap_nanos > 0).then_some(PreviousSecret { hash: key.hash, expires_at });
            key.hash = hash;
            key.redacted_value = redacted_value;
        };
        let key = self.change_key(project_id, key_id, by, change).await?;
        Ok((key, plain))
    }

    /// `false` when the project has no such key in force.
    pub async fn revoke_key(
        self: &Arc<Self>,
        project_id: &ProjectId,
        key_id: &KeyId,
        by: &By,
    ) -> Result<bool, AccountsError> {
        let (this, project_id, key_id, by) = (Arc::clone(self), project_id.clone(), key_id.clone(), by.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let project = this.open_project(&project_id)?;
            let Some(key) = this.key_in_force(&project_id, &key_id) else { return Ok(false) };
            let event = AuditEvent::new(EventType::ApiKeyDeleted, &by, key_id.as_str()).of(&project).before(&*key);
            let revoked = ApiKey { revoked_at: Some(by.at), ..ApiKey::clone(&key) };
            store::accounts::revoke_key(&this.store, &revoked, &event).await?;
            this.show(&turn, |directory| directory.put_key(&Arc::new(revoked)));
            Ok(true)
        })
        .await
    }

    async fn change_key(
        self: &Arc<Self>,
        project_id: &ProjectId,
        key_id: &KeyId,
        by: &By,
        change: impl FnOnce(&mut ApiKey) + Send + 'static,
    ) -> Result<Arc<ApiKey>, AccountsError> {
        let (this, project_id, key_id, by) = (Arc::clone(self), project_id.clone(), key_id.clone(), by.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let project = this.open_project(&project_id)?;
            let before = this.key_in_force(&project_id, &key_id);
            let before = before.ok_or_else(|| AccountsError::NoSuchKey(key_id.clone()))?;
            let mut after = ApiKey::clone(&before);
            change(&mut after);
            if (&after.name, &after.terms, after.hash) == (&before.name, &before.terms, before.hash) {
                return Ok(before);
            }
            let event = AuditEvent::new(EventType::ApiKeyUpdated, &by, key_id.as_str());
            let event = event.of(&project).before(&*before).after(&after);
            store::accounts::update_key(&this.store, &after, &event).await?;
            let after = Arc::new(after);
            this.show(&turn, |directory| directory.put_key(&after));
            Ok(after)
        })
        .await
    }

    fn key_in_force(&self, project_id: &ProjectId, key_id: &KeyId) -> Option<Arc<ApiKey>> {
        self.key(key_id).filter(|key| key.project.id == *project_id && key.revoked_at.is_none())
    }

    pub(super) fn new_key(
        &self,
        project: &Arc<Project>,
        account: &Arc<ServiceAccount>,
        name: String,
        terms: KeyTerms,
        by: &By,
    ) -> (ApiKey, PlainKey) {
        let (id, plain) = PlainKey::generate(&mut random);
        let key = ApiKey {
            id,
            service_account: Arc::clone(account),
            project: Arc::clone(project),
            name,
            hash: plain.hash(&self.pepper),
            previous: None,
            redacted_value: plain.redacted(),
            terms,
            created_at: by.at,
            revoked_at: None,
            last_used: LastUsed::default(),
        };
        (key, plain)
    }
}
