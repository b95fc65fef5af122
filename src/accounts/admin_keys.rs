//! The keys that open the admin side: the one of the settings, and those that were made here. All of them work; which there
//! are, the list shows.

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::to_the_end;
use crate::{
    domain::{
        admin_keys::AdminKey,
        audit::{AuditEvent, By, EventType},
        ids::{AdminKeyId, random_base62},
        keys::{KeyHash, LastUsed, MAX_CREDENTIAL_LENGTH, Pepper, redact},
        time::UnixNanos,
    },
    secrets::{SecretsError, random},
    store::{self, Store, StoreError},
};

const PREFIX: &str = "sk-admin-";
const RANDOM_CHARACTERS: usize = 48;

pub struct AdminKeys {
    store: Arc<Store>,
    pepper: Pepper,
    /// Oldest first, expired ones among them.
    current: ArcSwap<Vec<Arc<AdminKey>>>,
    /// One change at a time: each starts from the list that the one before it left.
    changing: Mutex<()>,
    /// Made at this start, and not saved before it has been shown.
    new: std::sync::Mutex<Option<Arc<AdminKey>>>,
}

/// An admin key made just now. Show it: it is nowhere else.
pub struct PlainAdminKey(String);

impl PlainAdminKey {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PlainAdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainAdminKey(hidden)")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    #[error("no such admin key: {0}")]
    NoSuchKey(AdminKeyId),
    #[error("the admin key {0} is configured")]
    Configured(AdminKeyId),
    #[error("without the admin key {0} nobody could administer the gateway")]
    LastUsable(AdminKeyId),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the change stopped half-way: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}

impl AdminKeys {
    /// A configured key works beside those that were made here. When no key is left that works, as at the first start, one
    /// is made and handed out once.
    pub async fn load(
        configured: Option<&str>,
        pepper: Pepper,
        store: Arc<Store>,
        now: UnixNanos,
    ) -> Result<(Arc<Self>, Option<PlainAdminKey>), SecretsError> {
        let mut keys: Vec<_> = store::admin_keys::load(&store).await?.into_iter().map(Arc::new).collect();
        if let Some(text) = configured {
            if text.len() > MAX_CREDENTIAL_LENGTH {
                return Err(SecretsError::AdminKeyTooLong);
            }
            let id = AdminKeyId::configured();
            let last_used = LastUsed::at(store::last_used::of(&store, id.as_str()).await?);
            let name = "from the settings".to_owned();
            let (hash, redacted_value) = (KeyHash::of(text, &pepper), redact(text));
            let (created_at, expires_at) = (now, None);
            keys.push(Arc::new(AdminKey { id, name, hash, redacted_value, created_at, expires_at, last_used }));
        }
        let (mut new, mut made) = (None, None);
        if !keys.iter().any(|key| key.in_force(now)) {
            let (key, plain) = new_key(&pepper, "made at the first start", None, now);
            let key = Arc::new(key);
            keys.push(Arc::clone(&key));
            (new, made) = (Some(key), Some(plain));
        }
        sort(&mut keys);
        let current = ArcSwap::from_pointee(keys);
        let (changing, new) = (Mutex::new(()), std::sync::Mutex::new(new));
        Ok((Arc::new(Self { store, pepper, current, changing, new }), made))
    }

    /// Saves the key that was made at this start, to be called when it has been shown. In that order: a gateway that is
    /// killed in between makes another at its next start. The other way round nobody would ever have seen the only key.
    pub async fn keep_new(&self) -> Result<(), StoreError> {
        let _turn = self.changing.lock().await;
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its holder may have deleted it by now.
        let Some(key) = new.filter(|key| self.find(&key.id).is_some()) else { return Ok(()) };
        store::admin_keys::insert(&self.store, &key, &created(&key, &By::gateway(key.created_at))).await
    }

