use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::openai::estimate::{image_tokens, text_tokens};

const MESSAGES: &str = r#""messages":[{"role":"user","content":"Hi"}]"#;

/// A body with a model, a message and `more` members.
fn body(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(r#"{{"model":"gpt-4o",{MESSAGES}{comma}{more}}}"#)
}

fn read(body: &str) -> ChatRequest<'_> {
    scan(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {}", error.message))
}

/// Message, parameter and code of the refusal.
fn refusal(body: &str) -> (String, Option<String>, Option<String>) {
    let error = scan(body.as_bytes()).expect_err(body);
    assert_eq!((error.status, error.kind.as_ref()), (400, "invalid_request_error"));
    (error.message.into_owned(), error.param.map(String::from), error.code.map(String::from))
}

#[test]
fn a_plain_request_has_defaults() {
    let body = body("");
    let request = read(&body);
    assert!(matches!(request.model, Cow::Borrowed("gpt-4o")));
    assert_eq!((request.choices, request.messages, request.text_bytes), (1, 1, 2));
    assert!(!request.stream && !request.include_usage && !request.wants_audio);
    assert_eq!((request.max_output_tokens, request.usage_splice), (None, None));
    assert_eq!(request.service_tiers, [ServiceTier::Default]);
}

#[test]
fn null_is_as_good_as_absent() {
    let nulls = body(
        r#""stream":null,"stream_options":null,"max_tokens":null,"max_completion_tokens":null,"n":null,"modalities":null,
        "audio":null,"service_tier":null"#,
    );
    assert_eq!(read(&nulls), read(&body("")));
}

#[test]
fn a_service_tier_is_read_as_the_upstream_reads_it() {
    use ServiceTier::{Default, Flex, Priority};
    for (tier, expected) in [
        ("priority", &[Priority][..]),
        ("prio\\u0072ity", &[Priority]),
        ("fast", &[Priority]),
        ("flex", &[Flex]),
        ("default", &[Default]),
        ("scale", &[Default]),
        ("auto", &[Default, Priority]),
    ] {
        assert_eq!(read(&body(&format!("\"service_tier\":\"{tier}\""))).service_tiers, expected, "{tier}");
    }
}

#[test]
fn text_images_and_audio_are_counted() {
    let request = scan(
        br#"{"messages":[
            {"role":"system","content":"caf\u00e9 \ud83d\ude00"},
            {"content":[{"text":"ab","type":"text"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBO"}}]},
            {"content":[{"input_audio":{"format":"wav","data":"AAAA"},"type":"input_audio"},{"type":"refusal","refusal":"n"}]},
            {"role":"assistant","content":null,"audio":{"id":"audio_1"},"tool_calls":[{"function":{"arguments":"{}"}}]}
        ],"model":"m","modalities":["text","audio"],"audio":{"voice":"alloy","format":"wav"},"n":3}"#,
    )
    .unwrap();
    assert_eq!((request.messages, request.images, request.audio.clips, request.choices), (4, 1, 1, 3));
    assert_eq!(request.text_bytes, "café 😀".len() as u64 + 2 + 1);
    assert!(request.wants_audio);
}

/// A megabyte of it, wherever it may stand.
#[test]
fn base64_is_never_counted_as_text() {
    let large = "QUJD".repeat(1 << 18);
    let image = format!("data:image/png;base64,{large}");
    for part in [
        json!({"type": "input_audio", "input_audio": {"data": &large, "format": "mp3"}}),
        json!({"input_audio": {"format": "wav", "data": &large}, "type": "input_audio"}),
        json!({"type": "image_url", "image_url": {"url": &image, "detail": "low"}}),
        json!({"type": "file", "file": {"filename": "a.pdf", "file_data": format!("data:application/pdf;base64,{large}")}}),
    ] {
        let body =
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "abcd"}, part]}]});
        let body = body.to_string();
        let request = scan(body.as_bytes()).unwrap();
        assert_eq!(request.text_bytes, 4, "{:.60}", part.to_string());
        let images = u64::from(request.images);
        assert_eq!(image_tokens(&request), 765 * images);
        assert_eq!(text_tokens(&request), 1 + 1 + 1 + 765 * images, "{:.60}", part.to_string());
    }
    let replayed =
        json!({"model": "m", "messages": [{"role": "assistant", "audio": {"id": "audio_1", "data": &large}}]});
    assert_eq!(scan(replayed.to_string().as_bytes()).unwrap().text_bytes, 0);
}

