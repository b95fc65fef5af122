//! Writes down, once a minute, when each key was last used. Between two writes it is known in memory alone.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::{Accounts, AdminKeys},
    store::{self, Store},
};

const PERIOD: Duration = Duration::from_mins(1);
/// Uses per transaction, so that the ledger's writer never waits long.
const AT_ONCE: usize = 1_000;

pub(super) struct LastUses {
    store: Arc<Store>,
    accounts: Arc<Accounts>,
    admin_keys: Arc<AdminKeys>,
    /// By key id, in Unix seconds.
    written: HashMap<String, u64>,
}

impl LastUses {
    pub(super) fn new(store: Arc<Store>, accounts: Arc<Accounts>, admin_keys: Arc<AdminKeys>) -> Self {
        let mut this = Self { store, accounts, admin_keys, written: HashMap::new() };
        // What has just been read is written.
        this.written.extend(this.known());
        this
    }

    /// Until it is told to stop, and then once more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let stopping = timeout_at(Instant::now() + PERIOD, stop.cancelled()).await.is_ok();
            if let Err(error) = self.write().await {
                tracing::warn!(%error, "when keys were last used could not be written; it is tried again");
            }
            if stopping {
                return;
            }
        }
    }

    async fn write(&mut self) -> Result<(), store::StoreError> {
        let mut changed = self.known();
        changed.retain(|(id, seconds)| self.written.get(id) != Some(seconds));
        for uses in changed.chunks(AT_ONCE) {
            store::last_used::save(&self.store, uses).await?;
            self.written.extend(uses.iter().cloned());
        }
        Ok(())
    }

    fn known(&self) -> Vec<(String, u64)> {
        let mut known = self.accounts.last_used();
        known.extend(self.admin_keys.last_used());
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        audit::By,
        keys::{KeyTerms, Pepper},
        time::UnixNanos,
    };

    const ADMIN_KEY: &str = "an admin key that a person has chosen";

    async fn start(store: &Arc<Store>) -> (Arc<Accounts>, Arc<AdminKeys>) {
        let pepper = Pepper::from_bytes([7; 32]);
        let admin_keys = AdminKeys::load(Some(ADMIN_KEY), pepper.clone(), Arc::clone(store), UnixNanos(1)).await;
        (Accounts::load(Arc::clone(store), pepper).await.unwrap(), admin_keys.unwrap().0)
    }

    #[tokio::test]
    async fn the_last_use_of_every_key_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&directory.path().join("tollgate.db")).await.unwrap());
        let (accounts, admin_keys) = start(&store).await;
        let by = By::gateway(UnixNanos::from_seconds(5));
        let project = accounts.create_project("a", "tier1".into(), &by).await.unwrap();
        let create = || accounts.create_service_account(&project.id, "a", KeyTerms::default(), &by);
        let ((_, used, plain), (_, unused, _)) = (create().await.unwrap(), create().await.unwrap());
        let uses = LastUses::new(Arc::clone(&store), Arc::clone(&accounts), Arc::clone(&admin_keys));
        accounts.authenticate(plain.reveal(), UnixNanos::from_seconds(77)).unwrap();
        let admin = admin_keys.authenticate(ADMIN_KEY, UnixNanos::from_seconds(78)).unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        uses.run(stop).await;
        let (accounts, admin_keys) = start(&store).await;
        assert_eq!(accounts.key(&used.id).unwrap().last_used.seconds(), Some(77));
        assert_eq!(accounts.key(&unused.id).unwrap().last_used.seconds(), None);
        assert_eq!(admin_keys.find(&admin).unwrap().last_used.seconds(), Some(78));
    }

    #[tokio::test]
    async fn a_use_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&directory.path().join("tollgate.db")).await.unwrap());
        let (accounts, admin_keys) = start(&store).await;
        let mut uses = LastUses::new(Arc::clone(&store), accounts, Arc::clone(&admin_keys));
        let id = admin_keys.authenticate(ADMIN_KEY, UnixNanos::from_seconds(78)).unwrap();
        uses.write().await.unwrap();
        assert_eq!(store::last_used::of(&store, id.as_str()).await.unwrap(), Some(78));
        store.writer().close().await;
        uses.write().await.unwrap();
        admin_keys.authenticate(ADMIN_KEY, UnixNanos::from_seconds(79)).unwrap();
        assert!(uses.write().await.is_err());
    }
}
