//! An upstream, or a model of it, that keeps failing is left alone but for one probe at a time; its callers are told at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tollgate::{clock::Clock, config::OnClientDisconnect};

use crate::{
    scripted::{Gate, Scripted, Step, answer, chunk, eventually, good_json, last_chunk, stream_head, word},
    support::{Actor, Gateway, MODEL, Reply, TEXT_MODEL, text, with},
};

/// Of the settings, by default.
const FAILURES: usize = 10;

fn unavailable() -> Step {
    let error = json!({"error": {"message": "m", "type": "server_error", "param": null, "code": null}});
    answer("503 Service Unavailable", "application/json", &error.to_string())
}

fn is_withheld(reply: &Reply) -> bool {
    reply.status == 503 && reply.error()["code"] == "upstream_unavailable"
}

/// Refused without the upstream: at once, in the shape of `OpenAI`, with a time to wait.
fn assert_withheld(reply: &Reply, most_s: u64) {
    assert!(is_withheld(reply), "{} {}", reply.status, reply.text());
    let error = reply.error();
    assert_eq!((error["type"].as_str(), error["param"].is_null()), (Some("server_error"), true));
    assert!((1..=most_s).contains(&reply.header("retry-after").parse().unwrap()));
    assert!((1..=1_000 * most_s).contains(&reply.header("retry-after-ms").parse().unwrap()));
    assert_eq!(reply.header("x-should-retry"), "");
}

async fn at_once(team: &Actor, number: usize) -> Vec<Reply> {
    let calls: Vec<_> = (0..number)
        .map(|_| {
            let team = team.clone();
            tokio::spawn(async move { team.say("Hi").await })
        })
        .collect();
    let mut replies = Vec::new();
    for call in calls {
        replies.push(call.await.unwrap());
    }
    replies
}

async fn failing(steps: impl Fn(usize, &str) -> Vec<Step> + Send + Sync + 'static) -> (Scripted, Gateway, Actor) {
    let upstream = Scripted::reading(steps).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier5").await;
    (upstream, gateway, team)
}

#[tokio::test]
async fn an_upstream_that_is_not_reached_is_left_alone_until_a_probe_reaches_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}/v1");
    let gateway = Gateway::start_before(&url, CancellationToken::new(), Clock::system(), |_| {}).await;
    let team = gateway.project("tier5").await;
    for _ in 0..FAILURES {
        assert_eq!(team.say("Hi").await.status, 502);
    }
    let calls = gateway.metric("upstream_calls_total").await;
    let asked = Instant::now();
    for model in [TEXT_MODEL, MODEL] {
        assert_withheld(&team.chat(&text(model, "Hi")).await, 1);
    }
    let withheld_within = asked.elapsed();
    let health = gateway.stranger().get("/health").await;
    if asked.elapsed() < Duration::from_millis(900) {
        assert_eq!(gateway.metric("upstream_calls_total").await, calls, "nobody is asked");
        assert_eq!((health.status.as_u16(), health.json()["upstream"].as_str()), (200, Some("unreachable")));
        assert!(withheld_within < Duration::from_millis(900));
    }
    // One probe in vain, however many ask.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = gateway.metric("upstream_calls_total").await;
    let replies = at_once(&team, 50).await;
    assert_eq!(replies.iter().filter(|reply| !is_withheld(reply)).count(), 1);
    assert_eq!(gateway.metric("upstream_calls_total").await, before + 1, "and it is sent once");
    assert_withheld(&team.say("Hi").await, 2);
    assert_eq!(gateway.metric("upstream_unreachable").await, 1);
    // Then it is there again.
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(tollgate::simulator::serve(
        listener,
        tollgate::simulator::Options::default(),
        CancellationToken::new(),
    ));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(team.say("Hi").await.status, 200);
    let replies = at_once(&team, 50).await;
    assert!(replies.iter().all(|reply| reply.status == 200), "closed for all after the first success");
    assert_eq!(gateway.stranger().get("/health").await.text(), r#"{"status":"ok"}"#);
    assert_eq!(gateway.metric("upstream_unreachable").await, 0);
    let rows = gateway.ledger().await;
    let withheld = rows.iter().filter(|row| row.status == 503).count();
    assert_eq!(withheld as u64, gateway.metric("upstream_withheld_total").await);
    assert!(withheld >= 52, "{withheld}");
    for row in rows.iter().filter(|row| row.status != 200) {
        assert_eq!((row.outcome.as_str(), row.input_text, row.output_text), ("upstream_failed", 0, 0));
        assert_eq!(row.cost_pico, Some(0), "nothing is charged");
    }
}

