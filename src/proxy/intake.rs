//! Reading a whole answer into memory, within bounds that become narrower when its client leaves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use super::body::StreamTimes;

/// How far the answer to one call has come, and how far it may go.
#[derive(Debug)]
pub(super) struct Intake {
    read_bytes: AtomicU64,
    max_bytes: AtomicU64,
    cut_off: AtomicBool,
}

/// Why an answer of the upstream is not passed on.
pub(super) enum Unusable {
    TooLarge,
    Silent,
    Broken(hyper::Error),
}

impl Intake {
    pub(super) const fn up_to(max_bytes: u64) -> Self {
        Self { read_bytes: AtomicU64::new(0), max_bytes: AtomicU64::new(max_bytes), cut_off: AtomicBool::new(false) }
    }

    /// From now on at most `rest_bytes` more are read, and not more than before in all.
    pub(super) fn bound_rest(&self, rest_bytes: u64) {
        let up_to = self.read_bytes.load(Ordering::Relaxed).saturating_add(rest_bytes);
        self.max_bytes.fetch_min(up_to, Ordering::Relaxed);
    }

    /// The answer was larger than it might be.
    pub(super) fn was_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    fn takes(&self, bytes: u64) -> bool {
        let takes = bytes <= self.max_bytes.load(Ordering::Relaxed);
        if !takes {
            self.cut_off.store(true, Ordering::Relaxed);
        }
        takes
    }

    /// Reads a body into one buffer, made as large as the upstream says it will be.
    pub(super) async fn collect(&self, mut body: Incoming, times: StreamTimes) -> Result<Bytes, Unusable> {
        const MAX_FIRST_ALLOCATION: u64 = 4 << 20;
        let announced = body.size_hint().exact();
        if announced.is_some_and(|length| !self.takes(length)) {
            return Err(Unusable::TooLarge);
        }
        let ends_at = Instant::now() + times.max;
        let mut whole = BytesMut::new();
        loop {
            let frame = match timeout_at(ends_at.min(Instant::now() + times.idle), body.frame()).await {
                Err(_elapsed) => return Err(Unusable::Silent),
                Ok(None) => return Ok(whole.freeze()),
                Ok(Some(Err(error))) => return Err(Unusable::Broken(error)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if whole.is_empty() && announced == Some(data.len() as u64) {
                // The usual small answer: one frame, nothing to copy.
                return Ok(data);
            }
            let read = whole.len() as u64 + data.len() as u64;
            self.read_bytes.store(read, Ordering::Relaxed);
            if !self.takes(read) {
                return Err(Unusable::TooLarge);
            }
            if whole.is_empty() {
                let expected = announced.unwrap_or(0).min(MAX_FIRST_ALLOCATION);
                whole.reserve(usize::try_from(expected).unwrap_or(0).max(data.len()));
            }
            whole.extend_from_slice(&data);
        }
    }
}
