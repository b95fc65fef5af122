//! What callers get when all is well.

use serde_json::json;

use crate::support::{Gateway, SNAPSHOT, TEXT_MODEL, spoken, text, with};

#[tokio::test]
async fn a_text_answer_is_passed_on_metered_and_priced() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let reply = team.say("Say hello.").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let usage = reply.json()["usage"].clone();
    let rows = gateway.ledger().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].request_id, reply.header("x-request-id"));
    assert_eq!((rows[0].outcome.as_str(), rows[0].basis.as_str(), rows[0].status), ("completed", "reported", 200));
    assert_eq!(
        (json!(rows[0].input_text), json!(rows[0].output_text)),
        (usage["prompt_tokens"].clone(), usage["completion_tokens"].clone())
    );
    assert_eq!(rows[0].cost_pico, Some(rows[0].input_text * 150_000 + rows[0].output_text * 600_000));
    assert_eq!(
        (rows[0].api_key_id.as_str(), rows[0].project_id.as_str()),
        (team.key_id.as_str(), team.project_id.as_str())
    );
}

#[tokio::test]
async fn a_spoken_answer_is_metered_as_audio() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let reply = team.chat(&spoken("wav")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let usage = reply.json()["usage"].clone();
    let rows = gateway.ledger().await;
    assert_eq!(json!(rows[0].output_audio), usage["completion_tokens_details"]["audio_tokens"]);
    assert_eq!(rows[0].model, SNAPSHOT);
    let expected = rows[0].input_text * 150_000 + rows[0].output_text * 600_000 + rows[0].output_audio * 20_000_000;
    assert_eq!(rows[0].cost_pico, Some(expected));
}

#[tokio::test]
async fn the_usage_chunk_is_seen_only_by_those_who_asked() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let plain = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
    let asking = with(plain.clone(), &json!({"stream_options": {"include_usage": true}}));
    let without = team.chat(&plain).await;
    let with_usage = team.chat(&asking).await;
    assert!(without.events().iter().all(|event| event["usage"].is_null()), "{}", without.text());
    assert!(without.text().ends_with("data: [DONE]\n\n"));
    let usage = with_usage.events().iter().find(|event| !event["usage"].is_null()).cloned().unwrap();
    assert_eq!(usage["choices"], json!([]));
    let rows = gateway.ledger().await;
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.basis == "reported" && row.stream == 1 && row.output_text > 0));
}
