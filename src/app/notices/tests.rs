use std::num::NonZeroU64;

use super::*;
use crate::{
    accounts::KeyUpdate,
    domain::{
        audit::Actor,
        ids::AdminKeyId,
        keys::{KeyTerms, Pepper},
        money::Total,
        projects::TierId,
        spend::{BudgetChange, Enforcement, Payer, SpendLimit, SpendLimitChange},
    },
    metrics::Metrics,
    store::{
        audit::{Filter, Position, page},
        notices::changed_since,
    },
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

fn admin(at: UnixNanos) -> By {
    By { actor: Actor::AdminKey(AdminKeyId::configured()), at }
}

fn limit(cents: u64, interval: Interval) -> SpendLimit {
    let threshold_cents = NonZeroU64::new(cents).unwrap();
    SpendLimit { threshold_cents, interval, enforcement: Enforcement::Inactive }
}

fn daily_budget(cents: u64) -> KeyUpdate {
    let change = BudgetChange { daily_cents: Some(NonZeroU64::new(cents)), ..BudgetChange::default() };
    KeyUpdate { budget: Some(Some(change)), ..KeyUpdate::default() }
}

impl World {
    /// A project with a limit of a dollar, set a week ago.
    async fn new(interval: Interval) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&directory.path().join("tollgate.db")).await.unwrap());
        let accounts = Accounts::load(Arc::clone(&store), Pepper::from_bytes([7; 32])).await.unwrap();
        let by = admin(UnixNanos(NOW.0 - 7 * DAY_NANOS));
        let project = accounts.create_project("a", "tier1".into(), &by).await.unwrap();
        let (_, key, _) = accounts.create_service_account(&project.id, "a", KeyTerms::default(), &by).await.unwrap();
        let spending = Arc::new(Spending::restored(Arc::clone(accounts.organization_limits()), []));
        let world = Self { _directory: directory, store, accounts, key, spending, clock: Clock::manual(NOW) };
        world.set(100, interval, &by).await;
        world
    }

    async fn set(&self, cents: u64, interval: Interval, by: &By) {
        let change = SpendLimitChange::Set(limit(cents, interval));
        self.accounts.change_spend_limit(&self.key.project.id, change, by).await.unwrap();
    }

    fn spend(&self, amount: i128) {
        self.spending.add(&self.key.project.id, cents(amount), self.clock.now());
    }

    /// By a request that is held to the limits as they are.
    fn request(&self, amount: i128) -> Passing {
        let (key, at) = (self.accounts.key(&self.key.id).unwrap(), self.clock.now());
        let payer = Payer { key: &key.id, budget: key.terms.budget.as_ref(), project: &key.project, tier: None };
        let marks = self.spending.hold(&payer, cents(1), at).unwrap().settle(cents(amount), at);
        Passing { key, at, marks }
    }

    async fn fail(&self, fails: bool) {
        let sql = if fails {
            "CREATE TRIGGER failing BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'no'); END"
        } else {
            "DROP TRIGGER failing"
        };
        sqlx::query(sql).execute(self.store.writer()).await.unwrap();
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
            missed: missed(last_settled, self.clock.now()),
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
    let passing = [(); 2].map(|()| Passing { key: Arc::clone(&world.key), at: NOW, marks: vec![] });
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
            world.set(99, Interval::Day, &admin(world.clock.now())).await;
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
    world.fail(true).await;
    assert!(notifier.look(&[], true).await.is_err());
    world.fail(false).await;
    let stop = CancellationToken::new();
    stop.cancel();
    notifier.run(stop).await;
    assert_eq!(world.percents().await, [50, 80]);
}

#[tokio::test]
async fn marks_of_before_midnight_are_told_of_at_a_start_that_has_settled_something_since() {
    for interval in Interval::ALL {
        let world = World::new(interval).await;
        let period = interval.around(NOW);
        world.clock.advance((period.end_s - NOW.seconds() - 60) * 1_000_000_000);
        world.spend(85);
        world.clock.advance(120_000_000_000);
        // A start in between has told of nothing.
        world.notifier(Some(world.clock.now())).look(&[], true).await.unwrap();
        assert_eq!(world.rows().await, [(50, period.start_s), (80, period.start_s)]);
        world.notifier(None).look(&[], true).await.unwrap();
        assert_eq!(world.rows().await.len(), 2);
    }
}

#[tokio::test]
async fn a_mark_is_told_of_even_if_its_limit_is_another_by_then_or_gone() {
    let monthly = SpendLimitChange::Set(limit(10_000, Interval::Month));
    for (days, change) in [(0, monthly), (0, SpendLimitChange::Delete(Interval::Month)), (30, monthly)] {
        let world = World::new(Interval::Month).await;
        let mut notifier = world.notifier(None);
        let passing = world.request(60);
        world.clock.advance(days * DAY_NANOS);
        let (project, by) = (&world.key.project.id, admin(world.clock.now()));
        world.accounts.change_spend_limit(project, change, &by).await.unwrap();
        notifier.look(&[passing], true).await.unwrap();
        assert_eq!(world.rows().await, [(50, Interval::Month.around(NOW).start_s)], "{change:?}");
    }
}

#[tokio::test]
async fn what_waits_of_one_key_and_day_keeps_its_marks_and_is_bounded() {
    let (world, notices) = (World::new(Interval::Day).await, Notices::default());
    for amount in [60, 25, 1] {
        notices.put(world.request(amount));
    }
    let taken = notices.take_now();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].marks.iter().map(|mark| mark.percent).collect::<Vec<_>>(), [50, 80]);
    for _ in 0..100 {
        notices.put(taken[0].clone());
    }
    assert_eq!(notices.take_now()[0].marks.len(), 42);
}

