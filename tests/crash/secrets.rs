//! The real program at its most talkative: whatever it is sent, a line of its log is one short event, and nothing that it
//! leaves behind or shows holds a secret.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    client::{exchange, get, request},
    process::{ADMIN_KEY, Gateway, Key, LookAlike, Setup},
};

const UPSTREAM_KEY: &str = "sk-the-upstream-canary-0123456789";
const PEPPER: &str = "the-pepper-canary-0123456789-0123456789";
const WEBHOOK_SECRET: &str = "whsec_dGhlLWNhbmFyeS1vZi10aGUtd2ViaG9va3M=";
const PROMPT: &str = "the-prompt-canary-4711";
const AUDIO: &str = "UklGRtheaudiocanary4711";
const CHAT: &str = "/v1/chat/completions";

fn setup(dir: &Path, upstream: &LookAlike, format: &str) -> Setup {
    Setup::new(dir, upstream)
        .with("UPSTREAM_KEY", UPSTREAM_KEY)
        .with("PEPPER", PEPPER)
        .with("BUDGET_WEBHOOK_URL", "http://127.0.0.1:9/")
        .with("BUDGET_WEBHOOK_SECRET", WEBHOOK_SECRET)
        .with("LOG_LEVEL", "trace")
        .with("LOG_FORMAT", format)
}

fn secrets<'a>(key: &'a Key, hash: &'a str) -> [(&'static str, &'a str); 9] {
    [
        ("upstream key", UPSTREAM_KEY),
        ("API key", &key.plain[20..]),
        ("hash of the API key", hash),
        ("admin key", ADMIN_KEY),
        ("pepper", PEPPER),
        ("webhook secret", WEBHOOK_SECRET),
        ("webhook secret without its prefix", &WEBHOOK_SECRET[6..]),
        ("prompt", PROMPT),
        ("audio", AUDIO),
    ]
}

/// Which secrets are in `content`.
fn found(content: &[u8], secrets: &[(&'static str, &str)]) -> Vec<&'static str> {
    let holds = |secret: &str| content.windows(secret.len()).any(|window| window == secret.as_bytes());
    secrets.iter().filter(|(_, secret)| holds(secret)).map(|(name, _)| *name).collect()
}

/// Every file below `folder` with what it holds.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            files.extend(self::files(&path));
        } else if kind.is_file() {
            files.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    files
}

fn text(words: &str) -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": words}]})
}

/// What would break out of a line, a terminal or a reader's patience.
fn odd_requests(key: &str) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    let long = "x".repeat(1 << 20);
    for odd in ["\u{1b}[31mred\u{1b}[0m", "a\u{2028}b\u{2029}c", "\u{85}\u{200f}\u{202e}", "a\tb", &long] {
        requests.push(request("POST", CHAT, key, &[("user-agent", odd)], &text("Hi").to_string()));
        requests.push(request("POST", CHAT, key, &[("x-request-id", odd)], &text("Hi").to_string()));
        requests.push(request("GET", &format!("/v1/models/{odd}"), key, &[], ""));
        requests.push(request("POST", CHAT, &format!("sk-{odd}"), &[], "{}"));
        requests.push(request(
            "POST",
            CHAT,
            key,
            &[],
            &json!({"model": odd, "messages": [{"role": "user", "content": "Hi"}]}).to_string(),
        ));
    }
    for model in
        ["a\nERROR forged", "a\r\n2026-01-01T00:00:00Z ERROR forged", "a\u{1b}[2Jb", "a\u{2028}forged", "\u{202e}b"]
    {
        requests.push(request(
            "POST",
            CHAT,
            key,
            &[],
            &json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).to_string(),
        ));
    }
    requests.push(b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx-a: b\nERROR forged\r\nconnection: close\r\n\r\n".to_vec());
    requests
}

