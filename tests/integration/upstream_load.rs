//! An upstream that fails is asked hardly more often than clients ask.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tollgate::{clock::Clock, config::Settings};

use crate::{
    fault_proxy::{Carriage, Fault, FaultProxy},
    scripted::{Scripted, Step, answer},
    support::{Actor, Gateway},
};

const OFFERED: usize = 600;
const FEWER: usize = 200;

/// All that fails, and nothing is ever withheld: what bounds the attempts is the budget for retries alone.
fn never_withheld(settings: &mut Settings) {
    settings.upstream_failures_in_a_row = 0;
    settings.upstream_first_byte_timeout_s = 1;
}

async fn in_sequence(team: &Actor, number: usize) {
    for _ in 0..number {
        assert!(team.say("Hi").await.status.is_server_error());
    }
}

async fn at_once(team: &Actor, number: usize) {
    let calls: Vec<_> = (0..number)
        .map(|_| {
            let team = team.clone();
            tokio::spawn(async move { team.say("Hi").await.status })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().is_server_error());
    }
}

/// At most 1.10 times what was offered.
fn is_bounded(what: &str, attempts: usize, offered: usize) {
    println!("{what}: {attempts} attempts for {offered} calls");
    assert!(attempts >= offered, "{what}: {attempts} of {offered}");
    assert!(attempts * 10 <= offered * 11, "{what}: {attempts} attempts for {offered} calls");
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_is_hardly_tried_twice() {
    for together in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        drop(listener);
        let gateway = Gateway::start_before(&url, CancellationToken::new(), Clock::system(), never_withheld).await;
        let team = gateway.project("tier5").await;
        if together {
            at_once(&team, OFFERED).await;
        } else {
            in_sequence(&team, OFFERED).await;
        }
        let attempts = gateway.metric("upstream_calls_total").await;
        is_bounded("refused", usize::try_from(attempts).unwrap(), OFFERED);
        assert!(gateway.ledger().await.iter().all(|row| row.cost_pico == Some(0)));
    }
}

#[tokio::test]
async fn connections_that_are_reset_as_soon_as_they_are_there_are_no_reason_for_many_more() {
    let nobody = Scripted::playing(vec![Step::Close]).await;
    for together in [false, true] {
        let proxy = FaultProxy::before(&nobody.url, |_| Carriage::default()).await;
        proxy.refuse(true);
        let gateway =
            Gateway::start_before(&proxy.url, CancellationToken::new(), Clock::system(), never_withheld).await;
        let team = gateway.project("tier5").await;
        if together {
            at_once(&team, OFFERED).await;
        } else {
            in_sequence(&team, OFFERED).await;
        }
        is_bounded("reset", proxy.connections(), OFFERED);
        gateway.at_rest().await;
    }
    assert_eq!(nobody.requests().len(), 0);
}

#[tokio::test]
async fn whatever_may_have_been_processed_is_sent_once() {
    let error = answer("503 Service Unavailable", "text/html", "no");
    for (what, end) in [("503", error), ("closed", Step::Close), ("hung", Step::Hang)] {
        let upstream = Scripted::playing(vec![end]).await;
        let gateway = upstream.gateway(never_withheld).await;
        let team = gateway.project("tier5").await;
        at_once(&team, FEWER).await;
        gateway.at_rest().await;
        // On a busy machine a call's time may be over before it is sent.
        let seen = upstream.requests().len();
        assert!((1..=FEWER).contains(&seen), "{what}: {seen}");
        // Of a connection that ended with the call before, another attempt may follow, and nobody has seen the first.
        let attempts = gateway.metric("upstream_calls_total").await;
        is_bounded(what, usize::try_from(attempts).unwrap(), FEWER);
    }
    for fault in [Fault::Cut, Fault::Reset, Fault::Blackhole] {
        let upstream = Scripted::playing(vec![answer("200 OK", "text/html", "no")]).await;
        let carriage = Carriage { down: Some((0, fault)), ..Carriage::default() };
        let proxy = FaultProxy::before(&upstream.url, move |_| carriage).await;
        let gateway =
            Gateway::start_before(&proxy.url, CancellationToken::new(), Clock::system(), never_withheld).await;
        let team = gateway.project("tier5").await;
        at_once(&team, 100).await;
        gateway.at_rest().await;
        let seen = (upstream.requests().len(), proxy.connections());
        assert!((1..=100).contains(&seen.0) && (1..=100).contains(&seen.1), "{fault:?}: {seen:?}");
    }
}

#[tokio::test]
async fn with_the_breaker_a_failing_upstream_is_hardly_asked_at_all() {
    let upstream = Scripted::playing(vec![answer("503 Service Unavailable", "text/html", "no")]).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier5").await;
    let began = std::time::Instant::now();
    in_sequence(&team, OFFERED).await;
    let seen = upstream.requests().len();
    println!("with the breaker: {seen} attempts for {OFFERED} calls in {:?}", began.elapsed());
    // The probes come after 1, 2, 4, ... seconds.
    let probes = began.elapsed().as_secs() + 1;
    assert!(seen as u64 <= 10 + probes, "{seen}");
    assert!(began.elapsed() < Duration::from_secs(30));
}
