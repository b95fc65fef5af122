use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use proptest::prelude::*;

use super::{super::projector::Projector, store};
use crate::{
    domain::{
        bucket::Bucket,
        ids::KeyId,
        ledger::{Admission, Settlement, Used},
        limits::{Dimension, Limits},
        time::UnixNanos,
    },
    journal::{Journal, Options, Ticket, samples::*},
};

type Live = HashMap<(KeyId, Arc<str>, Dimension), Bucket>;

/// What the limiter in front of the journal does.
fn take(live: &mut Live, admission: &Admission) -> bool {
    let hold = &admission.hold;
    let key = |dimension| (admission.key_id.clone(), Arc::clone(&hold.limit_group), dimension);
    let limited = || Dimension::ALL.into_iter().filter_map(|d| hold.limits.rate(d).map(|rate| (d, rate)));
    let fits = limited().all(|(dimension, rate)| {
        let bucket = live.entry(key(dimension)).or_default();
        bucket.headroom(rate, admission.admitted_at).remaining >= hold.units(dimension).get()
    });
    fits && limited()
        .all(|(dimension, rate)| live[&key(dimension)].take(hold.units(dimension), rate, admission.admitted_at).is_ok())
}

fn correct(live: &Live, admission: &Admission, settlement: &Settlement) {
    for (dimension, rate) in
        Dimension::ALL.into_iter().filter_map(|d| admission.hold.limits.rate(d).map(|rate| (d, rate)))
    {
        let bucket = &live[&(admission.key_id.clone(), Arc::clone(&admission.hold.limit_group), dimension)];
        let (held, used) = (u64::from(admission.hold.units(dimension).get()), settlement.used.units(dimension));
        if used < held {
            bucket.give_back(held - used, rate, settlement.settled_at);
        } else if used > held {
            bucket.charge(used - held, rate, settlement.settled_at);
        }
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
        gap_nanos in 0_u64..5_000_000_000, key_two in any::<bool>(), tokens in 1_u32..400, used in 0_u64..600,
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

fn settle(journal: &Journal, live: &Live, (ticket, admission, step): (Ticket, Admission, Step), now: UnixNanos) {
    let used = if step.reached { Used { request: true, tokens: step.used } } else { Used::NOTHING };
    let settlement = Settlement { settled_at: now, used, ..settlement(&admission) };
    correct(live, &admission, &settlement);
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
                if take(&mut live, &admission) {
                    open.push((journal.admit(&admission).unwrap(), admission, step.clone()));
                }
                if !step.settle_later {
                    now = now.plus_nanos(1_000_000);
                    open.drain(..).for_each(|request| settle(&journal, &live, request, now));
                }
                if number == restart_at {
                    Projector::new(Arc::clone(&journal), store.clone()).catch_up().await.unwrap();
                }
            }
            Projector::new(Arc::clone(&journal), store.clone()).catch_up().await.unwrap();
            let stored = store.limit_buckets().await.unwrap();
            live.retain(|_, bucket| bucket.arrival() != UnixNanos(0));
            assert_eq!(stored.len(), live.len());
            for bucket in stored {
                let key = (bucket.key_id, bucket.limit_group, bucket.dimension);
                assert_eq!(bucket.arrival, live[&key].arrival(), "{key:?}");
            }
        });
    }
}
