//! One limit's state: a bucket that holds its limit and refills continuously, as `OpenAI`'s do.
//!
//! The state is a single number, the theoretical arrival time of GCRA in Unix nanoseconds: how far it lies in the future
//! is how full of use the bucket is. governor decides on admission; giving back, debt and headroom are the same
//! arithmetic on the same number. How much of an open hold may be given back is kept beside it, in [`Holds`].

mod holds;

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};
use serde::{Deserialize, Serialize};

pub use self::holds::{HoldNumber, Holds};
use super::time::UnixNanos;

pub const MINUTE_NANOS: u64 = 60_000_000_000;
pub const DAY_NANOS: u64 = 86_400_000_000_000;

/// A limit of `limit` units per `window_nanos`, refilled evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    limit: NonZeroU32,
    window_nanos: u64,
}

impl Rate {
    pub const fn per_minute(limit: NonZeroU32) -> Self {
        Self { limit, window_nanos: MINUTE_NANOS }
    }

    pub const fn per_day(limit: NonZeroU32) -> Self {
        Self { limit, window_nanos: DAY_NANOS }
    }

    pub const fn limit(self) -> u32 {
        self.limit.get()
    }

    /// Time for one unit to come back. Rounded up to whole nanoseconds, so that the limit is never exceeded.
    pub const fn unit_nanos(self) -> u64 {
        self.window_nanos.div_ceil(self.limit.get() as u64)
    }

    fn quota(self) -> Quota {
        let refill = Duration::from_nanos(self.unit_nanos());
        // A period of zero is impossible: a window is at least a minute and a limit fits 32 bits.
        Quota::with_period(refill).unwrap_or_else(|| Quota::per_minute(self.limit)).allow_burst(self.limit)
    }
}

/// Why a bucket refused: what is larger is refused longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There is room again after this time.
    Wait { nanos: u64 },
    /// More than the bucket holds when it is full: waiting does not help.
    TooLarge,
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headroom {
    pub limit: u32,
    pub remaining: u32,
    /// Time until the bucket is full again.
    pub reset_nanos: u64,
}

#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    pub const fn restored(arrival: UnixNanos) -> Self {
        Self(AtomicU64::new(arrival.0))
    }

    /// Takes `units`, or takes nothing and says why.
    fn take(&self, units: NonZeroU32, rate: Rate, now: UnixNanos) -> Result<(), Refusal> {
        let limiter: RateLimiter<NotKeyed, &Self, AskedAt, NoOpMiddleware<Nanos>> =
            RateLimiter::new(rate.quota(), self, AskedAt::new(now));
        match limiter.check_n(units) {
            Err(_insufficient_capacity) => Err(Refusal::TooLarge),
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(Refusal::Wait { nanos: not_until.earliest_possible().as_u64() - now.0 }),
        }
    }

    /// Why `units` would not be taken now; nothing is.
    pub fn refusal(&self, units: NonZeroU32, rate: Rate, now: UnixNanos) -> Option<Refusal> {
        Self::restored(self.arrival()).take(units, rate, now).err()
    }

    /// Books `units` whether or not there is room. Past the limit it is debt, and the bucket refuses until time has paid it.
    fn charge(&self, units: u64, rate: Rate, now: UnixNanos) {
        self.update(|arrival| arrival.max(now.0).saturating_add(units.saturating_mul(rate.unit_nanos())));
    }

    fn lower(&self, nanos: u64) {
        self.update(|arrival| arrival.saturating_sub(nanos));
    }

    pub fn headroom(&self, rate: Rate, now: UnixNanos) -> Headroom {
        let (limit, unit_nanos) = (u64::from(rate.limit()), rate.unit_nanos());
        let level_nanos = self.arrival().since(now);
        let used = self.used(rate, now);
        // Scaled from rounded-up units to the exact window, so that the printed milliseconds are OpenAI's.
        let reset =
            u128::from(level_nanos) * u128::from(rate.window_nanos) / (u128::from(unit_nanos) * u128::from(limit));
        Headroom {
            limit: rate.limit(),
            remaining: u32::try_from(limit.saturating_sub(used)).unwrap_or(0),
            reset_nanos: u64::try_from(reset).unwrap_or(u64::MAX),
        }
    }

    /// Units in use, debt included.
    pub fn used(&self, rate: Rate, now: UnixNanos) -> u64 {
        self.arrival().since(now).div_ceil(rate.unit_nanos())
    }

    /// Puts back a state from before a restart.
    pub fn restore(&self, arrival: UnixNanos) {
        self.0.store(arrival.0, Ordering::Release);
    }

    /// The stored number: when the bucket is full again.
    pub fn arrival(&self) -> UnixNanos {
        UnixNanos(self.0.load(Ordering::Acquire))
    }

    fn update(&self, next: impl Fn(u64) -> u64) {
        // The closure never returns None, so the update cannot fail.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |arrival| Some(next(arrival)));
    }
}

