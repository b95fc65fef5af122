//! What `kill -9` leaves of limits of audio, which remember what was used, and of those of what is under way, which forget.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    client::{Answer, exchange, open, request},
    ledger::{Ledger, Row, until_seen},
    load::{clip, heard},
    process::{Gateway, Key, LookAlike, Setup},
};

const MODEL: &str = "gpt-4o-mini-audio-preview";
/// The clock that the gateway keeps and ours may drift apart by as much, and a wait is rounded up to a millisecond.
const TOLERANCE: Duration = Duration::from_millis(20);

/// A clip of so many tenths of a second, which are as many tokens, and an answer in text.
fn hearing(tenths: u32) -> Value {
    json!({"model": MODEL, "modalities": ["text"], "messages": heard(&clip(tenths))})
}

/// An answer in sound: 200 tokens, 10 seconds, is the first guess at it.
fn speaking() -> Value {
    let messages = json!([{"role": "user", "content": "Say what you see."}]);
    json!({"model": MODEL, "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}, "messages": messages})
}

/// Both.
fn talking(tenths: u32) -> Value {
    let mut body = speaking();
    body["messages"] = heard(&clip(tenths));
    body
}

fn streaming(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

fn asking(key: &Key, wish: &str, body: &Value) -> Vec<u8> {
    request("POST", "/v1/chat/completions", &key.plain, &[("x-simulate", wish)], &body.to_string())
}

/// Between these times the gateway decided about a request.
#[derive(Clone, Copy)]
struct Decided {
    after: Instant,
    before: Instant,
}

struct Asked {
    answer: Answer,
    decided: Decided,
}

async fn ask(gateway: &Gateway, key: &Key, wish: &str, body: &Value) -> Asked {
    let after = Instant::now();
    let answer = exchange(gateway.calls, &asking(key, wish, body)).await.unwrap();
    Asked { answer, decided: Decided { after, before: Instant::now() } }
}

async fn hear(gateway: &Gateway, key: &Key, tenths: u32) -> Asked {
    ask(gateway, key, "", &hearing(tenths)).await
}

/// One that is never answered; it is at the upstream when this returns.
async fn hang(dir: &tempfile::TempDir, gateway: &Gateway, key: &Key, body: &Value, nth: usize) -> (TcpStream, Decided) {
    let after = Instant::now();
    let (connection, _) = open(gateway.calls, &asking(key, "hang", body), 0).await.unwrap();
    until_seen(dir, nth).await;
    (connection, Decided { after, before: Instant::now() })
}

impl Asked {
    fn passed(self) -> Decided {
        assert_eq!(self.answer.status, 200, "{}", self.answer.text());
        self.decided
    }

    /// It was refused with `words`, and told to wait for `wait`, less the time since `first` was decided about.
    fn was_refused(&self, words: &str, first: Decided, wait: Duration) {
        let text = self.answer.text();
        assert!(self.answer.status == 429 && text.contains(words), "{text}");
        let told = Duration::from_millis(self.answer.header("retry-after-ms").unwrap().parse().unwrap());
        let most = wait.saturating_sub(self.decided.after - first.before) + TOLERANCE;
        let least = wait.saturating_sub(self.decided.before - first.after + TOLERANCE);
        assert!(least <= told && told <= most, "told {told:?}, between {least:?} and {most:?} is right: {text}");
    }
}

/// Until so many units are there again, each of which takes `unit_ms`.
const fn until_back(units: u64, unit_ms: u64) -> Duration {
    Duration::from_millis(units * unit_ms)
}

#[tokio::test]
async fn audio_that_was_used_is_known_after_kill_9_to_the_token_and_to_the_tick() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    // One token comes back in a second. The guess takes all 60, of which 40 are said.
    let minute = gateway.new_key(&json!({"audio_tokens_per_minute": 60})).await;
    let first_of_minute = ask(&gateway, &minute, "audio-seconds=2", &speaking()).await.passed();
    hear(&gateway, &minute, 15).await.passed();
    // A day has 400 ticks, twentieths of a second, each of which comes back in 216 s: 93 are said and 138 heard.
    let day = gateway.new_key(&json!({"audio_seconds_per_day": 20})).await;
    let first_of_day = ask(&gateway, &day, "audio-seconds=4.65", &speaking()).await.passed();
    hear(&gateway, &day, 69).await.passed();

    // The second start finds in the ledger what the first one read in the journal.
    for _ in 0..2 {
        gateway.kill();
        gateway = setup.start();
        let refused = hear(&gateway, &minute, 58).await;
        refused.was_refused("audio tokens per min: Limit 60, Used ", first_of_minute, until_back(55 + 58 - 60, 1_000));
        let refused = hear(&gateway, &day, 85).await;
        let words = "audio seconds per day: Limit 20, Used 12, Requested 9.";
        refused.was_refused(words, first_of_day, until_back(231 + 170 - 400, 216_000));
    }
    hear(&gateway, &minute, 5).await.passed();
    hear(&gateway, &day, 84).await.passed();
    let refused = hear(&gateway, &day, 1).await;
    let words = "audio seconds per day: Limit 20, Used 20, Requested 1.";
    refused.was_refused(words, first_of_day, until_back(231 + 168 + 2 - 400, 216_000));
    gateway.stop();
    setup.assert_quiet_log();
}

fn interrupted(rows: &[Row]) -> Vec<(&str, i64, i64)> {
    let rows = rows.iter().filter(|row| row.outcome == "interrupted");
    rows.map(|row| (row.basis.as_str(), row.input_audio, row.output_audio)).collect()
}

#[tokio::test]
async fn audio_that_was_under_way_at_kill_9_counts_as_it_was_held() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    // 3 seconds are heard; the guess at what is said is 200 tokens, of which 70 give way where there are 100 in all.
    let cases = [
        (json!({"audio_tokens_per_minute": 300}), 290, "min: Limit 300, ", until_back(230 + 290 - 300, 200)),
        (json!({"audio_tokens_per_minute": 100}), 90, "min: Limit 100, ", until_back(100 + 90 - 100, 600)),
        (json!({"audio_seconds_per_day": 60}), 471, "day: Limit 60, Used 13, ", until_back(260 + 942 - 1_200, 72_000)),
    ];
    let mut hanging = Vec::new();
    for (nth, (limits, ..)) in cases.iter().enumerate() {
        let key = gateway.new_key(limits).await;
        let (connection, asked) = hang(&dir, &gateway, &key, &talking(30), nth + 1).await;
        hanging.push((key, asked, connection));
    }
    for start in 0..3 {
        for ((key, asked, _), (_, tenths, words, wait)) in hanging.iter().zip(&cases) {
            hear(&gateway, key, *tenths).await.was_refused(words, *asked, *wait);
        }
        if start < 2 {
            gateway.kill();
            gateway = setup.start();
        }
    }
    hear(&gateway, &hanging[2].0, 470).await.passed();
    gateway.stop();
    let rows = Ledger::open(&setup.ledger()).await.rows().await;
    assert_eq!(interrupted(&rows), [("estimated", 30, 200); 3]);
    setup.assert_quiet_log();
}

#[tokio::test]
async fn all_that_may_be_said_stays_held_after_kill_9_where_that_is_what_is_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream).with("RESERVE", "strict");
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({"audio_tokens_per_minute": 300})).await;
    let mut body = talking(30);
    body["max_completion_tokens"] = json!(250);
    let (_connection, asked) = hang(&dir, &gateway, &key, &body, 1).await;
    let wait = until_back(280 + 290 - 300, 200);
    hear(&gateway, &key, 290).await.was_refused("audio tokens per min: Limit 300, ", asked, wait);
    gateway.kill();
    let gateway = setup.start();
    hear(&gateway, &key, 290).await.was_refused("audio tokens per min: Limit 300, ", asked, wait);
}

