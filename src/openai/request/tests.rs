use bytes::Bytes;

use super::*;

#[test]
fn a_plain_request_is_read() {
    let body = br#"{"model":"gpt-4o","messages":[{"role":"user","content":"caf\u00e9"}],"max_tokens":5,"stream":true}"#;
    let request = scan(body).unwrap();
    assert_eq!((request.model.as_ref(), request.text_bytes, request.messages), ("gpt-4o", 5, 1));
    assert_eq!((request.max_output_tokens, request.choices, request.stream), (Some(5), 1, true));
    let spliced = ask_for_usage(&Bytes::from_static(body), &request.usage_splice.unwrap()).concat();
    assert!(spliced.starts_with(br#"{"stream_options":{"include_usage":true},"model":"gpt-4o""#));
}
