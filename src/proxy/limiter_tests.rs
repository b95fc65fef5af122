//! Many threads on the buckets of one project and model. What is in a bucket changes, and is read, only under its lock
//! ([`Buckets`]), so that there is no order of single loads and stores to try.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::limiter::{Asked, Buckets, Limiter, Reservation};
use crate::domain::{
    ids::{KeyId, ProjectId},
    ledger::Used,
    limits::{Audio, ByScope, Limits},
    time::UnixNanos,
};

const THREADS: u64 = 8;
const ROUNDS: u64 = 4_000;
/// It stands still, so nothing comes back by itself.
const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
const TOKENS: u32 = 3_000_000;
const REQUESTS: u32 = 20_000;

fn limits() -> ByScope<Limits> {
    let [requests_per_day, tokens_per_minute] = [REQUESTS, TOKENS].map(NonZeroU32::new);
    ByScope { project: Limits { requests_per_day, tokens_per_minute, ..Limits::default() }, key: Limits::default() }
}

fn buckets() -> Arc<Buckets> {
    let (project, key) = (ProjectId::parse("proj_one").unwrap(), KeyId::parse("key_one").unwrap());
    Limiter::default().buckets(&project, &key, &"m".into())
}

fn reserve(buckets: &Arc<Buckets>, tokens: u32) -> Option<Reservation> {
    buckets
        .reserve(&limits(), Asked { tokens: NonZeroU32::new(tokens).unwrap(), audio: Audio::NONE, stream: false }, NOW)
        .ok()
}

/// Requests and tokens that are taken.
fn taken(buckets: &Buckets) -> (u64, u64) {
    let headrooms = buckets.headrooms(&limits(), NOW);
    let left = |headroom: Option<crate::domain::bucket::Headroom>| u64::from(headroom.unwrap().remaining);
    (u64::from(REQUESTS) - left(headrooms.requests), u64::from(TOKENS) - left(headrooms.tokens))
}

/// What one thread has used in the end.
fn work(thread: u64, buckets: &Arc<Buckets>, held: &AtomicU64) -> (u64, u64) {
    let (mut open, mut used, mut state) = (Vec::new(), (0, 0), 0x9e37_79b9 + thread);
    let mut below = |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    for round in 0..ROUNDS {
        let tokens = u32::try_from(1 + below(900)).unwrap();
        if let Some(reservation) = reserve(buckets, tokens) {
            let all = held.fetch_add(tokens.into(), Ordering::SeqCst) + u64::from(tokens);
            assert!(all <= u64::from(TOKENS), "more is held at one time than there is");
            open.push((reservation, u64::from(tokens)));
        }
        if open.len() > 20 || round % 3 == 0 {
            let Some((reservation, tokens)) = open.pop() else { continue };
            held.fetch_sub(tokens, Ordering::SeqCst);
            match below(4) {
                0 => drop(reservation),
                1 => {
                    used = (used.0 + 1, used.1 + tokens);
                    reservation.settle(Used { request: true, tokens, ..Used::NOTHING }, NOW);
                }
                _ => {
                    let tokens = below(tokens);
                    used = (used.0 + 1, used.1 + tokens);
                    reservation.settle(Used { request: true, tokens, ..Used::NOTHING }, NOW);
                }
            }
        }
    }
    for (reservation, tokens) in open {
        held.fetch_sub(tokens, Ordering::SeqCst);
        drop(reservation);
    }
    used
}

#[test]
fn eight_threads_lose_no_token_and_make_none() {
    let (buckets, held) = (buckets(), AtomicU64::new(0));
    let used: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                scope.spawn({
                    let (buckets, held) = (&buckets, &held);
                    move || work(n, buckets, held)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = used.iter().fold((0, 0), |sum, used| (sum.0 + used.0, sum.1 + used.1));
    assert!(sum.1 > u64::from(TOKENS) / 10, "{sum:?}");
    assert_eq!((taken(&buckets), held.into_inner()), (sum, 0));
}

#[test]
fn eight_threads_at_once_get_exactly_the_limit() {
    let buckets = buckets();
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    (0..REQUESTS / 4)
                        .filter_map(|_| reserve(&buckets, 100))
                        .map(|taken| taken.settle(Used { request: true, tokens: 100, ..Used::NOTHING }, NOW))
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(
        admitted,
        usize::try_from(REQUESTS).unwrap(),
        "twice as many came, and nobody was refused while there was room"
    );
    assert_eq!(taken(&buckets), (u64::from(REQUESTS), 100 * u64::from(REQUESTS)));
}
