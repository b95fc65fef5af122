//! Limits of audio.

use super::*;
use crate::domain::bucket::Headroom;

fn speak(
    buckets: &Arc<Buckets>,
    limits: &ByScope<Limits>,
    (input, output): (u64, u64),
    now: UnixNanos,
) -> Result<Reservation, LimitExceeded> {
    buckets.reserve(limits, Asked { tokens: some(1).unwrap(), audio: Audio { input, output }, stream: false }, now)
}

fn spoken(input: u64, output: u64) -> Used {
    Used { request: true, tokens: 1, audio: Audio { input, output }, held_audio: None }
}

#[test]
fn audio_is_taken_as_reserved_and_settled_as_it_was() {
    let limits = of_project(Limits { audio_tokens_per_minute: some(600), ..Limits::default() });
    let [one] = keys(&Limiter::default());
    let taken = speak(&one, &limits, (69, 200), at(0)).unwrap();
    let left = |headrooms: Headrooms| headrooms.audio_tokens.map(|it| (it.limit, it.remaining));
    assert_eq!(left(taken.headrooms()), Some((600, 331)));
    assert_eq!((taken.headrooms().tokens, taken.headrooms().requests), (None, None));
    taken.settle(spoken(69, 93), at(0));
    assert_eq!(left(one.headrooms(&limits, at(0))), Some((600, 438)));
    // More than was held is a debt, and a dropped one gives back everything.
    speak(&one, &limits, (0, 10), at(0)).unwrap().settle(spoken(0, 448), at(0));
    assert!(speak(&one, &limits, (1, 0), at(1)).is_err());
    drop(speak(&one, &limits, (10, 0), at(2)).unwrap());
    let refused = speak(&one, &limits, (21, 0), at(2)).unwrap_err();
    let expected = LimitExceeded {
        scope: Scope::Project,
        dimension: Dimension::AudioTokensPerMinute,
        limit: 600,
        used: 590,
        requested: 21,
        wait_nanos: Some(1_100_000_000),
    };
    assert_eq!(refused, expected);
    assert!(speak(&one, &limits, (21, 0), at(3).plus_nanos(99_999_999)).is_err());
    assert!(speak(&one, &limits, (21, 0), at(3).plus_nanos(100_000_000)).is_ok());
}

#[test]
fn a_request_without_audio_passes_limits_of_audio_that_are_used_up() {
    let limits =
        of_project(Limits { audio_tokens_per_minute: some(10), audio_seconds_per_day: some(1), ..Limits::default() });
    let [one] = keys(&Limiter::default());
    speak(&one, &limits, (10, 0), at(0)).unwrap().settle(spoken(10, 90), at(0));
    assert!(speak(&one, &limits, (1, 0), at(60)).is_err());
    for second in 0..100 {
        speak(&one, &limits, (0, 0), at(second)).unwrap().settle(spoken(0, 0), at(second));
    }
    // 100 tokens are ten minutes; those without audio did not make them longer.
    let refused = speak(&one, &limits, (1, 0), at(100)).unwrap_err();
    assert_eq!((refused.dimension, refused.limit, refused.requested), (Dimension::AudioSecondsPerDay, 1, 1));
}

#[test]
fn seconds_of_audio_are_counted_by_the_tick_and_told_in_seconds() {
    let limits = of_project(Limits { audio_seconds_per_day: some(60), ..Limits::default() });
    let [one] = keys(&Limiter::default());
    // 40.5 s heard and 10.05 s said.
    speak(&one, &limits, (405, 0), at(0)).unwrap().settle(spoken(405, 201), at(0));
    // 1,011 of 1,200 ticks are gone; one comes back in 72 seconds.
    let left = Headroom { limit: 60, remaining: 9, reset_nanos: 1_011 * 72_000_000_000 };
    assert_eq!(one.headrooms(&limits, at(0)), Headrooms { audio_seconds: Some(left), ..Headrooms::default() });
    let refused = speak(&one, &limits, (95, 0), at(0)).unwrap_err();
    assert_eq!((refused.limit, refused.used, refused.requested), (60, 51, 10));
    // A second of a day's 60 comes back in 24 minutes: here one tick is missing.
    assert_eq!(refused.wait_nanos, Some(72_000_000_000));
    assert!(speak(&one, &limits, (94, 1), at(0)).is_ok());
    let large = speak(&one, &limits, (601, 0), at(0)).unwrap_err();
    assert_eq!((large.limit, large.requested, large.wait_nanos), (60, 61, None));
}
