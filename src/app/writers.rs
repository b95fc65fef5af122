//! What reads and writes the ledger's database beside the projector, a little now and then.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    App,
    adjustments::Adjustments,
    last_used::LastUses,
    ledger_files::LedgerFiles,
    notices::Notifier,
    promotion::Promoter,
    retention::Retention,
    webhooks::{Courier, Outbox},
};
use crate::{config::Settings, upstream::webhook::Receiver};

/// All of them end when `stop` is cancelled, and write what is left before.
pub(super) fn start(
    app: &Arc<App>,
    settings: &Settings,
    adjustments: Adjustments,
    receiver: Option<Receiver>,
    stop: &CancellationToken,
) -> TaskTracker {
    let writers = TaskTracker::new();
    let parts = (Arc::clone(&app.store), Arc::clone(&app.accounts), Arc::clone(&app.admin_keys));
    writers.spawn(LastUses::new(parts.0, parts.1, parts.2).run(stop.clone()));
    writers.spawn(Arc::clone(&app.refusals).run(stop.clone()));
    let files = LedgerFiles { store: Arc::clone(&app.store), metrics: Arc::clone(&app.metrics) };
    writers.spawn(files.run(stop.clone()));
    let retention = Retention {
        store: Arc::clone(&app.store),
        progress: app.projection.clone(),
        metrics: Arc::clone(&app.metrics),
        clock: app.clock.clone(),
        days: settings.retention_days,
    };
    writers.spawn(retention.run(stop.clone()));
    let outbox = receiver.map(|receiver| {
        let outbox = Outbox::new(Arc::clone(&app.metrics));
        writers.spawn(Courier::new(Arc::clone(&outbox), receiver, app.clock.clone()).run(stop.clone()));
        outbox
    });
    writers.spawn(Notifier::new(app, adjustments.last_settled(), outbox).run(stop.clone()));
    writers.spawn(adjustments.run(stop.clone()));
    if let Some(promoter) = Promoter::of(app) {
        writers.spawn(promoter.run(stop.clone()));
    }
    writers.close();
    writers
}
