//! Projects and their keys: answered from memory, written through to the store.
//!
//! Each change is saved first and shown second, as a new snapshot, so it holds from the next request on and survives a
//! restart. Proving who calls takes no lock and no database.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    domain::{
        audit::{AuditEvent, By, EventType},
        ids::{KeyId, ProjectId, ServiceAccountId},
        keys::{ApiKey, Caller, KeyHash, Pepper, PlainKey, redact},
        limits::Limits,
        projects::{Project, ServiceAccount, TierId},
        time::UnixNanos,
    },
    openai::error::ApiError,
    secrets::random,
    store::{self, Store, StoreError},
};

pub struct Accounts {
    store: Arc<Store>,
    pepper: Pepper,
    current: ArcSwap<Directory>,
    /// One change at a time: each starts from the snapshot that the one before it left.
    changing: Mutex<()>,
    /// Compared with when the presented id is nobody's, so that the time taken does not tell which ids exist.
    decoy: Arc<ApiKey>,
}

#[derive(Clone, Default)]
struct Directory {
    projects: HashMap<ProjectId, Arc<Project>>,
    keys: HashMap<KeyId, Arc<ApiKey>>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    #[error("no such project: {0}")]
    NoSuchProject(ProjectId),
    #[error("the project {0} is archived")]
    ProjectArchived(ProjectId),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the change stopped half-way: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}

impl Accounts {
    pub async fn load(store: Arc<Store>, pepper: Pepper) -> Result<Arc<Self>, StoreError> {
        let saved = store::accounts::load(&store).await?;
        let directory = Directory {
            projects: saved.projects.into_iter().map(|project| (project.id.clone(), project)).collect(),
            keys: saved.keys.into_iter().map(|key| (key.id.clone(), Arc::new(key))).collect(),
        };
        let (current, decoy) = (ArcSwap::from_pointee(directory), Arc::new(decoy()));
        Ok(Arc::new(Self { store, pepper, current, changing: Mutex::new(()), decoy }))
    }

    /// Who presents this credential. What cannot be a key of ours is refused by its checksum; every other reason costs
    /// the same hash and comparison, and all are told alike.
    pub fn authenticate(&self, credential: &str, now: UnixNanos) -> Result<Caller, ApiError> {
        let caller = PlainKey::parse(credential).and_then(|(id, presented)| {
            let presented = presented.hash(&self.pepper);
            let directory = self.current.load();
            directory.keys.get(&id).unwrap_or(&self.decoy).authenticate(&presented, now)
        });
        caller.ok_or_else(|| ApiError::wrong_key(&redact(credential)))
    }

    pub fn project(&self, id: &ProjectId) -> Option<Arc<Project>> {
        self.current.load().projects.get(id).cloned()
    }

    /// Oldest first, archived ones among them.
    pub fn projects(&self) -> Vec<Arc<Project>> {
        let mut projects: Vec<_> = self.current.load().projects.values().cloned().collect();
        projects.sort_unstable_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        projects
    }

    pub fn key(&self, id: &KeyId) -> Option<Arc<ApiKey>> {
        self.current.load().keys.get(id).cloned()
    }

    /// Oldest first, revoked ones among them.
    pub fn keys_of(&self, project: &ProjectId) -> Vec<Arc<ApiKey>> {
        let directory = self.current.load();
        let mut keys: Vec<_> = directory.keys.values().filter(|key| key.project.id == *project).cloned().collect();
        keys.sort_unstable_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        keys
    }

    /// The tier is the caller's to check: tiers are in the catalog.
    pub async fn create_project(
        self: &Arc<Self>,
        name: &str,
        tier: TierId,
        by: &By,
    ) -> Result<Arc<Project>, AccountsError> {
        let id = ProjectId::generate(&mut random);
        let project = Arc::new(Project { id, name: name.to_owned(), tier, created_at: by.at, archived_at: None });
        let event = AuditEvent::new(EventType::ProjectCreated, by, project.id.as_str()).of(&project).after(&*project);
        let this = Arc::clone(self);
        to_the_end(async move {
            let turn = this.changing.lock().await;
            store::accounts::insert_project(&this.store, &project, &event).await?;
            this.show(&turn, |directory| directory.projects.insert(project.id.clone(), Arc::clone(&project)));
            Ok(project)
        })
        .await
    }

