//! The arithmetic of usage.

use serde_json::{Value, json};

use super::{Running, recording};

fn asked(model: &str, text: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": text }], "model": model })
}

#[tokio::test]
async fn recorded_audio_requests_cost_the_recorded_audio_tokens() {
    let server = Running::default().await;
    for name in [
        "chat-audio-in-out_nonstream_4o-preview_2025-09",
        "chat-audio-in-out_nonstream_gpt-audio-1.5_pcm16",
        "chat-audio-in_nonstream_4o-preview_mp3",
        "chat-audio-in_nonstream_4o-preview_wav",
        "chat-audio-in_nonstream_4o-preview_wav-7s",
        "chat-audio-in_nonstream_gpt-audio-mini_mp3",
    ] {
        let (Some(request), Some(answer)) =
            (recording(name, "request.body.json"), recording(name, "response.body.json"))
        else {
            continue;
        };
        let recorded: Value = serde_json::from_str(&answer).unwrap();
        let ours = server.post(&request).send().await.json();
        let audio = |answer: &Value| answer["usage"]["prompt_tokens_details"]["audio_tokens"].clone();
        assert_eq!(audio(&ours), audio(&recorded), "{name}");
    }
}

#[tokio::test]
async fn totals_are_sums_of_their_parts() {
    let server = Running::default().await;
    let mut request = asked("gpt-4o-mini-audio-preview", "12345");
    request["modalities"] = json!(["text", "audio"]);
    request["audio"] = json!({ "voice": "alloy", "format": "wav" });
    request["n"] = json!(3);
    let usage = server.chat(request).await.json()["usage"].clone();
    let number = |path: &str| usage.pointer(path).unwrap().as_u64().unwrap();
    assert_eq!(number("/prompt_tokens"), 2 + 4);
    let prompt = ["text", "audio", "image"].map(|part| number(&format!("/prompt_tokens_details/{part}_tokens")));
    assert_eq!(prompt.iter().sum::<u64>(), number("/prompt_tokens"));
    let completion = ["text", "audio"].map(|part| number(&format!("/completion_tokens_details/{part}_tokens")));
    assert_eq!(completion, [3 * 4, 3 * 40]);
    assert_eq!(completion.iter().sum::<u64>(), number("/completion_tokens"));
    assert_eq!(number("/total_tokens"), number("/prompt_tokens") + number("/completion_tokens"));
}

#[tokio::test]
async fn each_word_is_a_token_and_max_tokens_cuts() {
    let server = Running::default().await;
    let mut request = asked("gpt-4o-mini", "Hi");
    for (max, tokens, finish) in [(5, 5, "length"), (16, 16, "stop"), (500, 16, "stop")] {
        request["max_tokens"] = json!(max);
        let json = server.chat(request.clone()).await.json();
        assert_eq!(json["model"], "gpt-4o-mini-2024-07-18");
        assert_eq!(json["usage"]["completion_tokens"], tokens);
        assert_eq!(json["choices"][0]["finish_reason"], finish);
    }
    request["max_tokens"] = json!(5);
    let text = server.chat(request).await.json()["choices"][0]["message"]["content"].clone();
    assert_eq!(text, "This answer comes from the");
}

#[tokio::test]
async fn thinking_is_inside_the_completion_and_its_maximum() {
    let server = Running::default().await;
    let mut request = asked("o3-mini", "Hi");
    for (max, reasoning, completion) in [(1_000, 64, 80), (70, 64, 70), (10, 10, 10)] {
        request["max_completion_tokens"] = json!(max);
        let usage = server.chat(request.clone()).await.json()["usage"].clone();
        assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], reasoning);
        assert_eq!(usage["completion_tokens"], completion);
    }
}

#[tokio::test]
async fn a_long_prompt_with_a_cache_key_is_cached_in_steps() {
    let server = Running::default().await;
    let mut request = asked("gpt-4o", &"word ".repeat(1_000));
    let cached = |json: Value| json["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    assert_eq!(cached(server.chat(request.clone()).await.json()), 0);
    request["prompt_cache_key"] = json!("again");
    assert_eq!(cached(server.chat(request.clone()).await.json()), 1_250 / 128 * 128);
    let wished = server.post(&request).header("x-simulate: cached=7").send().await;
    assert_eq!(cached(wished.json()), 7);
}

#[tokio::test]
async fn json_mode_answers_json_and_schemas_are_followed() {
    let server = Running::default().await;
    let mut request = asked("gpt-4o-mini", "Hi");
    request["response_format"] = json!({ "type": "json_object" });
    let content = |json: Value| json["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let text = content(server.chat(request.clone()).await.json());
    assert!(serde_json::from_str::<Value>(&text).unwrap()["answer"].is_string());

    let schema = json!({ "type": "object", "properties": {
        "kind": { "enum": ["a", "b"] }, "list": { "type": "array", "items": { "$ref": "#/$defs/item" } } },
        "$defs": { "item": { "type": ["integer", "null"], "minimum": 3 } } });
    request["response_format"] = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    let text = content(server.chat(request).await.json());
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ "kind": "a", "list": [3] }));
}

#[tokio::test]
async fn the_served_tier_is_echoed_as_openai_does() {
    let server = Running::default().await;
    for (wanted, served) in
        [("auto", "default"), ("default", "default"), ("flex", "flex"), ("priority", "priority"), ("fast", "priority")]
    {
        let mut request = asked("gpt-4o-mini", "Hi");
        request["service_tier"] = json!(wanted);
        assert_eq!(server.chat(request).await.json()["service_tier"], served);
    }
}

#[tokio::test]
async fn all_choices_are_answered_and_billed_in_streams_too() {
    let server = Running::default().await;
    let mut request = asked("gpt-4o-mini", "Hi");
    request["n"] = json!(2);
    request["stream"] = json!(true);
    request["stream_options"] = json!({ "include_usage": true });
    let chunks = server.chat(request).await.chunks();
    for index in 0..2 {
        let own = chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index);
        // Role, 16 words, finish.
        assert_eq!(own.count(), 18);
    }
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 32);
}
