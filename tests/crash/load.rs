//! Teams that use a gateway all at once, and what they can later say about it.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    client,
    process::{Gateway, Key},
};

/// Each team has models of its own, so that the upstream's log tells whose request it was.
pub const MODELS: [(&str, &str); 4] = [
    ("gpt-4o-mini", "gpt-4o-mini-audio-preview"),
    ("gpt-4o", "gpt-audio"),
    ("gpt-4.1-mini", "gpt-audio-1.5"),
    ("gpt-4.1-nano", "gpt-audio-mini"),
];

/// So that clients of a dead gateway do not take the processor from the one that starts.
const AFTER_FAILURE: Duration = Duration::from_millis(5);

/// Small differences that need not be the same in every run.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Self {
        let mut seed = [0; 8];
        tollgate::secrets::random(&mut seed);
        Self(u64::from_le_bytes(seed) | 1)
    }

    /// From 0 to `sides`, which it never is.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}

#[derive(Clone, Debug)]
pub struct Team {
    pub key: Key,
    pub text_model: &'static str,
    pub audio_model: &'static str,
}

/// One key for each pair of models.
pub async fn teams(gateway: &Gateway) -> Arc<Vec<Team>> {
    let mut teams = Vec::new();
    for (text_model, audio_model) in MODELS {
        teams.push(Team { key: gateway.new_key(&json!({})).await, text_model, audio_model });
    }
    Arc::new(teams)
}

/// What clients know in the end.
#[derive(Debug, Default)]
pub struct Tally {
    /// Request ids of answers that came whole, with the id of the key that asked.
    pub finished: HashMap<String, String>,
    pub statuses: BTreeMap<u16, u64>,
    pub hung_up: u64,
    pub cut: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.finished.extend(other.finished);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.hung_up += other.hung_up;
        self.cut += other.cut;
    }
}

pub struct Load {
    over: Arc<AtomicBool>,
    clients: JoinSet<Tally>,
}

impl Load {
    /// `in_flight` clients, each with one request at a time.
    pub fn start(gateway: SocketAddr, teams: &Arc<Vec<Team>>, in_flight: u64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let clip = Arc::new(clip(5));
        let mut clients = JoinSet::new();
        for _ in 0..in_flight {
            clients.spawn(client(gateway, Arc::clone(teams), Arc::clone(&clip), Arc::clone(&over)));
        }
        Self { over, clients }
    }

    /// No new requests; those under way come to their end, which is near when the gateway is dead.
    pub async fn end(mut self) -> Tally {
        self.over.store(true, Ordering::Release);
        let mut tally = Tally::default();
        while let Some(one) = self.clients.join_next().await {
            tally.add(one.unwrap());
        }
        tally
    }
}

async fn client(gateway: SocketAddr, teams: Arc<Vec<Team>>, clip: Arc<String>, over: Arc<AtomicBool>) -> Tally {
    let mut dice = Dice::new();
    let mut tally = Tally::default();
    while !over.load(Ordering::Acquire) {
        let team = &teams[usize::try_from(dice.roll(teams.len() as u64)).unwrap()];
        let body = body(team, &clip, &mut dice).to_string();
        let request = client::request("POST", "/v1/chat/completions", &team.key.plain, &[], &body);
        let impatient = dice.roll(10) < 2;
        if impatient {
            tally.hung_up += u64::from(hang_up(gateway, &request, &mut dice).await);
            continue;
        }
        match client::exchange(gateway, &request).await {
            Ok(answer) if answer.is_finished() => {
                let id = answer.header("x-request-id").unwrap().to_owned();
                tally.finished.insert(id, team.key.id.clone());
                *tally.statuses.entry(200).or_default() += 1;
            }
            Ok(answer) if answer.status != 200 => *tally.statuses.entry(answer.status).or_default() += 1,
            Ok(_) => tally.cut += 1,
            // The gateway is dead; it is not for clients to know whether it ever saw the request.
            Err(_) => tokio::time::sleep(AFTER_FAILURE).await,
        }
    }
    tally
}

/// Before the answer, or in the middle of it. False if there was nothing to hang up on.
async fn hang_up(gateway: SocketAddr, request: &[u8], dice: &mut Dice) -> bool {
    let wanted = if dice.roll(2) == 0 { 0 } else { usize::try_from(500 + dice.roll(2_000)).unwrap() };
    let Ok(opened) = client::open(gateway, request, wanted).await else {
        tokio::time::sleep(AFTER_FAILURE).await;
        return false;
    };
    tokio::time::sleep(Duration::from_millis(dice.roll(12))).await;
    drop(opened);
    true
}

fn body(team: &Team, clip: &str, dice: &mut Dice) -> Value {
    let words = "Count the cars at the gate. ".repeat(1 + usize::try_from(dice.roll(6)).unwrap());
    let text = json!([{"role": "user", "content": words}]);
    let spoken = json!({"model": team.audio_model, "modalities": ["text", "audio"]});
    match dice.roll(8) {
        0..3 => json!({"model": team.text_model, "messages": text}),
        3 => json!({"model": team.text_model, "messages": text, "stream": true}),
        4 => json!({
            "model": team.text_model, "messages": text, "stream": true, "stream_options": {"include_usage": true},
        }),
        5 => with(spoken, json!({"messages": text, "audio": {"voice": "alloy", "format": "mp3"}})),
        6 => with(spoken, json!({"messages": text, "audio": {"voice": "alloy", "format": "pcm16"}, "stream": true})),
        _ => json!({"model": team.audio_model, "modalities": ["text"], "messages": heard(clip)}),
    }
}

/// A question about a clip.
pub fn heard(clip: &str) -> Value {
    json!([{"role": "user", "content": [
        {"type": "text", "text": "What is said here?"},
        {"type": "input_audio", "input_audio": {"data": clip, "format": "wav"}},
    ]}])
}

fn with(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { unreachable!() };
    body.as_object_mut().unwrap().extend(more);
    body
}

/// Silence of so many tenths of a second, which are as many tokens: WAV, 16 bits, 8,000 samples a second.
pub fn clip(tenths: u32) -> String {
    let samples = 800 * tenths;
    let mut wav = Vec::from(*b"RIFF");
    wav.extend((36 + 2 * samples).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1, 0, 1, 0]);
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend([2, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend((2 * samples).to_le_bytes());
    wav.resize(wav.len() + usize::try_from(2 * samples).unwrap(), 0);
    BASE64_STANDARD.encode(wav)
}
