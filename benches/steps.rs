//! One step of the hot path, run as often as asked: for counting instructions, which the noise of a machine does not change.
//!
//! `steps STEP TIMES [found|find] [KEYS]` under callgrind, where a step is `project` or `both`: to reserve on all limits of the project, or of
//! the key too, to print the headers and to settle; with `found` without finding the key among 100,000, or another number. What one run costs is the
//! difference between two counts of times, divided.

use std::{hint::black_box, num::NonZeroU32, sync::Arc, time::Instant};

use tollgate::{
    domain::{
        ids::{KeyId, ProjectId},
        ledger::Used,
        limits::{Audio, ByScope, Limits},
        time::UnixNanos,
    },
    openai::headers::rate_limit,
    proxy::limiter::{Asked, Limiter},
};

const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
const USUAL_KEYS: usize = 100_000;

fn limits() -> Limits {
    Limits {
        requests_per_minute: NonZeroU32::new(10_000_000),
        requests_per_day: NonZeroU32::new(1_000_000_000),
        tokens_per_minute: NonZeroU32::new(1_000_000_000),
        tokens_per_day: NonZeroU32::new(4_000_000_000),
        ..Limits::default()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some(times) = arguments.get(1).and_then(|n| n.parse::<usize>().ok()) else { return };
    let limits = match arguments[0].as_str() {
        "project" => ByScope { project: limits(), key: Limits::default() },
        "both" => ByScope { project: limits(), key: limits() },
        _ => return,
    };
    let (limiter, project, group) =
        (Limiter::default(), ProjectId::parse("proj_one").unwrap(), Arc::from("gpt-4o-mini"));
    let count = arguments.get(3).and_then(|n| n.parse().ok()).unwrap_or(USUAL_KEYS);
    let keys: Vec<_> = (0..count).map(|n| KeyId::parse(&format!("key_{n}")).unwrap()).collect();
    let used = Used { request: true, tokens: 20, ..Used::NOTHING };
    let tokens = NonZeroU32::new(100).unwrap();
    let found: Vec<_> = keys.iter().map(|key| limiter.buckets(&project, key, &group)).collect();
    let find = arguments.get(2).is_none_or(|word| word != "found");
    let (mut clock, mut at) = (NOW, 0);
    let started = Instant::now();
    for _ in 0..times {
        clock = clock.plus_nanos(1_000_000);
        at = (at + 7_919) % count;
        let buckets =
            if find { limiter.buckets(&project, black_box(&keys[at]), &group) } else { Arc::clone(&found[at]) };
        let asked = Asked { tokens, audio: Audio::NONE, stream: false };
        let reservation = buckets.reserve(&limits, asked, clock).unwrap();
        rate_limit(&reservation.headrooms(), |name, value| {
            black_box((name, value));
        });
        reservation.settle(used, clock);
    }
    println!("{} ns each", started.elapsed().as_nanos() / times.max(1) as u128);
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
