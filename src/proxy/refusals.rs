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
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST_WAITING {
            waiting.push(refused_request(caller, call, refused, now));
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
    let cut = call.model.floor_char_boundary(MAX_MODEL_BYTES);
    RefusedRequest {
        request_id: call.request_id(),
        refused_at: now,
        project_id: caller.project().id.clone(),
        key_id: caller.key().id.clone(),
        endpoint: call.endpoint.name().into(),
        model: if cut == call.model.len() {
            Arc::clone(&call.model)
        } else {
            call.model.get(..cut).unwrap_or_default().into()
        },
        stream: call.stream,
        status: refused.error.status,
        code: refused.error.code.clone(),
        reason: refused.reason.clone(),
        headrooms: refused.headrooms,
    }
}
