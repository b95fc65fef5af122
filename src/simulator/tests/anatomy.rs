//! Answers have the keys of the recordings, in their order.

use serde_json::json;

use super::{End, Running, recording, shape};

fn shapes(body: &str) -> Vec<String> {
    body.lines().filter_map(|line| line.strip_prefix("data: ")).map(shape).collect()
}

fn squeezed(mut shapes: Vec<String>) -> Vec<String> {
    shapes.dedup();
    shapes
}

#[test]
fn a_shape_keeps_keys_and_drops_values() {
    assert_eq!(shape(r#"{"a": "x\"y:", "b":[1.5, null,{}], "c":true}"#), r#"{"a":s,"b":[n,null,{}],"c":true}"#);
}

#[tokio::test]
async fn an_audio_stream_is_the_recorded_one_chunk_by_chunk() {
    let server = Running::default().await;
    let request = json!({
        "messages": [{ "role": "user", "content": "Say the exact word 'hello' and nothing else." }],
        "model": "gpt-audio-1.5", "modalities": ["text", "audio"], "audio": { "voice": "ash", "format": "pcm16" },
        "stream": true, "stream_options": { "include_usage": true }
    });
    // The recorded answer speaks for 0.95 s.
    let reply = server.post(&request).header("x-simulate-audio-seconds: 0.95").send().await;
    assert_eq!(reply.end, End::Whole);
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let ours = shapes(reply.text());
    let golden = include_str!("audio_stream.txt");
    assert_eq!(ours.join("\n"), golden.trim());
    if let Some(recorded) = recording("chat-audio-out_stream_gpt-audio-1.5", "response.body.sse") {
        assert_eq!(ours, shapes(&recorded));
    }
}

#[tokio::test]
async fn an_audio_stream_never_finishes_and_tells_usage_before_its_last_chunk() {
    let server = Running::default().await;
    let reply = server
        .chat(json!({
            "messages": [{ "role": "user", "content": "Speak." }], "model": "gpt-4o-mini-audio-preview",
            "modalities": ["text", "audio"], "audio": { "voice": "alloy", "format": "pcm16" },
            "stream": true, "stream_options": { "include_usage": true }
        }))
        .await;
    let chunks = reply.chunks();
    assert!(chunks.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    assert!(chunks.iter().any(|chunk| chunk.get("choices").is_none()));
    let [.., usage, last] = &*chunks else { panic!("too few chunks") };
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens_details"]["audio_tokens"], 40);
    let created = last["created"].as_u64().unwrap();
    assert_eq!(last["choices"][0]["delta"]["audio"]["expires_at"], created + 3_601);
    assert_eq!(reply.events().last(), Some(&"[DONE]"));
}

#[tokio::test]
async fn a_text_stream_is_the_recorded_one() {
    let server = Running::default().await;
    let request = json!({
        "messages": [{ "role": "user", "content": "Hello" }], "model": "gpt-4o", "stream": true,
        "stream_options": { "include_usage": true, "include_obfuscation": false }
    });
    let ours = squeezed(shapes(server.chat(request).await.text()));
    let common = r#"{"id":s,"object":s,"created":n,"model":s,"service_tier":s,"system_fingerprint":s,"choices":["#;
    let golden = [
        r#"{"index":n,"delta":{"role":s,"content":s,"refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}"#,
        r#"{"index":n,"delta":{"content":s},"logprobs":null,"finish_reason":null}],"usage":null}"#,
        r#"{"index":n,"delta":{},"logprobs":null,"finish_reason":s}],"usage":null}"#,
        r#"],"usage":{"prompt_tokens":n,"completion_tokens":n,"total_tokens":n,"prompt_tokens_details":{"cached_tokens":n,"audio_tokens":n},"completion_tokens_details":{"reasoning_tokens":n,"audio_tokens":n,"accepted_prediction_tokens":n,"rejected_prediction_tokens":n}}}"#,
    ];
    let mut expected: Vec<String> = golden.iter().map(|rest| format!("{common}{rest}")).collect();
    expected.push("[DONE]".to_owned());
    assert_eq!(ours, expected);
    if let Some(recorded) = recording("chat_stream_cache-read_4o", "response.body.sse") {
        assert_eq!(ours, squeezed(shapes(&recorded)));
    }
}

#[tokio::test]
async fn a_stream_that_was_not_asked_for_usage_has_no_such_key() {
    let server = Running::default().await;
    let request =
        json!({ "messages": [{ "role": "user", "content": "Hello" }], "model": "gpt-5-nano", "stream": true });
    let reply = server.chat(request).await;
    assert!(reply.chunks().iter().all(|chunk| chunk.get("usage").is_none() && chunk["obfuscation"].is_string()));
    if let Some(recorded) = recording("chat_stream_no-usage", "response.body.sse") {
        assert_eq!(squeezed(shapes(reply.text())), squeezed(shapes(&recorded)));
    }
}

#[tokio::test]
async fn whole_answers_have_the_recorded_keys_in_order() {
    let server = Running::default().await;
    for name in ["chat-audio-in-out_nonstream_gpt-audio-1.5_pcm16", "chat_nonstream_cache-read_4o"] {
        let (Some(request), Some(recorded)) =
            (recording(name, "request.body.json"), recording(name, "response.body.json"))
        else {
            continue;
        };
        let reply = server.post(&request).send().await;
        assert_eq!(shape(reply.text()), shape(recorded.trim()), "{name}");
    }
}

#[tokio::test]
async fn tool_calls_are_streamed_as_recorded() {
    let server = Running::default().await;
    let tool = json!({ "type": "function", "function": { "name": "get_current_weather", "parameters": {
        "type": "object", "properties": { "location": { "type": "string" } }, "required": ["location"] } } });
    let request = json!({
        "messages": [{ "role": "user", "content": "What is the weather in Paris and London?" }], "model": "gpt-4o",
        "tools": [tool], "stream": true, "stream_options": { "include_usage": true }
    });
    let chunks = server.chat(request.clone()).await.chunks();
    let first = &chunks[0]["choices"][0]["delta"];
    assert_eq!((&first["role"], &first["content"]), (&json!("assistant"), &json!(null)));
    assert_eq!(first["tool_calls"][0]["function"], json!({ "name": "get_current_weather", "arguments": "" }));
    let mut arguments = [String::new(), String::new()];
    for call in chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0)) {
        let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
        arguments[index].push_str(call["function"]["arguments"].as_str().unwrap());
    }
    assert_eq!(arguments, [r#"{"location":"simulated"}"#; 2]);
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "tool_calls");

    let mut whole = request;
    whole["stream"] = json!(false);
    whole.as_object_mut().unwrap().remove("stream_options");
    whole["parallel_tool_calls"] = json!(false);
    let reply = server.chat(whole).await;
    let expected = r#""message":{"role":s,"content":null,"tool_calls":[{"id":s,"type":s,"function":{"name":s,"arguments":s}}],"refusal":null,"annotations":[]}"#;
    assert!(shape(reply.text()).contains(expected), "{}", reply.text());
}

#[tokio::test]
async fn models_are_listed_and_found_in_the_recorded_shape() {
    let server = Running::default().await;
    let list = server.get("/v1/models").send().await.json();
    assert_eq!(list["object"], "list");
    assert!(list["data"].as_array().unwrap().iter().any(|model| model["id"] == "gpt-4o-mini-audio-preview"));
    let one = server.get("/v1/models/gpt-4o-mini").send().await;
    assert_eq!(one.text(), r#"{"id":"gpt-4o-mini","object":"model","created":1721172741,"owned_by":"system"}"#);
}

#[tokio::test]
async fn responses_carry_the_recorded_headers() {
    let server = Running::default().await;
    let reply =
        server.chat(json!({ "messages": [{ "role": "user", "content": "12345678" }], "model": "gpt-4o" })).await;
    let id = reply.header("x-request-id").unwrap();
    assert!(id.starts_with("req_") && id.len() == 36);
    // Two tokens of text, one message, one choice.
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), Some("149999996"));
    for name in ["openai-processing-ms", "openai-version", "openai-organization", "x-ratelimit-reset-requests", "date"]
    {
        assert!(reply.header(name).is_some(), "{name}");
    }
}
