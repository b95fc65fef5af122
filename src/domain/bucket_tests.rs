//! The bucket beside a model of whole numbers that knows everybody who was ever admitted: a million steps, and jumps of the
//! clock.

use std::num::NonZeroU32;

use super::{
    bucket::{Bucket, HoldNumber, Level, Rate, Refusal},
    time::UnixNanos,
};

const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
const SECOND: u64 = 1_000_000_000;
const JUMP: u64 = 25 * 3_600 * SECOND;

fn units(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

/// Who took what and when. A bucket is full again at the latest of: the time of anybody, and all from him on after it. A tree
/// of maxima answers that in the logarithm of the number of takers, and lets any of them be corrected.
struct Model {
    /// Of the takers below: what counts of them together, and when the bucket would be full again with them alone.
    nodes: Vec<(u64, u64)>,
    leaves: usize,
    takers: usize,
}

impl Model {
    fn for_takers(most: usize) -> Self {
        let leaves = most.next_power_of_two();
        Self { nodes: vec![(0, 0); 2 * leaves], leaves, takers: 0 }
    }

    fn take(&mut self, at: UnixNanos, nanos: u64) -> usize {
        self.takers += 1;
        self.set(self.takers - 1, at, nanos);
        self.takers - 1
    }

    fn set(&mut self, taker: usize, at: UnixNanos, nanos: u64) {
        let mut node = self.leaves + taker;
        self.nodes[node] = (nanos, at.0 + nanos);
        while node > 1 {
            node /= 2;
            let ((before, older), (after, younger)) = (self.nodes[2 * node], self.nodes[2 * node + 1]);
            self.nodes[node] = (before + after, younger.max(older + after));
        }
    }

    fn level(&self, now: UnixNanos) -> u64 {
        self.nodes[1].1.saturating_sub(now.0)
    }
}

/// Evenly spread, and the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

struct Open {
    number: HoldNumber,
    taker: usize,
    at: UnixNanos,
    held: u32,
}

/// A bucket and its model, told the same.
struct Pair {
    rate: Rate,
    bucket: Bucket,
    model: Model,
    open: Vec<Open>,
    admitted: u64,
    refused: u64,
}

impl Pair {
    fn new(rate: Rate, steps: usize) -> Self {
        Self {
            rate,
            bucket: Bucket::default(),
            model: Model::for_takers(steps),
            open: Vec::new(),
            admitted: 0,
            refused: 0,
        }
    }

    fn reserve(&mut self, n: u32, now: UnixNanos) {
        let (unit, limit) = (self.rate.unit_nanos(), self.rate.limit());
        let over = (self.model.level(now) + u64::from(n) * unit).saturating_sub(u64::from(limit) * unit);
        let expected = match over {
            _ if n > limit => Err(Refusal::TooLarge),
            0 => Ok(()),
            nanos => Err(Refusal::Wait { nanos }),
        };
        let taken = self.bucket.take(units(n), self.rate, now);
        assert_eq!(taken.map(drop), expected);
        if let Ok(number) = taken {
            let taker = self.model.take(now, u64::from(n) * unit);
            self.open.push(Open { number, taker, at: now, held: n });
            self.admitted += 1;
        } else {
            self.refused += 1;
        }
    }

    /// Ends any open hold, of which `used` units were used: none is a release, and more than it held is a debt.
    fn settle(&mut self, which: u64, used: impl FnOnce(u32) -> u64, now: UnixNanos) {
        let Some(which) = which.checked_rem(self.open.len() as u64) else { return };
        let Open { number, taker, at, held } = self.open.swap_remove(usize::try_from(which).unwrap());
        let (used, unit) = (used(held), self.rate.unit_nanos());
        self.model.set(taker, at, used.min(held.into()) * unit);
        if let Some(debt) = used.checked_sub(held.into()).filter(|debt| *debt > 0) {
            self.model.take(now, debt * unit);
        }
        self.bucket.settle(number, units(held), used, now);
    }

    fn check(&self, now: UnixNanos, step: usize) {
        assert_eq!(self.bucket.level().nanos(now), self.model.level(now), "{:?}, step {step}", self.rate);
    }
}

fn rates() -> [Rate; 4] {
    [
        Rate::per_minute(units(3)),
        Rate::per_minute(units(500)),
        Rate::per_minute(units(40_000)),
        Rate::per_day(units(10_000)),
    ]
}

fn random_steps(steps: usize, seed: u64) {
    let (mut dice, mut now) = (Dice(seed), NOW);
    let mut pairs = rates().map(|rate| Pair::new(rate, steps));
    for step in 0..steps {
        let pair = &mut pairs[usize::try_from(dice.below(4)).unwrap()];
        let limit = u64::from(pair.rate.limit());
        match dice.below(16) {
            0..=6 => {
                let most = if dice.below(40) == 0 { limit + 2 } else { limit.div_ceil(8) };
                pair.reserve(u32::try_from(1 + dice.below(most)).unwrap(), now);
            }
            7..=9 => pair.settle(dice.below(u64::MAX), |held| u64::from(held / 2), now),
            10 => pair.settle(dice.below(u64::MAX), u64::from, now),
            11 => pair.settle(dice.below(u64::MAX), |held| u64::from(held) + 1 + limit / 50, now),
            12 => pair.settle(dice.below(u64::MAX), |_| 0, now),
            13..=14 => now = now.plus_nanos(dice.below(SECOND / 2)),
            _ => {
                let far = match dice.below(40) {
                    0 => JUMP,
                    1..=3 => JUMP / 6,
                    _ => 8 * SECOND,
                };
                now = now.plus_nanos(dice.below(far));
            }
        }
        pair.check(now, step);
        // Nothing is open for ever: who is slow keeps many, and then none.
        if dice.below(500) == 0 {
            for pair in &mut pairs {
                while !pair.open.is_empty() {
                    pair.settle(dice.below(u64::MAX), |held| u64::from(held / 3), now);
                    pair.check(now, step);
                }
            }
        }
    }
    for mut pair in pairs {
        while !pair.open.is_empty() {
            pair.settle(0, |_| 0, now);
        }
        pair.check(now, steps);
        assert!(format!("{:?}", pair.bucket).contains("runs: []"), "nothing is outstanding: {:?}", pair.bucket);
        let few = u64::try_from(steps / 400).unwrap();
        assert!(pair.admitted > few && pair.refused > few, "{:?}: {} {}", pair.rate, pair.admitted, pair.refused);
    }
}

#[test]
fn a_bucket_is_as_its_model_to_the_nanosecond_over_a_million_steps() {
    random_steps(1_000_000, 0xd1b5_4a32_d192_ed03);
}

/// A bucket in use, with some holds open.
fn used(rate: Rate) -> Pair {
    let mut pair = Pair::new(rate, 100);
    let (mut dice, part) = (Dice(7), u64::from(rate.limit()).div_ceil(5));
    for second in 0..8 {
        pair.reserve(u32::try_from(1 + dice.below(part)).unwrap(), NOW.plus_nanos(second * SECOND / 8));
    }
    assert!(!pair.open.is_empty());
    pair
}

/// The whole limit can be taken at `now`, and no unit more.
fn is_full_and_no_fuller(pair: &mut Pair, now: UnixNanos) {
    let Pair { rate, bucket, .. } = pair;
    assert!(bucket.take(units(rate.limit()), *rate, now).is_ok());
    assert_eq!(bucket.take(units(1), *rate, now), Err(Refusal::Wait { nanos: rate.unit_nanos() }));
}

#[test]
fn a_jump_forward_by_25_hours_makes_a_bucket_full_and_no_fuller() {
    for mut pair in rates().map(used) {
        is_full_and_no_fuller(&mut pair, NOW.plus_nanos(JUMP + SECOND));
    }
}

#[test]
fn what_was_held_before_a_jump_forward_gives_back_nothing_after_it() {
    for mut pair in rates().map(used) {
        let after = NOW.plus_nanos(JUMP + SECOND);
        while !pair.open.is_empty() {
            pair.settle(0, |_| 0, after);
            pair.check(after, 0);
        }
        is_full_and_no_fuller(&mut pair, after);
        let mut pair = used(pair.rate);
        is_full_and_no_fuller(&mut pair, after);
        for Open { number, held, .. } in std::mem::take(&mut pair.open) {
            pair.bucket.settle(number, units(held), 0, after);
        }
        let Pair { rate, bucket, .. } = &mut pair;
        assert_eq!(bucket.take(units(1), *rate, after), Err(Refusal::Wait { nanos: rate.unit_nanos() }));
    }
}

#[test]
fn a_jump_back_by_25_hours_grants_nothing_and_is_undone_by_a_jump_forward() {
    for mut pair in rates().map(used) {
        let (before, now) = (pair.bucket.level(), NOW.plus_nanos(SECOND));
        let back = UnixNanos(now.0 - JUMP);
        let Pair { rate, bucket, .. } = &mut pair;
        assert!(bucket.take(units(1), *rate, back).is_err(), "{rate:?} has nothing before its time");
        assert_eq!(bucket.level(), before);
        // What is held can be given back, and no more than that, whatever the clock says.
        pair.settle(0, |held| u64::from(held / 2), back);
        pair.check(back, 0);
        pair.check(now, 0);
        pair.reserve(1, now);
        pair.check(now, 0);
    }
}

#[test]
fn a_bucket_put_back_earlier_by_as_much_as_the_clock_is_neither_granted_nor_refused_anything() {
    for mut pair in rates().map(used) {
        let now = NOW.plus_nanos(SECOND);
        let (rate, level, mut moved) = (pair.rate, pair.bucket.level(), Bucket::default());
        moved.restore(Level { arrival: UnixNanos(level.arrival.0 - JUMP), ..level });
        for second in 0..200 {
            let (then, moved_then) = (now.plus_nanos(second * SECOND), UnixNanos(now.0 + second * SECOND - JUMP));
            let part = units(rate.limit().div_ceil(7));
            let taken = pair.bucket.take(part, rate, then).map(drop);
            assert_eq!(moved.take(part, rate, moved_then).map(drop), taken);
        }
    }
}
