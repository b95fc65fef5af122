//! Keys, prompts and audio leave no trace: not on the disk, not in the log, not in metrics, not in answers.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{
    stand_in::{Canned, StandIn},
    support::{ADMIN_KEY, Gateway, MODEL, Reply, TEXT_MODEL, spoken, text, with},
};

const UPSTREAM_KEY: &str = "sk-upstream-canary-key";
const PROMPT: &str = "the-prompt-canary-4711";
const AUDIO: &str = "UklGRsecretsecretsecret";
const ANSWER: &str = "the-answer-canary-4712";

/// Takes what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// Fails when `text` holds one of `secrets`.
fn scan(place: &str, text: &[u8], secrets: &[(&str, &str)]) {
    for (name, secret) in secrets {
        assert!(memchr::memmem::find(text, secret.as_bytes()).is_none(), "{place} holds the {name}");
    }
}

/// Good requests, refused ones, failing ones, as streams and whole, with everything that must not be kept.
async fn life_of_a_gateway(gateway: &Gateway, key: &str) -> Vec<Reply> {
    let team = gateway.bearer(key);
    let prompt = text(TEXT_MODEL, PROMPT);
    let clip = json!([
        {"type": "text", "text": PROMPT},
        {"type": "input_audio", "input_audio": {"data": AUDIO, "format": "wav"}},
    ]);
    let audio = with(spoken("wav"), &json!({"messages": [{"role": "user", "content": clip}], "user": PROMPT}));
    let stream = with(prompt.clone(), &json!({"stream": true}));
    let mut replies = vec![
        team.chat(&prompt).await,
        team.chat(&audio).await,
        team.chat(&stream).await,
        team.chat(&with(prompt.clone(), &json!({"n": "x"}))).await,
        team.chat(&text("no-such-model", PROMPT)).await,
        team.post_bytes("/v1/chat/completions", &[], format!("{{\"model\":\"{PROMPT}")).await,
        team.get(&format!("/v1/models/{MODEL}?api_key={key}")).await,
        gateway.bearer(&format!("{key}x")).chat(&prompt).await,
        gateway.bearer(ADMIN_KEY).chat(&prompt).await,
        gateway.stranger().chat(&prompt).await,
        gateway.stranger().get("/health").await,
    ];
    let admin = gateway.admin();
    for path in ["/metrics", "/v1/organization/projects", "/v1/organization/costs?start_time=1789000000&limit=180"] {
        replies.push(admin.get(path).await);
    }
    replies
}

#[tokio::test]
async fn nothing_secret_is_written_down_logged_or_answered() {
    // The gateway's threads log where the thread does that starts it.
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _logging = subscriber.finish().set_default();

    let upstream = StandIn::start().await;
    let answer =
        json!({"model": "gpt-4o-mini-2024-07-18", "choices": [{"message": {"content": ANSWER}}], "usage": null});
    let clock = tollgate::clock::Clock::system();
    let mut gateway = Gateway::start_before(&upstream.url, upstream.stop.clone(), clock, |_| {}).await;
    let key = gateway.project("tier1").await.key.unwrap();
    let secrets = [
        ("upstream key", UPSTREAM_KEY),
        ("API key", &key[20..]),
        ("admin key", ADMIN_KEY),
        ("prompt", PROMPT),
        ("audio", AUDIO),
        ("answer", ANSWER),
    ];
    let mut replies = Vec::new();
    let refusal = format!(r#"{{"error":{{"message":"Incorrect API key provided: {UPSTREAM_KEY}","type":"t"}}}}"#);
    for answer in [
        Canned::json(answer.to_string()),
        Canned::json(format!("{ANSWER} is not JSON")),
        Canned::events(format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{ANSWER}\"}}}}]}}\n\n")),
        Canned { status: 401, ..Canned::json(refusal.clone()) },
        Canned { status: 500, ..Canned::json(format!("{ANSWER} broke")) },
    ] {
        upstream.answer_with(answer);
        replies.extend(life_of_a_gateway(&gateway, &key).await);
    }
    assert!(gateway.ledger().await.len() >= 10);

    // Only what the upstream answered may say what it answered; the model's name comes back in the refusal of it.
    for reply in &replies {
        let whole = format!("{} {:?} {}", reply.status, reply.headers, reply.text());
        scan(&whole, whole.as_bytes(), &secrets[..5]);
    }
    let mut kept = Vec::new();
    files(gateway.dir.path(), &mut kept);
    gateway.stop().await;
    files(gateway.dir.path(), &mut kept);
    assert!(kept.len() >= 4 && kept.iter().any(|(name, _)| name.ends_with("tollgate.db")), "{:?}", kept.len());
    for (name, content) in &kept {
        scan(name, content, &secrets);
    }
    let log = log.0.lock().unwrap().clone();
    assert!(memchr::memmem::find(&log, b"the upstream refused or failed").is_some(), "nothing was logged");
    scan("the log", &log, &secrets);
}
