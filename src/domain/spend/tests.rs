use super::*;
use crate::domain::{
    ids::KeyId,
    projects::{Project, ProjectTerms, TierId},
};

/// 2026-02-28, a second before midnight.
const LAST_SECOND: u64 = 1_772_323_199;

fn limit(threshold_cents: u64, enforcement: Enforcement) -> Option<SpendLimit> {
    let threshold_cents = NonZeroU64::new(threshold_cents)?;
    Some(SpendLimit { threshold_cents, interval: Interval::Month, enforcement })
}

fn project(id: &str, spend_limit: Option<SpendLimit>) -> Project {
    Project {
        id: ProjectId::parse(id).unwrap(),
        name: String::new(),
        tier: TierId::from("tier1"),
        automatic_tier: true,
        terms: ProjectTerms { spend_limits: spend_limit.into(), ..ProjectTerms::default() },
        created_at: UnixNanos::default(),
        archived_at: None,
    }
}

fn at(seconds: u64) -> UnixNanos {
    UnixNanos::from_seconds(seconds)
}

fn reached(spending: &Spending, project: &Project, now: UnixNanos) -> Option<SpendLimitReached> {
    let key = KeyId::parse("key_a").unwrap();
    let payer = Payer { key: &key, budget: None, project, tier: None };
    spending.without_room(&payer, &hold::HeldSums::default(), Total::default(), now)
}

fn whose(spending: &Spending, project: &Project, now: UnixNanos) -> Option<Spender> {
    reached(spending, project, now).map(|reached| reached.spender)
}

fn nothing_spent(limit: Option<SpendLimit>) -> Spending {
    Spending::restored(Arc::new(OrganizationLimits::new(limit)), [])
}

#[test]
fn months_are_those_of_the_calendar() {
    let days = |at: u64| {
        let month = Month::of(UnixNanos::from_seconds(at));
        (month.start_s, (month.end_s - month.start_s) / DAY_S)
    };
    assert_eq!(days(0), (0, 31));
    assert_eq!(days(LAST_SECOND), (1_769_904_000, 28));
    assert_eq!(days(LAST_SECOND + 1), (1_772_323_200, 31));
    // A leap year.
    assert_eq!(days(1_709_200_000), (1_706_745_600, 29));
    assert_eq!(Month::of(UnixNanos(u64::MAX)).end_s, 18_447_609_600);
}

#[test]
fn a_limit_is_reached_by_the_very_amount_and_not_a_pico_dollar_before() {
    let spending = nothing_spent(None);
    let project = project("proj_a", limit(1, Enforcement::Enforcing));
    spending.add(&project.id, Total::from_pico(9_999_999_999), at(LAST_SECOND));
    assert_eq!(whose(&spending, &project, at(LAST_SECOND)), None);
    spending.add(&project.id, Total::from_pico(1), at(LAST_SECOND));
    assert_eq!(whose(&spending, &project, at(LAST_SECOND)), Some(Spender::Project));
}

#[test]
fn all_projects_together_reach_the_organizations_limit() {
    let spending = nothing_spent(limit(2, Enforcement::Enforcing));
    let (a, b) = (project("proj_a", None), project("proj_b", limit(2, Enforcement::Enforcing)));
    let cent = Total::from_pico(10_000_000_000);
    spending.add(&a.id, cent, at(LAST_SECOND));
    assert_eq!(whose(&spending, &b, at(LAST_SECOND)), None);
    spending.add(&b.id, cent, at(LAST_SECOND));
    for project in [&a, &b] {
        assert_eq!(whose(&spending, project, at(LAST_SECOND)), Some(Spender::Organization));
    }
    spending.organization_limits.set(SpendLimits::default());
    assert_eq!(whose(&spending, &a, at(LAST_SECOND)), None);
}

#[test]
fn a_limit_that_refuses_tells_its_threshold_what_was_spent_and_when_it_passes() {
    let spending = nothing_spent(limit(3, Enforcement::Enforcing));
    let (a, b) = (project("proj_a", limit(2, Enforcement::Enforcing)), project("proj_b", None));
    spending.add(&a.id, Total::from_pico(20_000_000_001), at(LAST_SECOND));
    spending.add(&b.id, Total::from_pico(20_000_000_000), at(LAST_SECOND));
    let told = |project| {
        let told = reached(&spending, project, at(LAST_SECOND)).unwrap();
        assert!(reached(&spending, project, at(told.ends_s)).is_none());
        assert!(reached(&spending, project, UnixNanos(at(told.ends_s).0 - 1)).is_some());
        (told.spender, told.threshold().to_string(), told.spent.to_string(), told.ends_s)
    };
    let of = |spender, threshold: &str, spent: &str| (spender, threshold.into(), spent.into(), LAST_SECOND + 1);
    assert_eq!(told(&a), of(Spender::Project, "0.02", "0.020000000001"));
    assert_eq!(told(&b), of(Spender::Organization, "0.03", "0.040000000001"));
}

#[test]
fn an_inactive_limit_refuses_nothing() {
    let spending = nothing_spent(limit(1, Enforcement::Inactive));
    let project = project("proj_a", limit(1, Enforcement::Inactive));
    spending.add(&project.id, Total::from_pico(i64::MAX.into()), at(LAST_SECOND));
    assert_eq!(whose(&spending, &project, at(LAST_SECOND)), None);
}

