//! Many clients at once: as many are admitted as the limit has room for, not one more and not one fewer.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};
use tollgate::{clock::Clock, config::Reserve, domain::time::UnixNanos, simulator};

use crate::support::{Actor, Gateway, TEXT_MODEL, text, with};

const CLIENTS: usize = 256;
const MINUTE: u64 = 60_000_000_000;

async fn gateway(reserve: Reserve) -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(1_790_000_000));
    Gateway::start_at(clock, simulator::Options::default(), |settings| settings.reserve = reserve).await
}

/// All clients ask at once; how many were answered and how many refused.
async fn rush(teams: &[&Actor], body: &Value) -> (usize, usize) {
    let (barrier, mut clients) = (Arc::new(Barrier::new(CLIENTS)), JoinSet::new());
    for team in teams.iter().copied().cycle().take(CLIENTS) {
        let (team, body, barrier) = (team.clone(), body.clone(), Arc::clone(&barrier));
        clients.spawn(async move {
            barrier.wait().await;
            team.chat(&body).await.status.as_u16()
        });
    }
    let statuses = clients.join_all().await;
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!(count(200) + count(429), CLIENTS, "{statuses:?}");
    (count(200), count(429))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_crowd_exactly_as_many_pass_as_there_are_requests_left() {
    let gateway = gateway(Reserve::Learned).await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 40})).await;
    let body = text(TEXT_MODEL, "Hi");
    for round in 0..4 {
        assert_eq!(rush(&[&team], &body).await, (40, CLIENTS - 40), "round {round}");
        gateway.clock.advance(MINUTE);
    }
    // Half of the limit has come back after half of the time.
    assert_eq!(rush(&[&team], &body).await.0, 40);
    gateway.clock.advance(MINUTE / 2);
    assert_eq!(rush(&[&team], &body).await.0, 20);
    assert_eq!(gateway.ledger().await.len(), 4 * 40 + 40 + 20);
    assert_eq!(gateway.metric("upstream_calls_total").await, 4 * 40 + 40 + 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_crowd_exactly_as_many_pass_as_there_are_tokens_left() {
    let gateway = gateway(Reserve::Strict).await;
    let team = gateway.project_with("tier1", json!({"tokens_per_minute": 240})).await;
    // 3 + 9 tokens are held and 5 + 7 are used: a request weighs the same before and after its answer.
    let body = with(text(TEXT_MODEL, "Hi"), &json!({"max_tokens": 9}));
    let answered = async || {
        let (barrier, mut clients) = (Arc::new(Barrier::new(CLIENTS)), JoinSet::new());
        for _ in 0..CLIENTS {
            let (team, body, barrier) = (team.clone(), body.clone(), Arc::clone(&barrier));
            clients.spawn(async move {
                barrier.wait().await;
                team.chat_with_fault("chunks=7", &body).await.status
            });
        }
        clients.join_all().await.into_iter().filter(|status| *status == 200).count()
    };
    for round in 0..3 {
        assert_eq!(answered().await, 20, "round {round}");
        gateway.clock.advance(MINUTE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_in_a_crowd_do_not_take_from_each_other() {
    let gateway = gateway(Reserve::Learned).await;
    let one = gateway.project_with("tier1", json!({"requests_per_day": 10})).await;
    let two = gateway.key_of(&one.project_id, json!({"requests_per_day": 30})).await;
    assert_eq!(rush(&[&one, &two], &text(TEXT_MODEL, "Hi")).await.0, 40);
    let rows = gateway.ledger().await;
    let of = |team: &Actor| rows.iter().filter(|row| row.api_key_id == team.key_id).count();
    assert_eq!((of(&one), of(&two)), (10, 30));
}
