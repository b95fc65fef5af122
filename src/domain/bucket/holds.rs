//! What refunds may still give back. A request holds more than it will use and is corrected when it ends; by then time has
//! given back a part of its hold, and only the rest may be given back again, or it would come out of what others hold.
//!
//! A refund makes the bucket what it would be if the request had taken only what it used, at the time it was admitted: never
//! lower, so that what was admitted in any span fits the limit, and never higher, so that nobody is refused for what was
//! not used. How far it may lower the level is what the level never fell below since the hold was taken: everything under
//! that line is needed by nobody who came later. The line only falls, and it is the same or higher for younger holds, so
//! holds with the same line are kept as one run, and there is seldom more than a handful.

mod runs;

use std::num::NonZeroU64;

use self::runs::{Run, Runs};
use super::{Level, Rate, Refusal, scaled};
use crate::domain::time::UnixNanos;

/// A level, and the open holds on it from the oldest on. Everything that changes the level goes through here.
#[derive(Debug, Default)]
pub struct Bucket {
    level: Level,
    runs: Runs,
    /// The number of the youngest hold.
    last: Option<HoldNumber>,
}

/// Finds a hold again in its [`Bucket`]: younger holds have larger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldNumber(NonZeroU64);

impl HoldNumber {
    /// The first number, where there is none before it.
    pub const fn after(last: Option<Self>) -> Self {
        match last {
            Some(last) => Self(last.0.saturating_add(1)),
            None => Self(NonZeroU64::MIN),
        }
    }
}

