//! Input tokens that wait in batches, per project and limit group: a count with a ceiling, not a rate. A batch is taken in
//! whole or not at all, and gives back what it took when it has ended, once.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use super::ids::ProjectId;

/// More than a row of the database can hold is never taken in.
const MOST_TOKENS: u64 = i64::MAX.unsigned_abs();

type Owner = (ProjectId, Arc<str>);

#[derive(Debug, Default)]
pub struct BatchQueue {
    /// Only of those that have batches.
    enqueued: HashMap<Owner, Sum>,
}

#[derive(Debug, Default)]
struct Sum {
    batches: u64,
    tokens: u128,
}

/// What one batch holds of the queue. Only [`BatchQueue::release`] takes it, so nothing is given back twice.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the tokens stay in the queue until they are released"]
pub struct Reserved {
    owner: Owner,
    tokens: u64,
}

/// The ceiling does not let a batch in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull {
    pub limit: u64,
    pub enqueued: u128,
    pub requested: u64,
}

impl Reserved {
    pub const fn project_id(&self) -> &ProjectId {
        &self.owner.0
    }

    pub const fn limit_group(&self) -> &Arc<str> {
        &self.owner.1
    }

    pub const fn tokens(&self) -> u64 {
        self.tokens
    }
}

impl BatchQueue {
    /// Takes in a batch of `tokens` if it fits under `ceiling` with those that wait; `None` is no ceiling.
    pub fn reserve(
        &mut self,
        project_id: &ProjectId,
        limit_group: &Arc<str>,
        tokens: u64,
        ceiling: Option<u64>,
    ) -> Result<Reserved, QueueFull> {
        let (limit, enqueued) = (ceiling.unwrap_or(u64::MAX), self.enqueued(project_id, limit_group));
        if enqueued + u128::from(tokens) > u128::from(limit) || tokens > MOST_TOKENS {
            return Err(QueueFull { limit, enqueued, requested: tokens });
        }
        Ok(self.restore(project_id, limit_group, tokens))
    }

    /// Takes in what was taken in before a restart, whatever the ceiling is by now.
    pub fn restore(&mut self, project_id: &ProjectId, limit_group: &Arc<str>, tokens: u64) -> Reserved {
        let owner = (project_id.clone(), Arc::clone(limit_group));
        let sum = self.enqueued.entry(owner.clone()).or_default();
        sum.batches += 1;
        sum.tokens += u128::from(tokens);
        Reserved { owner, tokens }
    }

    pub fn release(&mut self, reserved: Reserved) {
        let Entry::Occupied(mut sum) = self.enqueued.entry(reserved.owner) else { return };
        let Sum { batches, tokens } = sum.get_mut();
        *batches = batches.saturating_sub(1);
        *tokens = tokens.saturating_sub(u128::from(reserved.tokens));
        if *batches == 0 {
            sum.remove();
        }
    }

