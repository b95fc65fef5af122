use proptest::prelude::*;
use serde_json::{Value, json};

use super::{count::MAX_COUNT, *};
use crate::domain::usage::LineItem::{self, *};

fn read(usage: &Value) -> Option<Usage> {
    read_answer(json!({"model": "m", "usage": usage}).to_string().as_bytes()).unwrap().usage
}

fn items<const N: usize>(items: [(LineItem, u64); N]) -> Usage {
    items.into_iter().fold(Usage::default(), |usage, (item, quantity)| usage.with(item, quantity))
}

#[test]
fn the_recorded_beep_is_22_text_in_and_6_text_and_12_audio_out() {
    let answer = read_answer(
        br#"{"id":"chatcmpl-x","model":"gpt-4o-mini-audio-preview-2024-12-17","choices":[{"message":{"audio":{"data":"T2dn"}}}],
        "service_tier":"default","usage":{"completion_tokens":18,"completion_tokens_details":{"accepted_prediction_tokens":0,
        "audio_tokens":12,"reasoning_tokens":0,"rejected_prediction_tokens":0,"text_tokens":6},"prompt_tokens":22,
        "prompt_tokens_details":{"audio_tokens":0,"cached_tokens":0,"image_tokens":0,"text_tokens":22},"total_tokens":40}}"#,
    )
    .unwrap();
    assert_eq!(answer.usage, Some(items([(InputText, 22), (OutputText, 6), (OutputAudio, 12)])));
    assert_eq!(answer.model.as_deref(), Some("gpt-4o-mini-audio-preview-2024-12-17"));
    assert_eq!((answer.service_tier, answer.is_error), (Some(ServiceTier::Default), false));
}

#[test]
fn details_are_parts_of_the_totals() {
    let usage = json!({
        "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
        "prompt_tokens_details": {"audio_tokens": 30, "image_tokens": 10, "cached_tokens": 20, "cache_write_tokens": 5},
        "completion_tokens_details": {"audio_tokens": 40, "reasoning_tokens": 7, "rejected_prediction_tokens": 2},
    });
    let expected = [
        (InputText, 35),
        (InputCachedText, 20),
        (InputCacheWriteText, 5),
        (InputAudio, 30),
        (InputImage, 10),
        (OutputText, 10),
        (OutputAudio, 40),
    ];
    assert_eq!(read(&usage), Some(items(expected)));
}

#[test]
fn cached_tokens_are_text_first_and_audio_last() {
    let usage = |cached: u64| {
        read(&json!({
            "prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100,
            "prompt_tokens_details": {"audio_tokens": 30, "image_tokens": 10, "cached_tokens": cached},
        }))
    };
    let all_text = [(InputCachedText, 60), (InputAudio, 30), (InputImage, 10)];
    assert_eq!(usage(60), Some(items(all_text)));
    let some_audio = [(InputCachedText, 60), (InputCachedImage, 10), (InputCachedAudio, 5), (InputAudio, 25)];
    assert_eq!(usage(75), Some(items(some_audio)));
    assert_eq!(usage(1_000), Some(items([(InputCachedText, 60), (InputCachedImage, 10), (InputCachedAudio, 30)])));
}

#[test]
fn details_may_be_missing_null_or_something_else() {
    let expected = Some(items([(InputText, 9), (OutputText, 4)]));
    for details in
        [json!(null), json!({}), json!([1]), json!("none"), json!({"audio_tokens": null, "cached_tokens": -1})]
    {
        let usage = json!({
            "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "prompt_tokens_details": details,
            "completion_tokens_details": details, "latency_checkpoint": {"engine_ttft_ms": 1.5}, "cost": 0.25,
        });
        assert_eq!(read(&usage), expected);
    }
    assert_eq!(read(&json!({"prompt_tokens": 9, "total_tokens": 13})), expected);
    assert_eq!(read(&json!({"completion_tokens": 4, "total_tokens": 13})), expected);
}

#[test]
fn audio_outside_of_the_prompt_is_added_to_it() {
    // Recorded: compat_mistral_audio-in.
    let mistral = json!({
        "prompt_audio_seconds": 3, "prompt_tokens": 9, "total_tokens": 632, "completion_tokens": 248,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 375},
    });
    assert_eq!(read(&mistral), Some(items([(InputText, 9), (InputAudio, 375), (OutputText, 248)])));
    // More audio than prompt cannot be inside of it, whatever else the total counts.
    let with_reasoning = json!({
        "prompt_tokens": 9, "total_tokens": 642, "completion_tokens": 248, "prompt_tokens_details": {"audio_tokens": 375},
    });
    assert_eq!(read(&with_reasoning), Some(items([(InputText, 9), (InputAudio, 375), (OutputText, 258)])));
}

