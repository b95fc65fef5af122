//! Spend limits count adjustments of the ledger too. Another process writes them (`tollgate reprice`), so they are looked for.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    domain::spend::{Month, OrganizationLimit, Spending},
    store::{
        Store, StoreError,
        spend::{adjusted_after, spent},
    },
};

const PERIOD: Duration = Duration::from_secs(2);

pub(super) struct Adjustments {
    store: Arc<Store>,
    spending: Arc<Spending>,
    clock: Clock,
    /// The number of the last one that is counted.
    counted: i64,
}

impl Adjustments {
    /// What the ledger says was spent, with the adjustments so far.
    pub(super) async fn restored(
        store: &Arc<Store>,
        limit: &Arc<OrganizationLimit>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let spent = spent(store, Month::of(clock.now()).with_neighbours()).await?;
        let spending = Arc::new(Spending::restored(Arc::clone(limit), spent.amounts));
        Ok(Self { store: Arc::clone(store), spending, clock, counted: spent.last_adjustment })
    }

    pub(super) const fn spending(&self) -> &Arc<Spending> {
        &self.spending
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
                self.spending.adjust(&adjustment.project, adjustment.amount, adjustment.settled_at, self.clock.now());
                self.counted = adjustment.number;
            }
        }
    }
}