#[test]
fn the_newer_maximum_counts_before_the_older() {
    assert_eq!(read(&body(r#""max_tokens":5"#)).max_output_tokens, Some(5));
    assert_eq!(
        read(&body(r#""max_tokens":5,"max_completion_tokens":2147483647"#)).max_output_tokens,
        Some(2_147_483_647)
    );
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    let deep = |depth: usize| body(&format!(r#""x":{}{}"#, "[".repeat(depth), "]".repeat(depth)));
    let in_message = format!(r#"{{"model":"m","messages":[{}{}]}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let surrogate = r#"{"model":"m","messages":[{"content":"\ud800"}]}"#.to_owned();
    for text in ["", "null", "[]", "7", "\u{feff}{}", "{", "{}{}", r#"{"model":NaN}"#, r#"{"model":"m"}x"#, "{'a':1}"] {
        assert_eq!(scan(text.as_bytes()), Err(ApiError::invalid_json()), "{text}");
    }
    for text in [deep(200), deep(100_000), in_message, surrogate, body(r#""n":01"#), body(r#""x":tru"#)] {
        assert_eq!(scan(text.as_bytes()), Err(ApiError::invalid_json()), "{text:.80}");
    }
    assert!(scan(deep(100).as_bytes()).is_ok());
    assert_eq!(scan(b"{\"model\":\"m\",\"x\":\"\xFF\"}"), Err(ApiError::invalid_json()));
    let utf16: Vec<u8> = body("").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(scan(&utf16), Err(ApiError::invalid_json()));
}

#[test]
fn required_parameters_are_required() {
    for text in ["{}", r#"{"model":null,"messages":[]}"#, r#"{"model":"","n":0}"#, r#"{"messages":[]}"#] {
        assert_eq!(scan(text.as_bytes()), Err(ApiError::missing_model()), "{text}");
    }
    assert_eq!(scan(br#"{"model":"m"}"#), Err(ApiError::missing_parameter("messages")));
    // Recorded: error-400_empty-array.
    let message =
        "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
    let expected = (message.to_owned(), Some("messages".to_owned()), Some("empty_array".to_owned()));
    assert_eq!(refusal(r#"{"messages":[],"model":"gpt-5-nano"}"#), expected);
}

#[test]
fn model_names_are_short_strings_without_control_characters() {
    let with = |model: &str| format!(r#"{{"model":{model},{MESSAGES}}}"#);
    let code = |model: &str| refusal(&with(model)).2.unwrap_or_default();
    for model in ["7", "true", "[]", "{}", "1.5"] {
        assert_eq!(code(model), "invalid_type");
    }
    assert_eq!(code(&format!("\"{}\"", "m".repeat(257))), "string_above_max_length");
    assert_eq!(code(r#""gpt\u00004o""#), "invalid_value");
    assert_eq!(read(&with(r#""gpt-\u0034o""#)).model, "gpt-4o");
    assert_eq!(read(&with(&format!("\"{}\"", "m".repeat(256)))).model.len(), 256);
}

#[test]
fn wrong_types_are_told_as_openai_tells_them() {
    for (more, param, expected, got) in [
        (r#""n":"1""#, "n", "an integer", "a string"),
        (r#""n":1.5"#, "n", "an integer", "a decimal number"),
        (r#""max_tokens":1e309"#, "max_tokens", "an integer", "a decimal number"),
        (r#""max_completion_tokens":"100""#, "max_completion_tokens", "an integer", "a string"),
        (r#""stream":"true""#, "stream", "a boolean", "a string"),
        (r#""stream":1"#, "stream", "a boolean", "an integer"),
        (r#""stream":true,"stream_options":true"#, "stream_options", "an object", "a boolean"),
        (
            r#""stream":true,"stream_options":{"include_usage":1}"#,
            "stream_options.include_usage",
            "a boolean",
            "an integer",
        ),
        (r#""modalities":"audio""#, "modalities", "an array of strings", "a string"),
        (r#""modalities":["text",null]"#, "modalities[1]", "a string", "null"),
        (r#""audio":"alloy""#, "audio", "an object", "a string"),
        (r#""service_tier":1"#, "service_tier", "a string", "an integer"),
    ] {
        let message = format!("Invalid type for '{param}': expected {expected}, but got {got} instead.");
        assert_eq!(refusal(&body(more)), (message, Some(param.to_owned()), Some("invalid_type".to_owned())));
    }
    let message = "Invalid type for 'messages': expected an array of objects, but got a string instead.";
    assert_eq!(refusal(r#"{"model":"m","messages":"Hi"}"#).0, message);
    let message = "Invalid type for 'messages[1]': expected an object, but got null instead.";
    assert_eq!(refusal(r#"{"model":"m","messages":[{},null,7]}"#).0, message);
}

#[test]
fn numbers_out_of_range_are_told_as_openai_tells_them() {
    let below = |param: &str, got: &str| {
        let message =
            format!("Invalid '{param}': integer below minimum value. Expected a value >= 1, but got {got} instead.");
        (message, Some(param.to_owned()), Some("integer_below_min_value".to_owned()))
    };
    for (param, got) in
        [("n", "0"), ("n", "-3"), ("max_tokens", "0"), ("max_completion_tokens", "-9223372036854775809")]
    {
        assert_eq!(refusal(&body(&format!("\"{param}\":{got}"))), below(param, got));
    }
    let message = "Invalid 'n': integer above maximum value. Expected a value <= 128, but got 129 instead.";
    assert_eq!(refusal(&body(r#""n":129"#)).0, message);
    for got in ["2147483648", "9223372036854775808", "18446744073709551616", &"9".repeat(5_000)] {
        let (message, param, code) = refusal(&body(&format!("\"max_tokens\":{got}")));
        assert_eq!((param.as_deref(), code.as_deref()), (Some("max_tokens"), Some("integer_above_max_value")));
        assert!(message.len() < 200);
    }
}

#[test]
fn a_parameter_that_could_be_read_two_ways_is_refused() {
    for (param, value) in [
        ("model", "\"x\""),
        ("messages", "[]"),
        ("stream", "true"),
        ("stream_options", "null"),
        ("max_tokens", "1"),
        ("max_completion_tokens", "1"),
        ("n", "1"),
        ("modalities", "[]"),
        ("audio", "null"),
        ("service_tier", "null"),
    ] {
        let twice = format!(r#"{{"model":"m",{MESSAGES},"{param}":{value},"{param}":{value}}}"#);
        assert_eq!(scan(twice.as_bytes()), Err(ApiError::duplicate_parameter(param)));
    }
    assert_eq!(scan(body(r#""mod\u0065l":"x""#).as_bytes()), Err(ApiError::duplicate_parameter("model")));
    let options = body(r#""stream":true,"stream_options":{"include_usage":true,"include\u005fusage":false}"#);
    assert_eq!(scan(options.as_bytes()), Err(ApiError::duplicate_parameter("stream_options.include_usage")));
    for key in ["Model", "STREAM", "max_to\u{212a}ens", "me\u{17f}\u{17f}ages"] {
        assert_eq!(refusal(&body(&format!("\"{key}\":1"))).2.as_deref(), Some("unknown_parameter"), "{key}");
    }
    assert!(scan(body(r#""temperature":1,"temperature":1"#).as_bytes()).is_ok());
}

#[test]
fn where_a_request_goes_is_not_for_its_body_to_say() {
    for key in ["api_base", "base_url", "api_key", "organization", "extra_headers", "custom_llm_provider", "API_Base"] {
        let (_, param, code) = refusal(&body(&format!("\"{key}\":\"http://127.0.0.1:9\"")));
        assert_eq!((param.as_deref(), code.as_deref()), (Some(key), Some("unknown_parameter")));
    }
    assert!(scan(body(r#""metadata":{"api_key":"a"},"api_base2":1"#).as_bytes()).is_ok());
}

#[test]
fn stream_options_need_a_stream() {
    for more in [r#""stream_options":{}"#, r#""stream":false,"stream_options":{"include_usage":true}"#] {
        assert_eq!(scan(body(more).as_bytes()), Err(ApiError::stream_options_without_stream()));
    }
}

/// What is sent upstream for `body`.
fn asked(body: &str) -> String {
    let splice = read(body).usage_splice.unwrap();
    let sent = ask_for_usage(&Bytes::copy_from_slice(body.as_bytes()), &splice).concat();
    String::from_utf8(sent).unwrap()
}

#[test]
fn usage_is_asked_for_with_one_insertion() {
    let head = format!(r#""model":"m",{MESSAGES},"stream":true"#);
    for (before, after) in [
        (format!(" \n{{ {head} }}"), format!(" \n{{\"stream_options\":{{\"include_usage\":true}}, {head} }}")),
        (
            format!(r#"{{"stream_options" : null ,{head}}}"#),
            format!(r#"{{"stream_options" : {{"include_usage":true}} ,{head}}}"#),
        ),
        (
            format!(r#"{{{head},"stream_options":{{ }}}}"#),
            format!(r#"{{{head},"stream_options":{{"include_usage":true}}}}"#),
        ),
        (
            format!(r#"{{{head},"stream_options":{{"include_usage" : false}}}}"#),
            format!(r#"{{{head},"stream_options":{{"include_usage" : true}}}}"#),
        ),
        (
            format!(r#"{{"stream_options":{{"include_obfuscation":false, "include_usage":null}},{head}}}"#),
            format!(r#"{{"stream_options":{{"include_obfuscation":false, "include_usage":true}},{head}}}"#),
        ),
        (
            format!(r#"{{{head},"stream_options":{{ "include_obfuscation":false}}}}"#),
            format!(r#"{{{head},"stream_options":{{"include_usage":true, "include_obfuscation":false}}}}"#),
        ),
    ] {
        assert_eq!(asked(&before), after);
        let request = read(&after);
        assert!(request.include_usage && request.usage_splice.is_none());
    }
}

#[test]
fn the_parts_around_the_insertion_are_the_body_itself() {
    let bytes = Bytes::from(body(r#""stream":true"#));
    let [before, _, after] = ask_for_usage(&bytes, &scan(&bytes).unwrap().usage_splice.unwrap());
    assert_eq!((before.as_ptr(), after.as_ptr()), (bytes.as_ptr(), bytes[1..].as_ptr()));
    let other = ask_for_usage(&Bytes::new(), &scan(&bytes).unwrap().usage_splice.unwrap());
    assert_eq!(other.iter().filter(|part| !part.is_empty()).count(), 1);
}

fn content() -> impl Strategy<Value = Value> {
    let part = prop_oneof![
        "\\PC{0,20}".prop_map(|text| json!({"type": "text", "text": text})),
        Just(json!({"type": "image_url", "image_url": {"url": "https://example.com/\"[{"}})),
        Just(json!({"input_audio": {"data": "AAAA", "format": "mp3"}})),
    ];
    prop_oneof![
        "\\PC{0,40}".prop_map(Value::from),
        prop::collection::vec(part, 0..4).prop_map(Value::from),
        Just(Value::Null),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "\\PC{0,8}".prop_map(Value::from)];
    leaf.prop_recursive(4, 20, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
}

prop_compose! {
    fn request()(
        model in "[a-z0-9.:é/-]{1,20}",
        contents in prop::collection::vec(content(), 1..4),
        stream in prop::option::of(any::<bool>()),
        maximum in prop::option::of(1_u32..100_000),
        n in prop::option::of(1_u32..129),
        modalities in prop::option::of(prop::collection::vec(prop_oneof![Just("text"), Just("audio")], 0..3)),
        other in ("x[a-z]{0,8}", anything()),
        include_usage in prop::option::of(any::<bool>()),
    ) -> Value {
        let messages: Vec<_> = contents.into_iter().map(|content| json!({"content": content, "role": "user"})).collect();
        let mut body = json!({
            "model": model, "messages": messages, "stream": stream, "max_tokens": maximum, "n": n, "modalities": modalities,
            other.0: other.1,
        });
        if stream == Some(true) {
            body["stream_options"] = json!({"include_usage": include_usage, "include_obfuscation": false});
        }
        body
    }
}

/// Text bytes, images and clips of a message's content.
fn counted(content: &Value) -> (u64, u32, u32) {
    let length = |value: &Value| value.as_str().map_or(0, |text| text.len() as u64);
    let parts = content.as_array().cloned().unwrap_or_default();
    let with = |key: &str| u32::try_from(parts.iter().filter(|part| part.get(key).is_some()).count()).unwrap();
    let text = length(content) + parts.iter().map(|part| length(&part["text"])).sum::<u64>();
    (text, with("image_url"), with("input_audio"))
}

proptest! {
    #[test]
    fn scan_reads_what_a_tree_would_hold(tree in request(), pretty in any::<bool>()) {
        let body = if pretty { serde_json::to_string_pretty(&tree) } else { serde_json::to_string(&tree) }.unwrap();
        let request = scan(body.as_bytes()).unwrap();
        let messages = tree["messages"].as_array().unwrap();
        let counts: Vec<_> = messages.iter().map(|message| counted(&message["content"])).collect();
        prop_assert_eq!(&*request.model, tree["model"].as_str().unwrap());
        prop_assert_eq!(request.messages as usize, messages.len());
        prop_assert_eq!(request.text_bytes, counts.iter().map(|count| count.0).sum::<u64>());
        prop_assert_eq!(request.images, counts.iter().map(|count| count.1).sum::<u32>());
        prop_assert_eq!(request.audio.clips, counts.iter().map(|count| count.2).sum::<u32>());
        prop_assert_eq!(request.stream, tree["stream"].as_bool().unwrap_or(false));
        prop_assert_eq!(request.max_output_tokens, tree["max_tokens"].as_u64());
        prop_assert_eq!(u64::from(request.choices), tree["n"].as_u64().unwrap_or(1));
        let words = tree["modalities"].as_array().cloned().unwrap_or_default();
        prop_assert_eq!(request.wants_audio, words.contains(&"audio".into()));
        let mut expected = tree.clone();
        if let Some(splice) = request.usage_splice {
            expected["stream_options"]["include_usage"] = true.into();
            let sent = ask_for_usage(&Bytes::from(body), &splice).concat();
            prop_assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap(), expected);
        } else {
            prop_assert_eq!(request.include_usage, request.stream);
        }
    }

    #[test]
    fn damaged_bodies_are_refused_or_read_but_never_panic(
        tree in request(),
        at in any::<prop::sample::Index>(),
        damage in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut body = serde_json::to_vec(&tree).unwrap();
        let at = at.index(body.len());
        body.splice(at..(at + damage.len()).min(body.len()), damage);
        let is_json = serde_json::from_slice::<Value>(&body).is_ok();
        prop_assert!(scan(&body).is_err() || is_json);
    }
}