/// Good requests, wrong ones, and ones that the upstream fails, with everything in them that is not to be kept.
async fn life(gateway: &Gateway, key: &Key) -> Vec<(String, String)> {
    let clip = json!([{"type": "text", "text": PROMPT}, {"type": "input_audio", "input_audio": {"data": AUDIO, "format": "wav"}}]);
    let heard =
        json!({"model": "gpt-4o-mini-audio-preview", "messages": [{"role": "user", "content": clip}], "user": PROMPT});
    let body = text(PROMPT).to_string();
    let mut stream = text(PROMPT);
    stream["stream"] = json!(true);
    let chat = |body: &str, headers: &[(&str, &str)]| request("POST", CHAT, &key.plain, headers, body);
    let mut requests = vec![
        chat(&body, &[]),
        chat(&heard.to_string(), &[]),
        chat(&stream.to_string(), &[]),
        chat(&body[..body.len() - 2], &[]),
        chat(&body, &[("x-api-key", "sk-other")]),
        request("POST", CHAT, &format!("{}x", key.plain), &[], &body),
        request("POST", CHAT, ADMIN_KEY, &[], &body),
        request("GET", &format!("/v1/models?api_key={}", key.plain), "", &[], ""),
        request("GET", &format!("/v1/models/{}", key.plain), &key.plain, &[], ""),
    ];
    for fault in ["401", "429", "500", "503", "garbage", "html", "redirect", "cut-body", "reset", "error-event"] {
        requests.push(chat(&body, &[("x-simulate", fault)]));
        requests.push(chat(&stream.to_string(), &[("x-simulate", fault)]));
    }
    requests.extend(odd_requests(&key.plain));
    let mut shown = Vec::new();
    for request in requests {
        let what = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        // Some of these are cut off without an answer.
        if let Ok(answer) = exchange(gateway.calls, &request).await {
            shown.push((what, format!("{answer:?} {}", answer.text())));
        }
    }
    for path in [
        "/metrics",
        "/health",
        "/v1/organization/projects",
        "/v1/organization/requests?limit=100",
        "/v1/organization/audit_logs",
    ] {
        shown.push((path.to_owned(), get(gateway.admin, path, ADMIN_KEY).await.unwrap().text()));
    }
    gateway.caught_up().await;
    let arguments = fs::read(format!("/proc/{}/cmdline", gateway.process_id())).unwrap_or_default();
    shown.push(("its arguments".to_owned(), String::from_utf8_lossy(&arguments).into_owned()));
    shown.push(("its screen".to_owned(), gateway.screen()));
    shown
}

/// One event per line, short, and in characters that do nothing to a terminal.
fn assert_plain(log: &str, format: &str) {
    for line in log.lines() {
        // A statement of the database is our own text, as long as it is.
        assert!(line.len() <= 8_192 || line.contains("db.statement"), "{} bytes: {line}", line.len());
        assert!(!line.chars().any(|c| c.is_control() || ['\u{2028}', '\u{2029}', '\u{202e}'].contains(&c)), "{line:?}");
        if format == "json" {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
            assert!(event["level"].is_string() && event["timestamp"].is_string(), "{line}");
        } else {
            assert!(line.starts_with("20") && line.contains('Z'), "does not begin with a time: {line}");
        }
    }
}

#[tokio::test]
async fn nothing_that_the_program_leaves_behind_holds_a_secret_and_its_log_cannot_be_forged() {
    for format in ["json", "text"] {
        let dir = tempfile::tempdir().unwrap();
        let upstream = LookAlike::start(dir.path(), &[]);
        let setup = setup(dir.path(), &upstream, format);
        let mut gateway = setup.start();
        let key = gateway.new_key(&json!({})).await;
        let hash = hash_of(&setup, &key).await;
        let secrets = secrets(&key, &hash);
        for (what, shown) in life(&gateway, &key).await {
            // A model's name comes back to its sender, and with it nothing else.
            assert_eq!(found(shown.as_bytes(), &secrets), [""; 0], "{what}: {shown}");
        }
        // Killed, it leaves more behind than when it stops.
        gateway.kill();
        let mut kept = files(dir.path());
        setup.start().stop();
        kept.extend(files(dir.path()));
        for name in ["tollgate.db", "tollgate.db-wal", "data.log"] {
            assert!(kept.iter().any(|(path, content)| path.ends_with(name) && !content.is_empty()), "no {name}");
        }
        for (path, content) in &kept {
            assert_eq!(found(content, &secrets), [""; 0], "{path}");
        }
        let log = fs::read_to_string(setup.log()).unwrap();
        assert!(log.contains("DEBUG") && log.contains("the upstream refused or failed"), "{log}");
        assert_plain(&log, format);
        // The search finds what is there.
        fs::write(dir.path().join("planted"), format!("x{}y{}", secrets[1].1, secrets[7].1)).unwrap();
        let planted: Vec<_> = files(dir.path()).iter().flat_map(|(_, content)| found(content, &secrets)).collect();
        assert_eq!(planted, ["API key", "prompt"]);
    }
}