#[test]
fn reasoning_that_happens_to_equal_the_audio_is_no_second_audio() {
    let inside = Some(items([(InputText, 70), (InputAudio, 30), (OutputText, 35)]));
    let report = |input, output| {
        read(&json!({
            "prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 135,
            "prompt_tokens_details": input, "completion_tokens_details": output,
        }))
    };
    assert_eq!(report(json!({"audio_tokens": 30, "text_tokens": 70}), json!(null)), inside);
    assert_eq!(report(json!({"audio_tokens": 30}), json!({"reasoning_tokens": 30})), inside);
    let outside = Some(items([(InputText, 100), (InputAudio, 30), (OutputText, 5)]));
    assert_eq!(report(json!({"audio_tokens": 30}), json!(null)), outside);
    assert_eq!(report(json!({"audio_tokens": 30, "text_tokens": 100}), json!({"reasoning_tokens": 0})), outside);
}

#[test]
fn tokens_that_only_the_total_counts_are_reasoning() {
    let xai = json!({
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115,
        "completion_tokens_details": {"reasoning_tokens": 100},
    });
    assert_eq!(read(&xai), Some(items([(InputText, 10), (OutputText, 105)])));
}

#[test]
fn deepseeks_cache_hits_count_where_there_are_no_details() {
    let usage = json!({"prompt_tokens": 17, "completion_tokens": 1, "total_tokens": 18, "prompt_cache_hit_tokens": 12});
    assert_eq!(read(&usage), Some(items([(InputText, 5), (InputCachedText, 12), (OutputText, 1)])));
}

