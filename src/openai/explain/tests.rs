//! The answers as they go over the wire, digit by digit: a parser of JSON would make floats of the amounts.

use std::sync::Arc;

use serde::Serialize;

use super::*;
use crate::domain::{
    bucket::Headroom,
    explanation::{Adjustment, Explained, Finished, sample},
    ids::{KeyId, ProjectId, RequestId},
    ledger::Outcome,
    limits::{Dimension, Headrooms, LimitExceeded, Scope},
    money::Total,
    refusals::{OverLimit, Reason, RefusedRequest},
    spend::{Interval, SpendLimitReached, Spender},
    tariff::{Tariff, TariffKind},
    time::UnixNanos,
    usage::{LineItem, Usage},
};

fn printed(object: &impl Serialize) -> String {
    format!("{}\n", serde_json::to_string_pretty(object).unwrap())
}

fn details(explained: &Explained) -> String {
    printed(&RequestObject::new(explained).unwrap())
}

fn adjusted() -> Finished {
    let mut finished = sample::finished();
    finished.adjustments.push(Adjustment {
        reason: "the price of output was wrong".to_owned(),
        adjusted_at_ms: 1_790_000_500_999,
        usage: finished.usage,
        tariff: sample::tariff(TariffKind::Adjustment, &[(LineItem::InputText, 0), (LineItem::OutputText, -100_001)]),
        gives_price: false,
    });
    finished.adjustments.push(Adjustment {
        reason: "the price of input was wrong".to_owned(),
        adjusted_at_ms: 1_790_000_600_000,
        usage: Usage::default().with(LineItem::InputText, 1).with(LineItem::OutputAudio, 1),
        tariff: sample::tariff(TariffKind::Adjustment, &[(LineItem::InputText, 602_003), (LineItem::OutputAudio, -1)]),
        gives_price: false,
    });
    finished
}

fn refused(reason: Reason) -> RefusedRequest {
    RefusedRequest {
        request_id: RequestId::new(1_790_000_000_100, 8),
        refused_at: UnixNanos(1_790_000_000_123_456_789),
        project_id: ProjectId::parse("proj_a").unwrap(),
        key_id: KeyId::parse("key_a").unwrap(),
        endpoint: "chat.completions".into(),
        model: "gpt-4o-mini".into(),
        stream: false,
        status: 429,
        code: Some("rate_limit_exceeded".into()),
        reason,
        headrooms: Headrooms {
            requests: Some(Headroom { limit: 500, remaining: 2, reset_nanos: 59_760_000_000 }),
            ..Headrooms::default()
        },
    }
}

fn over_limit(wait_nanos: Option<u64>) -> Reason {
    let exceeded = LimitExceeded {
        scope: Scope::Project,
        dimension: Dimension::TokensPerMinute,
        limit: 500,
        used: 498,
        requested: 266,
        wait_nanos,
    };
    let estimate = Usage::default().with(LineItem::InputText, 10).with(LineItem::OutputText, 256);
    Reason::Limit(Box::new(OverLimit { limit_group: "gpt-4o-mini".into(), exceeded, estimate }))
}

#[test]
fn a_finished_request_is_told_from_its_estimate_to_its_cost() {
    let explained = Explained::Finished(Box::new(adjusted()));
    assert_eq!(details(&explained), include_str!("golden/finished.json"));
}

#[test]
fn a_refused_request_tells_the_limit_and_when_it_would_have_passed() {
    let explained = Explained::Refused(Box::new(refused(over_limit(Some(31_680_000_001)))));
    assert_eq!(details(&explained), include_str!("golden/refused.json"));
}

fn over_spend_limit(spender: Spender) -> Reason {
    Reason::SpendLimit(Box::new(SpendLimitReached {
        spender,
        threshold_cents: std::num::NonZeroU64::new(5_000).unwrap(),
        interval: Interval::Month,
        spent: Total::from_pico(49_998_765_432_110),
        held: Total::from_pico(1_000_000_000),
        requested: Total::from_pico(300_000_000),
        ends_s: 1_790_812_800,
    }))
}

#[test]
fn a_spend_limit_tells_what_was_spent_and_when_the_month_ends() {
    let refused = RefusedRequest {
        code: Some("project_spend_limit_exceeded".into()),
        ..refused(over_spend_limit(Spender::Project))
    };
    let explained = Explained::Refused(Box::new(refused));
    assert_eq!(details(&explained), include_str!("golden/over_spend_limit.json"));
}

#[test]
fn a_list_holds_both_in_short() {
    let unpriced = Finished {
        outcome: Outcome::ClientLeft,
        tariff: Arc::new(Tariff {
            priced: false,
            rates: sample::rates(&[]),
            ..Tariff::clone(&sample::finished().tariff)
        }),
        ..sample::finished()
    };
    let requests = [
        Explained::Refused(Box::new(refused(over_limit(None)))),
        Explained::Finished(Box::new(adjusted())),
        Explained::Finished(Box::new(unpriced)),
    ];
    assert_eq!(printed(&RequestPage::new(&requests, true).unwrap()), include_str!("golden/list.json"));
    let empty = "{\n  \"object\": \"list\",\n  \"data\": [],\n  \"first_id\": null,\n  \"last_id\": null,\n  \"has_more\": \
        false\n}\n";
    assert_eq!(printed(&RequestPage::new(&[], false).unwrap()), empty);
}

#[test]
fn what_is_too_large_for_a_limit_never_passes() {
    let explained = Explained::Refused(Box::new(refused(over_limit(None))));
    let object = serde_json::to_value(RequestObject::new(&explained).unwrap()).unwrap();
    let limit = &object["refusal"]["limit"];
    assert_eq!((&limit["wait_ms"], &limit["admissible_at_ms"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    assert_eq!((&limit["limit"], &limit["requested"]), (&500.into(), &266.into()));
}

#[test]
fn reasons_other_than_a_limit_have_none() {
    for (reason, spender) in [
        (over_spend_limit(Spender::Project), Some("project")),
        (over_spend_limit(Spender::Organization), Some("organization")),
        (over_spend_limit(Spender::Tier), Some("tier")),
        (over_spend_limit(Spender::Key), Some("key")),
        (Reason::UnknownModel, None),
    ] {
        let name = reason.name();
        let explained = Explained::Refused(Box::new(refused(reason)));
        let object = serde_json::to_value(RequestObject::new(&explained).unwrap()).unwrap();
        let refusal = &object["refusal"];
        assert_eq!((refusal["reason"].as_str(), refusal["spend_limit"]["of"].as_str()), (Some(name), spender));
        assert!(refusal["limit"].is_null() && object["estimate"].is_null());
    }
}

#[test]
fn what_an_old_entry_does_not_know_is_null() {
    let explained = Explained::Finished(Box::new(Finished { admitted_under: None, ..sample::finished() }));
    let object = serde_json::to_value(RequestObject::new(&explained).unwrap()).unwrap();
    assert!(object["estimate"].is_null() && object["limits"].is_null());
    assert_eq!(object["cost"], object["cost_before_adjustments"]);
}

#[test]
fn a_line_without_a_price_has_no_amount_and_the_others_have_theirs() {
    let finished = sample::finished();
    let rates = sample::rates(&[(LineItem::InputText, 150_000)]);
    let tariff = Arc::new(Tariff { priced: false, rates, ..Tariff::clone(&finished.tariff) });
    let text = details(&Explained::Finished(Box::new(Finished { tariff, ..finished })));
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&object["priced"], object["lines"][1]["amount"].is_null()), (&false.into(), true));
    assert!(object["lines"][1]["price"].is_null() && text.contains("\"value\": 0.0001806,"));
}
