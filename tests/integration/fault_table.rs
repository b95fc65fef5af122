//! Every way in which the way to the upstream fails, at every place of an answer: the client never takes half an answer for
//! a whole one, and the request is settled once, by what is known.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tollgate::clock::Clock;

use crate::{
    fault_proxy::{Carriage, Fault, FaultProxy},
    scripted::{Scripted, Step, good_json, spoken_events, streamed, text_events},
    support::{Actor, Gateway, Reply, Row, TEXT_MODEL, spoken, text, with},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Text,
    Spoken,
}

/// Where the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeTheHead,
    InTheHead,
    AfterTheHead,
    BetweenEvents,
    InAnEvent,
    BeforeTheUsage,
    BeforeTheEnd,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    place: Place,
    fault: Fault,
}

const WORDS: u64 = 6;

impl Kind {
    fn events(self) -> Vec<String> {
        match self {
            Self::Json => Vec::new(),
            Self::Text => text_events(WORDS),
            Self::Spoken => spoken_events(),
        }
    }

    fn steps(self) -> Vec<Step> {
        if self == Self::Json { vec![good_json()] } else { streamed(&self.events()) }
    }

    fn request(self) -> Value {
        let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
        match self {
            Self::Json => text(TEXT_MODEL, "Hi"),
            Self::Text => with(text(TEXT_MODEL, "Hi"), &asked),
            Self::Spoken => with(spoken("pcm16"), &asked),
        }
    }

    /// Output of text and of audio in the first `events`, as their truth is.
    fn delivered(self, events: usize) -> (i64, i64) {
        let events = i64::try_from(events).unwrap();
        match self {
            Self::Json => (0, 0),
            Self::Text => (events.min(6), 0),
            Self::Spoken => ((events - 1).clamp(0, 2), 8 * (i64::from(events > 5) + i64::from(events > 7))),
        }
    }
}

impl Case {
    fn all() -> Vec<Self> {
        use Place::{AfterTheHead, BeforeTheEnd, BeforeTheHead, BeforeTheUsage, BetweenEvents, InAnEvent, InTheHead};
        let places = [BeforeTheHead, InTheHead, AfterTheHead, BetweenEvents, InAnEvent, BeforeTheUsage, BeforeTheEnd];
        let mut cases = Vec::new();
        for kind in [Kind::Json, Kind::Text, Kind::Spoken] {
            for place in places {
                // An answer that is no stream has neither events nor a usage of its own.
                if kind == Kind::Json && matches!(place, BetweenEvents | BeforeTheUsage) {
                    continue;
                }
                cases.extend([Fault::Cut, Fault::Reset, Fault::Blackhole].map(|fault| Self { kind, place, fault }));
            }
        }
        cases
    }

