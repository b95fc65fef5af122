mod audio;
mod places;

use super::*;

const fn some(limit: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(limit)
}

fn at(seconds: u64) -> UnixNanos {
    UnixNanos::from_seconds(1_790_000_000 + seconds)
}

fn tokens_per_minute(limit: u32) -> Limits {
    Limits { tokens_per_minute: some(limit), ..Limits::default() }
}

fn of_project(project: Limits) -> ByScope<Limits> {
    ByScope { project, key: Limits::default() }
}

/// The buckets of keys of one project.
fn keys<const COUNT: usize>(limiter: &Limiter) -> [Arc<Buckets>; COUNT] {
    let (project, group) = (ProjectId::parse("proj_one").unwrap(), Arc::from("m"));
    std::array::from_fn(|n| limiter.buckets(&project, &KeyId::parse(&format!("key_{n}")).unwrap(), &group))
}

fn text(tokens: u32) -> Asked {
    Asked { tokens: some(tokens).unwrap(), audio: Audio::NONE, stream: false }
}

fn reserve(
    buckets: &Arc<Buckets>,
    limits: &ByScope<Limits>,
    tokens: u32,
    now: UnixNanos,
) -> Result<Reservation, LimitExceeded> {
    buckets.reserve(limits, text(tokens), now)
}

fn used(tokens: u64) -> Used {
    Used { request: true, tokens, ..Used::NOTHING }
}

#[test]
fn a_slow_request_gives_back_nothing_of_what_others_hold() {
    let limits = of_project(tokens_per_minute(300));
    let limiter = Limiter::default();
    let [one, two] = keys(&limiter);
    let slow = reserve(&one, &limits, 285, at(0)).unwrap();
    let quick = reserve(&two, &limits, 284, at(59)).unwrap();
    slow.settle(used(10), at(61));
    assert!(reserve(&two, &limits, 284, at(62)).is_err(), "568 tokens in three seconds");
    // What it did not use itself comes back at once.
    quick.settle(used(100), at(62));
    let third = reserve(&one, &limits, 215, at(62)).unwrap();
    assert!(reserve(&two, &limits, 1, at(62)).is_err());
    drop(third);
    assert!(reserve(&two, &limits, 215, at(62)).is_ok(), "dropped unsent, it gives back everything");
}

#[test]
fn the_keys_of_a_project_share_its_limit_and_other_projects_do_not() {
    let limits = of_project(tokens_per_minute(300));
    let limiter = Limiter::default();
    let [one, two] = keys(&limiter);
    reserve(&one, &limits, 200, at(0)).unwrap().settle(used(200), at(0));
    let refused = reserve(&two, &limits, 101, at(0)).unwrap_err();
    assert_eq!((refused.scope, refused.used, refused.limit), (Scope::Project, 200, 300));
    assert_eq!(reserve(&two, &limits, 100, at(0)).unwrap().headrooms().tokens.unwrap().remaining, 0);
    let stranger =
        limiter.buckets(&ProjectId::parse("proj_two").unwrap(), &KeyId::parse("key_9").unwrap(), &"m".into());
    assert!(reserve(&stranger, &limits, 300, at(0)).is_ok());
}

#[test]
fn a_keys_narrower_limit_is_hit_first_and_takes_nothing_from_the_project() {
    let narrow = ByScope { project: tokens_per_minute(300), key: tokens_per_minute(50) };
    let wide = of_project(narrow.project);
    let limiter = Limiter::default();
    let [one, two] = keys(&limiter);
    reserve(&one, &narrow, 50, at(0)).unwrap().settle(used(40), at(0));
    for _ in 0..10 {
        let refused = reserve(&one, &narrow, 11, at(0)).unwrap_err();
        assert_eq!((refused.scope, refused.used, refused.limit), (Scope::Key, 40, 50));
    }
    assert_eq!(one.headrooms(&narrow, at(0)).tokens.unwrap().remaining, 10);
    assert_eq!(two.headrooms(&wide, at(0)).tokens.unwrap().remaining, 260);
    // More than was held is owed in both scopes.
    reserve(&one, &narrow, 10, at(0)).unwrap().settle(used(70), at(0));
    let [of_key, of_project] = [one.headrooms(&narrow, at(0)), two.headrooms(&wide, at(0))];
    assert_eq!([of_key, of_project].map(|it| it.tokens.unwrap().remaining), [0, 190]);
    assert_eq!(reserve(&one, &narrow, 1, at(0)).unwrap_err().used, 110);
}

