use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use proptest::prelude::*;
use sqlx::{Connection as _, SqliteConnection};

use super::{
    super::{Store, projector::Projector},
    store,
};
use crate::{
    domain::{
        bucket::{Bucket, HoldNumber, Level, Rate},
        ids::{KeyId, ProjectId},
        ledger::{Admission, Settlement, Used},
        limits::{Audio, ByScope, Dimension, Limits, Scope},
        time::UnixNanos,
        usage::{LineItem, Usage},
    },
    journal::{Journal, Options, Ticket, samples::*},
};

type Of = (ProjectId, Option<KeyId>, Arc<str>, Dimension);
type Live = HashMap<Of, Bucket>;
type Numbers = Vec<(Of, HoldNumber)>;

fn of(admission: &Admission, scope: Scope, dimension: Dimension) -> Of {
    let hold = &admission.hold;
    let key_id = (scope == Scope::Key).then(|| admission.key_id.clone());
    (hold.project_id.clone().unwrap(), key_id, Arc::clone(&hold.limit_group), dimension)
}

/// What the limiter in front of the journal does.
fn take(live: &mut Live, admission: &Admission) -> Option<Numbers> {
    let (hold, now) = (&admission.hold, admission.admitted_at);
    let all = Scope::ALL.into_iter().flat_map(|scope| Dimension::ALL.map(|dimension| (scope, dimension)));
    let limited = all.filter_map(|(scope, dimension)| Some((scope, dimension, hold.limits[scope].rate(dimension)?)));
    let mut taken: Vec<(Of, Level, Rate)> = Vec::new();
    for (scope, dimension, rate) in limited {
        let of = of(admission, scope, dimension);
        let level = live.entry(of.clone()).or_default().level().take(hold.units(dimension), rate, now).ok()?;
        taken.push((of, level, rate));
    }
    let mut begin = |(of, level, rate): (Of, Level, Rate)| {
        let bucket = live.get_mut(&of).unwrap();
        let number = bucket.take(hold.units(of.3), rate, now).unwrap();
        assert_eq!(bucket.level(), level);
        (of, number)
    };
    Some(taken.into_iter().map(&mut begin).collect())
}

fn correct(live: &mut Live, admission: &Admission, numbers: Numbers, settlement: &Settlement) {
    for (of, number) in numbers {
        let (held, used) = (admission.hold.units(of.3), settlement.used.units(of.3));
        live.get_mut(&of).unwrap().settle(number, held, used, settlement.settled_at);
    }
}

#[derive(Clone, Debug)]
struct Step {
    gap_nanos: u64,
    key_two: bool,
    /// The project's limit, which is changed now and then.
    requests_per_minute: u32,
    tokens: u32,
    used: u64,
    /// Held and used, input and output.
    audio: [u64; 4],
    reached: bool,
    settle_later: bool,
}

prop_compose! {
    fn any_step()(
        gap_nanos in 0_u64..25_000_000_000, key_two in any::<bool>(), requests_per_minute in prop_oneof![Just(20_u32), Just(70)], tokens in 1_u32..400,
        used in 0_u64..600, audio in prop_oneof![Just([0; 4]), prop::array::uniform4(0_u64..40)], reached in any::<bool>(), settle_later in any::<bool>(),
    ) -> Step {
        Step { gap_nanos, key_two, requests_per_minute, tokens, used, audio, reached, settle_later }
    }
}

fn hold(number: u64, step: &Step, now: UnixNanos) -> Admission {
    let mut admission = Admission { admitted_at: now, ..admission(number) };
    admission.key_id = KeyId::parse(if step.key_two { "key_two" } else { "key_one" }).unwrap();
    admission.hold.tokens = NonZeroU32::new(step.tokens).unwrap();
    admission.hold.audio = Audio { input: step.audio[0], output: step.audio[1] };
    let project = Limits {
        audio_tokens_per_minute: NonZeroU32::new(300),
        concurrent_requests: NonZeroU32::new(5),
        requests_per_minute: NonZeroU32::new(step.requests_per_minute),
        tokens_per_minute: NonZeroU32::new(2_000),
        tokens_per_day: NonZeroU32::new(20_000),
        ..Limits::default()
    };
    let narrower = Limits {
        requests_per_day: NonZeroU32::new(100),
        tokens_per_minute: NonZeroU32::new(1_500),
        audio_seconds_per_day: NonZeroU32::new(30),
        ..Limits::default()
    };
    admission.hold.limits = ByScope { project, key: if step.key_two { narrower } else { Limits::default() } };
    admission
}

