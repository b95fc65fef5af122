//! Tells when a limit on money is used as far as a mark: a row in the audit log, once for each limit, period and mark, and a
//! webhook where there is a receiver. What was told is read back from the audit log at the start; then, and once a minute, all
//! keys are looked at, because limits and sums also change without a request.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{App, webhooks::Outbox};
use crate::{
    accounts::Accounts,
    clock::Clock,
    domain::{
        audit::{AuditEvent, By, EventType, ORGANIZATION},
        catalog::Catalog,
        keys::ApiKey,
        spend::{Interval, Mark, Spender, Spending, Told},
        time::UnixNanos,
    },
    openai::webhook,
    proxy::notices::{Notices, Passing},
    store::{self, Store, StoreError},
};

const PERIOD: Duration = Duration::from_mins(1);
/// After rows that the database did not take.
const PAUSE: Duration = Duration::from_secs(2);
/// Rows per transaction, so that the ledger's writer never waits long.
const AT_ONCE: usize = 100;
/// How long after the start of a period its marks are remembered here: longer than it lasts.
const REMEMBERED_S: u64 = 62 * 86_400;

pub(super) struct Notifier {
    store: Arc<Store>,
    accounts: Arc<Accounts>,
    catalog: Arc<Catalog>,
    spending: Arc<Spending>,
    notices: Arc<Notices>,
    clock: Clock,
    outbox: Option<Arc<Outbox>>,
    /// `None` until it is read, and after rows of which nobody knows whether they are there.
    told: Option<HashSet<Told>>,
    /// Marks of that time may have been passed, and not told of before this start. `None` once that is made up for.
    last_settled: Option<UnixNanos>,
}

/// A mark that is to be told of.
struct Untold {
    mark: Mark,
    told: Told,
    key: Arc<ApiKey>,
}

impl Notifier {
    pub(super) fn new(app: &App, last_settled: Option<UnixNanos>, outbox: Option<Arc<Outbox>>) -> Self {
        Self {
            store: Arc::clone(&app.store),
            accounts: Arc::clone(&app.accounts),
            catalog: Arc::clone(&app.catalog),
            spending: Arc::clone(&app.proxy.recorder.spending),
            notices: Arc::clone(&app.proxy.recorder.notices),
            clock: app.clock.clone(),
            outbox,
            told: None,
            last_settled,
        }
    }

    /// Until it is told to stop, and then once more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut all_at = Instant::now();
        loop {
            let (passing, stopping) = tokio::select! {
                passing = self.notices.take() => (passing, false),
                stopped = timeout_at(all_at, stop.cancelled()) => (self.notices.take_now(), stopped.is_ok()),
            };
            let all = Instant::now() >= all_at;
            match self.look(&passing, all).await {
                Ok(()) if all => all_at = Instant::now() + PERIOD,
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "marks that spend limits have passed could not be written; it is tried again");
                    self.told = None;
                    for passing in &passing {
                        self.notices.put(&passing.key, passing.at);
                    }
                    all_at = Instant::now() + PAUSE;
                    let _ = timeout_at(all_at, stop.cancelled()).await;
                }
            }
            if stopping {
                break;
            }
        }
        if let Some(outbox) = &self.outbox {
            outbox.close();
        }
    }

    /// Tells of the marks that the limits of these keys have passed, or of all keys too.
    async fn look(&mut self, passing: &[Passing], all: bool) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut told = match self.told.take() {
            Some(told) => told,
            None => self.recall(now).await?,
        };
        let mut untold = Vec::new();
        if all {
            for key in self.accounts.keys() {
                for at in self.last_settled.into_iter().chain([now]) {
                    self.find(&key, at, &told, &mut untold);
                }
            }
        }
        for Passing { key, at } in passing {
            // Its limits may be others by now.
            let current = self.accounts.key(&key.id).unwrap_or_else(|| Arc::clone(key));
            self.find(&current, *at, &told, &mut untold);
        }
        let mut seen = HashSet::new();
        untold.retain(|untold| seen.insert(untold.told.clone()));
        for untold in untold.chunks(AT_ONCE) {
            self.tell(untold, now).await?;
            told.extend(untold.iter().map(|untold| untold.told.clone()));
        }
        if all {
            self.last_settled = None;
            told.retain(|told| told.facts.start_s.saturating_add(REMEMBERED_S) >= now.seconds());
        }
        self.told = Some(told);
        Ok(())
    }

    async fn recall(&self, now: UnixNanos) -> Result<HashSet<Told>, StoreError> {
        let since = self.last_settled.map_or(now, |at| at.min(now));
        let since = UnixNanos::from_seconds(Interval::Month.around(since).start_s);
        Ok(store::notices::told(&self.store, since).await?.into_iter().collect())
    }

    fn find(&self, key: &Arc<ApiKey>, at: UnixNanos, told: &HashSet<Told>, untold: &mut Vec<Untold>) {
        for mark in self.spending.marks(&self.catalog.payer(key), at) {
            let of_it = mark.told(object_id(mark.spender, key));
            if !told.contains(&of_it) {
                untold.push(Untold { mark, told: of_it, key: Arc::clone(key) });
            }
        }
    }

    async fn tell(&self, untold: &[Untold], now: UnixNanos) -> Result<(), StoreError> {
        let mut events = Vec::new();
        for Untold { mark, told, key } in untold {
            let end = UnixNanos::from_seconds(mark.period.end_s);
            // Of a period that is over it is not said that a limit was passed which nobody had set then.
            if end > now || !store::notices::changed_since(&self.store, &told.object_id, end).await? {
                events.push(event(mark, &told.object_id, key, now));
            }
        }
        for row in store::notices::tell(&self.store, &events).await? {
            let facts = row.after.as_deref().unwrap_or_default();
            tracing::info!(object_id = row.object_id, facts, "a spend limit has passed a mark");
            if let Some(outbox) = &self.outbox {
                outbox.put(webhook::event(&row));
            }
        }
        Ok(())
    }
}

/// Whose a limit is.
fn object_id(spender: Spender, key: &ApiKey) -> &str {
    match spender {
        Spender::Key => key.id.as_str(),
        Spender::Project | Spender::Tier => key.project.id.as_str(),
        Spender::Organization => ORGANIZATION,
    }
}

fn event(mark: &Mark, object_id: &str, key: &ApiKey, now: UnixNanos) -> AuditEvent {
    let event = AuditEvent::new(EventType::SpendLimitMarkPassed, &By::gateway(now), object_id).after(mark);
    match mark.spender {
        Spender::Organization => event,
        _ => event.of(&key.project),
    }
}

#[cfg(test)]
mod tests;
