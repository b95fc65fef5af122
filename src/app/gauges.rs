//! How the parts are, for whoever looks at `/health` and `/metrics`.

use std::sync::atomic::Ordering;

use super::App;
use crate::{
    journal::{Cause, Failing},
    metrics::LOG_LINES_DROPPED,
};

/// Which parts fail, and in a word why.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Trouble {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'static str>,
}

impl App {
    /// What the parts that may fail say of themselves.
    pub fn trouble(&self) -> Trouble {
        let cause = |failing: Option<Failing>| failing.map(|failing| failing.cause.name());
        let unreachable = self.proxy.upstream.out_of_service().unreachable;
        Trouble {
            journal: cause(self.journal.state().failing),
            ledger: cause(self.projection.state().failing).or_else(|| self.store.files_trouble().map(Cause::name)),
            upstream: unreachable.then_some("unreachable"),
        }
    }

    /// Sizes that are only read when somebody looks.
    pub fn refresh_gauges(&self) {
        let journal = self.journal.state();
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.log_lines_dropped.inner().store(LOG_LINES_DROPPED.load(Ordering::Relaxed), Ordering::Relaxed);
        self.metrics.journal_bytes.set(whole(journal.bytes));
        self.metrics.waiting_settlements.set(whole(journal.waiting_settlements));
        let ledger = self.projection.state();
        self.metrics.ledger_lag_bytes.set(whole(ledger.lag_bytes));
        let trouble = self.trouble();
        self.metrics.storage_is_failing([("journal", trouble.journal), ("ledger", trouble.ledger)]);
        let failing = self.proxy.upstream.out_of_service();
        self.metrics.failing.unreachable.set(failing.unreachable.into());
        self.metrics.failing.models.set(whole(failing.models as u64));
    }
}