    /// A service account with the one key that it calls with. The plain key is nowhere else: show it, or it is lost.
    pub async fn create_service_account(
        self: &Arc<Self>,
        project_id: &ProjectId,
        name: &str,
        limits: Limits,
        expires_at: Option<UnixNanos>,
        by: &By,
    ) -> Result<(ServiceAccount, Arc<ApiKey>, PlainKey), AccountsError> {
        let (this, project_id, name, by) = (Arc::clone(self), project_id.clone(), name.to_owned(), by.clone());
        to_the_end(async move {
            let turn = this.changing.lock().await;
            let project = match this.project(&project_id) {
                Some(project) if project.archived_at.is_none() => project,
                Some(_) => return Err(AccountsError::ProjectArchived(project_id)),
                None => return Err(AccountsError::NoSuchProject(project_id)),
            };
            let (id, plain) = PlainKey::generate(&mut random);
            let service_account_id = ServiceAccountId::generate(&mut random);
            let account = ServiceAccount { id: service_account_id.clone(), project_id, name, created_at: by.at };
            let key = ApiKey {
                id,
                service_account_id,
                project,
                name: account.name.clone(),
                hash: plain.hash(&this.pepper),
                redacted_value: plain.redacted(),
                limits,
                created_at: by.at,
                expires_at,
                revoked_at: None,
            };
            let event = |event_type, id| AuditEvent::new(event_type, &by, id).of(&key.project);
            let account_event = event(EventType::ServiceAccountCreated, account.id.as_str()).after(&account);
            let key_event = event(EventType::ApiKeyCreated, key.id.as_str()).after(&key);
            let (audited_account, audited_key) = ((&account, &account_event), (&key, &key_event));
            store::accounts::insert_service_account(&this.store, audited_account, audited_key).await?;
            let key = Arc::new(key);
            this.show(&turn, |directory| directory.keys.insert(key.id.clone(), Arc::clone(&key)));
            Ok((account, key, plain))
        })
        .await
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
            let in_force = |key: &Arc<ApiKey>| key.project.id == project_id && key.revoked_at.is_none();
            let Some(key) = this.key(&key_id).filter(in_force) else { return Ok(false) };
            let event = AuditEvent::new(EventType::ApiKeyDeleted, &by, key_id.as_str()).of(&key.project).before(&*key);
            store::accounts::revoke_key(&this.store, &key_id, &event).await?;
            let revoked = Arc::new(ApiKey { revoked_at: Some(by.at), ..(*key).clone() });
            this.show(&turn, |directory| directory.keys.insert(key_id.clone(), revoked));
            Ok(true)
        })
        .await
    }

    /// Requests that are being proven go on with the old snapshot; the next one sees the new. Whoever has the turn may
    /// do this, so that no change is lost to another.
    fn show<T>(&self, _turn: &MutexGuard<'_, ()>, change: impl FnOnce(&mut Directory) -> T) {
        let mut directory = Directory::clone(&self.current.load());
        change(&mut directory);
        self.current.store(Arc::new(directory));
    }
}

/// Runs a change in a task of its own: a client that leaves drops its handler, and a change dropped between the
/// database and the memory would hold only after a restart.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, AccountsError>> + Send + 'static,
) -> Result<T, AccountsError> {
    tokio::spawn(change).await?
}

/// A key whose text nobody has, and revoked besides.
fn decoy() -> ApiKey {
    let mut hash = [0; 32];
    random(&mut hash);
    let project = Project {
        id: ProjectId::generate(&mut random),
        name: String::new(),
        tier: TierId::from(TierId::DEFAULT),
        created_at: UnixNanos::default(),
        archived_at: None,
    };
    ApiKey {
        id: KeyId::generate(&mut random),
        service_account_id: ServiceAccountId::generate(&mut random),
        project: Arc::new(project),
        name: String::new(),
        hash: KeyHash::from_bytes(hash),
        redacted_value: String::new(),
        limits: Limits::default(),
        created_at: UnixNanos::default(),
        expires_at: None,
        revoked_at: Some(UnixNanos::default()),
    }
}

#[cfg(test)]
mod tests;
