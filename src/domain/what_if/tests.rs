use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::{
    limits::{Audio, ByScope},
    usage::LineItem,
};

const START_MS: u64 = 1_790_000_000_000;
const MILLI: u64 = 1_000_000;

fn at(ms: u64) -> UnixNanos {
    UnixNanos::from_millis(START_MS + ms)
}

/// A request of `key` that held `held` tokens from `ms` on and had used `used` after `took_ms`.
fn booked(number: u64, key: &str, ms: u64, took_ms: u64, (held, used): (u64, u64)) -> Booked {
    let project = if key.ends_with('1') { "proj_1" } else { "proj_2" };
    let estimate = Usage::default().with(LineItem::OutputText, held);
    Booked {
        request_id: RequestId::new(START_MS + ms, number.into()),
        admitted_at: at(ms),
        settled_at: at(ms + took_ms),
        project_id: ProjectId::parse(project).unwrap(),
        key_id: KeyId::parse(key).unwrap(),
        requested_model: "m".to_owned(),
        stream: number.is_multiple_of(2),
        status: 200,
        usage: Usage::default().with(LineItem::OutputText, used),
        held: Some(Held {
            reserved_tokens: held,
            reserved_audio: Audio::NONE,
            used_before: ByScope::default(),
            estimate,
        }),
    }
}

fn limits(requests: u32, tokens: u32) -> Limits {
    let [requests_per_minute, tokens_per_minute] = [requests, tokens].map(NonZeroU32::new);
    Limits { requests_per_minute, tokens_per_minute, ..Limits::default() }
}

fn terms(project: Limits, key: Limits) -> Terms {
    Terms { is_allowed: true, limit_group: "m".into(), project, key, guess_gives_way: false }
}

fn replay(all: impl IntoIterator<Item = Booked>, terms: impl Fn(&Booked) -> Terms) -> Found {
    let mut what_if = WhatIf::new(at(0), at(3_600_000));
    for booked in all {
        let terms = terms(&booked);
        what_if.add(booked, terms);
    }
    what_if.finish()
}

fn hits(found: &Found) -> Vec<(&str, Hit)> {
    found.keys.iter().flat_map(|((key, _), found)| found.hits.iter().map(|hit| (key.as_str(), *hit))).collect()
}

fn limit(hit: &Hit) -> (Scope, Dimension, u32) {
    match hit.by {
        RefusedBy::Limit { scope, dimension, limit } => (scope, dimension, limit),
        RefusedBy::Model => panic!("{hit:?}"),
    }
}

#[test]
fn refusals_are_told_by_key_and_limit_with_their_times() {
    let all = (0..6).map(|n| booked(n, "key_a1", n * 1_000, 10, (1, 1)));
    let found = replay(all, |_| terms(limits(3, 0), Limits::default()));
    // Three pass at once, and none comes back before the twentieth second.
    let expected = Hit {
        by: RefusedBy::Limit { scope: Scope::Project, dimension: Dimension::RequestsPerMinute, limit: 3 },
        refused: 3,
        too_large: 0,
        first: at(3_000),
        last: at(5_000),
        longest_wait_nanos: Some(17_000 * MILLI),
    };
    assert_eq!(hits(&found), [("key_a1", expected)]);
    assert_eq!((found.requests, found.refused, found.refused_keys(), found.all_keys()), (6, 3, 1, 1));
    let sums = found.timeline.slots.iter().fold((0, 0), |sum, slot| (sum.0 + slot.requests, sum.1 + slot.refused));
    assert_eq!(sums, (6, 3));
}

#[test]
fn a_refused_request_takes_nothing_from_any_limit() {
    // The second is too large for the tokens; its request is there for the third.
    let all = [(10, 10), (99, 99), (10, 10)];
    let all = (0..).zip(all).map(|(n, tokens)| booked(n, "key_a1", n, 0, tokens));
    let found = replay(all, |_| terms(limits(2, 50), Limits::default()));
    let [("key_a1", hit)] = hits(&found)[..] else { panic!("{found:?}") };
    assert_eq!((limit(&hit).1, hit.refused, hit.too_large), (Dimension::TokensPerMinute, 1, 1));
    assert_eq!(hit.longest_wait_nanos, None);
}

