//! One limit's state: a bucket that holds its limit and refills continuously, as `OpenAI`'s do.
//!
//! The state is a single number, the theoretical arrival time of GCRA in Unix nanoseconds: how far it lies in the future
//! is how full of use the bucket is. Beside it stands what one unit weighs, so that another limit takes over the units and
//! not their share. governor decides on admission; whether there is room at all, giving back, debt and headroom are the same
//! arithmetic on the same number. How much of an open hold may be given back is kept beside it, in [`Bucket`].

mod governed;
mod holds;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

pub use self::holds::{Bucket, HoldNumber};
use super::time::UnixNanos;

pub const MINUTE_NANOS: u64 = 60_000_000_000;
pub const DAY_NANOS: u64 = 86_400_000_000_000;

/// A limit of `limit` units per `window_nanos`, refilled evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    limit: NonZeroU32,
    window_nanos: u64,
    unit_nanos: u64,
}

impl Rate {
    pub const fn per_minute(limit: NonZeroU32) -> Self {
        Self::new(limit, MINUTE_NANOS)
    }

    pub const fn per_day(limit: NonZeroU32) -> Self {
        Self::new(limit, DAY_NANOS)
    }

    const fn new(limit: NonZeroU32, window_nanos: u64) -> Self {
        Self { limit, window_nanos, unit_nanos: window_nanos.div_ceil(limit.get() as u64) }
    }

    /// As [`Self::per_minute`], where a multiplication proves that the unit is what it was at `level`: it is asked for with
    /// each request, and a division takes several times as long.
    #[inline]
    pub const fn per_minute_at(level: Level, limit: NonZeroU32) -> Self {
        Self::at(level, limit, MINUTE_NANOS)
    }

    /// As [`Self::per_day`], in the same way.
    #[inline]
    pub const fn per_day_at(level: Level, limit: NonZeroU32) -> Self {
        Self::at(level, limit, DAY_NANOS)
    }

    #[inline]
    const fn at(level: Level, limit: NonZeroU32, window_nanos: u64) -> Self {
        let unit_nanos = level.unit_nanos;
        match unit_nanos.checked_mul(limit.get() as u64) {
            Some(nanos) if nanos >= window_nanos && nanos - window_nanos < limit.get() as u64 => {
                Self { limit, window_nanos, unit_nanos }
            }
            _ => Self::new(limit, window_nanos),
        }
    }

    pub const fn limit(self) -> u32 {
        self.limit.get()
    }

    /// Time for one unit to come back. Rounded up to whole nanoseconds, so that the limit is never exceeded.
    pub const fn unit_nanos(self) -> u64 {
        self.unit_nanos
    }
}

/// Why a bucket refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How full a bucket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// When the bucket is full again.
    pub arrival: UnixNanos,
    /// Time for one unit to come back under the limit that was last taken from; 0 when that is not known, as with levels
    /// that earlier versions stored: the limit in force is taken for it then.
    ///
    /// Another limit is in force for the refill from the first request on that it admits, so that nothing but admissions
    /// changes a level, and the journal tells all of them.
    pub unit_nanos: u64,
}

impl Level {
    /// What is left of the use of before.
    #[inline]
    pub const fn nanos(self, now: UnixNanos) -> u64 {
        self.arrival.since(now)
    }

