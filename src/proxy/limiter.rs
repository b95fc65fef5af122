//! Takes from all limits of a key and model or from none, and corrects afterwards.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::estimate::OutputAverage;
use crate::domain::{
    bucket::{Bucket, Headroom, HoldNumber, Holds, Rate, Refusal},
    ids::KeyId,
    ledger::{Hold, Used},
    limits::{Dimension, Headrooms, LimitExceeded, Limits},
    time::UnixNanos,
};

/// The live buckets of every key and limit group that has been used.
#[derive(Debug, Default)]
pub struct Limiter {
    keys: RwLock<HashMap<KeyId, Arc<KeyBuckets>>>,
}

#[derive(Debug, Default)]
struct KeyBuckets {
    groups: RwLock<HashMap<Arc<str>, Arc<Buckets>>>,
}

/// The buckets of one key and limit group, and what this pair has been answering.
#[derive(Debug, Default)]
pub struct Buckets {
    buckets: [Bucket; Dimension::COUNT],
    /// Locked while the buckets change, so that nobody sees a half-made reservation and is refused for it.
    holds: Mutex<[Holds; Dimension::COUNT]>,
    pub average: OutputAverage,
}

impl Limiter {
    pub fn buckets(&self, key: &KeyId, limit_group: &Arc<str>) -> Arc<Buckets> {
        let of_key = find_or_add(&self.keys, key);
        find_or_add(&of_key.groups, limit_group)
    }

    /// Puts back the state of a bucket from before a restart.
    pub fn restore(&self, key: &KeyId, limit_group: &Arc<str>, dimension: Dimension, arrival: UnixNanos) {
        self.buckets(key, limit_group).buckets[dimension.index()].restore(arrival);
    }
}

fn find_or_add<K: Eq + std::hash::Hash + Clone, V: Default>(map: &RwLock<HashMap<K, Arc<V>>>, key: &K) -> Arc<V> {
    if let Some(found) = map.read().unwrap_or_else(PoisonError::into_inner).get(key) {
        return Arc::clone(found);
    }
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(map.entry(key.clone()).or_default())
}