#[test]
fn only_a_key_with_limits_of_its_own_has_buckets_of_its_own() {
    let limits = ByScope { project: tokens_per_minute(300), key: Limits::default() };
    let [one, two] = keys(&Limiter::default());
    reserve(&one, &limits, 1, at(0)).unwrap().settle(used(1), at(0));
    assert!(one.of_key.get().is_none() && Arc::ptr_eq(&one.of_project, &two.of_project));
}

#[test]
fn an_idle_key_takes_little_memory() {
    // Beside them a place of 16 bytes in a map, and the counts of what is shared.
    assert!(size_of::<Buckets>() <= 88);
    assert!(size_of::<Cells>() <= 216, "of its own, where it has narrower limits");
}

/// Of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
}

/// Alone in its process, or other tests are measured too: `cargo test --lib hundred_thousand -- --ignored --nocapture`.
#[test]
#[ignore = "measures the whole process"]
fn a_hundred_thousand_idle_keys_in_memory_take_less_than_four_hundred_bytes_each() {
    const KEYS: u64 = 100_000;
    let narrow = ByScope { project: tokens_per_minute(300_000_000), key: tokens_per_minute(50) };
    for (limits, what) in [(of_project(narrow.project), "without limits"), (narrow, "with limits")] {
        let (limiter, group) = (Limiter::default(), Arc::from("m"));
        // A thousand keys in each project. The accounts have made these ids before, and share them.
        let ids: Vec<_> = (0..KEYS)
            .map(|n| {
                let project = ProjectId::parse(&format!("proj_{:024}", n / 1_000)).unwrap();
                (project, KeyId::parse(&format!("key_{n:024}")).unwrap())
            })
            .collect();
        let before = resident();
        for (project, key) in &ids {
            let buckets = limiter.buckets(project, key, &group);
            reserve(&buckets, &limits, 10, at(0)).unwrap().settle(used(10), at(0));
        }
        let each = (resident() - before) / KEYS;
        println!("an idle key {what} of its own: {each} bytes");
        assert!((50..400).contains(&each), "{each} bytes {what} of its own");
    }
}

#[test]
fn models_of_one_limit_group_share_a_bucket_and_others_do_not() {
    let (limiter, limits) = (Limiter::default(), of_project(tokens_per_minute(300)));
    let (project, key) = (ProjectId::parse("proj_one").unwrap(), KeyId::parse("key_one").unwrap());
    let of = |group: &str| limiter.buckets(&project, &key, &Arc::from(group));
    reserve(&of("one"), &limits, 300, at(0)).unwrap().settle(used(300), at(0));
    assert!(reserve(&of("one"), &limits, 1, at(0)).is_err() && reserve(&of("two"), &limits, 300, at(0)).is_ok());
    assert!(Arc::ptr_eq(&of("one"), &of("one")));
}

#[test]
fn of_several_limits_the_one_with_the_longest_wait_is_told() {
    let minute_and_day = Limits { requests_per_minute: some(1), requests_per_day: some(1), ..tokens_per_minute(100) };
    let limits = ByScope { project: minute_and_day, key: tokens_per_minute(90) };
    let [one] = keys(&Limiter::default());
    reserve(&one, &limits, 90, at(0)).unwrap().settle(used(90), at(0));
    let told = |tokens| {
        let refused = reserve(&one, &limits, tokens, at(0)).unwrap_err();
        (refused.scope, refused.dimension, refused.wait_nanos)
    };
    assert_eq!(told(50), (Scope::Project, Dimension::RequestsPerDay, Some(86_400_000_000_000)));
    assert_eq!(told(95), (Scope::Key, Dimension::TokensPerMinute, None), "too large for ever");
    assert_eq!(
        told(101),
        (Scope::Key, Dimension::TokensPerMinute, None),
        "of two that it is too large for, the smaller"
    );
}

#[test]
fn tokens_are_counted_by_the_day_too() {
    let limits = of_project(Limits { tokens_per_day: some(864), ..tokens_per_minute(500) });
    let [one] = keys(&Limiter::default());
    for seconds in [0, 60] {
        reserve(&one, &limits, 432, at(seconds)).unwrap().settle(used(432), at(seconds));
    }
    // A token comes back every 100 seconds.
    let refused = reserve(&one, &limits, 1, at(99)).unwrap_err();
    assert_eq!((refused.dimension, refused.wait_nanos), (Dimension::TokensPerDay, Some(1_000_000_000)));
    assert_eq!(one.headrooms(&limits, at(60)).tokens.unwrap().limit, 864);
    assert!(reserve(&one, &limits, 1, at(100)).is_ok());
}