    /// Whole events that pass, and bytes.
    fn passes(self) -> (usize, usize) {
        let pieces: Vec<_> = self.kind.steps().iter().map(|step| sent(step).len()).collect();
        let after = |events: usize| (events, pieces[..=events].iter().sum());
        let text = String::from_utf8_lossy(sent(&self.kind.steps()[0])).into_owned();
        let head = text.find("\r\n\r\n").unwrap() + 4;
        let usage = self.kind.events().iter().position(|event| event.contains(r#""choices":[]"#)).unwrap_or(0);
        match self.place {
            Place::BeforeTheHead => (0, 0),
            Place::InTheHead => (0, 20),
            Place::AfterTheHead => (0, head),
            Place::BetweenEvents => after(2),
            Place::InAnEvent if self.kind == Kind::Json => (0, head + 20),
            Place::InAnEvent => (2, after(2).1 + pieces[3] / 2),
            Place::BeforeTheUsage => after(usage),
            Place::BeforeTheEnd if self.kind == Kind::Json => (0, pieces[0] - 1),
            Place::BeforeTheEnd => after(self.kind.events().len() - 1),
        }
    }

    fn carriage(self) -> Carriage {
        Carriage { down: Some((self.passes().1, self.fault)), ..Carriage::default() }
    }

    fn error(self) -> (u16, &'static str) {
        match self.fault {
            Fault::Cut | Fault::Reset => (502, "upstream_connection_lost"),
            Fault::Blackhole => (504, "upstream_timeout"),
        }
    }

    fn check(self, reply: &Reply, row: &Row) {
        let events = self.kind.events();
        let (passed, _) = self.passes();
        let (status, code) = self.error();
        let text = reply.text();
        assert!(!text.contains("[DONE]"), "{self:?}: {text}");
        let begun = !matches!(self.place, Place::BeforeTheHead | Place::InTheHead) && self.kind != Kind::Json;
        if begun {
            assert_eq!(reply.status, 200, "{self:?}");
            let (before, error) = text.rsplit_once("data: ").unwrap();
            assert_eq!(before, events[..passed].concat(), "{self:?}: whole events, as they came, and no other");
            let error: Value = serde_json::from_str(error.trim_end()).unwrap();
            assert_eq!(error["error"]["code"], code, "{self:?}");
            assert!(text.ends_with("\n\n"));
        } else {
            assert_eq!((reply.status.as_u16(), reply.error()["code"].as_str()), (status, Some(code)), "{self:?}");
            assert!(!text.contains("choices") && !text.contains("finish_reason"), "{self:?}: {text}");
        }
        let basis = if begun && self.place == Place::BeforeTheEnd { "reported" } else { "estimated" };
        assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("upstream_failed", basis), "{self:?}");
        let told = if begun { 200 } else { i64::from(status) };
        assert_eq!(row.status, told, "{self:?}");
        assert_eq!((row.output_text, row.output_audio), self.kind.delivered(passed), "{self:?}");
        assert!(row.input_text > 0, "{self:?}: it was sent");
    }
}

fn sent(step: &Step) -> &[u8] {
    let Step::Send(bytes) = step else { panic!("not sent") };
    bytes
}

/// The number behind `case-` in the head or the body of a request.
fn case_of(request: &str) -> usize {
    let digits = request.split("case-").nth(1).unwrap().split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap().parse().unwrap()
}

async fn ask(team: Actor, number: usize, case: Case) -> (Reply, Duration) {
    let asked = Instant::now();
    let name = format!("case-{number}");
    let body = case.kind.request().to_string();
    let reply = team.post_bytes("/v1/chat/completions", &[("user-agent", &name)], body).await;
    (reply, asked.elapsed())
}

#[tokio::test]
async fn at_every_place_of_an_answer() {
    let cases = Arc::new(Case::all());
    let upstream = Scripted::reading({
        let cases = Arc::clone(&cases);
        move |_, request| cases[case_of(request)].kind.steps()
    })
    .await;
    let proxy = FaultProxy::before(&upstream.url, {
        let cases = Arc::clone(&cases);
        move |head| cases[case_of(head)].carriage()
    })
    .await;
    let gateway = Gateway::start_before(&proxy.url, CancellationToken::new(), Clock::system(), |settings| {
        settings.upstream_idle_connections = 0;
        settings.upstream_failures_in_a_row = 0;
        settings.upstream_first_byte_timeout_s = 1;
        settings.stream_idle_timeout_s = 1;
    })
    .await;
    let team = gateway.project("tier5").await;
    let asked: Vec<_> =
        cases.iter().enumerate().map(|(number, case)| tokio::spawn(ask(team.clone(), number, *case))).collect();
    let mut replies = Vec::new();
    let mut slowest = Duration::ZERO;
    for answered in asked {
        let (reply, took) = answered.await.unwrap();
        slowest = slowest.max(took);
        replies.push(reply);
    }
    let rows = gateway.ledger().await;
    let rows: HashMap<_, _> = rows.iter().map(|row| (row.request_id.as_str(), row)).collect();
    for (case, reply) in cases.iter().zip(&replies) {
        case.check(reply, rows[reply.header("x-request-id")]);
    }
    assert_eq!((rows.len(), upstream.requests().len(), proxy.connections()), (cases.len(), cases.len(), cases.len()));
    println!("{} cases, the slowest in {slowest:?}", cases.len());
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
    let answers: usize = cases.iter().map(|case| case.passes().1).sum();
    assert_eq!(proxy.bytes().1, answers as u64, "the faults struck where they should");
}

#[tokio::test]
async fn a_request_that_is_lost_on_its_way_is_charged_as_what_may_have_arrived() {
    for (fault, expected) in [
        (Fault::Cut, (502, "upstream_connection_lost")),
        (Fault::Reset, (502, "upstream_connection_lost")),
        (Fault::Blackhole, (504, "upstream_timeout")),
    ] {
        let upstream = Scripted::playing(vec![good_json()]).await;
        let carriage = Carriage { up: Some((50, fault)), ..Carriage::default() };
        let proxy = FaultProxy::before(&upstream.url, move |_| carriage).await;
        let gateway = Gateway::start_before(&proxy.url, CancellationToken::new(), Clock::system(), |settings| {
            settings.upstream_first_byte_timeout_s = 1;
        })
        .await;
        let team = gateway.project("tier1").await;
        let reply = team.say("Hi").await;
        assert_eq!((reply.status.as_u16(), reply.error()["code"].as_str()), (expected.0, Some(expected.1)));
        let rows = gateway.ledger().await;
        assert_eq!((rows.len(), rows[0].outcome.as_str(), rows[0].basis.as_str()), (1, "upstream_failed", "estimated"));
        assert_eq!((upstream.requests().len(), proxy.connections(), proxy.bytes().0), (0, 1, 50), "and not sent again");
    }
}

#[tokio::test]
async fn a_slow_line_is_no_fault() {
    for kind in [Kind::Json, Kind::Text, Kind::Spoken] {
        let upstream = Scripted::playing(kind.steps()).await;
        let piece = if kind == Kind::Spoken { 4_096 } else { 100 };
        let carriage = Carriage { latency: Duration::from_millis(20), piece_bytes: Some(piece), ..Carriage::default() };
        let proxy = FaultProxy::before(&upstream.url, move |_| carriage).await;
        let gateway = Gateway::start_before(&proxy.url, CancellationToken::new(), Clock::system(), |settings| {
            settings.stream_idle_timeout_s = 1;
            settings.upstream_first_byte_timeout_s = 1;
        })
        .await;
        let reply = gateway.project("tier1").await.chat(&kind.request()).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.text().contains("[DONE]"), kind != Kind::Json);
        let rows = gateway.ledger().await;
        assert_eq!((rows[0].outcome.as_str(), rows[0].basis.as_str()), ("completed", "reported"));
    }
}