    /// The level with `units` more, or why there is no room for them. For none there is always room.
    #[inline]
    pub fn take(self, units: impl Into<u32>, rate: Rate, now: UnixNanos) -> Result<Self, Refusal> {
        let level = self.at(rate, now);
        let Some(units) = NonZeroU32::new(units.into()) else { return Ok(level) };
        match governed::taken(level.arrival, units, rate, now) {
            Ok(arrival) => Ok(Self { arrival, ..level }),
            // Until then it is the limit of before that refills.
            Err(Refusal::Wait { .. }) if level != self => {
                let room = u64::from(rate.limit().saturating_sub(units.get()));
                Err(Refusal::Wait { nanos: self.nanos(now).saturating_sub(room.saturating_mul(self.unit(rate))) })
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether [`Self::take`] would take `units`. Nearly all requests pass, and to learn that takes no limiter, which is made
    /// for those that have to be told how long to wait.
    #[inline]
    pub fn has_room(self, units: u32, rate: Rate, now: UnixNanos) -> bool {
        let unit_nanos = rate.unit_nanos();
        let taken = self.at(rate, now).nanos(now).saturating_add(unit_nanos.saturating_mul(units.into()));
        units == 0 || taken <= unit_nanos.saturating_mul(rate.limit().into())
    }

    pub fn headroom(self, rate: Rate, now: UnixNanos) -> Headroom {
        self.headroom_beside(self.used(rate, now), rate, now)
    }

    /// As [`Self::headroom`], where it is known that `used` units are in use.
    #[inline]
    pub fn headroom_beside(self, used: u64, rate: Rate, now: UnixNanos) -> Headroom {
        let remaining = u32::try_from(u64::from(rate.limit()).saturating_sub(used)).unwrap_or(0);
        Headroom { limit: rate.limit(), remaining, reset_nanos: self.reset_nanos(rate, now) }
    }

    /// Time until the bucket is full again if nobody takes from it: until then it is the limit of before that refills.
    #[inline]
    fn reset_nanos(self, rate: Rate, now: UnixNanos) -> u64 {
        let (nanos, unit_nanos) = (self.nanos(now), rate.unit_nanos());
        if self.unit(rate) != unit_nanos {
            return nanos;
        }
        // Scaled from rounded-up units to the exact window, so that the printed milliseconds are OpenAI's.
        let units_nanos = unit_nanos.saturating_mul(rate.limit().into());
        if units_nanos == rate.window_nanos {
            return nanos;
        }
        part(nanos, rate.window_nanos, units_nanos)
    }

    /// Units in use, debt included.
    #[inline]
    pub fn used(self, rate: Rate, now: UnixNanos) -> u64 {
        self.nanos(now).div_ceil(self.unit(rate))
    }

    #[inline]
    const fn unit(self, rate: Rate) -> u64 {
        if self.unit_nanos == 0 { rate.unit_nanos() } else { self.unit_nanos }
    }

    /// The same units in use, as another rate weighs them.
    #[inline]
    fn at(self, rate: Rate, now: UnixNanos) -> Self {
        let (from, to) = (self.unit(rate), rate.unit_nanos());
        let arrival = match self.nanos(now) {
            nanos if from == to || nanos == 0 => self.arrival,
            nanos => now.plus_nanos(scaled(nanos, from, to)),
        };
        Self { arrival, unit_nanos: to }
    }

    /// With `units` more, whether or not there is room. Past the limit it is debt, and the bucket refuses until time has
    /// paid it.
    #[inline]
    fn charged(self, units: u64, now: UnixNanos) -> Self {
        if units == 0 {
            return self;
        }
        Self { arrival: self.arrival.max(now).plus_nanos(units.saturating_mul(self.unit_nanos)), ..self }
    }
}

/// Apart from what needs no such division, as most limits do not: it would be in its way.
#[inline(never)]
fn part(nanos: u64, numerator: u64, denominator: u64) -> u64 {
    let part = u128::from(nanos) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Rounded up, so that no unit gets lost. A limit that changes is rare.
#[cold]
fn scaled(nanos: u64, from: u64, to: u64) -> u64 {
    let scaled = (u128::from(nanos) * u128::from(to)).div_ceil(u128::from(from.max(1)));
    u64::try_from(scaled).unwrap_or(u64::MAX)
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
        let (mut level, rate) = (Level::default(), Rate::per_minute(units(3)));
        for _ in 0..3 {
            level = level.take(units(1), rate, NOW).unwrap();
        }
        assert_eq!(level.take(units(1), rate, NOW), Err(Refusal::Wait { nanos: 20_000_000_000 }));
        let just_before = NOW.plus_nanos(20_000_000_000 - 1);
        assert_eq!(level.take(units(1), rate, just_before), Err(Refusal::Wait { nanos: 1 }));
        assert!(level.take(units(1), rate, NOW.plus_nanos(20_000_000_000)).is_ok());
    }

    #[test]
    fn more_than_the_bucket_holds_is_too_large_and_takes_nothing() {
        let (level, rate) = (Level::default(), Rate::per_minute(units(10)));
        assert_eq!(level.take(units(11), rate, NOW), Err(Refusal::TooLarge));
        assert_eq!(level.headroom(rate, NOW).remaining, 10);
        assert!(level.take(units(10), rate, NOW).is_ok());
    }

    #[test]
    fn debt_is_paid_before_anything_is_admitted() {
        let rate = Rate::per_minute(units(60));
        let level = Level::default().at(rate, NOW).charged(90, NOW);
        assert_eq!(level.headroom(rate, NOW).remaining, 0);
        assert_eq!(level.take(units(1), rate, NOW), Err(Refusal::Wait { nanos: 31_000_000_000 }));
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
            let headroom = Level::default().take(units(used), rate, NOW).unwrap().headroom(rate, NOW);
            assert_eq!((headroom.remaining, headroom.reset_nanos / 1_000_000), (remaining, reset_ms));
        }
    }

    #[test]
    fn a_changed_limit_keeps_the_units_that_are_in_use() {
        let minute = |n| Rate::per_minute(units(n));
        let level = Level::default().take(units(100), minute(500), NOW).unwrap();
        for limit in [1_000, 500, 250, 101] {
            assert_eq!(level.headroom(minute(limit), NOW).remaining, limit - 100);
            let taken = level.take(units(1), minute(limit), NOW).unwrap();
            assert_eq!(taken.headroom(minute(limit), NOW).remaining, limit - 101);
            assert_eq!(taken.take(units(1), minute(500), NOW).unwrap().used(minute(500), NOW), 102);
        }
        assert_eq!(level.headroom(minute(40), NOW).remaining, 0);
        // What earlier versions stored is a share of whatever is in force.
        let of_before = Level { unit_nanos: 0, ..level };
        assert_eq!(of_before.used(minute(1_000), NOW), 200);
    }

    #[test]
    fn after_a_change_of_the_limit_the_told_reset_is_when_the_bucket_is_full() {
        let minute = |n| Rate::per_minute(units(n));
        let level = Level::default().take(units(100), minute(500), NOW).unwrap();
        for (limit, after_nanos) in [(500, 0), (1_000, 0), (1_000, 6_000_000_000), (40, 6_000_000_000)] {
            let later = NOW.plus_nanos(after_nanos);
            let reset_nanos = level.headroom(minute(limit), later).reset_nanos;
            assert_eq!(after_nanos + reset_nanos, 12_000_000_000, "{limit}: the limit of before refills");
            let remaining = |at: UnixNanos| level.headroom(minute(limit), at).remaining;
            assert_eq!(remaining(later.plus_nanos(reset_nanos)), limit);
            assert_eq!(remaining(later.plus_nanos(reset_nanos - 1)), limit - 1);
        }
        // The next that is admitted puts the limit in force into force for the refill too.
        let taken = level.take(units(1), minute(1_000), NOW).unwrap();
        assert_eq!(taken.headroom(minute(1_000), NOW).reset_nanos, 101 * 60_000_000);
    }

    proptest! {
        #[test]
        fn there_is_room_exactly_for_what_is_taken(
            before in 1_u32..100, limit in 1_u32..100, used in 0_u32..100, asked in 0_u32..110, later in 0_u64..MINUTE_NANOS,
        ) {
            for (before, rate) in [(before, Rate::per_minute(units(limit))), (limit, Rate::per_day(units(limit)))] {
                let mut level = Level::default();
                if used > 0 {
                    level = level.take(units(used.min(before)), Rate::per_minute(units(before)), NOW).unwrap();
                }
                let now = NOW.plus_nanos(later);
                // To the nanosecond: when it has to wait, and just before there is room.
                let waited = match level.take(asked, rate, now) {
                    Err(Refusal::Wait { nanos }) => now.plus_nanos(nanos),
                    _ => now,
                };
                for now in [now, UnixNanos(waited.0 - 1), waited] {
                    prop_assert_eq!(level.has_room(asked, rate, now), level.take(asked, rate, now).is_ok());
                }
            }
        }

        #[test]
        fn a_rate_is_the_same_whatever_the_bucket_was_filled_at(limit in 1_u32.., unit_nanos in any::<u64>(), near in -2_i64..3) {
            for (rate, at) in [
                (Rate::per_minute(units(limit)), Rate::per_minute_at as fn(Level, NonZeroU32) -> Rate),
                (Rate::per_day(units(limit)), Rate::per_day_at),
            ] {
                for unit_nanos in [unit_nanos, rate.unit_nanos().saturating_add_signed(near)] {
                    prop_assert_eq!(at(Level { unit_nanos, ..Level::default() }, units(limit)), rate);
                }
            }
        }

        #[test]
        fn after_a_change_of_the_limit_the_told_wait_is_exact_too(
            before in 1_u32..5_000, after in 1_u32..5_000, used in 1_u32..5_000, asked in 1_u32..5_000,
        ) {
            let (before, after) = (Rate::per_minute(units(before)), Rate::per_minute(units(after)));
            let level = Level::default().take(units(used.min(before.limit())), before, NOW).unwrap();
            if let Err(Refusal::Wait { nanos }) = level.take(units(asked), after, NOW) {
                prop_assert!(level.take(units(asked), after, NOW.plus_nanos(nanos - 1)).is_err());
                let taken = level.take(units(asked), after, NOW.plus_nanos(nanos)).unwrap();
                prop_assert_eq!(taken.headroom(after, NOW.plus_nanos(nanos)).remaining, 0);
            }
        }

        #[test]
        fn any_span_admits_at_most_the_limit_plus_what_refilled(
            limit in 1_u32..5_000,
            steps in prop::collection::vec((0_u64..3_000_000_000, 1_u32..50), 1..200),
        ) {
            let (mut level, rate) = (Level::default(), Rate::per_minute(units(limit)));
            let (mut now, mut admitted) = (NOW, 0_u128);
            for (gap_nanos, n) in steps {
                now = now.plus_nanos(gap_nanos);
                if let Ok(taken) = level.take(units(n), rate, now) {
                    level = taken;
                    admitted += u128::from(n);
                }
                let refilled = u128::from(now.since(NOW)) * u128::from(limit) / u128::from(MINUTE_NANOS);
                prop_assert!(admitted <= u128::from(limit) + refilled);
            }
        }
    }
}
