//! What the upstream says went wrong: who is told what, and what it costs.

use serde_json::{Value, json};

use crate::{
    scripted::{DONE, Scripted, answer, finish, streamed, word},
    support::{Reply, Row, TEXT_MODEL, text, with},
};

const ERROR: &str =
    r#"{"error":{"message":"The server is on fire.","type":"server_error","param":null,"code":"burning"}}"#;

/// What the caller gets and what the books say.
async fn answered(steps: Vec<crate::scripted::Step>, body: &Value) -> (Reply, Row) {
    let upstream = Scripted::playing(steps).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    let reply = team.chat(body).await;
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), upstream.requests().len()), (1, 1));
    (reply, rows[0].clone())
}

fn whole() -> Value {
    text(TEXT_MODEL, "Hi")
}

fn stream() -> Value {
    with(whole(), &json!({"stream": true}))
}

fn costs_nothing(row: &Row) {
    assert_eq!((row.outcome.as_str(), row.input_text, row.output_text), ("upstream_failed", 0, 0));
    assert_eq!(row.cost_pico, Some(0));
}

#[tokio::test]
async fn an_error_in_place_of_an_answer_is_no_200_and_costs_nothing() {
    for (body, message, code) in [
        (ERROR, "The server is on fire.", json!("burning")),
        (r#"{"error":"no words"}"#, "no words", json!(null)),
        (r#"{"id":"x","error":{"message":"many","code":429},"choices":[]}"#, "many", json!("429")),
    ] {
        let (reply, row) = answered(vec![answer("200 OK", "application/json", body)], &whole()).await;
        assert_eq!(reply.status, 502, "{body}");
        let expected = json!({"message": message, "type": "server_error", "param": null, "code": code});
        assert_eq!(reply.json(), json!({"error": expected}));
        assert_eq!(row.status, 502);
        costs_nothing(&row);
    }
    let about_our_key = r#"{"error":{"message":"Incorrect API key: sk-ours","code":"invalid_api_key"}}"#;
    let (reply, row) = answered(vec![answer("200 OK", "application/json", about_our_key)], &whole()).await;
    assert_eq!((reply.error()["code"].as_str(), reply.text().contains("sk-")), (Some("upstream_auth_error"), false));
    costs_nothing(&row);
}

#[tokio::test]
async fn an_error_beside_an_answer_leaves_the_answer() {
    let body = r#"{"choices":[{"index":0,"message":{"content":"12345678"}}],"error":{"message":"cut"}}"#;
    let (reply, row) = answered(vec![answer("200 OK", "application/json", body)], &whole()).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, body.to_owned()));
    assert_eq!((row.outcome.as_str(), row.basis.as_str(), row.output_text), ("upstream_failed", "estimated", 2));
}

#[tokio::test]
async fn a_stream_that_begins_with_its_error_costs_nothing() {
    let error = format!("data: {ERROR}\n\n");
    let role = r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}"#;
    let role = format!("{role}\n\n");
    for events in [vec![error.clone()], vec![error.clone(), DONE.to_owned()], vec![role, error.clone()]] {
        let (reply, row) = answered(streamed(&events), &stream()).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, events.concat()));
        costs_nothing(&row);
    }
    let (_, row) = answered(streamed(&[word("one"), error]), &stream()).await;
    assert_eq!((row.outcome.as_str(), row.output_text), ("upstream_failed", 1));
    assert!(row.input_text > 0, "what was delivered is charged");
}

#[tokio::test]
async fn what_will_not_change_is_not_worth_another_try() {
    let error = |code: &str| json!({"error": {"message": "proj_ours is not allowed", "code": code}}).to_string();
    let cases = [
        (answer("401 Unauthorized", "application/json", &error("invalid_api_key")), "upstream_auth_error"),
        (answer("403 Forbidden", "application/json", &error("other")), "upstream_auth_error"),
        (answer("403 Forbidden", "text/html", "<html>"), "upstream_auth_error"),
        (answer("403 Forbidden", "application/json", &error("model_not_found")), "upstream_model_access"),
        (
            answer("403 Forbidden", "application/json", &error("unsupported_country_region_territory")),
            "upstream_region_unsupported",
        ),
        (answer("302 Found", "text/html", ""), "upstream_redirect"),
    ];
    for (step, code) in cases {
        for body in [whole(), stream()] {
            let (reply, row) = answered(vec![step.clone()], &body).await;
            assert_eq!((reply.status.as_u16(), reply.error()["code"].as_str()), (502, Some(code)));
            assert_eq!(reply.header("x-should-retry"), "false", "{code}");
            assert!(!reply.text().contains("ours"), "{}", reply.text());
            costs_nothing(&row);
        }
    }
}

#[tokio::test]
async fn a_usage_chunk_without_choices_is_hidden_too() {
    let usage = r#""usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}"#;
    let told = |members: &str| format!("data: {{{members}{usage}}}\n\n");
    for members in ["", r#""choices":null,"#, r#""id":"x","object":"chat.completion.chunk","choices": [ ],"#] {
        let events = [word("one"), finish(), told(members), DONE.to_owned()];
        let (reply, row) = answered(streamed(&events), &stream()).await;
        assert_eq!(reply.text(), [word("one"), finish(), DONE.to_owned()].concat(), "{members}");
        assert_eq!((row.basis.as_str(), row.input_text, row.output_text), ("reported", 5, 1));
        let asked = with(stream(), &json!({"stream_options": {"include_usage": true}}));
        assert_eq!(answered(streamed(&events), &asked).await.0.text(), events.concat(), "{members}");
    }
    let events = [word("one"), finish(), told(r#""citations":["x"],"#), DONE.to_owned()];
    assert_eq!(answered(streamed(&events), &stream()).await.0.text(), events.concat(), "it says more than usage");
}

#[tokio::test]
async fn a_model_that_does_not_chat_is_refused_before_anything_is_sent() {
    let upstream = Scripted::playing(vec![answer("200 OK", "application/json", "{}")]).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    for model in ["babbage-002", "tts-1", "whisper-1"] {
        let reply = team.chat(&text(model, "Hi")).await;
        assert_eq!(reply.status, 404, "{}", reply.text());
        let error = reply.error();
        assert!(error["message"].as_str().unwrap().starts_with("This is not a chat model"), "{error}");
        assert_eq!((error["type"].as_str(), error["param"].as_str()), (Some("invalid_request_error"), Some("model")));
        assert!(error["code"].is_null());
    }
    assert_eq!((upstream.requests().len(), gateway.ledger().await.len()), (0, 0));
}
