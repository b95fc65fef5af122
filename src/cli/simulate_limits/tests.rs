use std::num::NonZeroU32;

use clap::Parser as _;

use super::*;
use crate::{
    app::Replayed,
    cli::{Cli, Command},
    domain::{
        ids::{KeyId, RequestId},
        limits::Limits,
        usage::{LineItem, Usage},
        what_if::{Booked, Terms, WhatIf},
    },
};

const START_S: u64 = 1_790_000_000;

fn args(words: &[&str]) -> SimulateLimitsArgs {
    let all = ["tollgate", "simulate-limits", "--from", "2026-09-21", "--to", "2026-09-22"];
    match Cli::try_parse_from(all.iter().chain(words)).unwrap().command {
        Some(Command::SimulateLimits(args)) => args,
        other => panic!("{other:?}"),
    }
}

fn booked(number: u64, key: &str, second: u64, tokens: u64) -> Booked {
    let at = UnixNanos::from_seconds(START_S + second);
    Booked {
        request_id: RequestId::new(at.millis(), number.into()),
        admitted_at: at,
        settled_at: at.plus_nanos(250_000_000),
        project_id: ProjectId::parse("proj_a").unwrap(),
        key_id: KeyId::parse(key).unwrap(),
        requested_model: "gpt-4o-mini".to_owned(),
        stream: false,
        status: 200,
        usage: Usage::default().with(LineItem::InputText, tokens),
        held: None,
    }
}

/// Two hours of a key that calls every two minutes, and a minute of one that calls every second.
fn replayed(requests_per_minute: u32) -> Replayed {
    let slow = (0..60).map(|n| booked(n, "key_slow", n * 120, if n == 7 { 5_000 } else { 20 }));
    let fast = (0..60).map(|n| booked(100 + n, "key_fast", 3_700 + n, 20));
    replay(slow.chain(fast), requests_per_minute)
}

fn replay(all: impl Iterator<Item = Booked>, requests_per_minute: u32) -> Replayed {
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|booked| booked.request_id);
    let mut what_if = WhatIf::new(args(&["--tier", "free"]).from, args(&["--tier", "free"]).to);
    for booked in all {
        let own = if booked.key_id.as_str() == "key_fast" { NonZeroU32::new(1_000) } else { None };
        let terms = Terms {
            is_allowed: booked.requested_model != "gpt-4o",
            limit_group: booked.requested_model.as_str().into(),
            project: Limits {
                requests_per_minute: NonZeroU32::new(requests_per_minute),
                tokens_per_minute: NonZeroU32::new(3_000),
                ..Limits::default()
            },
            key: Limits { tokens_per_minute: own, ..Limits::default() },
            guess_gives_way: true,
        };
        what_if.add(booked, terms);
    }
    let names = [("key_slow", "nightly"), ("key_fast", "crawler")]
        .map(|(id, key)| (KeyId::parse(id).unwrap(), app::Names { key: key.to_owned(), project: "Search".to_owned() }));
    Replayed { found: what_if.finish(), names: names.into(), replayed_from: UnixNanos(0), dropped_before: UnixNanos(0) }
}

#[test]
fn the_screen_tells_who_when_how_often_and_by_which_limit() {
    let expected = "\
120 requests, admitted from 2026-09-21T00:00:00Z on and before 2026-09-22T00:00:00Z, replayed against the limits of the tier free:
57 of them (47.5%) would have been refused, on 2 of 2 keys.

KEY       NAME     PROJECT  MODELS       LIMIT                     REFUSED  SHARE  LONGEST WAIT  FIRST                LAST
key_fast  crawler  Search   gpt-4o-mini  3 requests per minute    56 of 60  93.3%           20s  2026-09-21 15:15:03  2026-09-21 15:15:59
key_slow  nightly  Search   gpt-4o-mini  3,000 tokens per minute   1 of 60   1.6%     too large  2026-09-21 14:27:20  2026-09-21 14:27:20

By the hour (UTC): █ refused, ░ admitted
                                                            REFUSED  REQUESTS
2026-09-21 14:00  █░░░░░░░░░                                      1        24
2026-09-21 15:00  ████████████████████████░░░░░░░░░░░░░░░░       56        90
2026-09-21 16:00  ░░                                              0         6

What was refused at the time is not in the ledger, and nobody tries again what is refused here.
";
    assert_eq!(screen::screen(&args(&["--tier", "free"]), &replayed(3)), expected);
}

