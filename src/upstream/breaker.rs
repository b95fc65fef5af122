//! When to stop asking what keeps failing, and when to ask again: a plain value, told the time.

use std::time::Duration;

use tokio::time::Instant;

/// How long nothing is asked after it has opened; doubled by each probe that fails.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// After this time without a result the next probe goes: the first may be an honest call that takes minutes.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// A client that left its probe later than this had given up waiting.
const IN_VAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Breaker {
    phase: Phase,
    back_off: Duration,
    /// When it last opened or closed: results of calls from before tell nothing about the time since.
    turned_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// With so many failures in a row.
    Closed(u32),
    Open {
        until: Instant,
    },
    Probing {
        since: Instant,
    },
}

/// Whether a call may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Go,
    /// As the one that finds out whether things are better.
    Probe,
    /// Not before this time has passed.
    Wait(Duration),
}

/// What has changed by a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    None,
    Opened,
    Closed,
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Closed(0), back_off: FIRST_BACK_OFF, turned_at: None }
    }

    /// Nothing speaks against a call.
    pub(super) const fn is_quiet(&self) -> bool {
        matches!(self.phase, Phase::Closed(0))
    }

    pub(super) const fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Closed(_))
    }

    /// Not when nobody has asked for long: then nothing is known of the upstream.
    pub(super) fn is_known_to_be_open(&self, now: Instant) -> bool {
        let again_at = match self.phase {
            Phase::Closed(_) => return false,
            Phase::Open { until } => until,
            Phase::Probing { since } => since + PROBE_PATIENCE,
        };
        now < again_at + LONGEST_BACK_OFF
    }

    pub(super) fn ask(&mut self, now: Instant) -> Leave {
        let again_at = match self.phase {
            Phase::Closed(_) => return Leave::Go,
            Phase::Open { until } => until,
            Phase::Probing { since } => since + PROBE_PATIENCE,
        };
        if now < again_at {
            return Leave::Wait(again_at - now);
        }
        self.phase = Phase::Probing { since: now };
        Leave::Probe
    }

    /// The result of a call that began at `began_at`.
    pub(super) fn succeeded(&mut self, is_probe: bool, began_at: Instant, now: Instant) -> Turn {
        match self.phase {
            Phase::Closed(_) if self.is_news(began_at) => self.phase = Phase::Closed(0),
            Phase::Open { .. } | Phase::Probing { .. } if is_probe => {
                *self = Self { turned_at: Some(now), ..Self::new() };
                return Turn::Closed;
            }
            _ => {}
        }
        Turn::None
    }

    /// The same; `most` failures in a row open it.
    pub(super) fn failed(&mut self, is_probe: bool, began_at: Instant, now: Instant, most: u32) -> Turn {
        match self.phase {
            Phase::Closed(failures) if self.is_news(began_at) => {
                let failures = failures.saturating_add(1);
                self.phase = Phase::Closed(failures);
                if failures >= most {
                    self.phase = Phase::Open { until: now + self.back_off };
                    self.turned_at = Some(now);
                    return Turn::Opened;
                }
            }
            // The probe that is waited for: an earlier one, which took too long, has had its say.
            Phase::Probing { since } if is_probe && since == began_at => {
                self.back_off = self.back_off.saturating_mul(2).min(LONGEST_BACK_OFF);
                self.phase = Phase::Open { until: now + self.back_off };
            }
            _ => {}
        }
        Turn::None
    }

    /// The probe that began at `began_at` ended without a result: the next call takes its place. One that was waited for in
    /// vain has failed.
    pub(super) fn given_up(&mut self, began_at: Instant, now: Instant) {
        match self.phase {
            Phase::Probing { since } if since == began_at && now < since + IN_VAIN => {
                self.phase = Phase::Open { until: now };
            }
            Phase::Probing { since } if since == began_at => {
                self.failed(true, began_at, now, 0);
            }
            _ => {}
        }
    }

    fn is_news(&self, began_at: Instant) -> bool {
        self.turned_at.is_none_or(|turned_at| began_at >= turned_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u32 = 3;

    fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// Open since `start`.
    fn open(start: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        let turns: Vec<_> = (0..MOST).map(|_| breaker.failed(false, start, start, MOST)).collect();
        assert_eq!(turns, [Turn::None, Turn::None, Turn::Opened]);
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..10 {
            breaker.failed(false, start, start, MOST);
            breaker.failed(false, start, start, MOST);
            assert_eq!(breaker.ask(start), Leave::Go);
            breaker.succeeded(false, start, start);
        }
        assert!(breaker.is_quiet());
        assert_eq!(open(start).ask(start), Leave::Wait(second(1)));
    }

    #[test]
    fn after_the_back_off_one_call_goes_and_closes_it() {
        let start = Instant::now();
        let mut breaker = open(start);
        let now = start + second(1);
        assert_eq!(breaker.ask(now), Leave::Probe);
        for _ in 0..100 {
            assert!(matches!(breaker.ask(now), Leave::Wait(_)), "one at a time");
        }
        assert_eq!(breaker.succeeded(true, now, now), Turn::Closed);
        assert_eq!((breaker.ask(now), breaker.is_quiet()), (Leave::Go, true));
    }

    #[test]
    fn each_failed_probe_doubles_the_back_off_up_to_its_bound() {
        let mut now = Instant::now();
        let mut breaker = open(now);
        for expected in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert_eq!(breaker.ask(now), Leave::Wait(second(expected)));
            now += second(expected);
            assert_eq!(breaker.ask(now), Leave::Probe);
            assert_eq!(breaker.failed(true, now, now, MOST), Turn::None);
        }
        now += second(30);
        assert_eq!(breaker.ask(now), Leave::Probe);
        breaker.succeeded(true, now, now);
        for _ in 0..MOST {
            breaker.failed(false, now, now, MOST);
        }
        assert_eq!(breaker.ask(now), Leave::Wait(second(1)), "it begins again with the first");
    }

    #[test]
    fn calls_from_before_it_turned_change_nothing() {
        let start = Instant::now();
        let mut breaker = open(start);
        let now = start + second(1);
        breaker.succeeded(false, start, now);
        breaker.failed(false, start, now, MOST);
        assert_eq!(breaker.ask(start), Leave::Wait(second(1)));
        assert_eq!(breaker.ask(now), Leave::Probe);
        breaker.failed(false, start, now, MOST);
        assert_eq!(breaker.succeeded(true, now, now), Turn::Closed);
        for _ in 0..100 {
            breaker.failed(false, start, now + second(600), MOST);
        }
        assert!(breaker.is_quiet(), "hundreds that were stuck when it opened");
    }

    #[test]
    fn a_probe_without_a_result_makes_room_for_the_next() {
        let start = Instant::now();
        let mut breaker = open(start);
        let now = start + second(1);
        assert_eq!(breaker.ask(now), Leave::Probe);
        breaker.given_up(now, now);
        assert_eq!(breaker.ask(now), Leave::Probe);
        assert_eq!(breaker.ask(now + PROBE_PATIENCE - second(1)), Leave::Wait(second(1)));
        assert_eq!(breaker.ask(now + PROBE_PATIENCE), Leave::Probe, "the one before it takes too long");
        assert_eq!(breaker.succeeded(true, now, now + PROBE_PATIENCE), Turn::Closed, "and may still be right");
    }

    #[test]
    fn only_the_probe_that_is_waited_for_makes_room_or_lengthens_the_wait() {
        let start = Instant::now();
        let mut breaker = open(start);
        let (first, second_at) = (start + second(1), start + second(1) + PROBE_PATIENCE);
        assert_eq!((breaker.ask(first), breaker.ask(second_at)), (Leave::Probe, Leave::Probe));
        breaker.given_up(first, second_at + second(1));
        breaker.failed(true, first, second_at + second(1), MOST);
        assert_eq!(breaker.ask(second_at + second(1)), Leave::Wait(second(9)), "the second is under way");
        breaker.given_up(second_at, second_at + second(5));
        assert_eq!(breaker.ask(second_at + second(5)), Leave::Wait(second(2)), "waited for in vain, it has failed");
    }

    #[test]
    fn what_nobody_has_asked_for_long_is_not_known_to_be_open() {
        let start = Instant::now();
        let breaker = open(start);
        assert!(breaker.is_known_to_be_open(start + second(30)));
        assert!(!breaker.is_known_to_be_open(start + second(31)));
    }
}