impl StateStore for &Bucket {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut arrival = self.0.load(Ordering::Acquire);
        loop {
            let (outcome, next) = decide(Some(Nanos::from(arrival)))?;
            match self.0.compare_exchange_weak(arrival, next.as_u64(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(outcome),
                Err(changed) => arrival = changed,
            }
        }
    }
}

/// Hands governor the time of the question. It counts from its first reading, so that one is zero: arrival times are
/// then absolute, and survive restarts and changes of the limit.
struct AskedAt {
    now: UnixNanos,
    started: AtomicBool,
}

impl AskedAt {
    const fn new(now: UnixNanos) -> Self {
        Self { now, started: AtomicBool::new(false) }
    }
}

impl Clock for AskedAt {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let first = !self.started.swap(true, Ordering::Relaxed);
        Nanos::from(if first { 0 } else { self.now.0 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

    fn units(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn a_bucket_holds_exactly_its_limit() {
        let (bucket, rate) = (Bucket::default(), Rate::per_minute(units(3)));
        for _ in 0..3 {
            assert_eq!(bucket.take(units(1), rate, NOW), Ok(()));
        }
        assert_eq!(bucket.take(units(1), rate, NOW), Err(Refusal::Wait { nanos: 20_000_000_000 }));
        let just_before = NOW.plus_nanos(20_000_000_000 - 1);
        assert_eq!(bucket.take(units(1), rate, just_before), Err(Refusal::Wait { nanos: 1 }));
        assert_eq!(bucket.take(units(1), rate, NOW.plus_nanos(20_000_000_000)), Ok(()));
    }

    #[test]
    fn more_than_the_bucket_holds_is_too_large_and_takes_nothing() {
        let (bucket, rate) = (Bucket::default(), Rate::per_minute(units(10)));
        assert_eq!(bucket.take(units(11), rate, NOW), Err(Refusal::TooLarge));
        assert_eq!(bucket.headroom(rate, NOW).remaining, 10);
        assert_eq!(bucket.take(units(10), rate, NOW), Ok(()));
    }

    #[test]
    fn debt_is_paid_before_anything_is_admitted() {
        let (bucket, rate) = (Bucket::default(), Rate::per_minute(units(60)));
        bucket.charge(90, rate, NOW);
        assert_eq!(bucket.headroom(rate, NOW).remaining, 0);
        assert_eq!(bucket.take(units(1), rate, NOW), Err(Refusal::Wait { nanos: 31_000_000_000 }));
    }

    #[test]
    fn recorded_headers_come_out_to_the_millisecond() {
        // limit, window, used -> remaining and reset as api.openai.com printed them (protocol facts d.1).
        let minute = |n| Rate::per_minute(units(n));
        for (rate, used, remaining, reset_ms) in [
            (Rate::per_day(units(10_000)), 1, 9_999, 8_640),
            (minute(200_000), 29, 199_971, 8),
            (minute(200_000), 16, 199_984, 4),
            (minute(30_000), 16, 29_984, 32),
            (minute(500), 1, 499, 120),
            (minute(10_000), 519, 9_481, 3_114),
        ] {
            let bucket = Bucket::default();
            bucket.take(units(used), rate, NOW).unwrap();
            let headroom = bucket.headroom(rate, NOW);
            assert_eq!((headroom.remaining, headroom.reset_nanos / 1_000_000), (remaining, reset_ms));
        }
    }

    proptest! {
        #[test]
        fn any_span_admits_at_most_the_limit_plus_what_refilled(
            limit in 1_u32..5_000,
            steps in prop::collection::vec((0_u64..3_000_000_000, 1_u32..50), 1..200),
        ) {
            let (bucket, rate) = (Bucket::default(), Rate::per_minute(units(limit)));
            let (mut now, mut admitted) = (NOW, 0_u128);
            for (gap_nanos, n) in steps {
                now = now.plus_nanos(gap_nanos);
                if bucket.take(units(n), rate, now).is_ok() {
                    admitted += u128::from(n);
                }
                let refilled = u128::from(now.since(NOW)) * u128::from(limit) / u128::from(MINUTE_NANOS);
                prop_assert!(admitted <= u128::from(limit) + refilled);
            }
        }
    }
}
