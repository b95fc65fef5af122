use super::*;

const FINISHED: &str = include_str!("../../openai/explain/golden/finished.json");
const REFUSED: &str = include_str!("../../openai/explain/golden/refused.json");
const OVER_SPEND_LIMIT: &str = include_str!("../../openai/explain/golden/over_spend_limit.json");

fn shown(text: &str) -> String {
    screen(&serde_json::from_str(text).unwrap())
}

#[test]
fn a_charge_is_told_line_by_line() {
    let expected = "\
req_01a0c4506c0000000000000000000007

  asked      chat.completions of gpt-4o-mini, streamed
  by         key_a of proj_a
  admitted   2026-09-21 14:13:20 UTC
  ended      completed, with status 200, after 1.834 s
  billed as  gpt-4o-mini-2024-07-18, service tier default

Limits on gpt-4o-mini
                                     used before  reserved  used after  settled
  project: requests per minute         12 of 500         1          13        1
  project: tokens per minute    8,020 of 200,000     1,456       9,476    1,514
  key: tokens per day           30,000 of 50,000     1,456      31,456    1,514

Estimate: 1,200 tokens in, 256 out
Usage:    1,204 tokens in, 310 out, as the upstream reported

Charge, at the prices in force since 2024-07-18
  input   1,204 tokens x $0.15 per 1M = $0.0001806
  output    310 tokens x $0.6 per 1M  = $0.000186
  cost                                = $0.0003666

Adjusted on 2026-09-21: the price of output was wrong
  input       1,204 tokens x $0 per 1M         = $0
  output        310 tokens x -$0.100001 per 1M = -$0.00003100031
  difference                                   = -$0.00003100031

Adjusted on 2026-09-21: the price of input was wrong
  input           = $0.000000602003
  audio output    = -$0.000000000001
  difference      = $0.000000602002

Cost with adjustments: $0.000336201692
";
    assert_eq!(shown(FINISHED), expected);
}

#[test]
fn a_refusal_tells_its_limit_and_when_it_would_have_passed() {
    let expected = "\
req_01a0c4506c6400000000000000000008

  asked    chat.completions of gpt-4o-mini, not streamed
  by       key_a of proj_a
  refused  2026-09-21 14:13:20.123 UTC with status 429 (rate_limit_exceeded)

Over the project's limit of tokens per minute on gpt-4o-mini
  used 498 of 500, requested 266
  would have been admitted at 2026-09-21 14:13:51.804 UTC, 31.681 s later
Nothing was sent, and nothing is charged.
";
    assert_eq!(shown(REFUSED), expected);
}

#[test]
fn a_spend_limit_tells_what_was_spent_and_when_it_would_have_passed() {
    let text = shown(OVER_SPEND_LIMIT);
    let expected = "\
The project had spent $49.99876543211 of the $50 that it may spend in a month
  requests under way held $0.001, and this one was expected to cost $0.0003
  would have been admitted at 2026-10-01 00:00:00 UTC, when the month is over, once those under way cost less, or once an \
                    administrator raises the limit
Nothing was sent, and nothing is charged.
";
    assert!(text.ends_with(expected), "{text}");
    let spent = OVER_SPEND_LIMIT.replace("\"value\": 49.99876543211", "\"value\": 50.1").replace("0.001", "0.0");
    let (tier, day) = (spent.replace("\"of\": \"project\"", "\"of\": \"tier\""), spent.replace("\"month\"", "\"day\""));
    let of = |text: &str| shown(text).lines().rev().nth(2).unwrap().to_owned();
    assert_eq!(of(&tier), "The project had spent $50.1 of the $50 that its tier allows in a month");
    assert_eq!(
        of(&day.replace("\"project\"", "\"key\"")),
        "The key had spent $50.1 of the $50 that it may spend in a day"
    );
    assert!(shown(&day).contains("UTC, when the day is over, or once an administrator raises the limit"), "{day}");
}

#[test]
fn larger_than_the_whole_limit_is_said() {
    let text = REFUSED.replace("\"wait_ms\": 31681", "\"wait_ms\": null");
    let text = text.replace("\"admissible_at_ms\": 1790000031804", "\"admissible_at_ms\": null");
    assert!(shown(&text).contains("is larger than the whole limit"), "{}", shown(&text));
}

#[test]
fn every_reason_has_a_sentence() {
    let refused = OVER_SPEND_LIMIT.replace("\"spend_limit\": {", "\"spend_limit\": null, \"was\": {");
    for (reason, said) in [
        ("unknown_model", "No model of the catalog"),
        ("model_not_allowed", "may not use this model"),
        ("wrong_endpoint", "does not answer on this endpoint"),
        ("unpriced_model", "has no price"),
        ("not_recorded", "could not record"),
        ("something_new", "The reason was something_new."),
    ] {
        let text = shown(&refused.replace("\"reason\": \"spend_limit\"", &format!("\"reason\": \"{reason}\"")));
        assert!(text.contains(said) && text.ends_with("nothing is charged.\n"), "{text}");
    }
}

#[test]
fn what_has_no_price_is_not_shown_as_nothing() {
    let mut request: serde_json::Value = serde_json::from_str(FINISHED).unwrap();
    request["priced"] = false.into();
    request["adjustments"] = serde_json::json!([]);
    for line in [0, 1] {
        request["lines"][line]["price"] = serde_json::Value::Null;
        request["lines"][line]["amount"] = serde_json::Value::Null;
    }
    (request["cost"], request["cost_before_adjustments"]) = Default::default();
    let text = shown(&request.to_string());
    assert!(text.contains("1,204 tokens without a price\n") && text.contains("= unpriced\n"), "{text}");
    assert!(text.contains("unpriced, which is not free") && !text.contains('$'), "{text}");
}

#[test]
fn a_models_name_cannot_steer_the_terminal() {
    let text = shown(&FINISHED.replace("\"requested_model\": \"gpt-4o-mini\"", r#""requested_model": "a\u001b[2Jb""#));
    assert!(text.contains("of a\u{fffd}[2Jb, streamed") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn what_may_have_become_of_an_unknown_request_depends_on_its_age() {
    const ALWAYS: [&str; 2] = ["for its key, or before it was understood", "went to another gateway"];
    const HOUR_NANOS: u64 = 3_600_000_000_000;
    let arrived = UnixNanos::from_seconds(1_790_000_000);
    for (hours, may, may_not) in [
        (0, ["among so many", "still under way"], ["24 hours ago", "retention_days"]),
        (24, ["among so many", "still under way"], ["24 hours ago", "retention_days"]),
        (25, ["24 hours ago", "retention_days"], ["among so many", "nothing else"]),
        (72, ["24 hours ago", "still under way"], ["among so many", "nothing else"]),
        (73, ["24 hours ago", "retention_days"], ["among so many", "still under way"]),
    ] {
        let text = unknown(RequestId::new(arrived.millis(), 7), arrived.plus_nanos(hours * HOUR_NANOS));
        assert!(may.iter().chain(&ALWAYS).all(|it| text.contains(it)), "{hours}: {text}");
        assert!(!may_not.iter().any(|it| text.contains(it)), "{hours}: {text}");
    }
}

#[test]
fn what_is_no_id_is_said_before_anybody_is_asked() {
    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: ExplainArgs,
    }
    let error = <Cli as clap::Parser>::try_parse_from(["explain", "chatcmpl-1"]).unwrap_err().to_string();
    assert!(error.contains("req_ and 32 hexadecimal digits"), "{error}");
}
