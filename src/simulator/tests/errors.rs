//! Refusals in `OpenAI`'s words.

use serde_json::{Value, json};

use super::{Running, recording};

fn spoken(model: &str, format: &str) -> Value {
    json!({
        "messages": [{ "role": "user", "content": "Speak." }], "model": model,
        "modalities": ["text", "audio"], "audio": { "voice": "alloy", "format": format }
    })
}

fn with(mut request: Value, path: &str, value: Value) -> Value {
    match path.rsplit_once('/') {
        Some((parent, key)) => request.pointer_mut(parent).unwrap()[key] = value,
        None => request[path] = value,
    }
    request
}

#[tokio::test]
async fn invalid_requests_are_refused_with_param_and_code() {
    let server = Running::default().await;
    let text = || json!({ "messages": [{ "role": "user", "content": "Hi" }], "model": "gpt-4o-mini" });
    let audio = || spoken("gpt-4o-mini-audio-preview", "wav");
    let clip = |data: &str, format: &str| {
        let part = json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } });
        json!([{ "role": "user", "content": [part] }])
    };
    let cases = [
        (with(text(), "messages", json!([])), "messages", "empty_array"),
        (with(text(), "messages", json!(null)), "messages", "missing_required_parameter"),
        (with(text(), "messages", json!([{ "content": "x" }])), "messages[0].role", "missing_required_parameter"),
        (
            with(text(), "messages", json!([{ "role": "user", "content": [{ "text": "x" }] }])),
            "messages[0].content[0].type",
            "missing_required_parameter",
        ),
        (with(text(), "model", json!("gpt-audio-mini")), "model", "invalid_value"),
        (with(text(), "modalities", json!(["text"])), "modalities", "unknown_parameter"),
        (with(text(), "messages", clip("UklGRg==", "wav")), "messages[0]", "invalid_value"),
        (with(with(text(), "model", json!("o3-mini")), "max_tokens", json!(5)), "max_tokens", "unsupported_parameter"),
        (with(text(), "max_tokens", json!(0)), "max_tokens", "integer_below_min_value"),
        (with(text(), "n", json!(129)), "n", "integer_above_max_value"),
        (with(audio(), "stream", json!(true)), "audio.format", "unsupported_value"),
        (with(audio(), "/audio/voice", json!("bob")), "audio.voice", "invalid_value"),
        (with(audio(), "/audio/format", json!("ogg")), "audio.format", "invalid_value"),
        (with(audio(), "/audio", json!({ "voice": "ash" })), "audio.format", "missing_required_parameter"),
        (with(audio(), "audio", json!(null)), "audio", "missing_required_parameter"),
        (with(audio(), "messages", clip("not base64!", "wav")), "messages", "unsupported_format"),
        (with(audio(), "messages", clip("AAAA", "mp3")), "messages", "unsupported_format"),
    ];
    for (request, param, code) in cases {
        let reply = server.chat(request.clone()).await;
        assert_eq!(reply.status, 400, "{request}");
        let error = &reply.json()["error"];
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!(code)), "{request}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(reply.header("x-ratelimit-remaining-tokens").is_some());
    }
}

#[tokio::test]
async fn refusals_say_what_openai_says() {
    let server = Running::default().await;
    let text = || json!({ "messages": [{ "role": "user", "content": "Hi" }], "model": "gpt-4o-mini" });
    let cases = [
        (
            with(spoken("gpt-audio-1.5", "wav"), "stream", json!(true)),
            "Unsupported value: 'audio.format' does not support 'wav' when stream=true. Supported values are: 'pcm16'.",
        ),
        (
            with(spoken("gpt-audio-1.5", "wav"), "/audio/voice", json!("xxx")),
            "Invalid value: 'xxx'. Supported values are: 'alloy', 'echo', 'fable', 'onyx', 'nova', 'shimmer', 'coral', 'verse', 'ballad', 'ash', 'sage', 'marin', and 'cedar'.",
        ),
        (
            with(spoken("gpt-audio-1.5", "wav"), "response_format", json!({ "type": "json_schema" })),
            "'response_format' of type 'json_schema' is not supported with this model",
        ),
        (
            with(text(), "stream_options", json!({ "include_usage": true })),
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        ),
        (with(text(), "service_tier", json!("gold")), "Invalid service_tier argument"),
        (with(text(), "model", json!(null)), "you must provide a model parameter"),
    ];
    for (request, message) in cases {
        assert_eq!(server.chat(request).await.json()["error"]["message"], message);
    }
    let broken = server.post("{\"model\":").send().await;
    assert!(broken.json()["error"]["message"].as_str().unwrap().starts_with("We could not parse the JSON body"));
    let mistyped = server.post(r#"{"model":"gpt-4o","messages":"hi"}"#).send().await;
    assert_eq!(mistyped.json()["error"]["code"], "invalid_type");
}

#[tokio::test]
async fn recorded_errors_are_answered_as_recorded() {
    let server = Running::default().await;
    for name in ["error-400_empty-array", "error-400_missing-required-parameter"] {
        let (Some(request), Some(answer)) =
            (recording(name, "request.body.json"), recording(name, "response.body.json"))
        else {
            continue;
        };
        let recorded: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(server.post(&request).send().await.json(), recorded, "{name}");
    }
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_refused_without_limits() {
    let server = Running::default().await;
    let none = server.post("{}").without_key().send().await;
    assert_eq!((none.status, &none.json()["error"]["code"]), (401, &Value::Null));
    let wrong = server.post("{}").without_key().header("authorization: Bearer sk-wrong-1234567890").send().await;
    assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    assert!(!wrong.text().contains("1234567890"));
    assert_eq!(wrong.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(wrong.header("x-ratelimit-limit-tokens"), None);
}

#[tokio::test]
async fn unknown_models_urls_and_methods_are_refused() {
    let server = Running::default().await;
    let unknown = server.post(r#"{"model":"no-such-model","messages":[{"role":"user","content":"x"}]}"#).send().await;
    assert_eq!(unknown.status, 404);
    assert_eq!(
        unknown.json()["error"]["message"],
        "The model `no-such-model` does not exist or you do not have access to it."
    );
    let model = server.get("/v1/models/fake_id").send().await;
    assert_eq!((model.status, &model.json()["error"]["param"]), (404, &json!("model")));
    assert_eq!(server.get("/v1/nothing").send().await.json()["error"]["message"], "Invalid URL (GET /v1/nothing)");
    assert_eq!(server.get("/v1/chat/completions").send().await.status, 405);
}

#[tokio::test]
async fn compressed_and_oversized_bodies_are_refused() {
    let server = Running::default().await;
    let request = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(server.post(&request).header("content-encoding: gzip").send().await.status, 415);
    // Announced, never sent: the answer does not wait for it.
    let mut stream = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 67108865\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}
