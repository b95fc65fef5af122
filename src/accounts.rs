//! Projects, their service accounts and keys, and the admin keys: answered from memory, written through to the store.
//!
//! Each change is saved first, with its row in the audit log, and shown second, as a new snapshot, so it holds from the next
//! request on and survives a restart. Proving who calls takes no lock and no database.

mod admin_keys;
mod keys;
mod projects;
mod service_accounts;
mod terms;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard};

pub use self::{
    admin_keys::{AdminKeyError, AdminKeys, PlainAdminKey},
    keys::KeyUpdate,
};
use crate::{
    domain::{
        ids::{KeyId, ProjectId, ServiceAccountId},
        keys::{ApiKey, Caller, KeyHash, KeyTerms, LastUsed, Pepper, PlainKey, redact},
        projects::{Project, ProjectTerms, Role, ServiceAccount, TierId},
        spend::OrganizationLimits,
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
    organization_limits: Arc<OrganizationLimits>,
    /// One change at a time: each starts from the snapshot that the one before it left.
    changing: Mutex<()>,
    /// Compared with when the presented id is nobody's, so that the time taken does not tell which ids exist.
    decoy: Arc<ApiKey>,
    /// Hashed in place of a text that cannot be a key.
    decoy_text: PlainKey,
}

#[derive(Clone, Default)]
struct Directory {
    projects: HashMap<ProjectId, Arc<Project>>,
    service_accounts: HashMap<ServiceAccountId, Arc<ServiceAccount>>,
    keys: HashMap<KeyId, Arc<ApiKey>>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    #[error("no such project: {0}")]
    NoSuchProject(ProjectId),
    #[error("the project {0} is archived")]
    ProjectArchived(ProjectId),
    #[error("no such service account: {0}")]
    NoSuchServiceAccount(ServiceAccountId),
    #[error("no such key: {0}")]
    NoSuchKey(KeyId),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the change stopped half-way: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}

impl Accounts {
    pub async fn load(store: Arc<Store>, pepper: Pepper) -> Result<Arc<Self>, StoreError> {
        let saved = store::accounts::load(&store).await?;
        let directory = Directory {
            projects: saved.projects,
            service_accounts: saved.service_accounts,
            keys: saved.keys.into_iter().map(|key| (key.id.clone(), Arc::new(key))).collect(),
        };
        let organization_limits = Arc::new(OrganizationLimits::new(saved.organization_spend_limits));
        let (current, changing) = (ArcSwap::from_pointee(directory), Mutex::new(()));
        let decoy = Arc::new(decoy());
        let decoy_text = PlainKey::renew(&decoy.id, &mut random);
        Ok(Arc::new(Self { store, pepper, current, organization_limits, changing, decoy, decoy_text }))
    }

    /// Who presents this credential. Every refusal costs the same hash, look-up and comparisons, whether the text can be a
    /// key of ours or not, and all are told alike.
    pub fn authenticate(&self, credential: &str, now: UnixNanos) -> Result<Caller, ApiError> {
        let parsed = PlainKey::parse(credential);
        let (id, presented) = parsed.as_ref().map_or((&self.decoy.id, &self.decoy_text), |(id, plain)| (id, plain));
        let presented = presented.hash(&self.pepper);
        let directory = self.current.load();
        let caller = directory.keys.get(id).unwrap_or(&self.decoy).authenticate(&presented, now);
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

    pub fn service_account(&self, id: &ServiceAccountId) -> Option<Arc<ServiceAccount>> {
        self.current.load().service_accounts.get(id).cloned()
    }

    /// Oldest first, deleted ones among them.
    pub fn service_accounts_of(&self, project: &ProjectId) -> Vec<Arc<ServiceAccount>> {
        let directory = self.current.load();
        let of_project = directory.service_accounts.values().filter(|account| account.project_id == *project);
        let mut accounts: Vec<_> = of_project.cloned().collect();
        accounts.sort_unstable_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        accounts
    }

    pub fn key(&self, id: &KeyId) -> Option<Arc<ApiKey>> {
        self.current.load().keys.get(id).cloned()
    }

    /// Those that are not revoked, in no order.
    pub fn keys_with_budgets(&self) -> Vec<Arc<ApiKey>> {
        let directory = self.current.load();
        let is_one = |key: &&Arc<ApiKey>| key.revoked_at.is_none() && key.terms.budget.is_some();
        directory.keys.values().filter(is_one).cloned().collect()
    }

    /// Oldest first, revoked ones among them.
    pub fn keys_of(&self, project: &ProjectId) -> Vec<Arc<ApiKey>> {
        let directory = self.current.load();
        let mut keys: Vec<_> = directory.keys.values().filter(|key| key.project.id == *project).cloned().collect();
        keys.sort_unstable_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        keys
    }

    /// When each key was last used, in Unix seconds. Keys that never were are left out.
    pub fn last_used(&self) -> Vec<(String, u64)> {
        let directory = self.current.load();
        let used = |key: &Arc<ApiKey>| Some((key.id.to_string(), key.last_used.seconds()?));
        directory.keys.values().filter_map(used).collect()
    }

    /// The project, if it can be changed.
    fn open_project(&self, id: &ProjectId) -> Result<Arc<Project>, AccountsError> {
        match self.project(id) {
            Some(project) if project.archived_at.is_none() => Ok(project),
            Some(_) => Err(AccountsError::ProjectArchived(id.clone())),
            None => Err(AccountsError::NoSuchProject(id.clone())),
        }
    }

    /// Requests that are being proven go on with the old snapshot; the next one sees the new. Whoever has the turn may
    /// do this, so that no change is lost to another.
    fn show<T>(&self, _turn: &MutexGuard<'_, ()>, change: impl FnOnce(&mut Directory) -> T) {
        let mut directory = Directory::clone(&self.current.load());
        change(&mut directory);
        self.current.store(Arc::new(directory));
    }
}

impl Directory {
    fn put_key(&mut self, key: &Arc<ApiKey>) {
        self.keys.insert(key.id.clone(), Arc::clone(key));
    }

    /// The project as it is now, also behind its keys.
    fn put_project(&mut self, project: &Arc<Project>) {
        for key in self.keys.values_mut().filter(|key| key.project.id == project.id) {
            *key = Arc::new(ApiKey { project: Arc::clone(project), ..ApiKey::clone(key) });
        }
        self.projects.insert(project.id.clone(), Arc::clone(project));
    }

    /// The service account as it is now, also behind its keys.
    fn put_service_account(&mut self, account: &Arc<ServiceAccount>) {
        for key in self.keys.values_mut().filter(|key| key.service_account.id == account.id) {
            *key = Arc::new(ApiKey { service_account: Arc::clone(account), ..ApiKey::clone(key) });
        }
        self.service_accounts.insert(account.id.clone(), Arc::clone(account));
    }
}

/// Runs a change in a task of its own: a client that leaves drops its handler, and a change dropped between the
/// database and the memory would hold only after a restart.
async fn to_the_end<T: Send + 'static, E: From<tokio::task::JoinError> + Send + 'static>(
    change: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    tokio::spawn(change).await?
}

/// A key whose text nobody has, and revoked besides.
fn decoy() -> ApiKey {
    let mut hash = [0; 32];
    random(&mut hash);
    let project = Project {
        id: ProjectId::generate(&mut random),
        name: String::new(),
        tier: TierId::from(""),
        automatic_tier: false,
        terms: ProjectTerms::default(),
        created_at: UnixNanos::default(),
        archived_at: None,
    };
    let service_account = ServiceAccount {
        id: ServiceAccountId::generate(&mut random),
        project_id: project.id.clone(),
        name: String::new(),
        role: Role::None,
        created_at: UnixNanos::default(),
        deleted_at: None,
    };
    ApiKey {
        id: KeyId::generate(&mut random),
        service_account: Arc::new(service_account),
        project: Arc::new(project),
        name: String::new(),
        hash: KeyHash::from_bytes(hash),
        previous: None,
        redacted_value: String::new(),
        terms: KeyTerms::default(),
        created_at: UnixNanos::default(),
        revoked_at: Some(UnixNanos::default()),
        last_used: LastUsed::default(),
    }
}

#[cfg(test)]
mod tests;
