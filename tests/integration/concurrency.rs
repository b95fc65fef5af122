//! Limits of what is under way at one time: who holds a place, for how long, and what those are told who find none.

use std::time::Duration;

use serde_json::json;

use crate::{
    scripted::{Gate, Scripted, Step, chunk, eventually, good_json, last_chunk, stream_head, text_events, word},
    support::{Gateway, TEXT_MODEL, text, with},
};

fn streamed() -> serde_json::Value {
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

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_begins_keeps_its_place_until_that_has_come() {
    let gate = Gate::closed();
    let upstream = Scripted::start({
        let gate = gate.clone();
        move |connection| if connection == 0 { vec![Step::Gate(gate.clone()), good_json()] } else { vec![good_json()] }
    })
    .await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project_with("tier1", json!({"concurrent_requests": 1})).await;
    let request = {
        let team = team.clone();
        tokio::spawn(async move { team.say("Hi").await })
    };
    eventually("the request is there", async || upstream.requests().len() == 1).await;
    request.abort();
    eventually("the answer is read on", async || gateway.metric("drains").await == 1).await;
    assert_eq!(team.say("Hi").await.status, 429);
    gate.open();
    eventually("the place is free", async || team.say("Hi").await.status == 200).await;
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
    tokio::time::sleep(Duration::from_millis(10)).await;
    eventually("both are settled", async || gateway.metric("open_admissions").await == 0).await;
    assert_eq!(team.open(&[], &streamed()).await.status(), 200, "the project has its places again");
}
