use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use proptest::prelude::*;

use super::{super::projector::Projector, store};
use crate::{
    domain::{
        bucket::{Bucket, HoldNumber, Holds},
        ids::KeyId,
        ledger::{Admission, Settlement, Used},
        limits::{Dimension, Limits},
        time::UnixNanos,
    },
    journal::{Journal, Options, Ticket, samples::*},
};

type Live = HashMap<(KeyId, Arc<str>, Dimension), (Bucket, Holds)>;
type Numbers = Vec<(Dimension, HoldNumber)>;

/// What the limiter in front of the journal does.
fn take(live: &mut Live, admission: &Admission) -> Option<Numbers> {
    let hold = &admission.hold;
    let key = |dimension| (admission.key_id.clone(), Arc::clone(&hold.limit_group), dimension);
    let limited = || Dimension::ALL.into_iter().filter_map(|d| hold.limits.rate(d).map(|rate| (d, rate)));
    let fits = limited().all(|(dimension, rate)| {
        let (bucket, _) = live.entry(key(dimension)).or_default();
        bucket.headroom(rate, admission.admitted_at).remaining >= hold.units(dimension).get()
    });
    let mut take = |(dimension, rate)| {
        let (bucket, holds) = live.get_mut(&key(dimension)).unwrap();
        (dimension, holds.take(bucket, hold.units(dimension), rate, admission.admitted_at).unwrap())
    };
    fits.then(|| limited().map(&mut take).collect())
}

fn correct(live: &mut Live, admission: &Admission, numbers: Numbers, settlement: &Settlement) {
    for (dimension, number) in numbers {
        let rate = admission.hold.limits.rate(dimension).unwrap();
        let key = (admission.key_id.clone(), Arc::clone(&admission.hold.limit_group), dimension);
        let (bucket, holds) = live.get_mut(&key).unwrap();
        let (held, used) = (admission.hold.units(dimension), settlement.used.units(dimension));
        holds.settle(bucket, number, held, used, rate, settlement.settled_at);
    }
}

#[derive(Clone, Debug)]
struct Step {
    gap_nanos: u64,
    key_two: bool,
    tokens: u32,
    used: u64,
    reached: bool,
    settle_later: bool,
}

prop_compose! {
    fn any_step()(
        gap_nanos in 0_u64..25_000_000_000, key_two in any::<bool>(), tokens in 1_u32..400, used in 0_u64..600,
        reached in any::<bool>(), settle_later in any::<bool>(),
    ) -> Step {
        Step { gap_nanos, key_two, tokens, used, reached, settle_later }
    }
}

fn hold(number: u64, step: &Step, now: UnixNanos) -> Admission {
    let mut admission = Admission { admitted_at: now, ..admission(number) };
    admission.key_id = KeyId::parse(if step.key_two { "key_two" } else { "key_one" }).unwrap();
    admission.hold.tokens = NonZeroU32::new(step.tokens).unwrap();
    admission.hold.limits = Limits {
        requests_per_minute: NonZeroU32::new(20),
        requests_per_day: NonZeroU32::new(100).filter(|_| step.key_two),
        tokens_per_minute: NonZeroU32::new(2_000),
        ..Limits::default()
    };
    admission
}

fn settle(
    journal: &Journal,
    live: &mut Live,
    (ticket, admission, numbers, step): (Ticket, Admission, Numbers, Step),
    now: UnixNanos,
) {
    let used = if step.reached { Used { request: true, tokens: step.used } } else { Used::NOTHING };
    let settlement = Settlement { settled_at: now, used, ..settlement(&admission) };
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
            live.retain(|_, (bucket, _)| bucket.arrival() != UnixNanos(0));
            assert_eq!(stored.len(), live.len());
            for bucket in stored {
                let key = (bucket.key_id, bucket.limit_group, bucket.dimension);
                assert_eq!(bucket.arrival, live[&key].0.arrival(), "{key:?}");
            }
        });
    }
}