#[test]
fn a_model_that_may_not_be_called_is_refused_apart_from_limits_and_takes_nothing_from_them() {
    let all = (0..6).map(|n| booked(n, "key_a1", n * 1_000, 0, (1, 1)));
    let found = replay(all, |booked| Terms { is_allowed: booked.stream, ..terms(limits(2, 0), Limits::default()) });
    // Every other is a stream, from the first on: two of three pass.
    let [("key_a1", model), ("key_a1", third)] = hits(&found)[..] else { panic!("{found:?}") };
    let expected = Hit {
        by: RefusedBy::Model,
        refused: 3,
        too_large: 0,
        first: at(1_000),
        last: at(5_000),
        longest_wait_nanos: None,
    };
    assert_eq!(model, expected);
    assert_eq!((limit(&third).1, third.refused, third.first), (Dimension::RequestsPerMinute, 1, at(4_000)));
    assert_eq!((found.requests, found.refused), (6, 4));
}

#[test]
fn keys_of_a_project_share_its_limits_and_one_has_its_own_where_it_is_narrower() {
    let two = |n: u64| booked(n, if n.is_multiple_of(2) { "key_a1" } else { "key_b1" }, n, 0, (1, 1));
    let found = replay((0..10).map(two), |booked| {
        let own = if booked.key_id.as_str() == "key_a1" { limits(1, 0) } else { limits(900, 0) };
        terms(limits(4, 0), own)
    });
    let shown: Vec<_> = hits(&found).into_iter().map(|(key, hit)| (key, limit(&hit), hit.refused)).collect();
    // key_a1 passes once, its wait of a minute is longer than the project's; key_b1 has the three others.
    let of = |scope, limit| (scope, Dimension::RequestsPerMinute, limit);
    assert_eq!(shown, [("key_a1", of(Scope::Key, 1), 4), ("key_b1", of(Scope::Project, 4), 2)]);
}

#[test]
fn what_was_not_used_is_there_again_from_the_settlement_on() {
    let all = |took_ms| [booked(0, "key_a1", 0, took_ms, (100, 10)), booked(1, "key_a1", 500, 0, (80, 80))];
    let limits = |_: &Booked| terms(limits(0, 100), Limits::default());
    assert_eq!(replay(all(501), limits).refused, 1);
    // Within the same millisecond nobody knows which came first.
    assert_eq!(replay(all(500), limits).refused, 0);
}

#[test]
fn what_was_used_beyond_the_hold_is_a_debt() {
    let all = [booked(0, "key_a1", 0, 100, (10, 200)), booked(1, "key_a1", 200, 0, (1, 1))];
    let found = replay(all, |_| terms(limits(0, 100), Limits::default()));
    assert_eq!(hits(&found)[0].1.longest_wait_nanos, Some((101 * 600 - 200) * MILLI));
}

#[test]
fn the_day_before_is_told_and_not_counted() {
    let all = (0..4).map(|n| booked(n, "key_a1", n * 1_000, 0, (1, 1)));
    let day = Limits { requests_per_day: NonZeroU32::new(2), ..Limits::default() };
    let mut what_if = WhatIf::new(at(3_000), at(60_000));
    all.for_each(|booked| what_if.add(booked, terms(day, Limits::default())));
    let found = what_if.finish();
    assert_eq!((found.requests, found.refused), (1, 1));
}