/// As one would write it down.
async fn hash_of(setup: &Setup, key: &Key) -> String {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(setup.ledger()).read_only(true);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let hash = sqlx::query_scalar("SELECT lower(hex(hash)) FROM api_keys WHERE id = ?").bind(&key.id);
    hash.fetch_one(&pool).await.unwrap()
}

#[test]
fn no_command_repeats_a_secret_that_it_cannot_use() {
    let dir = tempfile::tempdir().unwrap();
    let canary = "canary-4711";
    let long = format!("sk-{canary}-0123456789-0123456789-0123456789");
    let too_long = format!("{long}{}", "x".repeat(300));
    let free = "127.0.0.1:9";
    let upstream = ("TOLLGATE_UPSTREAM_KEY", &*long);
    // The last of the variables is the wrong one.
    for (words, env, named) in [
        (&["serve"] as &[&str], &[("TOLLGATE_PEPPER", canary)] as &[(&str, &str)], "TOLLGATE_PEPPER"),
        (&["serve"], &[("TOLLGATE_ADMIN_KEY", canary)], "TOLLGATE_ADMIN_KEY"),
        (&["serve"], &[upstream, ("TOLLGATE_ADMIN_KEY", &too_long)], "admin key"),
        (&["serve"], &[("TOLLGATE_UPSTREAM_KEY", "canary-4711\u{e9}\n")], "UPSTREAM_KEY"),
        (&["serve"], &[("TOLLGATE_UPSTREAM_URL", "http://user:canary-4711@127.0.0.1/v1")], "TOLLGATE_UPSTREAM_URL"),
        (
            &["serve"],
            &[("TOLLGATE_BUDGET_WEBHOOK_URL", "http://127.0.0.1:9/"), ("TOLLGATE_BUDGET_WEBHOOK_SECRET", canary)],
            "TOLLGATE_BUDGET_WEBHOOK_SECRET",
        ),
        (&["serve"], &[upstream, ("TOLLGATE_LISTEN", "nowhere")], "TOLLGATE_LISTEN"),
        (&["check"], &[upstream, ("TOLLGATE_ADMIN_KEY", &long), ("TOLLGATE_PEPPER", &long)], "upstream_key"),
        (&["check"], &[("TOLLGATE_PEPPER", canary)], "TOLLGATE_PEPPER"),
        (&["keys", "list"], &[("TOLLGATE_ADMIN_KEY", &long), ("TOLLGATE_ADMIN_LISTEN", free)], free),
        (&["explain", "req_0"], &[("TOLLGATE_ADMIN_KEY", &long), ("TOLLGATE_ADMIN_LISTEN", free)], "req_0"),
        (&["healthcheck"], &[("TOLLGATE_ADMIN_KEY", &long), ("TOLLGATE_LISTEN", free)], free),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let data = dir.path().join("data");
        command
            .args(words)
            .env_clear()
            .env("TOLLGATE_DATA_DIR", data)
            .envs(env.iter().copied())
            .current_dir(dir.path());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains("canary-4711"), "{words:?} {env:?}: {said}");
        assert!(said.contains(named), "{words:?} {env:?}: {said}");
        assert!(words != ["serve"] || !output.status.success(), "{env:?}: {said}");
    }
}