    /// Which admin key this is. Takes the same time for every credential of one length: none of the comparisons stops
    /// early.
    pub fn authenticate(&self, credential: &str, now: UnixNanos) -> Option<AdminKeyId> {
        if credential.len() > MAX_CREDENTIAL_LENGTH {
            return None;
        }
        let presented = KeyHash::of(credential, &self.pepper);
        let keys = self.current.load();
        let matching = |found, key| if AdminKey::opens(key, &presented, now) { Some(key) } else { found };
        let found: Option<&AdminKey> = keys.iter().map(Arc::as_ref).fold(None, matching);
        found.map(|key| {
            key.last_used.mark(now);
            key.id.clone()
        })
    }

    /// Oldest first, expired ones among them.
    pub fn list(&self) -> Arc<Vec<Arc<AdminKey>>> {
        self.current.load_full()
    }

    pub fn find(&self, id: &AdminKeyId) -> Option<Arc<AdminKey>> {
        self.current.load().iter().find(|key| key.id == *id).cloned()
    }

    /// When each key was last used, in Unix seconds. Keys that never were are left out.
    pub fn last_used(&self) -> Vec<(String, u64)> {
        let keys = self.current.load();
        keys.iter().filter_map(|key| Some((key.id.to_string(), key.last_used.seconds()?))).collect()
    }

    pub async fn create(
        self: &Arc<Self>,
        name: &str,
        expires_at: Option<UnixNanos>,
        by: &By,
    ) -> Result<(Arc<AdminKey>, PlainAdminKey), AdminKeyError> {
        let (this, (key, plain)) = (Arc::clone(self), new_key(&self.pepper, name, expires_at, by.at));
        let event = created(&key, by);
        to_the_end(async move {
            let _turn = this.changing.lock().await;
            store::admin_keys::insert(&this.store, &key, &event).await?;
            let key = Arc::new(key);
            let mut keys = Vec::clone(&this.current.load());
            keys.push(Arc::clone(&key));
            sort(&mut keys);
            this.current.store(Arc::new(keys));
            Ok((key, plain))
        })
        .await
    }

    /// Refused from the next request on. The last key that works stays: without one, nobody could make another.
    pub async fn delete(self: &Arc<Self>, id: &AdminKeyId, by: &By) -> Result<(), AdminKeyError> {
        let (this, id, by) = (Arc::clone(self), id.clone(), by.clone());
        to_the_end(async move {
            let _turn = this.changing.lock().await;
            let mut keys = Vec::clone(&this.current.load());
            let place = keys.iter().position(|key| key.id == id);
            let Some(key) = place.map(|place| keys.remove(place)) else { return Err(AdminKeyError::NoSuchKey(id)) };
            if key.is_configured() {
                return Err(AdminKeyError::Configured(id));
            }
            if !keys.iter().any(|key| key.in_force(by.at)) {
                return Err(AdminKeyError::LastUsable(id));
            }
            let event = AuditEvent::new(EventType::ApiKeyDeleted, &by, id.as_str()).before(&*key);
            store::admin_keys::delete(&this.store, &id, &event).await?;
            this.current.store(Arc::new(keys));
            Ok(())
        })
        .await
    }
}

fn new_key(pepper: &Pepper, name: &str, expires_at: Option<UnixNanos>, now: UnixNanos) -> (AdminKey, PlainAdminKey) {
    let plain = format!("{PREFIX}{}", random_base62(RANDOM_CHARACTERS, &mut random));
    let key = AdminKey {
        id: AdminKeyId::generate(&mut random),
        name: name.to_owned(),
        hash: KeyHash::of(&plain, pepper),
        redacted_value: redact(&plain),
        created_at: now,
        expires_at,
        last_used: LastUsed::default(),
    };
    (key, PlainAdminKey(plain))
}

fn created(key: &AdminKey, by: &By) -> AuditEvent {
    AuditEvent::new(EventType::ApiKeyCreated, by, key.id.as_str()).after(key)
}

fn sort(keys: &mut [Arc<AdminKey>]) {
    keys.sort_unstable_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
}

#[cfg(test)]
mod tests;