#[test]
fn a_guess_gives_way_to_a_limit_unless_all_that_is_stated_is_reserved() {
    let all = || [booked(0, "key_a1", 0, 0, (300, 5))];
    let told = |guess_gives_way| {
        replay(all(), |_| Terms { guess_gives_way, ..terms(limits(0, 100), Limits::default()) }).refused
    };
    assert_eq!((told(true), told(false)), (0, 1));
    let daily = Limits { tokens_per_day: NonZeroU32::new(100), ..Limits::default() };
    for (project, key) in [(daily, Limits::default()), (Limits::default(), daily)] {
        assert_eq!(replay(all(), |_| Terms { guess_gives_way: true, ..terms(project, key) }).refused, 0);
    }
    let mut large = booked(0, "key_a1", 0, 0, (300, 5));
    large.held.as_mut().unwrap().estimate = Usage::default().with(LineItem::InputText, 101);
    let found = replay([large], |_| Terms { guess_gives_way: true, ..terms(limits(0, 100), Limits::default()) });
    assert_eq!(found.refused, 1, "its input alone is too large");
}

#[test]
fn what_never_reached_the_upstream_counts_for_no_limit() {
    let failed = |n| Booked { status: 502, ..booked(n, "key_a1", n * 10, 5, (5, 0)) };
    let answered = |n| Booked { status: 400, ..booked(n, "key_a1", n * 10, 5, (5, 0)) };
    let limits = |_: &Booked| terms(limits(1, 0), Limits::default());
    assert_eq!(replay((0..5).map(failed), limits).refused, 0);
    assert_eq!(replay((0..5).map(answered), limits).refused, 4);
}

#[test]
fn audio_is_told_as_it_was_reserved_and_used() {
    let all = |held: Audio, said| {
        (0..3).map(move |n| {
            let usage = Usage::default().with(LineItem::InputAudio, 50).with(LineItem::OutputAudio, said);
            let booked = booked(n, "key_a1", n * 10, 5, (1, 1));
            let held = booked.held.map(|before| Held { reserved_audio: held, ..before });
            Booked { usage, held, ..booked }
        })
    };
    let tokens = Limits { audio_tokens_per_minute: NonZeroU32::new(300), ..Limits::default() };
    let seconds = Limits { audio_seconds_per_day: NonZeroU32::new(15), ..Limits::default() };
    let held = |output| Audio { input: 50, output };
    for (limits, held, said, refused) in [
        (tokens, held(50), 50, 0),
        (tokens, held(100), 50, 1),
        // Books a debt.
        (tokens, held(0), 251, 2),
        // 5 s heard, and 2.5 or 5 s said.
        (seconds, held(50), 50, 1),
        (seconds, held(0), 0, 0),
        (seconds, held(0), 101, 2),
    ] {
        let found = replay(all(held, said), |_| terms(limits, Limits::default()));
        assert_eq!(found.refused, refused, "{limits:?} {held:?} {said}");
        assert!(hits(&found).iter().all(|(_, hit)| limit(hit).1.is_audio() && limit(hit).2 <= 300));
    }
    let refused = |guess_gives_way| {
        replay(all(held(9_000), 0), |_| Terms { guess_gives_way, ..terms(tokens, Limits::default()) }).refused
    };
    // The first alone has the whole limit for its guess.
    assert_eq!((refused(true), refused(false)), (2, 3));
}

#[test]
fn nobody_knows_how_long_to_wait_for_what_is_under_way() {
    let all = (0..3).map(|n| booked(n, "key_a1", n * 10, 25, (1, 1)));
    let one = Limits { concurrent_requests: NonZeroU32::new(1), ..Limits::default() };
    let found = replay(all, |_| terms(one, Limits::default()));
    let [("key_a1", hit)] = hits(&found)[..] else { panic!("{found:?}") };
    assert_eq!((hit.refused, hit.too_large, hit.longest_wait_nanos), (2, 0, None));
    // Any other limit that refuses too is told instead, because its wait is known.
    let all = (0..3).map(|n| booked(n, "key_a1", n * 10, 25, (1, 1)));
    let found = replay(all, |_| terms(Limits { concurrent_requests: one.concurrent_requests, ..limits(1, 0) }, one));
    let [("key_a1", hit)] = hits(&found)[..] else { panic!("{found:?}") };
    assert_eq!((limit(&hit).1, hit.longest_wait_nanos), (Dimension::RequestsPerMinute, Some(59_990 * MILLI)));
}

