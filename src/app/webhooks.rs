//! Delivers webhooks: one after the other, each with some attempts, and never in the way of anything else. What waits is in
//! memory alone: the audit log is what lasts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    domain::webhooks::Event,
    metrics::Metrics,
    upstream::webhook::{Receiver, WebhookError},
};

const MOST_WAITING: usize = 1_000;
/// Between two attempts. With a timeout of ten seconds each, an event is given up after less than four minutes.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(8),
    Duration::from_secs(30),
    Duration::from_mins(2),
];
/// What may still be delivered after the stop: less than the app waits for its writers.
const AFTER_THE_STOP: Duration = Duration::from_secs(1);

/// Events that wait to be delivered.
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
    most: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    is_closed: bool,
}

/// Takes events out of the outbox to their receiver.
pub(super) struct Courier {
    outbox: Arc<Outbox>,
    receiver: Receiver,
    clock: Clock,
    /// Taken out, and neither delivered nor given up.
    under_way: Option<Event>,
}

impl Outbox {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Self::at_most(MOST_WAITING, metrics)
    }

    fn at_most(most: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), changed: Notify::new(), most, metrics })
    }

    /// In place of the oldest when too many wait.
    pub(super) fn put(&self, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.events.len() >= self.most
            && let Some(oldest) = waiting.events.pop_front()
        {
            self.metrics.webhooks_dropped.inc();
            tracing::warn!(webhook_id = oldest.id, "too many webhooks wait: the oldest is not delivered");
        }
        waiting.events.push_back(event);
        self.changed.notify_one();
    }

    /// Nothing more will be put there.
    pub(super) fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.changed.notify_one();
    }

    /// The oldest; waits for one. `None` after the last.
    async fn next(&self) -> Option<Event> {
        loop {
            let changed = self.changed.notified();
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let next = waiting.events.pop_front();
                if next.is_some() || waiting.is_closed {
                    return next;
                }
            }
            changed.await;
        }
    }

    fn len(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).events.len()
    }
}

impl Courier {
    pub(super) fn new(outbox: Arc<Outbox>, receiver: Receiver, clock: Clock) -> Self {
        Self { outbox, receiver, clock, under_way: None }
    }

    /// Until it is told to stop; what waits then, and what comes until the outbox is closed, is tried once more in the time
    /// that is left.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.deliver(&PAUSES)).await;
        let _ = timeout(AFTER_THE_STOP, self.deliver(&[])).await;
        let left = self.outbox.len() + usize::from(self.under_way.is_some());
        if left > 0 {
            self.outbox.metrics.webhooks_dropped.inc_by(left as u64);
            tracing::warn!(webhooks = left, "the gateway stops before these webhooks are delivered");
        }
    }

    async fn deliver(&mut self, pauses: &[Duration]) {
        loop {
            if self.under_way.is_none() {
                self.under_way = self.outbox.next().await;
            }
            let Some(event) = &self.under_way else { return };
            match self.attempt(event, pauses).await {
                Ok(()) => {
                    self.outbox.metrics.webhooks_delivered.inc();
                }
                Err(error) => {
                    self.outbox.metrics.webhooks_failed.inc();
                    tracing::warn!(webhook_id = event.id, %error, "a webhook could not be delivered and is given up");
                }
            }
            self.under_way = None;
        }
    }

    async fn attempt(&self, event: &Event, pauses: &[Duration]) -> Result<(), WebhookError> {
        for pause in pauses {
            let Err(error) = self.receiver.post(event, self.clock.now()).await else { return Ok(()) };
            tracing::debug!(webhook_id = event.id, %error, "a webhook is tried again");
            sleep(*pause).await;
        }
        self.receiver.post(event, self.clock.now()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: usize) -> Event {
        Event { id: format!("wh_{number}"), body: "{}".to_owned() }
    }

    #[tokio::test]
    async fn the_oldest_makes_room_and_is_counted() {
        let metrics = Arc::new(Metrics::new());
        let outbox = Outbox::at_most(2, Arc::clone(&metrics));
        (1..=3).for_each(|number| outbox.put(event(number)));
        assert_eq!((metrics.webhooks_dropped.get(), outbox.len()), (1, 2));
        outbox.close();
        assert_eq!(
            [outbox.next().await, outbox.next().await, outbox.next().await],
            [Some(event(2)), Some(event(3)), None]
        );
    }
}
