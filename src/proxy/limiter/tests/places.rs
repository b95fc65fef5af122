//! Limits of what is under way at one time.

use super::*;

fn at_once(requests: u32, streams: u32) -> Limits {
    Limits { concurrent_requests: some(requests), concurrent_streams: some(streams), ..Limits::default() }
}

fn begin(
    buckets: &Arc<Buckets>,
    limits: &ByScope<Limits>,
    stream: bool,
    now: UnixNanos,
) -> Result<Reservation, LimitExceeded> {
    buckets.reserve(limits, Asked { tokens: some(1).unwrap(), audio: Audio::NONE, stream }, now)
}

#[test]
fn what_is_under_way_holds_a_place_until_it_is_settled_or_dropped() {
    let limits = of_project(at_once(2, 1));
    let [one, two] = keys(&Limiter::default());
    let stream = begin(&one, &limits, true, at(0)).unwrap();
    assert_eq!(stream.hold().used_before.project[Dimension::ConcurrentStreams.index()], Some(0));
    let refused = begin(&two, &limits, true, at(3_600)).unwrap_err();
    let expected = LimitExceeded {
        scope: Scope::Project,
        dimension: Dimension::ConcurrentStreams,
        limit: 1,
        used: 1,
        requested: 1,
        wait_nanos: Some(1_000_000_000),
    };
    assert_eq!(refused, expected, "no time frees a place");
    let other = begin(&two, &limits, false, at(3_600)).unwrap();
    let refused = begin(&one, &limits, false, at(3_600)).unwrap_err();
    assert_eq!((refused.dimension, refused.used), (Dimension::ConcurrentRequests, 2));
    drop(other);
    begin(&one, &limits, false, at(3_600)).unwrap().settle(used(5), at(3_601));
    stream.settle(used(5), at(3_602));
    assert!(begin(&one, &limits, true, at(3_602)).is_ok());
}

#[test]
fn whoever_is_refused_by_another_limit_holds_no_place_and_takes_nothing_where_there_is_none() {
    let limits = of_project(Limits { tokens_per_minute: some(1), ..at_once(1, 1) });
    let [one] = keys(&Limiter::default());
    begin(&one, &limits, false, at(0)).unwrap().settle(used(1), at(0));
    for _ in 0..5 {
        assert_eq!(begin(&one, &limits, false, at(0)).unwrap_err().dimension, Dimension::TokensPerMinute);
    }
    let running = begin(&one, &limits, false, at(60)).unwrap();
    assert!(begin(&one, &limits, false, at(120)).is_err());
    running.settle(used(1), at(120));
    // One token is there since 120: the refusal for want of a place took none.
    assert!(begin(&one, &limits, false, at(180)).is_ok());
}

#[test]
fn a_key_has_fewer_places_of_its_own() {
    let [one, two] = keys(&Limiter::default());
    let narrow = ByScope { project: at_once(3, 3), key: at_once(1, 1) };
    let held = begin(&one, &narrow, false, at(0)).unwrap();
    let refused = begin(&one, &narrow, false, at(0)).unwrap_err();
    assert_eq!((refused.scope, refused.dimension), (Scope::Key, Dimension::ConcurrentRequests));
    let wide = of_project(at_once(3, 3));
    let others = [begin(&two, &wide, false, at(0)).unwrap(), begin(&two, &wide, false, at(0)).unwrap()];
    assert_eq!(begin(&two, &wide, false, at(0)).unwrap_err().scope, Scope::Project);
    drop(held);
    assert!(begin(&two, &wide, false, at(0)).is_ok());
    drop(others);
}

#[test]
fn a_limit_that_is_set_later_counts_what_is_under_way_already() {
    let [one, two] = keys(&Limiter::default());
    let none = ByScope::default();
    let mut open: Vec<_> = (0..3).map(|_| begin(&one, &none, true, at(0)).unwrap()).collect();
    open.push(begin(&two, &none, true, at(0)).unwrap());
    for (limits, scope, used) in [
        (ByScope { project: Limits::default(), key: at_once(9, 2) }, Scope::Key, 3),
        (of_project(at_once(9, 2)), Scope::Project, 4),
    ] {
        let refused = begin(&one, &limits, true, at(1)).unwrap_err();
        assert_eq!((refused.scope, refused.dimension), (scope, Dimension::ConcurrentStreams));
        assert_eq!((refused.limit, refused.used), (2, used));
        assert_eq!(one.would_reserve(&limits, Asked { stream: true, ..text(1) }, at(1)).refused, Some(refused));
        assert!(begin(&one, &limits, false, at(1)).is_ok(), "it is no stream");
    }
    // However they end, each frees one place, once.
    let limits = ByScope { project: at_once(9, 4), key: at_once(9, 3) };
    open.pop().unwrap().settle(used(1), at(1));
    assert_eq!(begin(&one, &limits, true, at(1)).unwrap_err().scope, Scope::Key);
    drop(open.pop());
    open.push(begin(&one, &limits, true, at(1)).unwrap());
    open.push(begin(&two, &of_project(limits.project), true, at(1)).unwrap());
    assert_eq!(begin(&two, &of_project(limits.project), true, at(1)).unwrap_err().used, 4);
    drop(open);
    open = (0..3).map(|_| begin(&one, &limits, true, at(1)).unwrap()).collect();
    assert_eq!(begin(&one, &limits, true, at(1)).unwrap_err().used, 3);
    drop(open);
}

#[test]
fn many_threads_never_have_more_under_way_than_the_limit_and_leave_none_behind() {
    let limits = of_project(at_once(3, 2));
    let limiter = Limiter::default();
    let [one] = keys(&limiter);
    let (running, admitted) = (std::sync::atomic::AtomicU32::new(0), std::sync::atomic::AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (one, limits, running, admitted) = (&one, &limits, &running, &admitted);
            scope.spawn(move || {
                for n in 0..2_000_u64 {
                    let Ok(taken) = begin(one, limits, (n + thread).is_multiple_of(3), at(n)) else { continue };
                    assert!(running.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 3);
                    admitted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    if n.is_multiple_of(2) { taken.settle(used(1), at(n)) } else { drop(taken) }
                }
            });
        }
    });
    assert!(admitted.into_inner() > 0);
    let places = [(); 3].map(|()| begin(&one, &limits, false, at(0)).unwrap());
    assert!(begin(&one, &limits, false, at(0)).is_err());
    drop(places);
}