#[test]
fn what_is_under_way_counts_until_it_ends_and_a_stream_twice() {
    // One each 10 ms, every other a stream, and each takes 25 ms: three are under way at a time.
    let all = || (0..8).map(|n| booked(n, "key_a1", n * 10, 25, (1, 1)));
    let requests = |n| Limits { concurrent_requests: NonZeroU32::new(n), ..Limits::default() };
    let streams = |n| Limits { concurrent_streams: NonZeroU32::new(n), ..Limits::default() };
    for (limits, refused) in [(requests(3), 0), (requests(2), 2), (requests(1), 5), (streams(2), 0), (streams(1), 2)] {
        let found = replay(all(), |_| terms(Limits::default(), limits));
        assert_eq!(found.refused, refused, "{limits:?}");
        let is_expected =
            |(scope, dimension, _): (Scope, Dimension, _)| scope == Scope::Key && dimension.is_concurrent();
        assert!(hits(&found).iter().all(|(_, hit)| is_expected(limit(hit))));
    }
    // Within the millisecond in which one ends there is room for the next.
    assert_eq!(
        replay((0..8).map(|n| booked(n, "key_a1", n * 10, 10, (1, 1))), |_| terms(requests(1), Limits::default()))
            .refused,
        0
    );
}

// === beside a model that recomputes everything ===

#[derive(Default)]
struct Naive {
    /// Of each limit: when somebody took, and what counts of it by now, in nanoseconds.
    taken: BTreeMap<(String, usize), Vec<(u64, u64)>>,
    refused: Vec<u64>,
}

/// An admitted request: its limits with the place of what it took there.
struct Open {
    end: u64,
    used: u64,
    held: u64,
    takes: Vec<((String, usize), usize, u64)>,
}

impl Naive {
    fn arrival(&self, limit: &(String, usize)) -> u64 {
        self.taken.get(limit).into_iter().flatten().fold(0, |arrival, (at, counts)| arrival.max(*at) + counts)
    }

    fn close(&mut self, open: &Open) {
        for (limit, place, unit) in &open.takes {
            let is_tokens = limit.1 == Dimension::TokensPerMinute.index();
            let (held, used) = if is_tokens { (open.held, open.used) } else { (1, 1) };
            let taken = self.taken.get_mut(limit).unwrap();
            taken[*place].1 = used.min(held) * unit;
            if used > held {
                taken.push((open.end, (used - held) * unit));
            }
        }
    }

    fn admit(&mut self, number: u64, booked: &Booked, terms: &Terms) -> Option<Open> {
        let (now, held) = (booked.admitted_at.0, booked.held.as_ref().unwrap().reserved_tokens);
        let mut takes = Vec::new();
        let scopes = [(booked.project_id.to_string(), terms.project), (booked.key_id.to_string(), terms.key)];
        for (owner, limits) in scopes {
            for dimension in Dimension::ALL {
                let Some(rate) = limits.rate(dimension) else { continue };
                let units = if dimension.is_tokens() { held } else { 1 };
                let full = u64::from(rate.limit()) * rate.unit_nanos();
                let (limit, cost) = ((owner.clone(), dimension.index()), units * rate.unit_nanos());
                let wait = (self.arrival(&limit).max(now) + cost).saturating_sub(now + full);
                if units > rate.limit().into() || wait >= MILLI {
                    self.refused.push(number);
                    return None;
                }
                takes.push((limit, cost, rate.unit_nanos()));
            }
        }
        let takes = takes.into_iter().map(|(limit, cost, unit)| {
            let taken = self.taken.entry(limit.clone()).or_default();
            taken.push((now, cost));
            (limit, taken.len() - 1, unit)
        });
        Some(Open { end: booked.settled_at.0, used: booked.usage.total(), held, takes: takes.collect() })
    }