impl Bucket {
    #[inline]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Holds that are not settled.
    pub fn open_holds(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.open))
    }

    /// Puts back a level from before a restart. What a unit weighs stays where it was not stored.
    pub const fn restore(&mut self, level: Level) {
        let unit_nanos = if level.unit_nanos == 0 { self.level.unit_nanos } else { level.unit_nanos };
        self.level = Level { unit_nanos, ..level };
    }

    /// The clock was set back by `nanos`: the bucket is as full at the earlier time as it was.
    pub const fn set_back(&mut self, nanos: u64) {
        self.level.arrival = UnixNanos(self.level.arrival.0.saturating_sub(nanos));
    }

    /// Takes `units` until they are settled, or takes nothing and says why.
    pub fn take(&mut self, units: impl Into<u32>, rate: Rate, now: UnixNanos) -> Result<HoldNumber, Refusal> {
        let taken = self.level.take(units, rate, now)?;
        Ok(self.hold(HoldNumber::after(self.last), taken, rate, now))
    }

    /// Takes `units` whether or not there is room: what [`Bucket::take`] has admitted, told again by the journal.
    pub fn retake(&mut self, units: impl Into<u32>, rate: Rate, now: UnixNanos) -> HoldNumber {
        self.retake_as(HoldNumber::after(self.last), units, rate, now)
    }

    /// As [`Bucket::retake`], under a number that is larger than those of all holds before.
    #[inline]
    pub fn retake_as(&mut self, number: HoldNumber, units: impl Into<u32>, rate: Rate, now: UnixNanos) -> HoldNumber {
        let taken = self.level.at(rate, now).charged(u64::from(units.into()), now);
        self.hold(number, taken, rate, now)
    }

    /// Begins a hold: `taken` is what it makes of this bucket's level at this rate and time.
    #[inline]
    fn hold(&mut self, number: HoldNumber, taken: Level, rate: Rate, now: UnixNanos) -> HoldNumber {
        if !self.runs.is_empty() {
            self.lower_to_level_at(rate, now);
        }
        self.level = taken;
        self.last = Some(number);
        // Nobody came later yet: all of the level may go.
        self.runs.push(Run { first: number, open: 1, refundable_nanos: taken.arrival.0 });
        number
    }

    /// Ends a hold of `held` units of which `used` were used: gives back what is too much, or books what is missing.
    pub fn settle(&mut self, hold: HoldNumber, held: impl Into<u32>, used: u64, now: UnixNanos) {
        let held = u64::from(held.into());
        if let ([Run { open: 1, refundable_nanos, .. }], Some(unused)) = (&*self.runs, held.checked_sub(used)) {
            // Nearly always nobody else holds anything, and there is nobody to leave something to.
            let unused_nanos = unused.saturating_mul(self.level.unit_nanos);
            let given = unused_nanos.min(*refundable_nanos).min(self.level.nanos(now));
            self.level.arrival = UnixNanos(self.level.arrival.0.saturating_sub(given));
            return self.runs.truncate(0);
        }
        if let Some(unused) = held.checked_sub(used) {
            self.give_back(hold, unused.saturating_mul(self.level.unit_nanos), now);
        } else {
            self.lower_to(self.level.nanos(now));
            self.level = self.level.charged(used - held, now);
        }
        self.close(hold);
    }

    fn give_back(&mut self, hold: HoldNumber, unused_nanos: u64, now: UnixNanos) {
        let Some(at) = self.run_of(hold) else { return };
        let (older, younger) = self.runs.split_at_mut(at);
        let Some(refundable) = younger.first().map(|run| run.refundable_nanos) else { return };
        let given = unused_nanos.min(refundable).min(self.level.nanos(now));
        if given == 0 {
            return;
        }
        self.level.arrival = UnixNanos(self.level.arrival.0.saturating_sub(given));
        for run in younger {
            run.refundable_nanos -= given;
        }
        for run in older {
            run.refundable_nanos = run.refundable_nanos.min(refundable - given);
        }
    }

    fn close(&mut self, hold: HoldNumber) {
        let Some(at) = self.run_of(hold) else { return };
        if let Some(run) = self.runs.get_mut(at) {
            run.open -= 1;
            if run.open == 0 {
                self.runs.remove(at);
            }
        }
    }

    /// As [`Bucket::lower_to`], where another rate may weigh the level and what may be given back of it anew.
    fn lower_to_level_at(&mut self, rate: Rate, now: UnixNanos) {
        let (from, to) = (self.level.unit(rate), rate.unit_nanos());
        if from != to {
            for run in self.runs.iter_mut() {
                run.refundable_nanos = scaled(run.refundable_nanos, from, to);
            }
        }
        self.lower_to(self.level.at(rate, now).nanos(now));
    }

    /// The level fell to `level_nanos` before somebody else took: no older hold may lower it by more.
    fn lower_to(&mut self, level_nanos: u64) {
        let keep = self.runs.partition_point(|run| run.refundable_nanos < level_nanos);
        let Some(first) = self.runs.get(keep).map(|run| run.first) else { return };
        let open = self.runs.iter().skip(keep).map(|run| run.open).sum();
        self.runs.truncate(keep);
        self.runs.push(Run { first, open, refundable_nanos: level_nanos });
    }

    fn run_of(&self, hold: HoldNumber) -> Option<usize> {
        self.runs.partition_point(|run| run.first <= hold).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
    const SECOND: u64 = 1_000_000_000;

    fn units(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    fn at(seconds: u64) -> UnixNanos {
        NOW.plus_nanos(seconds * SECOND)
    }

    #[test]
    fn a_late_refund_leaves_alone_what_others_hold() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_minute(units(300)));
        let slow = bucket.take(units(285), rate, at(0)).unwrap();
        bucket.take(units(284), rate, at(59)).unwrap();
        bucket.settle(slow, units(285), 10, at(61));
        assert!(matches!(bucket.take(units(284), rate, at(62)), Err(Refusal::Wait { .. })));
        assert_eq!(bucket.level().used(rate, at(62)), 284 - 3 * 5);
    }

    #[test]
    fn a_refund_behind_older_use_is_given_in_full() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_minute(units(60)));
        let first = bucket.take(units(40), rate, at(0)).unwrap();
        let second = bucket.take(units(20), rate, at(0)).unwrap();
        bucket.settle(first, units(40), 40, at(30));
        // Its own 20 seconds are over, but time has been paying for the first one.
        bucket.settle(second, units(20), 0, at(30));
        assert_eq!(bucket.level().used(rate, at(30)), 10);
    }

    #[test]
    fn a_refund_at_once_is_given_in_full_whoever_came_later() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_minute(units(60)));
        let first = bucket.take(units(30), rate, at(0)).unwrap();
        bucket.take(units(30), rate, at(0)).unwrap();
        bucket.settle(first, units(30), 1, at(0));
        assert_eq!(bucket.level().used(rate, at(0)), 31);
    }

    #[test]
    fn holds_with_nothing_between_them_are_one_run() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_minute(units(1_000)));
        let open: Vec<_> = (0..500).map(|n| bucket.take(units(1), rate, at(n)).unwrap()).collect();
        assert!(bucket.runs.len() <= 2, "{:?}", bucket.runs);
        for hold in open {
            bucket.settle(hold, units(1), 0, at(500));
        }
        assert!(bucket.runs.is_empty());
    }

    #[test]
    fn what_is_held_when_the_limit_changes_is_given_back_in_units() {
        let (mut bucket, narrow, wide) = (Bucket::default(), Rate::per_minute(units(60)), Rate::per_minute(units(600)));
        let first = bucket.take(units(30), narrow, at(0)).unwrap();
        let second = bucket.take(units(50), wide, at(0)).unwrap();
        assert_eq!(bucket.level().used(wide, at(0)), 80);
        bucket.settle(first, units(30), 10, at(0));
        assert_eq!(bucket.level().used(wide, at(0)), 60);
        assert!(matches!(bucket.take(units(1), narrow, at(0)), Err(Refusal::Wait { .. })));
        bucket.settle(second, units(50), 0, at(0));
        assert_eq!(bucket.level().used(narrow, at(0)), 10);
        assert!(bucket.runs.is_empty());
    }

    #[test]
    fn what_others_hold_when_the_limit_changes_is_left_alone_too() {
        let (mut bucket, narrow, wide) = (Bucket::default(), Rate::per_minute(units(60)), Rate::per_minute(units(600)));
        let slow = bucket.take(units(30), narrow, at(0)).unwrap();
        // Time has paid for 20 of the 30 when others come.
        bucket.take(units(40), narrow, at(20)).unwrap();
        bucket.take(units(1), wide, at(20)).unwrap();
        assert_eq!(bucket.level().used(wide, at(20)), 51);
        bucket.settle(slow, units(30), 0, at(20));
        assert_eq!(bucket.level().used(wide, at(20)), 41);
    }

    /// What a bucket would be, computed anew each time from everybody who was ever admitted.
    #[derive(Default)]
    struct Naive {
        /// When, what counts of it by now, and what was held.
        taken: Vec<(UnixNanos, u64, u32)>,
    }

    impl Naive {
        fn arrival(&self, rate: Rate) -> u64 {
            self.taken.iter().fold(0, |arrival, (at, counts, _)| arrival.max(at.0) + counts * rate.unit_nanos())
        }

        /// More than a span may hold was admitted in it.
        fn exceeded(&self, rate: Rate) -> bool {
            (0..self.taken.len()).any(|from| {
                let mut sum = 0_u128;
                let begin = self.taken[from].0;
                self.taken[from..].iter().any(|(at, counts, _)| {
                    sum += u128::from(*counts);
                    let refilled = at.since(begin) / rate.unit_nanos();
                    sum > u128::from(rate.limit()) + u128::from(refilled)
                })
            })
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u32),
        /// Which of the open holds, and how much of it was used, in thousandths.
        Settle(prop::sample::Index, u32),
    }

    fn any_step() -> impl Strategy<Value = (u64, Step)> {
        let step = prop_oneof![
            (1_u32..300).prop_map(Step::Take),
            (any::<prop::sample::Index>(), 0_u32..=1_000).prop_map(|(which, used)| Step::Settle(which, used)),
        ];
        (prop_oneof![Just(0), 0..SECOND, 0..40 * SECOND], step)
    }

    proptest! {
        #[test]
        fn a_settled_bucket_is_as_if_only_what_was_used_had_been_taken(
            limit in 100_u32..600,
            steps in prop::collection::vec(any_step(), 1..120),
        ) {
            let (mut bucket, rate) = (Bucket::default(), Rate::per_minute(units(limit)));
            let (mut naive, mut open, mut now) = (Naive::default(), Vec::new(), NOW);
            for (gap_nanos, step) in steps {
                now = now.plus_nanos(gap_nanos);
                match step {
                    Step::Take(n) => {
                        let would_be = naive.arrival(rate).max(now.0) + u64::from(n) * rate.unit_nanos();
                        let fits = would_be - now.0 <= u64::from(limit) * rate.unit_nanos();
                        let taken = bucket.take(units(n), rate, now);
                        prop_assert_eq!(taken.is_ok(), fits, "never more than the limit, never less than the room");
                        if let Ok(hold) = taken {
                            open.push((hold, naive.taken.len()));
                            naive.taken.push((now, u64::from(n), n));
                        }
                    }
                    Step::Settle(which, used) if !open.is_empty() => {
                        let (hold, place) = open.swap_remove(which.index(open.len()));
                        let held = naive.taken[place].2;
                        let used = u64::from(held) * u64::from(used) / 1_000;
                        naive.taken[place].1 = used;
                        bucket.settle(hold, units(held), used, now);
                    }
                    Step::Settle(..) => {}
                }
                prop_assert_eq!(bucket.level().nanos(now), naive.arrival(rate).saturating_sub(now.0));
                prop_assert!(!naive.exceeded(rate));
                prop_assert!(bucket.runs.len() <= open.len());
                prop_assert!(bucket.runs.is_sorted_by_key(|run| run.refundable_nanos));
            }
        }

        #[test]
        fn debt_is_never_forgiven_by_a_refund(
            steps in prop::collection::vec((0_u64..20 * SECOND, 1_u32..300, 0_u64..900), 1..80),
        ) {
            // Each step settles the hold before last; debt counts from when it is booked.
            let (mut bucket, rate) = (Bucket::default(), Rate::per_minute(units(300)));
            let (mut naive, mut open, mut now) = (Naive::default(), std::collections::VecDeque::new(), NOW);
            for (gap_nanos, n, used) in steps {
                now = now.plus_nanos(gap_nanos);
                if let Ok(hold) = bucket.take(units(n), rate, now) {
                    open.push_back((hold, naive.taken.len(), used));
                    naive.taken.push((now, u64::from(n), n));
                }
                if open.len() > 2 && let Some((hold, place, used)) = open.pop_front() {
                    let held = naive.taken[place].2;
                    naive.taken[place].1 = used.min(u64::from(held));
                    if let Some(excess) = used.checked_sub(u64::from(held)).filter(|excess| *excess > 0) {
                        naive.taken.push((now, excess, 0));
                    }
                    bucket.settle(hold, units(held), used, now);
                }
                prop_assert_eq!(bucket.level().nanos(now), naive.arrival(rate).saturating_sub(now.0));
            }
        }
    }
}
