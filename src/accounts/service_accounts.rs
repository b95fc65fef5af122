//! Changes to service accounts.

use std::sync::Arc;

use super::{Accounts, AccountsError, to_the_end};
use crate::{
    domain::{
        audit::{AuditEvent, By, EventType},
        ids::{ProjectId, ServiceAccountId},
        keys::{ApiKey, KeyTerms, PlainKey},
        projects::{Project, Role, ServiceAccount},
    },
    secrets::random,
    store,
};

impl Accounts {
    /// A service account with the key that it calls with. The plain key is nowhere else: show it, or it is lost.
    pub async fn create_service_account(
        self: &Arc<Self>,
        project_id: &ProjectId,
        name: &str,
        terms: KeyTerms,
        by: &By,
    ) -> Result<(Arc<ServiceAccount>, Arc<ApiKey>, PlainKey), AccountsError> {
        let (this, project_id, name, by) = (Arc::clone(self), project_id.clone(), name.to_owned(), by.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let project = this.open_project(&project_id)?;
            let account = Arc::new(new_account(&project, name, Role::Member, &by));
            let (key, plain) = this.new_key(&project, &account, account.name.clone(), terms, &by);
            let event = |event_type, id: &str| AuditEvent::new(event_type, &by, id).of(&project);
            let account_event = event(EventType::ServiceAccountCreated, account.id.as_str()).after(&*account);
            let key_event = event(EventType::ApiKeyCreated, key.id.as_str()).after(&key);
            let with_key = Some((&key, &key_event));
            store::accounts::insert_service_account(&this.store, &account, &account_event, with_key).await?;
            let key = Arc::new(key);
            this.show(&turn, |directory| {
                directory.put_service_account(&account);
                directory.put_key(&key);
            });
            Ok((account, key, plain))
        })
        .await
    }

    /// A service account that has no key, and no role, until it is given them.
    pub async fn create_service_account_only(
        self: &Arc<Self>,
        project_id: &ProjectId,
        name: &str,
        by: &By,
    ) -> Result<Arc<ServiceAccount>, AccountsError> {
        let (this, project_id, name, by) = (Arc::clone(self), project_id.clone(), name.to_owned(), by.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let project = this.open_project(&project_id)?;
            let account = Arc::new(new_account(&project, name, Role::None, &by));
            let event = AuditEvent::new(EventType::ServiceAccountCreated, &by, account.id.as_str());
            let event = event.of(&project).after(&*account);
            store::accounts::insert_service_account(&this.store, &account, &event, None).await?;
            this.show(&turn, |directory| directory.put_service_account(&account));
            Ok(account)
        })
        .await
    }

    /// Another name, another role; what is `None` stays. A change that changes nothing leaves no row in the audit log.
    pub async fn modify_service_account(
        self: &Arc<Self>,
        project_id: &ProjectId,
        id: &ServiceAccountId,
        name: Option<String>,
        role: Option<Role>,
        by: &By,
    ) -> Result<Arc<ServiceAccount>, AccountsError> {
        let (this, project_id, id, by) = (Arc::clone(self), project_id.clone(), id.clone(), by.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let (project, before) = this.open_service_account(&project_id, &id)?;
            let mut after = ServiceAccount::clone(&before);
            after.name = name.unwrap_or(after.name);
            after.role = role.unwrap_or(after.role);
            if after == *before {
                return Ok(before);
            }
            let event = AuditEvent::new(EventType::ServiceAccountUpdated, &by, id.as_str());
            let event = event.of(&project).before(&*before).after(&after);
            store::accounts::update_service_account(&this.store, &after, &event, &[]).await?;
            let after = Arc::new(after);
            this.show(&turn, |directory| directory.put_service_account(&after));
            Ok(after)
        })
        .await
    }

    /// The account goes, and its keys are revoked.
    pub async fn delete_service_account(
        self: &Arc<Self>,
        project_id: &ProjectId,
        id: &ServiceAccountId,
        by: &By,
    ) -> Result<(), AccountsError> {
        let (this, project_id, id, by) = (Arc::clone(self), project_id.clone(), id.clone(), by.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let (project, before) = this.open_service_account(&project_id, &id)?;
            let event = |event_type, id: &str| AuditEvent::new(event_type, &by, id).of(&project);
            let account_event = event(EventType::ServiceAccountDeleted, id.as_str()).before(&*before);
            let account = Arc::new(ServiceAccount { deleted_at: Some(by.at), ..ServiceAccount::clone(&before) });
            let mut revoked = Vec::new();
            for key in this.keys_of(&project_id) {
                if key.service_account.id == id && key.revoked_at.is_none() {
                    let key_event = event(EventType::ApiKeyDeleted, key.id.as_str()).before(&*key);
                    revoked.push((ApiKey { revoked_at: Some(by.at), ..ApiKey::clone(&key) }, key_event));
                }
            }
            store::accounts::update_service_account(&this.store, &account, &account_event, &revoked).await?;
            this.show(&turn, |directory| {
                for (key, _) in revoked {
                    directory.put_key(&Arc::new(key));
                }
                directory.put_service_account(&account);
            });
            Ok(())
        })
        .await
    }

    /// The account and its project, if they can be changed.
    pub(super) fn open_service_account(
        &self,
        project_id: &ProjectId,
        id: &ServiceAccountId,
    ) -> Result<(Arc<Project>, Arc<ServiceAccount>), AccountsError> {
        let project = self.open_project(project_id)?;
        let there = |account: &Arc<ServiceAccount>| account.project_id == *project_id && account.deleted_at.is_none();
        let account = self.service_account(id).filter(there);
        account.map(|account| (project, account)).ok_or_else(|| AccountsError::NoSuchServiceAccount(id.clone()))
    }
}

fn new_account(project: &Project, name: String, role: Role, by: &By) -> ServiceAccount {
    let id = ServiceAccountId::generate(&mut random);
    ServiceAccount { id, project_id: project.id.clone(), name, role, created_at: by.at, deleted_at: None }
}
