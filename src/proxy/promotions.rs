//! Who may have earned a higher tier. A settlement, or a refusal by the tier's own limit, finds out from sums in memory and leaves
//! the project's id on a list; whoever takes the list makes the change.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::domain::{
    catalog::Catalog,
    ids::ProjectId,
    money::Total,
    projects::Project,
    standing::{Standing, Standings},
    time::UnixNanos,
};

pub struct Promotions {
    catalog: Arc<Catalog>,
    standings: Standings,
    /// A project is here once, however often it is put here.
    waiting: Mutex<HashSet<ProjectId>>,
    arrived: Notify,
}

impl Promotions {
    /// Goes on from what the ledger says was spent: amounts with the time that they were spent at.
    pub fn restored(catalog: Arc<Catalog>, spent: impl IntoIterator<Item = (UnixNanos, ProjectId, Total)>) -> Self {
        let standings = Standings::default();
        for (at, project, amount) in spent {
            standings.add(&project, amount, at);
        }
        Self { catalog, standings, waiting: Mutex::default(), arrived: Notify::new() }
    }

    pub fn standing(&self, project: &ProjectId) -> Standing {
        self.standings.of(project)
    }

    /// Counts what a request of `project` cost that was settled at `at`.
    pub(super) fn settled(&self, project: &Project, amount: Total, at: UnixNanos) {
        let standing = self.standings.add(&project.id, amount, at);
        self.put_if_earned(project, &standing, at);
    }

    /// What `project` may spend in its tier was spent at `at`: nothing of it is settled any more, and days alone may have earned it
    /// a higher tier.
    pub(super) fn held_by_its_tier(&self, project: &Project, at: UnixNanos) {
        self.put_if_earned(project, &self.standing(&project.id), at);
    }

    fn put_if_earned(&self, project: &Project, standing: &Standing, at: UnixNanos) {
        if project.automatic_tier && self.catalog.earned(&project.tier, standing, at).is_some() {
            self.put(&project.id);
        }
    }

    /// Counts what the cost of a request was corrected by that was settled at `at`.
    pub fn adjusted(&self, project: &ProjectId, amount: Total, at: UnixNanos) {
        self.standings.add(project, amount, at);
        if amount > Total::default() {
            self.put(project);
        }
    }

    /// To be looked at.
    pub fn put(&self, project: &ProjectId) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.contains(project) {
            waiting.insert(project.clone());
            self.arrived.notify_one();
        }
    }

    /// Waits until there is somebody to look at, and takes all of them.
    pub async fn take(&self) -> BTreeSet<ProjectId> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken.into_iter().collect();
            }
            self.arrived.notified().await;
        }
    }
}