    /// Tokens that wait.
    pub fn enqueued(&self, project_id: &ProjectId, limit_group: &Arc<str>) -> u128 {
        self.enqueued.get(&(project_id.clone(), Arc::clone(limit_group))).map_or(0, |sum| sum.tokens)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn project(number: usize) -> ProjectId {
        ProjectId::parse(["proj_a", "proj_b"][number]).unwrap()
    }

    fn group(number: usize) -> Arc<str> {
        ["gpt-4o", "gpt-4o-mini"][number].into()
    }

    #[test]
    fn a_batch_is_taken_in_whole_or_not_at_all() {
        let mut queue = BatchQueue::default();
        let mut reserve = |tokens| queue.reserve(&project(0), &group(0), tokens, Some(900));
        let first = reserve(600).unwrap();
        assert_eq!(reserve(301), Err(QueueFull { limit: 900, enqueued: 600, requested: 301 }));
        let second = reserve(300).unwrap();
        assert_eq!(reserve(1), Err(QueueFull { limit: 900, enqueued: 900, requested: 1 }));
        queue.release(first);
        assert_eq!(queue.enqueued(&project(0), &group(0)), 300);
        queue.release(second);
        assert!(queue.enqueued.is_empty(), "what nobody uses takes no room");
    }

    #[test]
    fn projects_and_models_have_queues_of_their_own() {
        let mut queue = BatchQueue::default();
        let _full = queue.reserve(&project(0), &group(0), 10, Some(10)).unwrap();
        assert!(queue.reserve(&project(0), &group(0), 1, Some(10)).is_err());
        let _other_model = queue.reserve(&project(0), &group(1), 10, Some(10)).unwrap();
        let _other_project = queue.reserve(&project(1), &group(0), 10, Some(10)).unwrap();
    }

    #[test]
    fn what_a_lower_ceiling_would_not_let_in_stays_and_is_counted() {
        let mut queue = BatchQueue::default();
        let restored = queue.restore(&project(0), &group(0), 500);
        assert_eq!(
            queue.reserve(&project(0), &group(0), 0, Some(100)),
            Err(QueueFull { limit: 100, enqueued: 500, requested: 0 })
        );
        queue.release(restored);
        assert!(queue.reserve(&project(0), &group(0), 100, Some(100)).is_ok());
    }

    #[test]
    fn without_a_ceiling_only_what_cannot_be_counted_is_refused() {
        let mut queue = BatchQueue::default();
        let reserve = |queue: &mut BatchQueue, tokens| queue.reserve(&project(0), &group(0), tokens, None);
        assert!(reserve(&mut queue, u64::MAX).is_err());
        let first = reserve(&mut queue, MOST_TOKENS).unwrap();
        let second = reserve(&mut queue, MOST_TOKENS).unwrap();
        assert!(reserve(&mut queue, 2).is_err());
        queue.release(first);
        queue.release(second);
        assert!(queue.enqueued.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(usize, usize, u64, Option<u64>),
        Restore(usize, usize, u64),
        Release(prop::sample::Index),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let ceiling = prop_oneof![Just(None), (0..3_000_u64).prop_map(Some)];
        prop_oneof![
            4 => (0..2_usize, 0..2_usize, 0..900_u64, ceiling).prop_map(|(p, g, n, c)| Step::Reserve(p, g, n, c)),
            1 => (0..2_usize, 0..2_usize, 0..900_u64).prop_map(|(p, g, n)| Step::Restore(p, g, n)),
            4 => any::<prop::sample::Index>().prop_map(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn a_queue_holds_exactly_the_batches_that_are_in_it(steps in prop::collection::vec(any_step(), 1..200)) {
            // The model is the list of the batches themselves.
            let (mut queue, mut open) = (BatchQueue::default(), Vec::<Reserved>::new());
            let waiting = |open: &[Reserved], p: usize, g: usize| {
                let of = |it: &&Reserved| *it.project_id() == project(p) && *it.limit_group() == group(g);
                open.iter().filter(of).map(|it| u128::from(it.tokens())).sum::<u128>()
            };
            for step in steps {
                match step {
                    Step::Reserve(p, g, tokens, ceiling) => {
                        let fits = ceiling.is_none_or(|most| waiting(&open, p, g) + u128::from(tokens) <= most.into());
                        let reserved = queue.reserve(&project(p), &group(g), tokens, ceiling);
                        prop_assert_eq!(reserved.is_ok(), fits);
                        open.extend(reserved);
                    }
                    Step::Restore(p, g, tokens) => open.push(queue.restore(&project(p), &group(g), tokens)),
                    Step::Release(which) if !open.is_empty() => {
                        queue.release(open.swap_remove(which.index(open.len())));
                    }
                    Step::Release(_) => {}
                }
                for (p, g) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    prop_assert_eq!(queue.enqueued(&project(p), &group(g)), waiting(&open, p, g));
                }
            }
            for reserved in open {
                queue.release(reserved);
            }
            prop_assert!(queue.enqueued.is_empty());
        }
    }
}