#[test]
fn a_changed_limit_keeps_what_was_used() {
    let [one] = keys(&Limiter::default());
    let requests = |limit| of_project(Limits { requests_per_minute: some(limit), ..Limits::default() });
    for _ in 0..100 {
        reserve(&one, &requests(500), 1, at(0)).unwrap().settle(used(1), at(0));
    }
    for (limit, remaining) in [(1_000, 900), (500, 400), (100, 0), (50, 0)] {
        assert_eq!(one.headrooms(&requests(limit), at(0)).requests.unwrap().remaining, remaining, "{limit}");
    }
    let held = reserve(&one, &requests(1_000), 1, at(0)).unwrap();
    assert_eq!(held.headrooms().requests.unwrap().remaining, 899);
    held.settle(Used::NOTHING, at(0));
    assert_eq!(one.headrooms(&requests(500), at(0)).requests.unwrap().remaining, 400);
}

#[test]
fn threads_of_many_keys_never_get_more_than_the_projects_limit() {
    const LIMIT: u32 = 1_000;
    let limits = ByScope { project: tokens_per_minute(LIMIT), key: tokens_per_minute(400) };
    let limiter = Limiter::default();
    let keys: [_; 8] = keys(&limiter);
    let taken: u64 = std::thread::scope(|scope| {
        let threads = keys.each_ref().map(|key| {
            scope.spawn(|| {
                let mut taken = 0;
                for n in 0..500_u64 {
                    if let Ok(reservation) = reserve(key, &limits, 7, at(0)) {
                        let used = Used { request: true, tokens: n % 7, ..Used::NOTHING };
                        taken += used.tokens;
                        reservation.settle(used, at(0));
                    }
                }
                taken
            })
        });
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let [left] = [keys[0].headrooms(&of_project(limits.project), at(0)).tokens.unwrap().remaining];
    assert_eq!(taken + u64::from(left), u64::from(LIMIT));
    assert!(left < 7 + 6, "room that nobody could get: {left}");
}

#[test]
fn nothing_is_taken_for_who_does_not_get_the_rest_and_the_rest_is_not_asked_for_in_vain() {
    #[derive(Debug, PartialEq)]
    enum Without {
        Room,
        Rest,
    }
    impl From<LimitExceeded> for Without {
        fn from(_: LimitExceeded) -> Self {
            Self::Room
        }
    }
    let limits = of_project(Limits { concurrent_requests: some(1), ..tokens_per_minute(100) });
    let [one] = keys(&Limiter::default());
    let asked = std::cell::Cell::new(0);
    let ask = |tokens, rest: Result<_, Without>| {
        one.reserve_with(&limits, text(tokens), at(0), || {
            asked.set(asked.get() + 1);
            rest
        })
    };
    assert_eq!(ask(60, Err(Without::Rest)).err(), Some(Without::Rest));
    assert_eq!((one.headrooms(&limits, at(0)).tokens.unwrap().remaining, asked.get()), (100, 1));
    let (held, rest) = ask(60, Ok("rest")).unwrap();
    assert_eq!((rest, asked.get()), ("rest", 2));
    assert_eq!((ask(60, Ok("rest")).err(), asked.get()), (Some(Without::Room), 2));
    drop(held);
    assert!(ask(100, Ok("rest")).is_ok());
}

#[test]
fn asking_takes_nothing_and_tells_what_reserving_does() {
    let project = Limits { requests_per_minute: some(3), ..tokens_per_minute(300) };
    let limits = ByScope { project, key: Limits { tokens_per_day: some(250), ..Limits::default() } };
    let limiter = Limiter::default();
    let [one, two] = keys(&limiter);
    let mut held = Vec::new();
    for (tokens, left) in [(100, [2, 200, 150]), (150, [1, 50, 0]), (1, [0, 49, 0])] {
        let before = one.headrooms(&limits, at(0));
        let would = one.would_reserve(&limits, text(tokens), at(0));
        assert_eq!((one.headrooms(&limits, at(0)), would.headrooms), (before, before));
        assert_eq!(would.limits.iter().map(|it| it.left_after().unwrap_or(0)).collect::<Vec<_>>(), left);
        let reserved = reserve(&one, &limits, tokens, at(0));
        assert_eq!(reserved.as_ref().err(), would.refused.as_ref());
        held.extend(reserved.ok().into_iter().inspect(|reserved| {
            for it in &would.limits {
                assert_eq!(reserved.hold().used_before[it.scope][it.dimension.index()], it.used_before);
                assert_eq!(u64::from(reserved.hold().units(it.dimension)), it.reserved);
            }
        }));
    }
    let refused = one.would_reserve(&limits, text(1), at(0)).refused.unwrap();
    assert_eq!((refused.scope, refused.dimension), (Scope::Key, Dimension::TokensPerDay));
    assert_eq!(two.would_reserve(&limits, text(50), at(0)).refused, None, "the key's limit is its own");
    assert_eq!(held.len(), 2);
}
