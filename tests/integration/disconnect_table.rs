//! A client that leaves at every moment of every kind of answer, under both policies: one settlement within a second, exact
//! where the answer is read on, marked as estimated and never too low where it is not.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::Method;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tollgate::config::OnClientDisconnect;

use crate::{
    scripted::{Gate, Scripted, Step, eventually, good_json, spoken_events, streamed, text_events},
    support::{Actor, Gateway, Row, TEXT_MODEL, spoken, text, with},
};

const MAX_OUTPUT: i64 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Text,
    Spoken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    InTheRequest,
    BeforeTheHead,
    /// Half of an answer that is no stream.
    InTheBody,
    /// With so many events.
    After(usize),
}

impl Kind {
    /// After the head, within the words, after the last of them, before and after the usage.
    fn moments(self) -> Vec<Moment> {
        let events: &[usize] = match self {
            Self::Json => &[],
            Self::Text => &[0, 1, 3, 6, 7, 8],
            Self::Spoken => &[0, 2, 4, 6, 8, 9, 10],
        };
        let in_the_body = (self == Self::Json).then_some(Moment::InTheBody);
        let within = events.iter().map(|events| Moment::After(*events)).chain(in_the_body);
        [Moment::InTheRequest, Moment::BeforeTheHead].into_iter().chain(within).collect()
    }

    fn events(self) -> Vec<String> {
        match self {
            Self::Json => Vec::new(),
            Self::Text => text_events(6),
            Self::Spoken => spoken_events(),
        }
    }

    fn request(self) -> Value {
        let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
        let body = match self {
            Self::Json => text(TEXT_MODEL, "Hi"),
            Self::Text => with(text(TEXT_MODEL, "Hi"), &asked),
            Self::Spoken => with(spoken("pcm16"), &asked),
        };
        with(body, &json!({"max_completion_tokens": MAX_OUTPUT}))
    }

    /// Input, output of text and of audio, as the upstream counts.
    const fn truth(self) -> (i64, i64, i64) {
        match self {
            Self::Json => (5, 7, 0),
            Self::Text => (5, 6, 0),
            Self::Spoken => (5, 2, 16),
        }
    }

    /// Output of text and of audio in the first `events`.
    fn delivered(self, moment: Moment) -> (i64, i64) {
        let Moment::After(events) = moment else { return (0, 0) };
        let events = i64::try_from(events).unwrap();
        match self {
            Self::Json => (0, 0),
            Self::Text => (events.min(6), 0),
            Self::Spoken => ((events - 1).clamp(0, 2), 8 * (i64::from(events > 5) + i64::from(events > 7))),
        }
    }

