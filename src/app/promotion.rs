//! Moves projects to the tier that they have earned: at the start, soon after the settlement that earned it, and when a new day
//! has. Never down: an administrator's word is needed for that.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::App;
use crate::{
    accounts::{Accounts, AccountsError},
    clock::Clock,
    domain::{audit::By, catalog::Catalog, ids::ProjectId},
    proxy::promotions::Promotions,
};

/// After a change that the database did not take.
const PAUSE: Duration = Duration::from_secs(2);
/// How often the date is looked at. A timer to midnight would be late after the machine has slept.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Promoter {
    accounts: Arc<Accounts>,
    catalog: Arc<Catalog>,
    promotions: Arc<Promotions>,
    clock: Clock,
}

impl Promoter {
    /// `None` when tiers change only by administrators.
    pub(super) fn of(app: &App) -> Option<Self> {
        let promotions = Arc::clone(app.proxy.recorder.promotions.as_ref()?);
        let (accounts, catalog) = (Arc::clone(&app.accounts), Arc::clone(&app.catalog));
        Some(Self { accounts, catalog, promotions, clock: app.clock.clone() })
    }

    pub(super) async fn run(self, stop: CancellationToken) {
        let mut day = None;
        while let Some(waiting) = stop.run_until_cancelled(self.next(&mut day)).await {
            let mut is_failing = false;
            for project in waiting {
                if let Err(error) = self.consider(&project).await {
                    tracing::warn!(%project, %error, "a project has not got the tier that it has earned; it is tried again");
                    self.promotions.put(&project);
                    is_failing = true;
                }
            }
            if is_failing && timeout_at(Instant::now() + PAUSE, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// Waits until there is somebody to look at. On a `day` that is not the last one's that is everybody: days count for a tier, and
    /// those that send nothing leave no word.
    async fn next(&self, day: &mut Option<u64>) -> BTreeSet<ProjectId> {
        loop {
            let today = self.clock.now().day();
            if day.replace(today) != Some(today) {
                return self.accounts.projects().iter().map(|project| project.id.clone()).collect();
            }
            tokio::select! {
                waiting = self.promotions.take() => return waiting,
                () = sleep(TICK) => {}
            }
        }
    }

    async fn consider(&self, id: &ProjectId) -> Result<(), AccountsError> {
        let Some(project) = self.accounts.project(id) else { return Ok(()) };
        if !project.automatic_tier || project.archived_at.is_some() {
            return Ok(());
        }
        let (standing, now) = (self.promotions.standing(id), self.clock.now());
        let Some(tier) = self.catalog.earned(&project.tier, &standing, now) else { return Ok(()) };
        let promoted = self.accounts.promote_project(&project, tier.id.clone(), &standing, &By::gateway(now)).await;
        match promoted {
            Ok(Some(promoted)) => {
                let (from, to) = (project.tier.as_str(), promoted.tier.as_str());
                tracing::info!(project = %id, from, to, spent_dollars = %standing.spent, "a project has earned a higher tier");
            }
            // Archived a moment ago, or an administrator was faster.
            Ok(None) | Err(AccountsError::ProjectArchived(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