impl Buckets {
    /// Takes one request and `tokens` tokens, or nothing. Of several limits that refuse, the one that does longest is told:
    /// who waits for another is refused again.
    pub fn reserve(
        self: &Arc<Self>,
        limits: &Limits,
        limit_group: &Arc<str>,
        tokens: NonZeroU32,
        now: UnixNanos,
    ) -> Result<Reservation, LimitExceeded> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use =
            |dimension: Dimension| limits.rate(dimension).map(|rate| self.buckets[dimension.index()].used(rate, now));
        let in_use = Dimension::ALL.map(in_use);
        let hold = Hold { limit_group: Arc::clone(limit_group), limits: *limits, tokens, in_use };
        let mut numbers = [HoldNumber::default(); Dimension::COUNT];
        for dimension in Dimension::ALL {
            match self.take(&mut holds[dimension.index()], &hold, dimension, now) {
                Ok(number) => numbers[dimension.index()] = number,
                Err(refusal) => {
                    for earlier in Dimension::ALL.into_iter().take(dimension.index()) {
                        self.correct(&mut holds, &hold, &numbers, earlier, 0, now);
                    }
                    return Err(self.longest(&hold, (dimension, refusal), now));
                }
            }
        }
        drop(holds);
        Ok(Reservation { buckets: Arc::clone(self), hold, numbers, open: true })
    }

    fn take(
        &self,
        holds: &mut Holds,
        hold: &Hold,
        dimension: Dimension,
        now: UnixNanos,
    ) -> Result<HoldNumber, Refusal> {
        let Some(rate) = hold.limits.rate(dimension) else { return Ok(HoldNumber::default()) };
        holds.take(&self.buckets[dimension.index()], hold.units(dimension), rate, now)
    }

    /// The limit that refuses longest: `first`, unless one behind it does longer. They must hold nothing of `hold`.
    fn longest(&self, hold: &Hold, first: (Dimension, Refusal), now: UnixNanos) -> LimitExceeded {
        let later = Dimension::ALL.into_iter().skip(first.0.index() + 1);
        let later = later.filter_map(|dimension| {
            let (bucket, rate) = (&self.buckets[dimension.index()], hold.limits.rate(dimension)?);
            Some((dimension, bucket.refusal(hold.units(dimension), rate, now)?))
        });
        let (dimension, refusal) = later.fold(first, |worst, it| if it.1 > worst.1 { it } else { worst });
        let (bucket, rate) = (&self.buckets[dimension.index()], hold.limits.rate(dimension));
        LimitExceeded {
            dimension,
            limit: rate.map_or(0, Rate::limit),
            used: rate.map_or(0, |rate| bucket.used(rate, now)),
            requested: hold.units(dimension).get(),
            wait_nanos: match refusal {
                Refusal::Wait { nanos } => Some(nanos),
                Refusal::TooLarge => None,
            },
        }
    }

    /// Gives back what was held but not used, or books what was used but not held.
    fn correct(
        &self,
        holds: &mut [Holds; Dimension::COUNT],
        hold: &Hold,
        numbers: &[HoldNumber; Dimension::COUNT],
        dimension: Dimension,
        used: u64,
        now: UnixNanos,
    ) {
        let Some(rate) = hold.limits.rate(dimension) else { return };
        let (at, held) = (dimension.index(), hold.units(dimension));
        holds[at].settle(&self.buckets[at], numbers[at], held, used, rate, now);
    }

    pub fn headrooms(&self, limits: &Limits, now: UnixNanos) -> Headrooms {
        let headroom = |dimension: Dimension| -> Option<Headroom> {
            limits.rate(dimension).map(|rate| self.buckets[dimension.index()].headroom(rate, now))
        };
        Headrooms {
            requests: headroom(Dimension::RequestsPerDay).or_else(|| headroom(Dimension::RequestsPerMinute)),
            tokens: headroom(Dimension::TokensPerMinute),
        }
    }
}

/// What one request holds of its limits. Settle it with what was used; dropped unsettled, it gives everything back.
#[derive(Debug)]
pub struct Reservation {
    buckets: Arc<Buckets>,
    hold: Hold,
    numbers: [HoldNumber; Dimension::COUNT],
    open: bool,
}

impl Reservation {
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    pub fn buckets(&self) -> &Arc<Buckets> {
        &self.buckets
    }

    pub fn headrooms(&self, now: UnixNanos) -> Headrooms {
        self.buckets.headrooms(&self.hold.limits, now)
    }

    pub fn settle(mut self, used: Used, now: UnixNanos) {
        self.close(used, now);
    }