#[test]
fn groqs_usage_is_found_in_its_extension() {
    let event = br#"{"model":"llama","choices":[{"delta":{},"finish_reason":"stop"}],
        "x_groq":{"id":"req","usage":{"queue_time":0.1,"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}}"#;
    let facts = read_event(event).unwrap();
    assert_eq!(facts.usage, Some(items([(InputText, 3), (OutputText, 2)])));
    assert!(!facts.is_usage_chunk);
}

#[test]
fn a_usage_in_the_first_choice_is_the_last_resort() {
    let inside = r#"{"index":0,"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    for (body, expected) in [
        (format!(r#"{{"choices":[{inside}]}}"#), Some(items([(InputText, 3), (OutputText, 2)]))),
        (format!(r#"{{"choices":[{inside}],"usage":null}}"#), Some(items([(InputText, 3), (OutputText, 2)]))),
        (
            format!(r#"{{"choices":[{inside}],"usage":{{"prompt_tokens":7,"completion_tokens":1}}}}"#),
            Some(items([(InputText, 7), (OutputText, 1)])),
        ),
        (r#"{"choices":[{"usage":null}]}"#.to_owned(), None),
        (format!(r#"{{"choices":[{{}},{inside}]}}"#), None),
        (r#"{"choices":[]}"#.to_owned(), None),
        (format!(r#"{{"choices":{inside}}}"#), None),
    ] {
        assert_eq!(read_answer(body.as_bytes()).unwrap().usage, expected, "{body}");
        let event = read_event(body.as_bytes()).unwrap();
        assert_eq!((event.usage, event.is_usage_chunk), (expected, false), "{body}");
    }
}

#[test]
fn no_usage_is_not_zero_usage() {
    for usage in [json!(null), json!({}), json!(7), json!("7"), json!([7]), json!({"prompt_tokens": -1})] {
        assert_eq!(read(&usage), None, "{usage}");
    }
    assert_eq!(read(&json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})), Some(items([])));
}

#[test]
fn keep_alive_padding_before_the_body_is_white_space() {
    let answer = read_answer(b"\n   \n\n  {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n").unwrap();
    assert_eq!(answer.usage, Some(items([(InputText, 1), (OutputText, 2)])));
}

#[test]
fn the_last_of_two_usages_counts() {
    let body =
        br#"{"usage":{"prompt_tokens":1,"completion_tokens":1},"usage":{"prompt_tokens":2,"completion_tokens":2}}"#;
    assert_eq!(read_answer(body).unwrap().usage, Some(items([(InputText, 2), (OutputText, 2)])));
}

#[test]
fn the_service_tier_is_the_answers() {
    for (text, tier) in [
        (r#""flex""#, Some(ServiceTier::Flex)),
        (r#""priority""#, Some(ServiceTier::Priority)),
        ("null", None),
        ("7", None),
    ] {
        let body = format!(r#"{{"service_tier":{text}}}"#);
        assert_eq!(read_answer(body.as_bytes()).unwrap().service_tier, tier);
    }
}

#[test]
fn an_error_is_told_from_a_null_one() {
    for (error, is_error) in [
        ("null", false),
        ("false", false),
        ("{ }", false),
        ("\"\"", false),
        (r#"{"message":"x"}"#, true),
        ("\"x\"", true),
    ] {
        assert_eq!(read_answer(format!(r#"{{"error":{error}}}"#).as_bytes()).unwrap().is_error, is_error, "{error}");
    }
}

#[test]
fn bodies_that_are_no_json_object_are_told() {
    for body in ["", "<html>", "[]", "7", "{", r#"{"usage":{"prompt_tokens":1}} trailing"#] {
        assert_eq!(read_answer(body.as_bytes()), Err(NotJson), "{body}");
    }
    let deep = format!(r#"{{"choices":{}{},"usage":{{"prompt_tokens":1}}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    assert!(read_answer(deep.as_bytes()).unwrap().usage.is_some());
}

/// As services write it that cut the text of a stream between two bytes of a character.
#[test]
fn half_a_character_in_a_text_does_not_hide_the_usage_beside_it() {
    let text = [
        b"{\"choices\":[{\"delta\":{\"content\":\"\xC3\"}}],\"model\":\"m\",\"usage\":".as_slice(),
        br#"{"total_tokens":7}}"#,
    ];
    let facts = read_event(&text.concat()).unwrap();
    assert_eq!((facts.usage.map(|usage| usage.total()), facts.model.as_deref()), (Some(7), Some("m")));
    assert!(!facts.is_usage_chunk);
    assert_eq!(read_answer(&text.concat()).unwrap().usage, facts.usage);
}

#[test]
fn only_usage_with_empty_choices_is_a_usage_chunk() {
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}"#;
    for (event, is_usage_chunk) in [
        (format!(r#"{{"choices":[],{usage}}}"#), true),
        (format!(r#"{{{usage},"choices" : [ ] }}"#), true),
        (format!(r#"{{"choices":[{{"index":0,"finish_reason":"stop"}}],{usage}}}"#), false),
        (format!("{{{usage}}}"), true),
        (
            format!(
                r#"{{"id":"x","object":"chat.completion.chunk","created":1,"choices":null,{usage},"obfuscation":"a"}}"#
            ),
            true,
        ),
        (format!(r#"{{{usage},"delta":{{"audio":{{"data":"AAAA"}}}}}}"#), false),
        (format!(r#"{{{usage},"citations":["https://example.org"]}}"#), false),
        (format!(r#"{{{usage},"citations":[],"warning":null}}"#), true),
        (format!(r#"{{{usage},"error":{{"message":"x"}}}}"#), false),
        (r#"{"id":"x","usage":null}"#.to_owned(), false),
        (r#"{"choices":[],"usage":null}"#.to_owned(), false),
        (r#"{"choices":[],"prompt_filter_results":[]}"#.to_owned(), false),
    ] {
        assert_eq!(read_event(event.as_bytes()).unwrap().is_usage_chunk, is_usage_chunk, "{event}");
    }
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0_u64..2_000).prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

proptest! {
    #[test]
    fn items_never_add_up_to_less_than_a_reported_total(numbers in prop::collection::vec(number(), 11)) {
        let usage = json!({
            "prompt_tokens": numbers[0], "completion_tokens": numbers[1], "total_tokens": numbers[2],
            "prompt_tokens_details": {"audio_tokens": numbers[3], "image_tokens": numbers[4], "cached_tokens": numbers[5],
                "cache_write_tokens": numbers[6]},
            "completion_tokens_details": {"audio_tokens": numbers[7], "image_tokens": numbers[8],
                "reasoning_tokens": numbers[9]},
            "prompt_cache_hit_tokens": numbers[10],
        });
        let at_least = |index: usize| numbers[index].as_u64().unwrap_or(0).min(MAX_COUNT);
        if let Some(usage) = read(&usage) {
            prop_assert!(usage.input_total() >= at_least(0));
            prop_assert!(usage.output_total() >= at_least(1));
            prop_assert!(usage.total() >= at_least(2));
            prop_assert!(usage.total() <= 5 * MAX_COUNT);
        } else {
            prop_assert_eq!(at_least(0) + at_least(1) + at_least(2), 0);
        }
    }

    #[test]
    fn consistent_reports_keep_their_totals_exactly(
        parts in prop::collection::vec(0_u64..100_000, 5),
        cached in 0_u64..300_000,
        with_total in any::<bool>(),
    ) {
        let (prompt, completion) = (parts[0] + parts[1] + parts[2], parts[3] + parts[4]);
        let usage = read(&json!({
            "prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": with_total.then_some(prompt + completion),
            "prompt_tokens_details": {"audio_tokens": parts[1], "image_tokens": parts[2], "cached_tokens": cached},
            "completion_tokens_details": {"audio_tokens": parts[4]},
        })).unwrap();
        prop_assert_eq!((usage.input_total(), usage.output_total()), (prompt, completion));
        prop_assert_eq!(usage.get(InputAudio) + usage.get(InputCachedAudio), parts[1]);
        prop_assert_eq!((usage.get(OutputText), usage.get(OutputAudio)), (parts[3], parts[4]));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\",:a-z0-9.-]{0,60}") {
        for body in [&bytes, text.as_bytes(), format!(r#"{{"usage":{text}}}"#).as_bytes()] {
            let _ = read_answer(body);
            let _ = read_event(body);
            let _ = read_usage_prefix(body);
        }
    }
}
