//! Spend limits, and the tiers that projects earn, count adjustments of the ledger too. Another process writes them
//! (`tollgate reprice`), so they are looked for.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    domain::{
        catalog::Catalog,
        report::{LATEST_TIME_S, Range},
        spend::{OrganizationLimits, Spending},
        time::UnixNanos,
    },
    proxy::promotions::Promotions,
    store::{
        Store, StoreError,
        spend::{Adjusted, adjusted_after, spent},
    },
};

const PERIOD: Duration = Duration::from_secs(2);

pub(super) struct Adjustments {
    store: Arc<Store>,
    spending: Arc<Spending>,
    promotions: Option<Arc<Promotions>>,
    clock: Clock,
    /// The number of the last one that is counted.
    counted: i64,
    last_settled: Option<UnixNanos>,
}

impl Adjustments {
    /// What the ledger says was spent, with the adjustments so far. `promoting` in the tiers of a catalog, or not at all. `now` is
    /// when this start settled what was interrupted before it.
    pub(super) async fn restored(
        store: &Arc<Store>,
        limits: &Arc<OrganizationLimits>,
        promoting: Option<&Arc<Catalog>>,
        clock: Clock,
        now: UnixNanos,
    ) -> Result<Self, StoreError> {
        // Tiers are earned by all that was ever spent.
        let days = promoting.map(|_| Range { start_s: 0, end_s: LATEST_TIME_S });
        let spent = spent(store, now, days).await?;
        let spending = Arc::new(Spending::restored(Arc::clone(limits), spent.by_project));
        for (interval, range, key, amount) in spent.by_key {
            spending.restore_key(interval, range, &key, amount);
        }
        let promotions = promoting.map(|catalog| Arc::new(Promotions::restored(Arc::clone(catalog), spent.by_day)));
        let (counted, last_settled) = (spent.last_adjustment, spent.last_settled);
        Ok(Self { store: Arc::clone(store), spending, promotions, clock, counted, last_settled })
    }

    pub(super) const fn spending(&self) -> &Arc<Spending> {
        &self.spending
    }

    /// When the last request was settled before this start.
    pub(super) const fn last_settled(&self) -> Option<UnixNanos> {
        self.last_settled
    }

    pub(super) const fn promotions(&self) -> Option<&Arc<Promotions>> {
        self.promotions.as_ref()
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut is_failing = false;
        while timeout_at(Instant::now() + PERIOD, stop.cancelled()).await.is_err() {
            let result = self.count().await;
            if let Err(error) = &result
                && !is_failing
            {
                tracing::warn!(%error, "adjustments of the ledger could not be read for the spend limits; it is tried again");
            }
            is_failing = result.is_err();
        }
    }

    async fn count(&mut self) -> Result<(), StoreError> {
        loop {
            let adjusted = adjusted_after(&self.store, self.counted).await?;
            if adjusted.is_empty() {
                return Ok(());
            }
            for adjustment in adjusted {
                let Adjusted { number, project, key, amount, settled_at } = adjustment;
                let now = self.clock.now();
                self.spending.adjust(&project, amount, settled_at, now);
                self.spending.adjust_key(&key, amount, settled_at, now);
                if let Some(promotions) = &self.promotions {
                    promotions.adjusted(&project, amount, settled_at);
                }
                self.counted = number;
            }
        }
    }
}
