//! Refusals, counted, and on their way to the database. Refusing is what a flood meets, so it costs a push into a bounded list.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Call, Refused};
use crate::{
    domain::{
        ids::KeyId,
        keys::Caller,
        refusals::{Reason, RefusedRequest},
        time::UnixNanos,
    },
    metrics::Metrics,
};

/// About three megabytes. What comes on top before the list is taken away cannot be explained later.
const MOST_WAITING: usize = 8_192;
/// One key has only so large a part of the list: whoever floods leaves room for others.
const SHARE: usize = 8;
/// Callers choose the name.
const MAX_MODEL_BYTES: usize = 128;

pub struct Refusals {
    waiting: Mutex<Waiting>,
    most: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Waiting {
    list: Vec<RefusedRequest>,
    of_key: HashMap<KeyId, usize>,
}

impl Refusals {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::at_most(MOST_WAITING, metrics)
    }

    pub(crate) fn at_most(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { waiting: Mutex::default(), most, metrics }
    }

    pub(super) fn add(&self, caller: &Caller, call: &Call, refused: &Refused, now: UnixNanos) {
        self.count(&refused.reason);
        self.push(&caller.key().id, || refused_request(caller, call, refused, now));
    }

    fn count(&self, reason: &Reason) {
        match reason {
            Reason::Limit(over) => self.metrics.refused(over.exceeded.scope, over.exceeded.dimension),
            Reason::SpendLimit(_) => {
                self.metrics.over_spend_limit.inc();
            }
            Reason::NotRecorded => {
                self.metrics.not_recorded.inc();
            }
            Reason::UnknownModel | Reason::ModelNotAllowed | Reason::WrongEndpoint | Reason::UnpricedModel => {
                self.metrics.invalid.inc();
            }
        }
    }

    pub(crate) fn push(&self, key: &KeyId, refused: impl FnOnce() -> RefusedRequest) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { list, of_key } = &mut *waiting;
        let has_room = list.len() < self.most;
        match of_key.get_mut(key) {
            Some(number) if has_room && *number < self.most / SHARE => *number += 1,
            None if has_room => {
                of_key.insert(key.clone(), 1);
            }
            _ => {
                self.metrics.refusals_not_kept.inc();
                return;
            }
        }
        list.push(refused());
    }

    /// All that wait, oldest first.
    pub fn take(&self) -> Vec<RefusedRequest> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)).list
    }

    /// These could not be written down.
    pub fn lost(&self, number: usize) {
        self.metrics.refusals_not_kept.inc_by(number as u64);
    }
}

fn refused_request(caller: &Caller, call: &Call, refused: &Refused, now: UnixNanos) -> RefusedRequest {
    RefusedRequest {
        request_id: call.request_id(),
        refused_at: now,
        project_id: caller.project().id.clone(),
        key_id: caller.key().id.clone(),
        endpoint: call.endpoint.name().into(),
        model: cut(&call.model),
        stream: call.stream,
        status: refused.error.status,
        code: refused.error.code.clone(),
        reason: refused.reason.clone(),
        headrooms: refused.headrooms,
    }
}

/// Shared with the call where it is as short as names are.
fn cut(model: &Arc<str>) -> Arc<str> {
    let end = model.floor_char_boundary(MAX_MODEL_BYTES);
    if end == model.len() { Arc::clone(model) } else { model.get(..end).unwrap_or_default().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        ids::{ProjectId, RequestId},
        limits::Headrooms,
    };

    fn refused(number: usize) -> RefusedRequest {
        RefusedRequest {
            request_id: RequestId::new(1, number as u128),
            refused_at: UnixNanos(1),
            project_id: ProjectId::parse("proj_a").unwrap(),
            key_id: KeyId::parse(&format!("key_{}", number % 10)).unwrap(),
            endpoint: "chat.completions".into(),
            model: "m".into(),
            stream: false,
            status: 404,
            code: None,
            reason: Reason::UnknownModel,
            headrooms: Headrooms::default(),
        }
    }

    fn push(refusals: &Refusals, number: usize) {
        let refused = refused(number);
        refusals.push(&refused.key_id.clone(), || refused);
    }

    #[test]
    fn a_flood_fills_the_list_and_is_counted_past_it() {
        let metrics = Arc::new(Metrics::new());
        let refusals = Refusals::new(Arc::clone(&metrics));
        for number in 0..MOST_WAITING + 1_000 {
            push(&refusals, number);
        }
        assert_eq!(metrics.refusals_not_kept.get(), 1_000);
        let taken = refusals.take();
        assert_eq!((taken.len(), taken.last()), (MOST_WAITING, Some(&refused(MOST_WAITING - 1))));
        assert!(std::mem::size_of::<RefusedRequest>() * MOST_WAITING < 4 << 20);
        push(&refusals, 0);
        assert_eq!((refusals.take().len(), refusals.take().len()), (1, 0));
    }

    #[test]
    fn the_flood_of_one_key_leaves_room_for_others() {
        let metrics = Arc::new(Metrics::new());
        let refusals = Refusals::new(Arc::clone(&metrics));
        for _ in 0..2 {
            // All of key_0.
            for number in 0..5_000 {
                push(&refusals, number * 10);
            }
            push(&refusals, 1);
            let taken = refusals.take();
            assert_eq!((taken.len(), taken.last()), (MOST_WAITING / SHARE + 1, Some(&refused(1))));
        }
        assert_eq!(metrics.refusals_not_kept.get(), 2 * (5_000 - 1_024));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let short: Arc<str> = "gpt-4o".into();
        assert!(Arc::ptr_eq(&cut(&short), &short));
        assert_eq!(&*cut(&"ä".repeat(1_000).into()), "ä".repeat(64));
        assert_eq!(&*cut(&format!("x{}", "ä".repeat(1_000)).into()), format!("x{}", "ä".repeat(63)));
    }
}
