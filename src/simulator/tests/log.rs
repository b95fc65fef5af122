//! The log is what crash tests believe.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{CHAT, running};
use crate::simulator::Options;

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_request_is_on_disk_before_its_answer_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("received.jsonl");
    // The answer would take a minute; the line is there at once.
    let options = Options { log: Some(path.clone()), delay: Duration::from_mins(1), ..Options::default() };
    let server = running(options).await;
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"12345678"}]}"#;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nx-client-request-id: req_1\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let found = async {
        while lines(&path).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.unwrap();
    let line = &lines(&path)[0];
    assert_eq!((&line["request_id"], &line["path"], &line["method"]), (&json!("req_1"), &json!(CHAT), &json!("POST")));
    assert_eq!((&line["model"], &line["stream"], &line["status"]), (&json!("gpt-4o-mini"), &json!(false), &json!(200)));
    let usage = &line["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"], &usage["total_tokens"]),
        (&json!(6), &json!(16), &json!(22))
    );
    assert_eq!((&usage["prompt_text_tokens"], &usage["completion_audio_tokens"]), (&json!(6), &json!(0)));
    assert!(line["time_ms"].as_u64().unwrap() > 1_700_000_000_000);
}

#[tokio::test]
async fn each_request_has_a_line_and_only_reported_usage_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("received.jsonl");
    let server = running(Options { log: Some(path.clone()), ..Options::default() }).await;
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "model": "gpt-4o", "stream": true,
        "stream_options": { "include_usage": true } });
    for (wish, reported) in [("usage-groq", true), ("no-usage", false), ("cut-event", false), ("429", false)] {
        let before = lines(&path).len();
        server.post(&body).header(&format!("x-simulate: {wish}")).send().await;
        let line = lines(&path).pop().unwrap();
        assert_eq!(lines(&path).len(), before + 1);
        assert_eq!((&line["fault"], line["usage"].is_object()), (&json!(wish), reported));
    }
    server.post(&body).header("x-simulate: reset").send().await;
    assert_eq!(lines(&path).pop().unwrap()["status"], Value::Null);
    server.post("not json").without_key().send().await;
    server.get("/v1/models").send().await;
    let last = lines(&path).pop().unwrap();
    assert_eq!((&last["request_id"], &last["model"], &last["status"]), (&Value::Null, &Value::Null, &json!(200)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lines_of_concurrent_requests_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("received.jsonl");
    let server = running(Options { log: Some(path.clone()), ..Options::default() }).await;
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "model": "gpt-4o" });
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..40 {
        asked.spawn(server.post(&body).header(&format!("x-client-request-id: req_{number}")).send());
    }
    assert!(asked.join_all().await.iter().all(|reply| reply.status == 200));
    let mut ids: Vec<String> =
        lines(&path).iter().map(|line| line["request_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}
