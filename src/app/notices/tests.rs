use std::num::NonZeroU64;

use super::*;
use crate::{
    domain::{
        keys::{KeyTerms, Pepper},
        money::Total,
        spend::{Enforcement, OrganizationLimits, SpendLimit, SpendLimitChange},
    },
    metrics::Metrics,
    store::audit::{Filter, Position, page},
};

/// 2026-09-21 14:13:20.
const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
const DAY_NANOS: u64 = 86_400_000_000_000;

struct World {
    _directory: tempfile::TempDir,
    store: Arc<Store>,
    accounts: Arc<Accounts>,
    key: Arc<ApiKey>,
    spending: Arc<Spending>,
    clock: Clock,
}

fn cents(cents: i128) -> Total {
    Total::from_pico(cents * 10_000_000_000)
}

impl World {
    /// A project with a limit of a dollar, set a week ago.
    async fn new(interval: Interval) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&directory.path().join("tollgate.db")).await.unwrap());
        let accounts = Accounts::load(Arc::clone(&store), Pepper::from_bytes([7; 32])).await.unwrap();
        let by = By::gateway(UnixNanos(NOW.0 - 7 * DAY_NANOS));
        let project = accounts.create_project("a", "tier1".into(), &by).await.unwrap();
        let (_, key, _) = accounts.create_service_account(&project.id, "a", KeyTerms::default(), &by).await.unwrap();
        let spending = Arc::new(Spending::restored(Arc::new(OrganizationLimits::default()), []));
        let world = Self { _directory: directory, store, accounts, key, spending, clock: Clock::manual(NOW) };
        world.set(100, interval, &by).await;
        world
    }

    async fn set(&self, cents: u64, interval: Interval, by: &By) {
        let threshold_cents = NonZeroU64::new(cents).unwrap();
        let limit = SpendLimit { threshold_cents, interval, enforcement: Enforcement::Inactive };
        self.accounts.change_spend_limit(&self.key.project.id, SpendLimitChange::Set(limit), by).await.unwrap();
    }

    fn spend(&self, amount: i128) {
        self.spending.add(&self.key.project.id, cents(amount), self.clock.now());
    }

    /// As a start makes it.
    fn notifier(&self, last_settled: Option<UnixNanos>) -> Notifier {
        Notifier {
            store: Arc::clone(&self.store),
            accounts: Arc::clone(&self.accounts),
            catalog: Arc::default(),
            spending: Arc::clone(&self.spending),
            notices: Arc::default(),
            clock: self.clock.clone(),
            outbox: None,
            told: None,
            last_settled,
        }
    }

    /// The marks in the audit log, with the start of their period, oldest first.
    async fn rows(&self) -> Vec<(u64, u64)> {
        let filter = Filter { event_types: vec!["spend_limit.mark_passed".to_owned()], ..Filter::default() };
        let rows = page(&self.store, &filter, Position::Newest, 100).await.unwrap();
        let fact = |after: &serde_json::Value, name: &str| after[name].as_u64().unwrap();
        let facts = rows.iter().rev().map(|row| serde_json::from_str(row.after.as_deref().unwrap()).unwrap());
        facts.map(|after: serde_json::Value| (fact(&after, "percent"), fact(&after, "start_time"))).collect()
    }

    async fn percents(&self) -> Vec<u64> {
        self.rows().await.into_iter().map(|(percent, _)| percent).collect()
    }
}

#[tokio::test]
async fn each_mark_is_told_once_in_a_period_over_restarts_too() {
    let world = World::new(Interval::Month).await;
    let mut notifier = world.notifier(None);
    world.spend(49);
    notifier.look(&[], true).await.unwrap();
    assert_eq!(world.percents().await, [0_u64; 0]);
    world.spend(31);
    let passing = [Passing { key: Arc::clone(&world.key), at: NOW }, Passing { key: Arc::clone(&world.key), at: NOW }];
    notifier.look(&passing, false).await.unwrap();
    notifier.look(&passing, true).await.unwrap();
    assert_eq!(world.percents().await, [50, 80]);
    // Passed, and then killed before it was told.
    drop(notifier);
    world.spend(30);
    let mut notifier = world.notifier(Some(NOW));
    notifier.look(&[], true).await.unwrap();
    assert_eq!(world.percents().await, [50, 80, 100]);
    world.notifier(Some(NOW)).look(&passing, true).await.unwrap();
    world.clock.advance(11 * DAY_NANOS);
    world.spend(60);
    notifier.look(&[], true).await.unwrap();
    world.notifier(Some(NOW)).look(&passing, true).await.unwrap();
    let (september, october) = (Interval::Month.around(NOW), Interval::Month.around(world.clock.now()));
    let told = [50, 80, 100].map(|percent| (percent, september.start_s));
    assert_eq!(world.rows().await, [&told[..], &[(50, october.start_s)]].concat());
}

#[tokio::test]
async fn another_amount_is_told_of_anew_and_the_same_one_is_not() {
    let world = World::new(Interval::Day).await;
    let mut notifier = world.notifier(None);
    world.spend(60);
    notifier.look(&[], true).await.unwrap();
    for (cents, told) in [(70, vec![50, 50, 80]), (100, vec![50, 50, 80]), (500, vec![50, 50, 80])] {
        world.set(cents, Interval::Day, &By::gateway(NOW)).await;
        notifier.look(&[], true).await.unwrap();
        assert_eq!(world.percents().await, told, "{cents}");
    }
}

#[tokio::test]
async fn a_day_that_is_over_is_made_up_for_unless_its_limit_was_another() {
    for (changed, told) in [(false, vec![50, 80]), (true, vec![])] {
        let world = World::new(Interval::Day).await;
        world.spend(85);
        world.clock.advance(3 * DAY_NANOS);
        if changed {
            world.set(99, Interval::Day, &By::gateway(world.clock.now())).await;
        }
        world.notifier(None).look(&[], true).await.unwrap();
        assert_eq!(world.percents().await, [0_u64; 0]);
        world.notifier(Some(NOW)).look(&[], true).await.unwrap();
        assert_eq!(world.percents().await, told);
    }
}

#[tokio::test]
async fn what_the_database_does_not_take_is_told_later_and_at_the_stop() {
    let world = World::new(Interval::Day).await;
    world.spend(85);
    let mut notifier = world.notifier(None);
    let outbox = Outbox::new(Arc::new(Metrics::new()));
    notifier.outbox = Some(outbox);
    let failing = "CREATE TRIGGER failing BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(failing).execute(world.store.writer()).await.unwrap();
    assert!(notifier.look(&[], true).await.is_err());
    sqlx::query("DROP TRIGGER failing").execute(world.store.writer()).await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    notifier.run(stop).await;
    assert_eq!(world.percents().await, [50, 80]);
}