#[test]
fn a_new_month_begins_at_nothing_and_a_late_settlement_of_the_old_does_not_count() {
    let spending = nothing_spent(None);
    let project = project("proj_a", limit(1, Enforcement::Enforcing));
    let much = Total::from_pico(i64::MAX.into());
    spending.add(&project.id, much, at(LAST_SECOND));
    assert_eq!(whose(&spending, &project, at(LAST_SECOND)), Some(Spender::Project));
    assert_eq!(whose(&spending, &project, at(LAST_SECOND + 1)), None);
    spending.add(&project.id, Total::from_pico(1), at(LAST_SECOND + 1));
    spending.add(&project.id, much, at(LAST_SECOND));
    assert_eq!(whose(&spending, &project, at(LAST_SECOND + 1)), None);
    spending.add(&project.id, much, at(LAST_SECOND + 1));
    assert_eq!(whose(&spending, &project, at(LAST_SECOND + 1)), Some(Spender::Project));
}

#[test]
fn what_was_spent_before_a_restart_counts() {
    let (id, cent) = (ProjectId::parse("proj_a").unwrap(), Total::from_pico(10_000_000_000));
    let month = (Interval::Month, Interval::Month.around(at(LAST_SECOND)));
    let spending =
        Spending::restored(Arc::default(), [(month.0, month.1, id.clone(), cent), (month.0, month.1, id, cent)]);
    let whose = |cents| whose(&spending, &project("proj_a", limit(cents, Enforcement::Enforcing)), at(LAST_SECOND));
    assert_eq!((whose(2), whose(3)), (Some(Spender::Project), None));
}

#[test]
fn a_clock_that_jumps_over_the_months_end_and_back_switches_no_limit_off() {
    let spending = nothing_spent(None);
    let project = project("proj_a", limit(1, Enforcement::Enforcing));
    let cent = Total::from_pico(10_000_000_000);
    spending.add(&project.id, cent, at(LAST_SECOND));
    // To the next month, years ahead, and further still, with settlements there.
    for ahead in [1, 100_000_000, 200_000_000, 300_000_000] {
        spending.add(&project.id, Total::from_pico(1), at(LAST_SECOND + ahead));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND + ahead)), None);
        spending.add(&project.id, Total::from_pico(1), at(LAST_SECOND));
        assert_eq!(whose(&spending, &project, at(LAST_SECOND)), Some(Spender::Project), "{ahead}");
        assert!(spending.months.lock().unwrap().len() <= MOST_SPANS);
    }
}

#[test]
fn a_correction_may_lower_what_was_spent() {
    let spending = nothing_spent(None);
    let project = project("proj_a", limit(1, Enforcement::Enforcing));
    spending.add(&project.id, Total::from_pico(10_000_000_000), at(LAST_SECOND));
    spending.adjust(&project.id, Total::from_pico(-1), at(LAST_SECOND), at(LAST_SECOND));
    assert_eq!(whose(&spending, &project, at(LAST_SECOND)), None);
    // In the first second of the next month, of the last of this one.
    spending.adjust(&project.id, Total::from_pico(1), at(LAST_SECOND), at(LAST_SECOND + 1));
    assert!(reached(&spending, &project, at(LAST_SECOND)).is_some());
}

#[test]
fn corrections_of_old_months_switch_no_limit_of_this_one_off() {
    let spending = nothing_spent(limit(1, Enforcement::Enforcing));
    let project = project("proj_a", None);
    let cent = Total::from_pico(10_000_000_000);
    spending.add(&project.id, cent, at(LAST_SECOND));
    for months_ago in (0..=12).rev() {
        let settled = at(LAST_SECOND - months_ago * 30 * DAY_S);
        spending.adjust(&project.id, Total::from_pico(1), settled, at(LAST_SECOND));
        assert!(reached(&spending, &project, at(LAST_SECOND)).is_some(), "{months_ago}");
    }
    assert!(spending.months.lock().unwrap().len() <= 2);
}

#[test]
fn the_neighbours_of_a_month_are_those_of_the_calendar() {
    let starts = |at| Interval::Month.near(at).map(|month| month.start_s).collect::<Vec<_>>();
    assert_eq!(starts(at(LAST_SECOND)), [1_767_225_600, 1_772_323_200, 1_769_904_000]);
    assert_eq!(starts(at(0)), [31 * DAY_S, 0]);
    assert_eq!(Interval::Day.near(at(5)).count(), 2);
}

#[test]
fn a_limit_that_is_spent_is_told_before_one_in_which_money_is_only_held() {
    let cents = |cents: i128| Total::from_pico(cents * PICO_PER_CENT);
    let (now, key) = (at(LAST_SECOND), KeyId::parse("key_a").unwrap());
    let spending = Arc::new(Spending::restored(Arc::default(), []));
    let project = project("proj_a", limit(100, Enforcement::Enforcing));
    let hold = |amount, of_tier| {
        let tier = limit(of_tier, Enforcement::Enforcing);
        spending.hold(&Payer { key: &key, budget: None, project: &project, tier }, cents(amount), now)
    };
    let told = |reached: SpendLimitReached| (reached.spender, reached.is_spent(), reached.wait_nanos());
    hold(10, 100).unwrap().settle(cents(10), now);
    let under_way = hold(60, 100).unwrap();
    assert_eq!(told(hold(40, 100).unwrap_err()), (Spender::Project, false, Some(1_000_000_000)));
    assert_eq!(told(hold(40, 10).unwrap_err()), (Spender::Tier, true, None));
    under_way.settle(cents(50), now);
    hold(40, 100).unwrap().settle(cents(40), now);
    assert_eq!(told(hold(0, 100).unwrap_err()), (Spender::Project, true, None));
}
