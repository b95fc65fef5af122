//! Requests that are stuck at the upstream do not slow down what does not need it, nor another model that it answers.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    scripted::{Scripted, Step, eventually, good_json},
    support::{Actor, Gateway, MODEL, TEXT_MODEL, text},
};

const STUCK: usize = 500;
/// Of each kind.
const ASKED: usize = 100;

/// The 99th of a hundred times, of each kind of request that must not wait.
async fn times(gateway: &Gateway, team: &Actor, poor: &Actor) -> [(&'static str, Duration); 6] {
    let kinds = ["/health", "/v1/models", "admin", "401", "429", "another model"];
    let mut results = [("", Duration::ZERO); 6];
    for (result, kind) in results.iter_mut().zip(kinds) {
        let mut taken = Vec::new();
        for _ in 0..ASKED {
            let asked = Instant::now();
            let (reply, status) = match kind {
                "/health" => (gateway.stranger().get(kind).await, 200),
                "/v1/models" => (team.get(kind).await, 200),
                "admin" => (gateway.admin().get("/v1/organization/projects").await, 200),
                "401" => (gateway.bearer("sk-wrong").say("Hi").await, 401),
                "429" => (poor.chat(&text(MODEL, "Hi")).await, 429),
                _ => (team.chat(&text(MODEL, "Hi")).await, 200),
            };
            taken.push(asked.elapsed());
            assert_eq!(reply.status, status, "{kind}: {}", reply.text());
        }
        taken.sort_unstable();
        *result = (kind, taken[ASKED * 99 / 100 - 1]);
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_stuck_requests_slow_nobody_else() {
    let upstream =
        Scripted::reading(|_, request| if request.contains(MODEL) { vec![good_json()] } else { vec![Step::Hang] })
            .await;
    let gateway = upstream.gateway(|settings| settings.drain_max_requests = 0).await;
    let team = gateway.project("tier5").await;
    let poor = gateway.project_with("tier5", json!({"requests_per_day": 1})).await;
    assert_eq!(poor.chat(&text(MODEL, "Hi")).await.status, 200);
    let before = upstream.requests().len();
    times(&gateway, &team, &poor).await;
    let alone = times(&gateway, &team, &poor).await;
    let stuck: Vec<_> = (0..STUCK)
        .map(|_| {
            let team = team.clone();
            tokio::spawn(async move { team.chat(&text(TEXT_MODEL, "Hi")).await.status })
        })
        .collect();
    let answered = before + 2 * ASKED;
    eventually("all are stuck", async || upstream.requests().len() == answered + STUCK).await;
    let beside = times(&gateway, &team, &poor).await;
    assert!(stuck.iter().all(|request| !request.is_finished()), "they are still stuck");
    for ((kind, alone), (_, beside)) in alone.into_iter().zip(beside) {
        let percent = beside.as_nanos() * 100 / alone.as_nanos().max(1);
        println!("{kind}: p99 {alone:?} alone, {beside:?} beside {STUCK} stuck: {percent} %");
        // Other tests run at the same time, so this only tells waiting from not waiting.
        assert!(beside < alone * 5 + Duration::from_millis(100), "{kind}: {alone:?}, then {beside:?}");
    }
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
    let rows = gateway.ledger().await;
    assert_eq!(rows.iter().filter(|row| row.outcome == "client_left").count(), STUCK);
}
