//! Ids for requests: unique across restarts, sorted by time, and made without a system call.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::{
    ids::{Random, RequestId},
    time::UnixNanos,
};

#[derive(Debug)]
pub struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub fn new(random: Random<'_>) -> Self {
        let (mut process, mut first) = ([0; 8], [0; 8]);
        random(&mut process);
        random(&mut first);
        Self { process: u64::from_le_bytes(process), next: AtomicU64::new(u64::from_le_bytes(first)) }
    }

    pub fn next(&self, now: UnixNanos) -> RequestId {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        // The serial number alone makes ids of one process differ; mixing only hides that it counts.
        let random = u128::from(mixed(serial ^ self.process)) | (u128::from(self.process) << 64);
        RequestId::new(now.millis(), random)
    }
}

/// A bijection (the finalizer of splitmix64), so that different serials stay different.
const fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_millisecond_differ() {
        let ids = RequestIds::new(&mut |bytes| bytes.fill(7));
        let now = UnixNanos::from_seconds(1_790_000_000);
        let made: std::collections::HashSet<_> = (0..10_000).map(|_| ids.next(now)).collect();
        assert_eq!(made.len(), 10_000);
    }
}