#[tokio::test]
async fn a_changed_limit_of_audio_keeps_what_was_used_over_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    // The first is raised, and the second lowered.
    let figures = [("max_audio_tokens_per_1_minute", 60, 120), ("max_audio_seconds_per_1_day", 20, 10)];
    let mut used = Vec::new();
    for (nth, (name, before, after)) in figures.into_iter().enumerate() {
        let key = gateway.new_key(&json!({})).await;
        let path = format!("projects/{}/rate_limits/rl-{MODEL}", key.project_id);
        gateway.admin_post(&path, &json!({name: before})).await;
        let first = hear(&gateway, &key, 40).await.passed();
        // Under way when the limit is changed, and when the gateway is killed.
        let (connection, _) = hang(&dir, &gateway, &key, &hearing(15), 2 * nth + 2).await;
        gateway.admin_post(&path, &json!({name: after})).await;
        used.push((key, first, connection));
    }
    let [(of_minute, first_of_minute, _), (of_day, first_of_day, _)] = &used[..] else { unreachable!() };
    for _ in 0..2 {
        gateway.kill();
        gateway = setup.start();
        // Of 120, 55 are in use, and 2 have to go: it is the limit of before that refills until a request passes.
        let refused = hear(&gateway, of_minute, 118).await;
        refused.was_refused("audio tokens per min: Limit 120, Used ", *first_of_minute, until_back(55 - 2, 1_000));
        // Of 200 ticks, 110 are in use.
        let refused = hear(&gateway, of_day, 46).await;
        let words = "audio seconds per day: Limit 10, Used 6, Requested 5.";
        refused.was_refused(words, *first_of_day, until_back(110 + 92 - 200, 216_000));
    }
    hear(&gateway, of_minute, 65).await.passed();
    hear(&gateway, of_day, 45).await.passed();
    gateway.stop();
    setup.assert_quiet_log();
}

#[tokio::test]
async fn places_of_what_was_under_way_at_kill_9_are_free_again_all_of_them_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    // The project has three places, and the key two of its own for streams.
    let key = gateway.new_key(&json!({"concurrent_streams": 2})).await;
    let path = format!("projects/{}/rate_limits/rl-{MODEL}", key.project_id);
    gateway.admin_post(&path, &json!({"max_concurrent_requests": 3})).await;
    let sibling = gateway.key_of(&key.project_id, &json!({})).await;
    let mut hanging = Vec::new();
    for start in 0..3 {
        for nth in 1..=2 {
            hanging.push(hang(&dir, &gateway, &key, &streaming(hearing(1)), 4 * start + nth).await);
        }
        let refused = ask(&gateway, &key, "", &streaming(hearing(1))).await.answer;
        assert!(refused.text().contains("concurrent streams: Limit 2, Used 2, Requested 1."), "{}", refused.text());
        assert_eq!((refused.status, refused.header("retry-after-ms")), (429, Some("1000")));
        // The last place, taken by an answer that comes, and then by one that does not.
        assert_eq!(hear(&gateway, &key, 1).await.answer.status, 200);
        hanging.push(hang(&dir, &gateway, &sibling, &hearing(1), 4 * start + 4).await);
        for key in [&key, &sibling] {
            let refused = hear(&gateway, key, 1).await.answer;
            assert!(
                refused.text().contains("concurrent requests: Limit 3, Used 3, Requested 1."),
                "{}",
                refused.text()
            );
        }
        gateway.kill();
        gateway = setup.start();
    }
    gateway.stop();
    let rows = Ledger::open(&setup.ledger()).await.rows().await;
    assert_eq!(interrupted(&rows), [("estimated", 1, 0); 9]);
    setup.assert_quiet_log();
}