#[tokio::test]
async fn only_an_administrators_change_of_the_limit_itself_is_one_that_nobody_had_set_then() {
    let world = World::new(Interval::Day).await;
    let (project, key, catalog) = (&world.key.project.id, &world.key.id, Arc::default());
    let whose = [Spender::Key, Spender::Project, Spender::Tier, Spender::Organization];
    let changed = async || {
        let mut changed = Vec::new();
        for spender in whose {
            let object_id = match spender {
                Spender::Key => key.as_str(),
                Spender::Project | Spender::Tier => project.as_str(),
                Spender::Organization => ORGANIZATION,
            };
            if changed_since(&world.store, spender, object_id, NOW).await.unwrap() {
                changed.push(spender);
            }
        }
        changed
    };
    let (accounts, name) = (&world.accounts, || Some("b".to_owned()));
    let tier = |tier: &str| Some(TierId::from(tier));
    accounts.modify_project(project, name(), None, None, &catalog, &admin(NOW)).await.unwrap();
    accounts.modify_project(project, None, tier("tier2"), None, &catalog, &By::gateway(NOW)).await.unwrap();
    let renamed = KeyUpdate { name: name(), ..KeyUpdate::default() };
    accounts.modify_key(project, key, renamed, &admin(NOW)).await.unwrap();
    world.set(70, Interval::Day, &By::gateway(NOW)).await;
    assert_eq!(changed().await, []);
    accounts.modify_key(project, key, daily_budget(5), &admin(NOW)).await.unwrap();
    assert_eq!(changed().await, whose[..1]);
    accounts.change_spend_limit(project, SpendLimitChange::Delete(Interval::Day), &admin(NOW)).await.unwrap();
    assert_eq!(changed().await, whose[..2]);
    accounts.modify_project(project, None, tier("tier3"), None, &catalog, &admin(NOW)).await.unwrap();
    assert_eq!(changed().await, whose[..3]);
    let of_all = SpendLimitChange::Set(limit(5, Interval::Day));
    accounts.change_organization_spend_limit(of_all, &admin(NOW)).await.unwrap();
    assert_eq!(changed().await, whose);
}

#[tokio::test]
async fn marks_of_the_old_month_are_not_told_of_twice_after_rows_that_were_not_taken_in_the_new_one() {
    let world = World::new(Interval::Month).await;
    let mut notifier = world.notifier(None);
    let passing = world.request(60);
    notifier.look(std::slice::from_ref(&passing), true).await.unwrap();
    let passing = [passing, world.request(25)];
    world.clock.advance(11 * DAY_NANOS);
    world.fail(true).await;
    assert!(notifier.look(&passing, false).await.is_err());
    world.fail(false).await;
    notifier.look(&passing, false).await.unwrap();
    assert_eq!(world.percents().await, [50, 80]);
}

#[tokio::test]
async fn limits_that_nobody_asks_for_are_looked_at_once_each_and_those_of_revoked_keys_are_not() {
    let world = World::new(Interval::Month).await;
    let (accounts, project, by) = (&world.accounts, &world.key.project.id, admin(NOW));
    let mut keys = vec![world.key.id.clone()];
    for _ in 0..2 {
        let account = &world.key.service_account.id;
        let (key, _) = accounts.create_key(project, account, "b", KeyTerms::default(), &by).await.unwrap();
        keys.push(key.id.clone());
    }
    let day = Interval::Day.around(NOW);
    for key in &keys {
        world.spending.restore_key(Interval::Day, day, key, cents(60));
    }
    for key in &keys[..2] {
        accounts.modify_key(project, key, daily_budget(100), &by).await.unwrap();
    }
    accounts.revoke_key(project, &keys[1], &by).await.unwrap();
    let of_all = SpendLimitChange::Set(limit(100, Interval::Month));
    accounts.change_organization_spend_limit(of_all, &by).await.unwrap();
    world.spend(60);
    world.notifier(None).look(&[], true).await.unwrap();
    let filter = Filter { event_types: vec!["spend_limit.mark_passed".to_owned()], ..Filter::default() };
    let rows = page(&world.store, &filter, Position::Newest, 100).await.unwrap();
    let told: Vec<_> = rows.iter().rev().map(|row| (row.object_id.as_str(), row.project_id.as_deref())).collect();
    let of_project = Some(project.as_str());
    assert_eq!(told, [(ORGANIZATION, None), (project.as_str(), of_project), (keys[0].as_str(), of_project)]);
}

#[tokio::test]
async fn others_have_the_thread_while_many_keys_are_looked_at() {
    let world = World::new(Interval::Month).await;
    let (project, account) = (&world.key.project.id, &world.key.service_account.id);
    let change = BudgetChange { daily_cents: Some(NonZeroU64::new(5)), ..BudgetChange::default() };
    let terms = KeyTerms { budget: change.of(None), ..KeyTerms::default() };
    for _ in 0..IN_A_ROW {
        world.accounts.create_key(project, account, "b", terms.clone(), &admin(NOW)).await.unwrap();
    }
    let other = tokio::spawn(async {});
    let mut found = Found { told: HashSet::new(), untold: Vec::new() };
    world.notifier(None).look_at_all(NOW, &mut found).await;
    assert!(other.is_finished() && found.untold.is_empty());
}
