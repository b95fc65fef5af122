//! Spend limits and the tiers that projects earn count adjustments of the ledger too. Another process writes them (`tollgate reprice`), so they are looked for.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        catalog::Catalog,
        spend::{Interval, Month, OrganizationLimit, Spending},
        time::UnixNanos,
    },
    proxy::promotions::Promotions,
    store::{
        Store, StoreError,
        spend::{adjusted_after, last_adjustment, spent, spent_by_day, spent_by_key},
    },
};

const PERIOD: Duration = Duration::from_secs(2);

pub(super) struct Adjustments {
    store: Arc<Store>,
    spending: Arc<Spending>,
    promotions: Option<Arc<Promotions>>,
    /// The number of the last one that is counted.
    counted: i64,
}

impl Adjustments {
    /// What the ledger says was spent, with the adjustments so far. `promoting` in the tiers of a catalog, or not at all.
    pub(super) async fn restored(
        store: &Arc<Store>,
        limit: &Arc<OrganizationLimit>,
        promoting: Option<&Arc<Catalog>>,
        now: UnixNanos,
    ) -> Result<Self, StoreError> {
        let mut counted = last_adjustment(store).await?;
        loop {
            let mut amounts = Vec::new();
            for month in Month::of(now).with_neighbours() {
                let spent = spent(store, month).await?.into_iter();
                amounts.extend(spent.map(|(project, amount)| (month, project, amount)));
            }
            let promotions = match promoting {
                Some(catalog) => Some(Promotions::restored(Arc::clone(catalog), spent_by_day(store).await?)),
                None => None,
            };
            let spending = Spending::restored(Arc::clone(limit), amounts);
            restore_keys(&spending, store, now).await?;
            let last = last_adjustment(store).await?;
            if last == counted {
                let spending = Arc::new(spending);
                return Ok(Self { store: Arc::clone(store), spending, promotions: promotions.map(Arc::new), counted });
            }
            // Some were written meanwhile, and nobody can say whether the sums hold them.
            counted = last;
        }
    }

    pub(super) const fn spending(&self) -> &Arc<Spending> {
        &self.spending
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
                self.spending.add(&adjustment.project, adjustment.amount, adjustment.settled_at);
                self.spending.adjust_key(&adjustment.key, adjustment.amount, adjustment.settled_at);
                if let Some(promotions) = &self.promotions {
                    promotions.adjusted(&adjustment.project, adjustment.amount, adjustment.settled_at);
                }
                self.counted = adjustment.number;
            }
        }
    }
}

async fn restore_keys(spending: &Spending, store: &Store, now: UnixNanos) -> Result<(), StoreError> {
    for interval in Interval::ALL {
        for range in interval.near(now) {
            for (key, amount) in spent_by_key(store, range).await? {
                spending.restore_key(interval, range, &key, amount);
            }
        }
    }
    Ok(())
}