    fn close(&mut self, used: Used, now: UnixNanos) {
        if std::mem::take(&mut self.open) {
            let mut holds = self.buckets.holds.lock().unwrap_or_else(PoisonError::into_inner);
            for dimension in Dimension::ALL {
                self.buckets.correct(&mut holds, &self.hold, &self.numbers, dimension, used.units(dimension), now);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Only a reservation that was never admitted is dropped open: nothing was sent, and no time worth counting passed.
        self.close(Used::NOTHING, UnixNanos(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_request_gives_back_nothing_of_what_others_hold() {
        let limits = Limits { tokens_per_minute: NonZeroU32::new(300), ..Limits::default() };
        let (limiter, group): (_, Arc<str>) = (Limiter::default(), Arc::from("m"));
        let buckets = limiter.buckets(&KeyId::parse("key_one").unwrap(), &group);
        let at = |seconds: u64| UnixNanos::from_seconds(1_790_000_000 + seconds);
        let reserve = |tokens, now| buckets.reserve(&limits, &group, NonZeroU32::new(tokens).unwrap(), now);
        let slow = reserve(285, at(0)).unwrap();
        let quick = reserve(284, at(59)).unwrap();
        slow.settle(Used { request: true, tokens: 10 }, at(61));
        assert!(reserve(284, at(62)).is_err(), "568 tokens in three seconds");
        // What it did not use itself comes back at once.
        quick.settle(Used { request: true, tokens: 100 }, at(62));
        let third = reserve(215, at(62)).unwrap();
        assert!(reserve(1, at(62)).is_err());
        drop(third);
        assert!(reserve(215, at(62)).is_ok(), "dropped unsent, it gives back everything");
    }

    /// Limits per minute, per day, and of tokens (0 is none), and what has been taken from them.
    struct Full {
        buckets: Arc<Buckets>,
        limits: Limits,
        group: Arc<str>,
    }

    impl Full {
        fn new([per_minute, per_day, tokens]: [u32; 3]) -> Self {
            let limits = Limits {
                requests_per_minute: NonZeroU32::new(per_minute),
                requests_per_day: NonZeroU32::new(per_day),
                tokens_per_minute: NonZeroU32::new(tokens),
                ..Limits::default()
            };
            let (limiter, group): (_, Arc<str>) = (Limiter::default(), Arc::from("m"));
            Self { buckets: limiter.buckets(&KeyId::parse("key_one").unwrap(), &group), limits, group }
        }

        /// Held and used in full.
        fn ask(&self, tokens: u32, now: UnixNanos) -> Result<(), LimitExceeded> {
            let reserved = self.buckets.reserve(&self.limits, &self.group, NonZeroU32::new(tokens).unwrap(), now);
            reserved.map(|it| it.settle(Used { request: true, tokens: tokens.into() }, now))
        }

        /// The limit that is told, and that waiting as long as it says is enough and a nanosecond less is not.
        fn told(&self, tokens: u32, now: UnixNanos) -> (Dimension, Option<u64>) {
            let exceeded = self.ask(tokens, now).unwrap_err();
            if let Some(wait_nanos) = exceeded.wait_nanos {
                assert!(self.ask(tokens, now.plus_nanos(wait_nanos - 1)).is_err(), "{exceeded:?}");
                assert_eq!(self.ask(tokens, now.plus_nanos(wait_nanos)), Ok(()), "{exceeded:?}");
            }
            (exceeded.dimension, exceeded.wait_nanos)
        }
    }

    #[test]
    fn of_several_limits_that_refuse_the_longest_is_told_and_its_wait_is_enough() {
        const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
        const SECOND: u64 = 1_000_000_000;
        let full = |limits, tokens: &[u32]| {
            let full = Full::new(limits);
            for tokens in tokens {
                full.ask(*tokens, NOW).unwrap();
            }
            full
        };
        let day = Dimension::RequestsPerDay;
        let minute = Dimension::RequestsPerMinute;
        let per_token = Dimension::TokensPerMinute;
        assert_eq!(full([2, 2, 0], &[1, 1]).told(1, NOW), (day, Some(43_200 * SECOND)));
        // Both refuse for as long: the one that is checked first.
        assert_eq!(full([60, 0, 60], &[1; 60]).told(1, NOW), (minute, Some(SECOND)));
        assert_eq!(full([1, 0, 60], &[60]).told(1, NOW), (minute, Some(60 * SECOND)));
        assert_eq!(full([6, 0, 60], &[10; 6]).told(60, NOW), (per_token, Some(60 * SECOND)));
        assert_eq!(full([0, 1, 60], &[60]).told(60, NOW), (day, Some(86_400 * SECOND)));
        // No waiting helps, whatever the others say.
        assert_eq!(full([1, 1, 60], &[1]).told(61, NOW), (per_token, None));
        assert_eq!(full([1, 0, 60], &[1]).told(61, NOW), (per_token, None));
    }

    #[test]
    fn a_refusal_by_a_later_limit_takes_nothing_from_the_earlier_ones() {
        let now = UnixNanos::from_seconds(1_790_000_000);
        let full = Full::new([2, 2, 60]);
        full.ask(60, now).unwrap();
        for _ in 0..5 {
            assert_eq!(full.ask(60, now).unwrap_err().dimension, Dimension::TokensPerMinute);
        }
        assert_eq!(full.buckets.headrooms(&full.limits, now).requests.unwrap().remaining, 1);
    }
}
