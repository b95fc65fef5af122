//! Limits of what is under way at one time: who holds a place, for how long, and what those are told who find none.

use serde_json::{Value, json};
use tollgate::config::OnClientDisconnect;

use crate::{
    scripted::{Gate, Scripted, Step, chunk, eventually, good_json, last_chunk, stream_head, text_events, word},
    support::{Actor, Gateway, TEXT_MODEL, text, with},
};

fn streamed() -> Value {
    with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}))
}

/// An answer that begins, and ends when the gate opens.
fn gated(gate: &Gate) -> Vec<Step> {
    let mut steps = vec![stream_head(), chunk(word("one")), Step::Gate(gate.clone())];
    steps.extend(text_events(3).iter().map(chunk));
    steps.push(last_chunk());
    steps
}

fn gate_open() -> Gate {
    let gate = Gate::closed();
    gate.open();
    gate
}

#[tokio::test]
async fn a_stream_holds_its_place_until_it_ends_and_the_next_is_told_when_to_ask() {
    let gate = Gate::closed();
    let upstream = Scripted::start({
        let gate = gate.clone();
        move |connection| if connection == 0 { gated(&gate) } else { gated(&gate_open()) }
    })
    .await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project_with("tier1", json!({"concurrent_streams": 1})).await;
    let first = team.open(&[], &streamed()).await;
    let refused = team.chat(&streamed()).await;
    let message = format!(
        "Rate limit reached for {TEXT_MODEL} in organization {} on concurrent streams: Limit 1, Used 1, Requested 1. Please \
         try again in 1s, or when one of them has ended.",
        team.project_id
    );
    let expected =
        json!({"error": {"message": message, "type": "requests", "param": null, "code": "rate_limit_exceeded"}});
    assert_eq!((refused.status.as_u16(), refused.json()), (429, expected));
    assert_eq!((refused.header("retry-after-ms"), refused.header("retry-after")), ("1000", "1"));
    assert_eq!(gateway.metric(r#"requests_refused_total{limit="concurrent_streams",scope="key"}"#).await, 1);
    gate.open();
    http_body_util::BodyExt::collect(first.into_body()).await.unwrap();
    assert_eq!(team.chat(&streamed()).await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_keeps_its_place_while_its_answer_is_read_on_and_no_longer() {
    let gate = Gate::closed();
    let upstream = Scripted::start({
        let gate = gate.clone();
        move |connection| if connection == 0 { gated(&gate) } else { vec![good_json()] }
    })
    .await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project_with("tier1", json!({"concurrent_requests": 1})).await;
    drop(team.open(&[], &streamed()).await);
    eventually("the answer is read on", async || gateway.metric("drains").await == 1).await;
    assert_eq!(team.say("Hi").await.status, 429);
    gate.open();
    eventually("the place is free", async || team.say("Hi").await.status == 200).await;
    assert_eq!(gateway.ledger().await.len(), 2);
}

/// Sends a request and hangs up once the upstream has it, before any of the answer is there.
async fn leave_unanswered(team: &Actor, upstream: &Scripted, body: Value) {
    let before = upstream.requests().len();
    let waiting = tokio::spawn({
        let team = team.clone();
        async move { team.chat(&body).await }
    });
    eventually("the upstream has it", async || upstream.requests().len() > before).await;
    waiting.abort();
}

#[tokio::test]
async fn a_client_that_leaves_during_a_json_answer_keeps_its_place_until_that_has_come() {
    let gate = Gate::closed();
    let upstream = Scripted::start({
        let gate = gate.clone();
        move |number| if number == 0 { vec![Step::Gate(gate.clone()), good_json()] } else { vec![good_json()] }
    })
    .await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project_with("tier1", json!({"concurrent_requests": 1})).await;
    leave_unanswered(&team, &upstream, text(TEXT_MODEL, "Hi")).await;
    eventually("the answer is read on", async || gateway.metric("drains").await == 1).await;
    assert_eq!(team.say("Hi").await.status, 429);
    gate.open();
    eventually("the place is free", async || team.say("Hi").await.status == 200).await;
    let rows = gateway.ledger().await;
    let outcomes: Vec<_> = rows.iter().map(|row| (row.outcome.as_str(), row.output_text)).collect();
    assert_eq!(outcomes, [("client_left", 7), ("completed", 7)]);
}

#[tokio::test]
async fn an_answer_that_is_not_read_on_frees_its_place_at_once() {
    for (policy, places) in [(OnClientDisconnect::Cancel, 64), (OnClientDisconnect::Drain, 0)] {
        let upstream = Scripted::start(|number| match number {
            0 => vec![stream_head(), chunk(word("one")), Step::Hang],
            2 => vec![Step::Hang],
            _ => vec![good_json()],
        })
        .await;
        let gateway = upstream
            .gateway(|settings| {
                settings.on_client_disconnect = policy;
                settings.drain_max_requests = places;
            })
            .await;
        let team = gateway.project_with("tier1", json!({"concurrent_requests": 1})).await;
        drop(team.open(&[], &streamed()).await);
        eventually("the stream's place is free", async || team.say("Hi").await.status == 200).await;
        leave_unanswered(&team, &upstream, text(TEXT_MODEL, "Hi")).await;
        eventually("the other's place is free", async || team.say("Hi").await.status == 200).await;
        assert_eq!((gateway.ledger().await.len(), upstream.requests().len()), (4, 4));
    }
}

#[tokio::test]
async fn a_dry_run_takes_no_place_and_says_when_there_is_none() {
    let gate = Gate::closed();
    let upstream = Scripted::start({
        let gate = gate.clone();
        move |number| if number == 0 { gated(&gate) } else { vec![good_json()] }
    })
    .await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project_with("tier1", json!({"concurrent_requests": 1})).await;
    let ask = async || {
        let (headers, body) = ([("x-tollgate-dry-run", "true")], text(TEXT_MODEL, "Hi").to_string());
        let told = team.post_bytes("/v1/chat/completions", &headers, body).await.json();
        let limits = told["limits"].as_array().unwrap().iter();
        let places = limits.filter(|it| it["name"] == "concurrent_requests").cloned().collect::<Vec<_>>();
        let [place] = &places[..] else { panic!("{told}") };
        (told["admitted"].as_bool().unwrap(), place["used_before"].as_u64(), place["left_after"].as_u64())
    };
    for _ in 0..3 {
        assert_eq!(ask().await, (true, Some(0), Some(0)));
    }
    let under_way = team.open(&[], &streamed()).await;
    assert_eq!(under_way.status(), 200);
    for _ in 0..3 {
        assert_eq!(ask().await, (false, Some(1), None));
    }
    assert_eq!(team.say("Hi").await.status, 429, "asking gave no place back");
    gate.open();
    http_body_util::BodyExt::collect(under_way.into_body()).await.unwrap();
    assert_eq!((ask().await, team.say("Hi").await.status.as_u16()), ((true, Some(0), Some(0)), 200));
}

#[tokio::test]
async fn no_place_is_lost_to_failures_refusals_or_a_restart() {
    let mut gateway = Gateway::start().await;
    let limits = json!({"concurrent_requests": 1, "concurrent_streams": 1});
    let mut team = gateway.project_with("tier1", limits).await;
    for fault in ["500", "429", "cut-body", "garbage", "reset"] {
        for body in [text(TEXT_MODEL, "Hi"), streamed()] {
            let _answer = team.chat_with_fault(fault, &body).await;
            eventually("all is settled", async || gateway.metric("open_admissions").await == 0).await;
            assert_eq!(team.say("Hi").await.status, 200, "after {fault}");
        }
    }
    assert_eq!(team.chat(&text("nobody", "Hi")).await.status, 404);
    assert_eq!(team.say("Hi").await.status, 200);
    gateway.stop().await;
    gateway.run().await;
    team.url.clone_from(&gateway.calls_url);
    assert_eq!(team.say("Hi").await.status, 200);
}

#[tokio::test]
async fn the_keys_of_a_project_share_its_places() {
    let upstream = Scripted::playing(vec![stream_head(), chunk(word("one")), Step::Hang]).await;
    let gateway = upstream.gateway(|settings| settings.drain_max_s = 1).await;
    let team = gateway.project("tier1").await;
    let path = format!("/v1/organization/projects/{}/rate_limits/rl-{TEXT_MODEL}", team.project_id);
    let set = gateway.admin().post(&path, &json!({"max_concurrent_requests": 2})).await;
    assert_eq!((set.status.as_u16(), set.json()["max_concurrent_requests"].as_u64()), (200, Some(2)));
    let other = gateway.key_of(&team.project_id, json!({})).await;
    let (one, two) = (team.open(&[], &streamed()).await, other.open(&[], &streamed()).await);
    for refused in [team.say("Hi").await, other.say("Hi").await] {
        assert_eq!(refused.status, 429);
        assert!(refused.text().contains("on concurrent requests: Limit 2, Used 2, Requested 1"), "{}", refused.text());
    }
    drop((one, two));
    eventually("both are settled", async || gateway.metric("open_admissions").await == 0).await;
    let both = [team.open(&[], &streamed()).await, other.open(&[], &streamed()).await];
    assert!(both.iter().all(|answer| answer.status() == 200), "both places are free again");
    assert_eq!(team.say("Hi").await.status, 429);
}