#[tokio::test]
async fn a_model_that_fails_is_probed_by_one_call_and_takes_no_other_model_with_it() {
    let (gate, well) = (Gate::closed(), Arc::new(AtomicBool::new(false)));
    let (upstream, gateway, team) = failing({
        let (gate, well) = (gate.clone(), Arc::clone(&well));
        move |_, request| match (request.contains(MODEL), well.load(Ordering::SeqCst)) {
            (true, _) => vec![good_json()],
            (false, false) => vec![unavailable()],
            (false, true) => vec![Step::Gate(gate.clone()), good_json()],
        }
    })
    .await;
    let left = |reply: &Reply| reply.header("x-ratelimit-remaining-tokens").parse::<u64>().unwrap();
    for _ in 0..FAILURES {
        let reply = team.say("Hi").await;
        assert_eq!((reply.status.as_u16(), is_withheld(&reply)), (503, false), "the upstream's own words");
    }
    let first = team.say("Hi").await;
    assert_withheld(&first, 1);
    assert_eq!(upstream.requests().len(), FAILURES);
    assert_eq!(gateway.metric("upstream_models_failing").await, 1);
    assert_eq!(gateway.stranger().get("/health").await.text(), r#"{"status":"ok"}"#, "the upstream is there");
    assert_eq!(team.chat(&text(MODEL, "Hi")).await.status, 200, "the others are answered");
    well.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let crowd = {
        let team = team.clone();
        tokio::spawn(async move { at_once(&team, 50).await })
    };
    eventually("the probe is there", async || upstream.requests().len() == FAILURES + 2).await;
    eventually("the others are refused", async || gateway.metric("upstream_withheld_total").await == 50).await;
    assert_eq!(upstream.requests().len(), FAILURES + 2, "exactly one probe");
    gate.open();
    let replies = crowd.await.unwrap();
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    for _ in 0..5 {
        gate.open();
        let reply = team.say("Hi").await;
        assert_eq!(reply.status, 200);
        assert!(
            left(&reply) >= left(&first) - 500,
            "what was withheld holds nothing: {} of {}",
            left(&reply),
            left(&first)
        );
    }
    assert_eq!(gateway.metric("upstream_models_failing").await, 0);
    let rows = gateway.ledger().await;
    let refused: Vec<_> = rows.iter().filter(|row| row.status == 503).collect();
    assert_eq!(refused.len(), FAILURES + 50);
    assert!(refused.iter().all(|row| row.cost_pico == Some(0)));
}

#[tokio::test]
async fn no_refusal_of_a_request_opens_it_and_no_slow_or_broken_stream() {
    let gateway = Gateway::start_with(|settings| settings.upstream_failures_in_a_row = 2).await;
    let team = gateway.project("tier5").await;
    for fault in ["400", "401", "403", "404", "429", "500", "html", "cut-body", "cut-event"] {
        for _ in 0..4 {
            let body = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
            let reply = team.chat_with_fault(fault, &body).await;
            assert!(!is_withheld(&reply), "{fault}");
        }
    }
    let steps = vec![stream_head(), chunk(word("one")), Step::Hang];
    let (upstream, mut gateway, team) =
        failing(move |number, _| if number < 20 { steps.clone() } else { vec![good_json()] }).await;
    gateway.leaves("streams that go on");
    let open = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(team.open(&[], &open).await);
    }
    assert_eq!((team.say("Hi").await.status.as_u16(), upstream.requests().len()), (200, 21));
}

#[tokio::test]
async fn answers_that_never_begin_or_break_off_before_they_do_open_it_for_their_model() {
    for end in [Step::Hang, Step::Reset, Step::Close] {
        let upstream = Scripted::reading({
            let end = end.clone();
            move |_, request| if request.contains(MODEL) { vec![good_json()] } else { vec![end.clone()] }
        })
        .await;
        let gateway = upstream.gateway(|settings| settings.upstream_first_byte_timeout_s = 1).await;
        let team = gateway.project("tier5").await;
        let replies = at_once(&team, FAILURES).await;
        assert!(replies.iter().all(|reply| matches!(reply.status.as_u16(), 502 | 504)));
        let seen = upstream.requests().len();
        assert_eq!(seen, FAILURES, "none is sent twice");
        assert_withheld(&team.say("Hi").await, 1);
        assert_eq!(upstream.requests().len(), seen);
        assert_eq!(team.chat(&text(MODEL, "Hi")).await.status, 200);
        // What may have been processed is charged as before; what was withheld is not.
        let rows = gateway.ledger().await;
        let charged = rows.iter().filter(|row| row.input_text > 0 && row.outcome == "upstream_failed").count();
        assert_eq!((rows.len(), charged), (FAILURES + 2, FAILURES));
    }
}

#[tokio::test]
async fn a_probe_whose_client_leaves_makes_room_for_the_next() {
    let failed = Arc::new(AtomicUsize::new(0));
    let upstream = Scripted::start({
        let failed = Arc::clone(&failed);
        move |number| match number {
            0..FAILURES => vec![unavailable()],
            FAILURES => {
                failed.fetch_add(1, Ordering::SeqCst);
                vec![Step::Hang]
            }
            _ => vec![stream_head(), chunk(word("one")), last_chunk()],
        }
    })
    .await;
    let gateway = upstream.gateway(|settings| settings.on_client_disconnect = OnClientDisconnect::Cancel).await;
    let team = gateway.project("tier5").await;
    for _ in 0..FAILURES {
        team.say("Hi").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let probe = {
        let team = team.clone();
        tokio::spawn(async move { team.say("Hi").await })
    };
    eventually("the probe is there", async || failed.load(Ordering::SeqCst) == 1).await;
    assert!(is_withheld(&team.say("Hi").await));
    probe.abort();
    eventually("the upstream is left", async || upstream.hang_ups() == 1).await;
    eventually("the next is let through", async || team.say("Hi").await.status == 200).await;
    assert_eq!(upstream.requests().len(), FAILURES + 2);
}
