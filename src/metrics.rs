//! Everything that is counted, in one struct; the help texts are what an operator reads at `/metrics`. Each counter is
//! found once, at start: counting is one atomic addition.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::domain::{
    ledger::{Outcome, Settlement},
    limits::{Dimension, Scope},
    spend::{MARKS, Mark},
    usage::{Basis, LineItem},
};

type Count = Counter<u64, AtomicU64>;

/// Log lines that were dropped because nobody took them in time. Logging is one for the process, and knows no app.
pub static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfItem {
    line_item: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMark {
    percent: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLimit {
    limit: &'static str,
    scope: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
    basis: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTrouble {
    part: &'static str,
    cause: &'static str,
}

pub struct Metrics {
    registry: Registry,
    settled: [[Count; 2]; Outcome::ALL.len()],
    tokens: [Count; LineItem::COUNT],
    refused: [[Count; 2]; Dimension::COUNT],
    /// Requests refused with 401 for a wrong or missing key, at any door.
    pub unauthenticated: Count,
    /// Requests refused before any limit was touched: bad JSON, unknown model and so on.
    pub invalid: Count,
    /// Requests refused for a spend limit that was reached.
    pub over_spend_limit: Count,
    /// Soft limits on money that passed a mark, by mark.
    soft_limits_passed: [Count; MARKS.len()],
    /// Requests refused because they could not be recorded.
    pub not_recorded: Count,
    /// Refusals that cannot be explained later: too many at once, or the database did not take them.
    pub refusals_not_kept: Count,
    /// Settled requests with at least one line without a price.
    pub unpriced: Count,
    /// Calls sent to the upstream, retries included.
    pub upstream_calls: Count,
    pub upstream_retries: Count,
    pub failing: Failing,
    /// Webhooks that were accepted; given up after some attempts; and never tried to the end: too many waited, or the gateway
    /// stopped.
    pub webhooks_delivered: Count,
    pub webhooks_failed: Count,
    pub webhooks_dropped: Count,
    /// [`LOG_LINES_DROPPED`], as it was when somebody last looked.
    pub log_lines_dropped: Count,
    /// Entries of the ledger dropped for their age.
    pub entries_dropped: Count,
    /// Connections open on the listeners.
    pub connections: Gauge<i64, AtomicI64>,
    /// Answers read on after their client had left.
    pub drains: Gauge<i64, AtomicI64>,
    pub open_admissions: Gauge<i64, AtomicI64>,
    pub journal_bytes: Gauge<i64, AtomicI64>,
    /// Settlements that wait in memory for the journal's disk.
    pub waiting_settlements: Gauge<i64, AtomicI64>,
    /// 1 while the journal or the ledger cannot be written, by cause.
    storage_failing: Family<OfTrouble, Gauge<i64, AtomicI64>>,
    /// How often the ledger's files were found deleted or replaced, and put back.
    pub ledger_put_back: Counter,
    /// Bytes of journal that the ledger does not hold yet.
    pub ledger_lag_bytes: Gauge<i64, AtomicI64>,
}

/// An upstream that keeps failing.
pub struct Failing {
    /// Calls refused because the upstream, or a model of it, has failed too often in a row.
    pub withheld: Count,
    /// 1 while the upstream cannot be reached and is only probed.
    pub unreachable: Gauge<i64, AtomicI64>,
    /// Models that do not answer and are only probed.
    pub models: Gauge<i64, AtomicI64>,
}

impl Failing {
    fn registered(registry: &mut Registry) -> Self {
        let withheld = "Calls refused with 503: the upstream or the model has failed too often in a row";
        let unreachable = "1 while the upstream cannot be reached and is only probed";
        Self {
            withheld: counter(registry, "upstream_withheld", withheld),
            unreachable: gauge(registry, "upstream_unreachable", unreachable),
            models: gauge(registry, "upstream_models_failing", "Models that do not answer and are only probed"),
        }
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tollgate");
        let settled = settled(&mut registry);
        let by_item = Family::<OfItem, Count>::default();
        registry.register_with_unit(
            "metered",
            "Tokens metered, per line item",
            Unit::Other("tokens".into()),
            by_item.clone(),
        );
        let by_limit = Family::<OfLimit, Count>::default();
        registry.register("requests_refused", "Requests refused with 429, per limit and whose it is", by_limit.clone());
        let by_mark = Family::<OfMark, Count>::default();
        registry.register("soft_limits_passed", "Soft limits on money that passed a mark", by_mark.clone());
        Self {
            settled,
            tokens: LineItem::ALL.map(|item| by_item.get_or_create(&OfItem { line_item: item.name() }).clone()),
            refused: Dimension::ALL.map(|limit| {
                let of = |scope: Scope| OfLimit { limit: limit.name(), scope: scope.name() };
                Scope::ALL.map(|scope| by_limit.get_or_create(&of(scope)).clone())
            }),
            unauthenticated: counter(&mut registry, "requests_unauthenticated", "Requests with a wrong or missing key"),
            invalid: counter(&mut registry, "requests_invalid", "Requests refused before any limit was touched"),
            over_spend_limit: counter(
                &mut registry,
                "requests_over_spend_limit",
                "Requests refused with 429: a spend limit was reached",
            ),
            soft_limits_passed: MARKS.map(|percent| by_mark.get_or_create(&OfMark { percent: percent.into() }).clone()),
            not_recorded: counter(&mut registry, "requests_not_recorded", "Requests refused with 503: not recordable"),
            refusals_not_kept: counter(
                &mut registry,
                "refusals_not_kept",
                "Refusals that cannot be explained: too many at once, or not written",
            ),
            unpriced: counter(&mut registry, "requests_unpriced", "Settled requests with a line that has no price"),
            upstream_calls: counter(&mut registry, "upstream_calls", "Calls sent to the upstream, retries included"),
            upstream_retries: counter(&mut registry, "upstream_retries", "Calls sent again after a failed connect"),
            failing: Failing::registered(&mut registry),
            webhooks_delivered: counter(&mut registry, "webhooks_delivered", "Webhooks that their receiver accepted"),
            webhooks_failed: counter(&mut registry, "webhooks_failed", "Webhooks given up after several attempts"),
            webhooks_dropped: counter(
                &mut registry,
                "webhooks_dropped",
                "Webhooks given up for others: too many waited, or the gateway stopped",
            ),
            log_lines_dropped: counter(&mut registry, "log_lines_dropped", "Log lines that nobody took in time"),
            entries_dropped: counter(&mut registry, "entries_dropped", "Entries of the ledger dropped for their age"),
            connections: gauge(&mut registry, "connections", "Open client connections"),
            drains: gauge(&mut registry, "drains", "Answers read on after their client had left"),
            open_admissions: gauge(&mut registry, "open_admissions", "Requests admitted and not settled yet"),
            journal_bytes: gauge(&mut registry, "journal_bytes", "Size of the journal"),
            waiting_settlements: gauge(
                &mut registry,
                "waiting_settlements",
                "Settlements waiting for the journal's disk",
            ),
            storage_failing: storage_failing(&mut registry),
            ledger_put_back: counter(
                &mut registry,
                "ledger_put_back",
                "Times the ledger's files were deleted or replaced while they were open, and put back",
            ),
            ledger_lag_bytes: gauge(&mut registry, "ledger_lag_bytes", "Journal that the ledger does not hold yet"),
            registry,
        }
    }

    pub fn soft_limits_passed(&self, marks: &[Mark]) {
        for passed in marks.iter().filter(|mark| mark.is_soft()) {
            let counters = MARKS.iter().zip(&self.soft_limits_passed);
            counters.filter(|(mark, _)| **mark == passed.percent).for_each(|(_, counter)| {
                counter.inc();
            });
        }
    }

    pub fn refused(&self, scope: Scope, limit: Dimension) {
        if let Some(counter) = limit.of(&self.refused).get(scope as usize) {
            counter.inc();
        }
    }

    pub fn settled(&self, settlement: &Settlement) {
        let counters = self.settled.get(settlement.outcome as usize);
        if let Some(counter) = counters.and_then(|counters| counters.get(settlement.basis as usize)) {
            counter.inc();
        }
        for (item, quantity) in settlement.usage.items() {
            item.of(&self.tokens).inc_by(quantity);
        }
        if settlement.charges.iter().any(|charge| charge.price.is_none()) {
            self.unpriced.inc();
        }
    }

    /// Why the journal and the ledger cannot be written at the moment.
    pub fn storage_is_failing(&self, troubles: impl IntoIterator<Item = (&'static str, Option<&'static str>)>) {
        self.storage_failing.clear();
        for (part, cause) in troubles {
            if let Some(cause) = cause {
                self.storage_failing.get_or_create(&OfTrouble { part, cause }).set(1);
            }
        }
    }

    /// The page of `/metrics`, in the `OpenMetrics` text format.
    pub fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut page, &self.registry);
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn settled(registry: &mut Registry) -> [[Count; 2]; Outcome::ALL.len()] {
    let ended = Family::<Ended, Count>::default();
    registry.register("requests_settled", "Requests that were admitted and have ended", ended.clone());
    Outcome::ALL.map(|outcome| {
        [Basis::Reported, Basis::Estimated]
            .map(|basis| ended.get_or_create(&Ended { outcome: outcome.name(), basis: basis.name() }).clone())
    })
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Count {
    let counter = Count::default();
    registry.register(name, help, counter.clone());
    counter
}

fn storage_failing(registry: &mut Registry) -> Family<OfTrouble, Gauge<i64, AtomicI64>> {
    let family = Family::default();
    registry.register(
        "storage_failing",
        "1 while the journal or the ledger cannot be written, by cause",
        family.clone(),
    );
    family
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge<i64, AtomicI64> {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_was_counted() {
        let metrics = Metrics::new();
        metrics.refused(Scope::Key, Dimension::TokensPerMinute);
        metrics.unauthenticated.inc();
        let page = metrics.page();
        assert!(page.contains(r#"tollgate_requests_refused_total{limit="tokens_per_minute",scope="key"} 1"#), "{page}");
        assert!(page.contains("tollgate_requests_unauthenticated_total 1"));
        assert!(page.ends_with("# EOF\n"));
    }
}
