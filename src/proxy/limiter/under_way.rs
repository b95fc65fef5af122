//! What requests under way have taken from all limits together.

use super::Limiter;
use crate::domain::limits::Dimension;

impl Limiter {
    /// Requests under way, and holds on the limits that are not settled. Both are nothing when nothing is under way.
    pub fn under_way(&self) -> (u64, u64) {
        let (mut requests, mut holds) = (0_u64, 0_u64);
        self.projects.each(|shared| {
            requests = requests.saturating_add(shared.under_way.count(Dimension::ConcurrentRequests).into());
            holds = holds.saturating_add(shared.cells.open_holds());
        });
        self.keys.each(|buckets| {
            holds = holds.saturating_add(buckets.of_key.get().map_or(0, |cells| cells.open_holds()));
        });
        (requests, holds)
    }
}
