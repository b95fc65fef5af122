//! Refusals on their way to the database. Refusing is what a flood meets, so it costs a push into a bounded list.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Call, Refused};
use crate::{
    domain::{keys::Caller, refusals::RefusedRequest, time::UnixNanos},
    metrics::Metrics,
};

/// About three megabytes. What comes on top before the list is taken away cannot be explained later.
const MOST_WAITING: usize = 8_192;
/// Callers choose the name.
const MAX_MODEL_BYTES: usize = 128;

pub struct Refusals {
    waiting: Mutex<Vec<RefusedRequest>>,
    metrics: Arc<Metrics>,
}

impl Refusals {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { waiting: Mutex::default(), metrics }
    }

    pub(super) fn add(&self, caller: &Caller, call: &Call, refused: &Refused, now: UnixNanos) {
        self.push(|| refused_request(caller, call, refused, now));
    }

    pub(crate) fn push(&self, refused: impl FnOnce() -> RefusedRequest) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST_WAITING {
            waiting.push(refused());
        } else {
            self.metrics.refusals_not_kept.inc();
        }
    }

    /// All that wait, oldest first.
    pub fn take(&self) -> Vec<RefusedRequest> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
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
        ids::{KeyId, ProjectId, RequestId},
        limits::Headrooms,
        refusals::Reason,
    };

    fn refused(number: usize) -> RefusedRequest {
        RefusedRequest {
            request_id: RequestId::new(1, number as u128),
            refused_at: UnixNanos(1),
            project_id: ProjectId::parse("proj_a").unwrap(),
            key_id: KeyId::parse("key_a").unwrap(),
            endpoint: "chat.completions".into(),
            model: "m".into(),
            stream: false,
            status: 404,
            code: None,
            reason: Reason::UnknownModel,
            headrooms: Headrooms::default(),
        }
    }

    #[test]
    fn a_flood_fills_the_list_and_is_counted_past_it() {
        let metrics = Arc::new(Metrics::new());
        let refusals = Refusals::new(Arc::clone(&metrics));
        for number in 0..MOST_WAITING + 1_000 {
            refusals.push(|| refused(number));
        }
        assert_eq!(metrics.refusals_not_kept.get(), 1_000);
        let taken = refusals.take();
        assert_eq!((taken.len(), taken.last()), (MOST_WAITING, Some(&refused(MOST_WAITING - 1))));
        assert!(std::mem::size_of::<RefusedRequest>() * MOST_WAITING < 4 << 20);
        refusals.push(|| refused(0));
        assert_eq!((refusals.take().len(), refusals.take().len()), (1, 0));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let short: Arc<str> = "gpt-4o".into();
        assert!(Arc::ptr_eq(&cut(&short), &short));
        assert_eq!(&*cut(&"ä".repeat(1_000).into()), "ä".repeat(64));
        assert_eq!(&*cut(&format!("x{}", "ä".repeat(1_000)).into()), format!("x{}", "ä".repeat(63)));
    }
}