    fn run(all: &[(Booked, Terms)]) -> Vec<u64> {
        let (mut naive, mut open) = (Self::default(), Vec::<Open>::new());
        let times = all.iter().flat_map(|(booked, _)| [booked.admitted_at.0, booked.settled_at.0]);
        let times: std::collections::BTreeSet<u64> = times.collect();
        for now in times {
            let end = |naive: &mut Self, open: &mut Vec<Open>, books: bool| {
                for over in open.extract_if(.., |it| it.end == now && (it.used > it.held) == books) {
                    naive.close(&over);
                }
            };
            end(&mut naive, &mut open, false);
            for (number, (booked, terms)) in (0..).zip(all).filter(|(_, (booked, _))| booked.admitted_at.0 == now) {
                open.extend(naive.admit(number, booked, terms));
                end(&mut naive, &mut open, false);
            }
            end(&mut naive, &mut open, true);
        }
        naive.refused
    }
}

/// Gap before it and how long it took, in milliseconds; its key; held and used tokens.
fn any_request() -> impl Strategy<Value = (u64, u64, usize, u64, u64)> {
    let gap = prop_oneof![Just(0), 0..200_u64, 0..20_000_u64];
    (gap, prop_oneof![Just(0), 0..90_000_u64], 0..3_usize, 1..300_u64, 0..400_u64)
}

proptest! {
    #[test]
    fn a_replay_refuses_exactly_whom_a_model_that_recomputes_everything_refuses(
        all in prop::collection::vec(any_request(), 1..80),
        project in (1..30_u32, 200..2_000_u32),
        key in (1..30_u32, 200..2_000_u32),
    ) {
        let mut ms = 0;
        let all = (0..).zip(all).map(|(number, (gap_ms, took_ms, key_of, held, used))| {
            ms += gap_ms;
            let booked = booked(number, ["key_a1", "key_b1", "key_c2"][key_of], ms, took_ms, (held, used));
            let own = if key_of == 0 { limits(key.0.min(project.0), key.1.min(project.1)) } else { Limits::default() };
            (booked, terms(limits(project.0, project.1), own))
        });
        let all: Vec<_> = all.collect();
        let refused = Naive::run(&all);
        let mut what_if = WhatIf::new(at(0), at(3_600_000));
        let (mut found, mut before) = (Vec::new(), 0);
        for (booked, terms) in all.clone() {
            what_if.add(booked, terms);
        }
        let whole = what_if.finish();
        prop_assert_eq!(whole.refused, refused.len() as u64);
        // Which they were: told up to each, one more is refused exactly where the model refuses it.
        for (number, _) in (0..).zip(&all).take(12) {
            let part = replay(all[..=number].iter().map(|(booked, _)| booked.clone()), |booked| {
                all.iter().find(|(known, _)| known.request_id == booked.request_id).unwrap().1.clone()
            });
            if part.refused > before {
                found.push(number as u64);
            }
            before = part.refused;
        }
        prop_assert!(refused.iter().filter(|number| **number < 12).eq(&found), "{:?} {:?}", refused, found);
        let refused_at = |number: Option<&u64>| number.map(|number| all[usize::try_from(*number).unwrap()].0.admitted_at);
        prop_assert_eq!(hits(&whole).iter().map(|(_, hit)| hit.first).min(), refused_at(refused.first()));
        prop_assert_eq!(hits(&whole).iter().map(|(_, hit)| hit.last).max(), refused_at(refused.last()));
    }

    #[test]
    fn more_requests_than_are_under_way_are_never_kept(took_ms in 0..50_u64) {
        let mut what_if = WhatIf::new(at(0), at(3_600_000));
        for number in 0..500 {
            what_if.add(booked(number, "key_a1", number * 10, took_ms, (1, 1)), terms(limits(900_000, 0), Limits::default()));
            prop_assert!(what_if.events.len() <= 2 + usize::try_from(took_ms / 10).unwrap());
        }
    }
}