#[test]
fn nobody_refused_is_one_line_without_a_picture() {
    let mut replayed = replayed(3);
    replayed.found.refused = 0;
    let expected = "\
120 requests, admitted from 2026-09-21T00:00:00Z on and before 2026-09-22T00:00:00Z, replayed against the limits of other.toml:
nobody would have been refused.

What was refused at the time is not in the ledger, and nobody tries again what is refused here.
";
    assert_eq!(screen::screen(&args(&["--limits", "other.toml"]), &replayed), expected);
}

#[test]
fn json_has_every_row_and_no_picture() {
    let json: serde_json::Value =
        serde_json::from_str(&answer::json(&args(&["--tier", "free"]), &replayed(3)).unwrap()).unwrap();
    assert_eq!((&json["requests"], &json["keys"], &json["keys_refused"]), (&120.into(), &2.into(), &2.into()));
    let row = json["refusals"].as_array().unwrap().iter().find(|row| row["too_large"] == 1).unwrap();
    let expected = serde_json::json!({
        "project_id": "proj_a", "project_name": "Search", "api_key_id": "key_slow", "api_key_name": "nightly",
        "limit_group": "gpt-4o-mini", "reason": "limit", "scope": "project", "limit_name": "tokens_per_minute", "limit": 3_000,
        "requests": 60, "refused": 1, "too_large": 1, "first_at_ms": (START_S + 840) * 1_000,
        "last_at_ms": (START_S + 840) * 1_000, "longest_wait_ms": null,
    });
    assert_eq!(*row, expected);
    assert!(json.get("timeline").is_none());
}

#[test]
fn a_model_that_the_tier_does_not_have_is_a_row_of_its_own_without_a_limit() {
    let other = |n| Booked { requested_model: "gpt-4o".to_owned(), ..booked(n, "key_slow", n * 60, 20) };
    let replayed = replay((0..3).map(other).chain([booked(9, "key_slow", 9, 20)]), 3);
    let screen = screen::screen(&args(&["--tier", "free"]), &replayed);
    let row =
        "key_slow  nightly  Search   gpt-4o  model not in the tier   3 of 3  100.0%             -  2026-09-21 14:13:20";
    assert!(screen.contains(row) && screen.contains("3 of them (75.0%)"), "{screen}");
    let json: serde_json::Value =
        serde_json::from_str(&answer::json(&args(&["--tier", "free"]), &replayed).unwrap()).unwrap();
    let expected = serde_json::json!([{
        "project_id": "proj_a", "project_name": "Search", "api_key_id": "key_slow", "api_key_name": "nightly",
        "limit_group": "gpt-4o", "reason": "model_not_allowed", "scope": null, "limit_name": null, "limit": null,
        "requests": 3, "refused": 3, "too_large": 0, "first_at_ms": START_S * 1_000,
        "last_at_ms": (START_S + 120) * 1_000, "longest_wait_ms": null,
    }]);
    assert_eq!(json["refusals"], expected);
}

#[test]
fn how_long_to_wait_for_what_is_under_way_is_told_as_unknown() {
    let mut what_if = WhatIf::new(args(&["--tier", "free"]).from, args(&["--tier", "free"]).to);
    let project = Limits { concurrent_requests: NonZeroU32::new(1), ..Limits::default() };
    for number in 0..3 {
        let (limit_group, key) = ("gpt-4o-mini".into(), Limits::default());
        let terms = Terms { is_allowed: true, limit_group, project, key, guess_gives_way: true };
        what_if.add(booked(number, "key_slow", 0, 20), terms);
    }
    let replayed = Replayed { found: what_if.finish(), ..replayed(3) };
    let screen = screen::screen(&args(&["--tier", "free"]), &replayed);
    assert!(screen.contains("1 concurrent requests   2 of 3  66.6%       unknown  2026-09-21 14:13:20"), "{screen}");
    let json: serde_json::Value =
        serde_json::from_str(&answer::json(&args(&["--tier", "free"]), &replayed).unwrap()).unwrap();
    let row = &json["refusals"][0];
    assert_eq!((&row["refused"], &row["longest_wait_ms"]), (&2.into(), &serde_json::Value::Null));
}

#[test]
fn either_a_tier_or_a_file_is_named() {
    let parse = |words: &[&str]| {
        let all = ["tollgate", "simulate-limits", "--from", "2026-09-21", "--to", "2026-09-22"];
        Cli::try_parse_from(all.iter().chain(words)).map(drop).map_err(|error| error.to_string())
    };
    let error = parse(&[]).unwrap_err();
    assert!(error.contains("--tier <TIER>"), "{error}");
    assert!(parse(&["--tier", "free", "--limits", "a.toml"]).is_err());
    let error = parse(&["--tier", "free", "--project", "team"]).unwrap_err();
    assert!(error.contains("expected the id of a project (proj_...)"), "{error}");
}