fn settle(
    journal: &Journal,
    live: &mut Live,
    (ticket, admission, numbers, step): (Ticket, Admission, Numbers, Step),
    now: UnixNanos,
) {
    let [.., input, output] = if step.reached { step.audio } else { [0; 4] };
    let usage = Usage::default().with(LineItem::InputAudio, input).with(LineItem::OutputAudio, output);
    let used = if step.reached { Used { tokens: step.used, ..Used::of(true, &usage) } } else { Used::NOTHING };
    let settlement = Settlement { settled_at: now, used, usage, ..settlement(&admission) };
    correct(live, &admission, numbers, &settlement);
    journal.settle(ticket, &settlement);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn restored_buckets_are_the_live_ones(steps in prop::collection::vec(any_step(), 1..60), restart_at in 0_usize..60) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (journal, _) = Journal::open(Options::new(dir.path().join("journal")), NOW).unwrap();
            let store = store(dir.path()).await;
            let (mut live, mut open, mut now) = (Live::new(), Vec::new(), NOW);
            for (number, step) in steps.into_iter().enumerate() {
                now = now.plus_nanos(step.gap_nanos);
                let admission = hold(number as u64, &step, now);
                if let Some(numbers) = take(&mut live, &admission) {
                    open.push((journal.admit(&admission).unwrap(), admission, numbers, step.clone()));
                }
                if !step.settle_later {
                    now = now.plus_nanos(1_000_000);
                    open.drain(..).for_each(|request| settle(&journal, &mut live, request, now));
                }
                if number == restart_at {
                    Projector::new(Arc::clone(&journal), store.clone()).catch_up().await.unwrap();
                }
            }
            Projector::new(Arc::clone(&journal), store.clone()).catch_up().await.unwrap();
            let stored = store.limit_buckets().await.unwrap();
            live.retain(|_, bucket| bucket.level() != Level::default());
            assert_eq!(stored.len(), live.len());
            for bucket in stored {
                let of = (bucket.project_id, bucket.key_id, bucket.limit_group, bucket.dimension);
                assert_eq!(bucket.level, live[&of].level(), "{of:?}");
            }
        });
    }
}

/// What is in use of a minute's requests of 20, whoever's they are.
async fn in_use(store: &Store, key_id: Option<&str>) -> Option<u64> {
    let rate = Rate::per_minute(NonZeroU32::new(20).unwrap());
    let wanted = |key: &Option<KeyId>| key.as_ref().map(KeyId::as_str) == key_id;
    let stored = store.limit_buckets().await.unwrap();
    let found = stored.into_iter().find(|it| wanted(&it.key_id) && it.dimension == Dimension::RequestsPerMinute);
    found.map(|bucket| bucket.level.used(rate, NOW))
}

#[tokio::test]
async fn what_was_journaled_before_projects_had_buckets_counts_for_both_scopes() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path().join("journal")), NOW).unwrap();
    let store = store(dir.path()).await;
    let mut tickets = Vec::new();
    for (number, key) in [(1, "key_one"), (2, "key_two"), (3, "key_two")] {
        let mut before = Admission { admitted_at: NOW, key_id: KeyId::parse(key).unwrap(), ..admission(number) };
        before.hold.project_id = None;
        let key = Limits { requests_per_minute: NonZeroU32::new(20), ..Limits::default() };
        before.hold.limits = ByScope { project: Limits::default(), key };
        tickets.push((journal.admit(&before).unwrap(), before));
    }
    Projector::new(Arc::clone(&journal), store.clone()).catch_up().await.unwrap();
    assert_eq!((in_use(&store, None).await, in_use(&store, Some("key_two")).await), (Some(3), Some(2)));
    // Open at the start of this version, and given back by it.
    let (ticket, before) = tickets.pop().unwrap();
    journal.settle(ticket, &Settlement { settled_at: NOW, used: Used::NOTHING, ..settlement(&before) });
    Projector::new(Arc::clone(&journal), store.clone()).catch_up().await.unwrap();
    assert_eq!((in_use(&store, None).await, in_use(&store, Some("key_two")).await), (Some(2), Some(1)));
}

#[tokio::test]
async fn a_project_takes_over_what_its_keys_had_in_use() {
    let mut database = SqliteConnection::connect(":memory:").await.unwrap();
    let before = "
        CREATE TABLE api_keys (id TEXT, project_id TEXT, limits TEXT);
        INSERT INTO api_keys VALUES ('key_a', 'proj_a', '{}'), ('key_b', 'proj_a', '{}'),
            ('key_c', 'proj_a', '{\"requests_per_day\":5}'), ('key_d', 'proj_d', '{\"requests_per_day\":5}');
        CREATE TABLE limit_buckets (key_id TEXT, limit_group TEXT, dimension TEXT, arrival_at INTEGER);
        INSERT INTO limit_buckets VALUES
            ('key_a', 'm', 'requests_per_day', 500), ('key_b', 'm', 'requests_per_day', 700),
            ('key_c', 'm', 'requests_per_day', 900), ('key_c', 'm', 'tokens_per_minute', 300),
            ('key_b', 'n', 'requests_per_day', 100), ('key_d', 'm', 'requests_per_day', 800);";
    sqlx::raw_sql(before).execute(&mut database).await.unwrap();
    let migration =
        include_str!("../../../migrations/0007_limits.sql").split("-- === the queue of batches").next().unwrap();
    sqlx::raw_sql(migration).execute(&mut database).await.unwrap();
    let rows: Vec<(String, String, String, String, i64, i64)> =
        sqlx::query_as("SELECT * FROM limit_buckets").fetch_all(&mut database).await.unwrap();
    let rows: Vec<_> = rows
        .iter()
        .map(|(project, key, group, dimension, at, unit)| {
            (project.as_str(), key.as_str(), group.as_str(), dimension.as_str(), *at, *unit)
        })
        .collect();
    // A fifth of a day: units of a key that had five of them.
    let fifth = 17_280_000_000_000;
    assert_eq!(
        rows,
        [
            ("proj_a", "", "m", "requests_per_day", 700, 0),
            ("proj_a", "", "m", "tokens_per_minute", 300, 0),
            ("proj_a", "", "n", "requests_per_day", 100, 0),
            ("proj_a", "key_c", "m", "requests_per_day", 900, 0),
            ("proj_d", "", "m", "requests_per_day", 800, fifth),
            ("proj_d", "key_d", "m", "requests_per_day", 800, 0),
        ]
    );
}
