//! The batches whose input tokens wait: counted in memory, and written down before anybody is told that they are in.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Mutex as AsyncMutex;

use crate::{
    domain::{
        batch_queue::{self, QueueFull, Reserved},
        ids::{BatchId, ProjectId},
        time::UnixNanos,
    },
    store::{Store, StoreError, batch_queue as saved},
};

pub struct BatchQueue {
    store: Arc<Store>,
    waiting: Mutex<Waiting>,
    /// One change at a time, so that an id is not taken in twice.
    changing: AsyncMutex<()>,
}

#[derive(Default)]
struct Waiting {
    queue: batch_queue::BatchQueue,
    batches: HashMap<BatchId, Reserved>,
}

/// A batch before it is taken in.
#[derive(Clone, Debug)]
pub struct NewBatch {
    pub id: BatchId,
    pub project_id: ProjectId,
    pub limit_group: Arc<str>,
    /// Of its input, all lines together.
    pub tokens: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    #[error("the queue holds {} of {} tokens and takes no {} more", .0.enqueued, .0.limit, .0.requested)]
    Full(QueueFull),
    #[error("the batch {0} is in the queue already")]
    Twice(BatchId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BatchQueue {
    /// With the batches that waited when the gateway ended, however it did.
    pub async fn restored(store: Arc<Store>) -> Result<Self, StoreError> {
        let mut waiting = Waiting::default();
        for batch in saved::enqueued(&store).await? {
            let reserved = waiting.queue.restore(&batch.project_id, &batch.limit_group, batch.tokens);
            waiting.batches.insert(batch.id, reserved);
        }
        Ok(Self { store, waiting: Mutex::new(waiting), changing: AsyncMutex::default() })
    }

    /// Takes a batch in, whole or not at all; `ceiling` is `batch_queue_tokens` of the project's limits. When this returns no
    /// crash loses it. A caller that leaves meanwhile leaves nothing half done.
    pub async fn enqueue(
        self: &Arc<Self>,
        batch: NewBatch,
        ceiling: Option<u64>,
        now: UnixNanos,
    ) -> Result<(), EnqueueError> {
        let queue = Arc::clone(self);
        let change = tokio::spawn(async move { queue.take_in(batch, ceiling, now).await });
        change.await.map_err(StoreError::from)?
    }

    /// Gives back what an ended batch held. False when it is not in the queue, or not any more.
    pub async fn dequeue(self: &Arc<Self>, id: &BatchId) -> Result<bool, StoreError> {
        let (queue, id) = (Arc::clone(self), id.clone());
        tokio::spawn(async move { queue.let_out(&id).await }).await?
    }

    /// Tokens that wait.
    pub fn enqueued(&self, project_id: &ProjectId, limit_group: &Arc<str>) -> u128 {
        self.waiting().queue.enqueued(project_id, limit_group)
    }

    /// Those that wait, in any order.
    pub fn batches(&self) -> Vec<BatchId> {
        self.waiting().batches.keys().cloned().collect()
    }

    async fn take_in(&self, batch: NewBatch, ceiling: Option<u64>, now: UnixNanos) -> Result<(), EnqueueError> {
        let _changing = self.changing.lock().await;
        let NewBatch { id, project_id, limit_group, tokens } = batch;
        let reserved = {
            let mut waiting = self.waiting();
            if waiting.batches.contains_key(&id) {
                return Err(EnqueueError::Twice(id));
            }
            waiting.queue.reserve(&project_id, &limit_group, tokens, ceiling).map_err(EnqueueError::Full)?
        };
        let written = saved::enqueue(&self.store, &id, &reserved, now).await;
        let mut waiting = self.waiting();
        match written {
            Ok(()) => {
                waiting.batches.insert(id, reserved);
                Ok(())
            }
            Err(error) => {
                waiting.queue.release(reserved);
                Err(error.into())
            }
        }
    }

    async fn let_out(&self, id: &BatchId) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        if !self.waiting().batches.contains_key(id) {
            return Ok(false);
        }
        // First on the disk: a crash in between finds the batch gone, and never one that is counted for ever.
        saved::dequeue(&self.store, id).await?;
        let mut waiting = self.waiting();
        if let Some(reserved) = waiting.batches.remove(id) {
            waiting.queue.release(reserved);
        }
        Ok(true)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::Store;

    const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

    fn id(number: u64) -> BatchId {
        BatchId::parse(&format!("batch_{number}")).unwrap()
    }

    fn batch(number: u64, tokens: u64) -> NewBatch {
        NewBatch { id: id(number), project_id: project(), limit_group: group(), tokens }
    }

    fn project() -> ProjectId {
        ProjectId::parse("proj_a").unwrap()
    }

    fn group() -> Arc<str> {
        "gpt-4o-mini".into()
    }

    async fn store(dir: &Path) -> Arc<Store> {
        let store = Store::open(&dir.join("tollgate.db")).await.unwrap();
        sqlx::raw_sql("INSERT OR IGNORE INTO projects (id, name, tier, created_at) VALUES ('proj_a', 'A', 'free', 0)")
            .execute(store.writer())
            .await
            .unwrap();
        Arc::new(store)
    }

    async fn queue(dir: &Path) -> Arc<BatchQueue> {
        Arc::new(BatchQueue::restored(store(dir).await).await.unwrap())
    }

    fn waiting(queue: &BatchQueue) -> u128 {
        queue.enqueued(&project(), &group())
    }

    #[tokio::test]
    async fn what_waits_is_the_same_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let first = queue(dir.path()).await;
        for number in 1..=5 {
            first.enqueue(batch(number, number * 100), Some(1_500), NOW).await.unwrap();
        }
        assert!(first.dequeue(&id(3)).await.unwrap());
        assert_eq!(waiting(&first), 1_200);
        // Not closed: the next one finds what a killed process has left.
        let second = queue(dir.path()).await;
        let mut batches = second.batches();
        batches.sort();
        assert_eq!((waiting(&second), batches), (1_200, [1, 2, 4, 5].map(id).to_vec()));
        let full = second.enqueue(batch(6, 301), Some(1_500), NOW).await.unwrap_err();
        assert_eq!(full.to_string(), "the queue holds 1200 of 1500 tokens and takes no 301 more");
        second.enqueue(batch(6, 300), Some(1_500), NOW).await.unwrap();
        for number in [1, 2, 4, 5, 6] {
            assert!(second.dequeue(&id(number)).await.unwrap());
        }
        assert_eq!((waiting(&second), waiting(&*queue(dir.path()).await)), (0, 0));
    }

    #[tokio::test]
    async fn a_batch_is_taken_in_once_and_let_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path()).await;
        queue.enqueue(batch(1, 10), None, NOW).await.unwrap();
        assert!(matches!(queue.enqueue(batch(1, 10), None, NOW).await, Err(EnqueueError::Twice(_))));
        assert_eq!(waiting(&queue), 10);
        let first = id(1);
        let (one, other) = tokio::join!(queue.dequeue(&first), queue.dequeue(&first));
        assert!(one.unwrap() != other.unwrap());
        assert_eq!(waiting(&queue), 0);
    }

    #[tokio::test]
    async fn what_cannot_be_written_down_is_not_counted_and_what_cannot_be_taken_out_still_is() {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path()).await;
        queue.enqueue(batch(1, 10), None, NOW).await.unwrap();
        let unknown = NewBatch { project_id: ProjectId::parse("proj_nobody").unwrap(), ..batch(2, 10) };
        assert!(matches!(queue.enqueue(unknown.clone(), None, NOW).await, Err(EnqueueError::Store(_))));
        assert_eq!((queue.enqueued(&unknown.project_id, &group()), queue.batches()), (0, vec![id(1)]));
        queue.store.close().await;
        assert!(queue.dequeue(&id(1)).await.is_err());
        assert_eq!(waiting(&queue), 10);
    }

    #[tokio::test]
    async fn many_at_a_time_never_pass_the_ceiling_and_leave_none_half_in() {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path()).await;
        let tasks = (0..40).map(|number| {
            let queue = Arc::clone(&queue);
            let task = tokio::spawn(async move { queue.enqueue(batch(number, 100), Some(1_000), NOW).await });
            // Some callers leave at once.
            if number % 4 == 0 {
                task.abort();
            }
            task
        });
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            task.await.ok();
        }
        assert_eq!((waiting(&queue), queue.batches().len()), (1_000, 10));
        assert_eq!(saved::enqueued(&queue.store).await.unwrap().len(), 10);
    }
}
