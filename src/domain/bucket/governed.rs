//! What governor says of one arrival time, with a limiter that is made on the spot.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};

use super::{Rate, Refusal};
use crate::domain::time::UnixNanos;

/// The arrival time with `units` more, or why there is no room for them.
pub(super) fn taken(arrival: UnixNanos, units: NonZeroU32, rate: Rate, now: UnixNanos) -> Result<UnixNanos, Refusal> {
    let cell = Cell::new(arrival.0);
    let limiter: RateLimiter<NotKeyed, &Cell, AskedAt, NoOpMiddleware<Nanos>> =
        RateLimiter::new(quota(rate), &cell, AskedAt::new(now));
    match limiter.check_n(units) {
        Ok(Ok(())) => Ok(UnixNanos(cell.get())),
        Err(_insufficient_capacity) => Err(Refusal::TooLarge),
        Ok(Err(not_until)) => {
            Err(Refusal::Wait { nanos: not_until.earliest_possible().as_u64().saturating_sub(now.0) })
        }
    }
}

fn quota(rate: Rate) -> Quota {
    let refill = Duration::from_nanos(rate.unit_nanos());
    // A period of zero is impossible: a window is at least a minute and a limit fits 32 bits.
    Quota::with_period(refill).unwrap_or_else(|| Quota::per_minute(rate.limit)).allow_burst(rate.limit)
}

/// Where governor reads an arrival time and leaves the next one.
struct Cell(std::cell::Cell<u64>);

impl Cell {
    const fn new(arrival: u64) -> Self {
        Self(std::cell::Cell::new(arrival))
    }

    const fn get(&self) -> u64 {
        self.0.get()
    }
}

impl StateStore for &Cell {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, next) = decide(Some(Nanos::from(self.0.get())))?;
        self.0.set(next.as_u64());
        Ok(outcome)
    }
}

/// Hands governor the time of the question. It counts from its first reading, so that one is zero: arrival times are
/// then absolute, and survive restarts and changes of the limit.
struct AskedAt {
    now: UnixNanos,
    started: std::cell::Cell<bool>,
}

impl AskedAt {
    const fn new(now: UnixNanos) -> Self {
        Self { now, started: std::cell::Cell::new(false) }
    }
}

impl Clock for AskedAt {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let first = !self.started.replace(true);
        Nanos::from(if first { 0 } else { self.now.0 })
    }
}