    fn has_told_usage(self, moment: Moment) -> bool {
        let Moment::After(events) = moment else { return false };
        self.events()[..events].iter().any(|event| event.contains(r#""choices":[]"#))
    }

    /// The answer, held at `moment`.
    fn steps(self, moment: Moment, gate: &Gate) -> Vec<Step> {
        let mut steps = if self == Self::Json { vec![good_json()] } else { streamed(&self.events()) };
        match moment {
            Moment::InTheRequest => {}
            Moment::BeforeTheHead => steps.insert(0, Step::Gate(gate.clone())),
            Moment::After(events) => steps.insert(events + 1, Step::Gate(gate.clone())),
            Moment::InTheBody => {
                let Step::Send(answer) = steps.remove(0) else { unreachable!() };
                let (first, second) = (answer.slice(..answer.len() - 10), answer.slice(answer.len() - 10..));
                steps = vec![Step::Send(first), Step::Gate(gate.clone()), Step::Send(second)];
            }
        }
        steps
    }
}

/// One gateway for all cases of a policy; each has a gate of its own.
struct Scene {
    playing: Arc<Mutex<Vec<Step>>>,
    upstream: Scripted,
    gateway: Gateway,
    team: Actor,
    slowest: Duration,
}

impl Scene {
    async fn new(policy: OnClientDisconnect) -> Self {
        let playing = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::clone(&playing);
        let upstream = Scripted::start(move |_| script.lock().unwrap().clone()).await;
        let gateway = upstream.gateway(|settings| settings.on_client_disconnect = policy).await;
        let team = gateway.project("tier5").await;
        Self { playing, upstream, gateway, team, slowest: Duration::ZERO }
    }

    /// Sends a request and leaves at the moment.
    async fn leave(&self, kind: Kind, moment: Moment) {
        let sent = self.upstream.requests().len();
        let request = {
            let request = self.team.request(Method::POST, "/v1/chat/completions", &[]);
            let request = request.body(Full::from(kind.request().to_string())).unwrap();
            let client = self.team.client.clone();
            tokio::spawn(async move { client.request(request).await.unwrap() })
        };
        if let Moment::After(events) = moment {
            let mut response = request.await.unwrap();
            let mut left = kind.events()[..events].concat().len();
            while left > 0 {
                left -= response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap().len();
            }
            return;
        }
        eventually("the request is there", async || self.upstream.requests().len() == sent + 1).await;
        if moment == Moment::InTheBody {
            // The first half is on its way.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        request.abort();
    }

    async fn leave_in_the_request(&self, kind: Kind) {
        let connections = self.gateway.metric("connections").await;
        let mut socket = TcpStream::connect(self.team.url.trim_start_matches("http://")).await.unwrap();
        let (key, body) = (self.team.key.as_deref().unwrap(), kind.request().to_string());
        let (length, half) = (body.len(), &body[..body.len() / 2]);
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n{half}"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        eventually("it is there", async || self.gateway.metric("connections").await > connections).await;
        drop(socket);
        eventually("it is gone", async || self.gateway.metric("connections").await == connections).await;
    }

    /// Not a metric in between: the time is that of the settlement.
    async fn settled(&mut self, since: Instant) {
        eventually("it is settled", async || self.gateway.metric("open_admissions").await == 0).await;
        self.slowest = self.slowest.max(since.elapsed());
    }

    /// The one new row.
    async fn row(&self, before: &[Row]) -> Row {
        let mut rows = self.gateway.ledger().await;
        rows.retain(|row| before.iter().all(|known| known.request_id != row.request_id));
        assert_eq!(rows.len(), 1, "settled once");
        rows.remove(0)
    }
}

fn usage_of(row: &Row) -> (i64, i64, i64) {
    (row.input_text, row.output_text, row.output_audio)
}

async fn at_every_moment(policy: OnClientDisconnect) {
    let mut scene = Scene::new(policy).await;
    let (mut cases, mut off) = (0, 0);
    for kind in [Kind::Json, Kind::Text, Kind::Spoken] {
        for moment in kind.moments() {
            let what = format!("{policy:?}, {kind:?}, {moment:?}");
            let (sent, hang_ups) = (scene.upstream.requests().len(), scene.upstream.hang_ups());
            let before = scene.gateway.ledger().await;
            cases += 1;
            if moment == Moment::InTheRequest {
                scene.leave_in_the_request(kind).await;
                assert_eq!(scene.gateway.ledger().await.len(), before.len(), "{what}: nothing has happened");
                assert_eq!(scene.upstream.requests().len(), sent, "{what}");
                continue;
            }
            let gate = Gate::closed();
            *scene.playing.lock().unwrap() = kind.steps(moment, &gate);
            scene.leave(kind, moment).await;
            let mut since = Instant::now();
            if policy == OnClientDisconnect::Drain {
                eventually("it is read on", async || scene.gateway.metric("drains").await == 1).await;
                gate.open();
                since = Instant::now();
            }
            scene.settled(since).await;
            let row = scene.row(&before).await;
            assert_eq!((row.outcome.as_str(), scene.upstream.requests().len()), ("client_left", sent + 1), "{what}");
            let truth = kind.truth();
            if policy == OnClientDisconnect::Drain || kind.has_told_usage(moment) {
                assert_eq!((row.basis.as_str(), usage_of(&row)), ("reported", truth), "{what}");
                off += (row.output_text - truth.1).abs() + (row.output_audio - truth.2).abs();
            } else {
                let (text, audio) = kind.delivered(moment);
                assert_eq!(row.basis, "estimated", "{what}");
                assert!(row.output_text >= text && row.output_audio >= audio, "{what}: {row:?}");
                assert!((1..=MAX_OUTPUT).contains(&(row.output_text + row.output_audio)), "{what}: {row:?}");
            }
            let left = usize::from(policy == OnClientDisconnect::Cancel);
            eventually("the upstream is left", async || scene.upstream.hang_ups() == hang_ups + left).await;
        }
    }
    println!("{policy:?}: {cases} cases, {off} tokens off the truth, the slowest settled in {:?}", scene.slowest);
    assert!(scene.slowest < Duration::from_secs(1), "{:?}", scene.slowest);
}

#[tokio::test]
async fn an_answer_that_is_read_on_is_billed_to_the_token() {
    at_every_moment(OnClientDisconnect::Drain).await;
}

#[tokio::test]
async fn an_answer_that_is_cancelled_is_estimated_and_never_too_low() {
    at_every_moment(OnClientDisconnect::Cancel).await;
}
