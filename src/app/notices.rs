//! Tells when a limit on money is used as far as a mark: a row in the audit log, once for each limit, period and mark, and a
//! webhook where there is a receiver. What was told is read back from the audit log at the start; then, and once a minute, all
//! limits are looked at, because they and the sums also change without a request.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{App, webhooks::Outbox};
use crate::{
    accounts::Accounts,
    clock::Clock,
    domain::{
        audit::{AuditEvent, By, EventType, ORGANIZATION},
        catalog::Catalog,
        keys::ApiKey,
        projects::Project,
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
/// So many are looked at before others have the thread for a while.
const IN_A_ROW: usize = 256;
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
    /// Marks of these times may have been passed, and not told of before this start. Empty once that is made up for.
    missed: Vec<UnixNanos>,
}

/// What is told of, and what is going to be.
struct Found {
    told: HashSet<Told>,
    untold: Vec<Untold>,
}

/// A mark that is to be told of.
struct Untold {
    mark: Mark,
    /// Whose limit it is.
    object_id: String,
    project: Option<Arc<Project>>,
    /// By the settlement that passed it, when the limit was in force.
    is_witnessed: bool,
}

impl Notifier {
    /// `last_settled` before this start.
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
            missed: missed(last_settled, app.clock.now()),
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
                    for passing in passing {
                        self.notices.put(passing);
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

    /// Tells of the marks that the limits of these keys have passed, or all limits. What was told is forgotten by an error.
    async fn look(&mut self, passing: &[Passing], all: bool) -> Result<(), StoreError> {
        let now = self.clock.now();
        let told = match self.told.take() {
            Some(told) => told,
            None => self.recall(passing, now).await?,
        };
        let mut found = Found { told, untold: Vec::new() };
        for Passing { key, marks, .. } in passing {
            found.add_of(key, marks, true);
        }
        for Passing { key, at, .. } in passing {
            // Its limits may be others by now.
            let current = self.accounts.key(&key.id).unwrap_or_else(|| Arc::clone(key));
            found.add_of(&current, &self.spending.marks(&self.catalog.payer(&current), *at), false);
        }
        if all {
            self.look_at_all(now, &mut found).await;
        }
        for untold in found.untold.chunks(AT_ONCE) {
            self.tell(untold, now).await?;
        }
        if all {
            self.missed.clear();
            found.told.retain(|told| told.facts.start_s.saturating_add(REMEMBERED_S) >= now.seconds());
        }
        self.told = Some(found.told);
        Ok(())
    }

    /// From the start of the oldest month that is looked at.
    async fn recall(&self, passing: &[Passing], now: UnixNanos) -> Result<HashSet<Told>, StoreError> {
        let looked_at = self.missed.iter().copied().chain(passing.iter().map(|passing| passing.at));
        let oldest = looked_at.fold(now, UnixNanos::min);
        let since = UnixNanos::from_seconds(Interval::Month.around(oldest).start_s);
        Ok(store::notices::told(&self.store, since).await?.into_iter().collect())
    }

    /// Each limit once, however many keys share it.
    async fn look_at_all(&self, now: UnixNanos, found: &mut Found) {
        let times: Vec<_> = self.missed.iter().copied().chain([now]).collect();
        for at in &times {
            found.add(self.spending.marks_of_organization(*at), ORGANIZATION, None);
        }
        let projects = self.accounts.projects();
        for (number, project) in projects.iter().filter(|project| project.archived_at.is_none()).enumerate() {
            take_turns(number).await;
            let tier = self.catalog.usage_limit(project);
            for at in &times {
                let marks = self.spending.marks_of_project(project, tier, *at);
                found.add(marks, project.id.as_str(), Some(project));
            }
        }
        for (number, key) in self.accounts.keys_with_budgets().iter().enumerate() {
            take_turns(number).await;
            let Some(budget) = &key.terms.budget else { continue };
            for at in &times {
                let marks = self.spending.marks_of_key(&key.id, budget, *at);
                found.add(marks, key.id.as_str(), Some(&key.project));
            }
        }
    }

    async fn tell(&self, untold: &[Untold], now: UnixNanos) -> Result<(), StoreError> {
        let mut events = Vec::new();
        for Untold { mark, object_id, project, is_witnessed } in untold {
            let end = UnixNanos::from_seconds(mark.period.end_s);
            // Of a period that is over it is not said that a limit was passed which nobody had set then.
            if *is_witnessed
                || end > now
                || !store::notices::changed_since(&self.store, mark.spender, object_id, end).await?
            {
                events.push(event(mark, object_id, project.as_deref(), now));
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

impl Found {
    /// Marks of limits that a key is held to.
    fn add_of(&mut self, key: &ApiKey, marks: &[Mark], is_witnessed: bool) {
        for mark in marks {
            let (object_id, project) = match mark.spender {
                Spender::Key => (key.id.as_str(), Some(&key.project)),
                Spender::Project | Spender::Tier => (key.project.id.as_str(), Some(&key.project)),
                Spender::Organization => (ORGANIZATION, None),
            };
            self.put(*mark, object_id, project, is_witnessed);
        }
    }

    fn add(&mut self, marks: Vec<Mark>, object_id: &str, project: Option<&Arc<Project>>) {
        for mark in marks {
            self.put(mark, object_id, project, false);
        }
    }

    fn put(&mut self, mark: Mark, object_id: &str, project: Option<&Arc<Project>>, is_witnessed: bool) {
        if self.told.insert(mark.told(object_id)) {
            let (object_id, project) = (object_id.to_owned(), project.map(Arc::clone));
            self.untold.push(Untold { mark, object_id, project, is_witnessed });
        }
    }
}

/// Around the last settlement, and yesterday: a start that told of nothing may have settled what was interrupted by then.
fn missed(last_settled: Option<UnixNanos>, now: UnixNanos) -> Vec<UnixNanos> {
    let yesterday = UnixNanos::from_seconds(Interval::Day.around(now).start_s.saturating_sub(1));
    last_settled.into_iter().chain([yesterday]).collect()
}

async fn take_turns(number: usize) {
    if number % IN_A_ROW == IN_A_ROW - 1 {
        yield_now().await;
    }
}

fn event(mark: &Mark, object_id: &str, project: Option<&Project>, now: UnixNanos) -> AuditEvent {
    let event = AuditEvent::new(EventType::SpendLimitMarkPassed, &By::gateway(now), object_id).after(mark);
    match project {
        Some(project) => event.of(project),
        None => event,
    }
}

#[cfg(test)]
mod tests;
