//! As they go over the wire, digit by digit: a parser of JSON would make floats of the amounts.

use std::num::{NonZeroU32, NonZeroU64};

use super::*;
use crate::domain::{
    limits::{Dimension, LimitExceeded, Scope},
    money::Total,
    refusals::OverLimit,
    spend::{Enforcement, Interval, SpendLimit, Spender},
    usage::{LineItem, Usage},
};

fn printed(object: &AdmissionObject<'_>) -> String {
    format!("{}\n", serde_json::to_string_pretty(object).unwrap())
}

/// Of a dollar, where a tenth is held.
fn spend_limit(spender: Spender, interval: Interval, enforcement: Enforcement, spent_millis: i128) -> SpendLimitUse {
    const MILLI_DOLLAR: i128 = 1_000_000_000;
    let limit = SpendLimit { threshold_cents: NonZeroU64::new(100).unwrap(), interval, enforcement };
    let amount = |millis: i128| Total::from_pico(millis * MILLI_DOLLAR);
    let requested = Total::from_pico(155_100_000);
    SpendLimitUse { spender, limit, spent: amount(spent_millis), held: amount(100), requested }
}

fn forecast() -> Forecast {
    let limit = |scope, dimension, limit, used, reserved| LimitUse {
        scope,
        dimension,
        limit,
        used_before: Some(used),
        reserved,
        settled: None,
    };
    Forecast {
        limit_group: "gpt-4o-mini".to_owned(),
        estimate: Usage::default().with(LineItem::InputText, 10).with(LineItem::OutputText, 256),
        reserved_tokens: NonZeroU32::new(266).unwrap(),
        limits: vec![
            limit(Scope::Project, Dimension::RequestsPerMinute, 500, 12, 1),
            limit(Scope::Project, Dimension::TokensPerMinute, 200_000, 199_734, 266),
            limit(Scope::Key, Dimension::TokensPerDay, 500, 498, 266),
        ],
        spend_limits: vec![
            spend_limit(Spender::Key, Interval::Day, Enforcement::Inactive, 0),
            spend_limit(Spender::Organization, Interval::Month, Enforcement::Enforcing, 1_000),
        ],
        cost: Some(Money::from_pico(155_100_000)),
        worst_case: Ok(Money::from_pico(9_831_900_000)),
    }
}

#[test]
fn an_admission_tells_each_limit_and_the_worst_case_in_exact_numbers() {
    let mut forecast = forecast();
    forecast.limits.pop();
    let object = AdmissionObject::new("gpt-4o-mini", Some(&forecast), None);
    assert_eq!(printed(&object), include_str!("golden/admitted.json"));
}

#[test]
fn a_refusal_is_told_as_the_real_one_would_be() {
    let exceeded = LimitExceeded {
        scope: Scope::Key,
        dimension: Dimension::TokensPerDay,
        limit: 500,
        used: 498,
        requested: 266,
        wait_nanos: Some(45_619_200_000_001),
    };
    let error = ApiError::limit_exceeded(&exceeded, "gpt-4o-mini", None, "proj_a");
    let over = OverLimit { limit_group: "gpt-4o-mini".into(), exceeded, estimate: Usage::default() };
    let forecast = Forecast { worst_case: Err(NoWorstCase::Unbounded), ..forecast() };
    let object = AdmissionObject::new("gpt-4o-mini", Some(&forecast), Some((&error, &Reason::Limit(Box::new(over)))));
    assert_eq!(printed(&object), include_str!("golden/refused.json"));
}

#[test]
fn of_an_unknown_model_nothing_is_forecast() {
    let error = ApiError::unknown_model("nobody");
    let object = AdmissionObject::new("nobody", None, Some((&error, &Reason::UnknownModel)));
    assert_eq!(printed(&object), include_str!("golden/unknown_model.json"));
}
