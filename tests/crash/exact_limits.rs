//! Limits from outside: many clients at once against a gateway that is a process of its own, and the times at which the
//! upstream was sent their requests.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate::clock::Clock;

use crate::{
    client,
    judge::{Admitted, Refused, Span, room_when_refused, worst_span, worst_span_of_arrivals},
    process::{Key, LookAlike, Setup, log_of},
    swift::{Call, Client},
};

const CLIENTS: usize = 256;
const MINUTE: u64 = 60_000_000_000;
const MILLISECOND: u64 = 1_000_000;
const MODEL: &str = "gpt-4o-mini";
/// No limit that is not the one under test is near.
const AMPLE: u32 = 1_000_000_000;
/// The limit must be reached: with less than this the machine is too slow to test it.
const PATIENCE: u64 = 60_000 * MILLISECOND;

#[derive(Clone, Copy)]
struct Limit {
    name: &'static str,
    units: u32,
    tokens: bool,
}

const LIMITS: [Limit; 4] = [
    Limit { name: "3 requests/min", units: 3, tokens: false },
    Limit { name: "500 requests/min", units: 500, tokens: false },
    Limit { name: "5000 requests/min", units: 5_000, tokens: false },
    Limit { name: "40000 tokens/min", units: 40_000, tokens: true },
];

/// How long each part of a run takes.
#[derive(Clone, Copy)]
struct Effort {
    /// Clients go on for as long after the first refusal.
    refused_for: Duration,
    paced_for: Duration,
}

const SHORT: Effort = Effort { refused_for: Duration::from_secs(1), paced_for: Duration::from_millis(1_500) };
const LONG: Effort = Effort { refused_for: Duration::from_secs(4), paced_for: Duration::from_secs(21) };

impl Limit {
    const fn unit_nanos(self) -> u64 {
        MINUTE.div_ceil(self.units as u64)
    }

    /// There is time for one client to send as fast as the limit refills.
    fn is_paced(self, effort: Effort) -> bool {
        effort.paced_for.as_nanos() > u128::from(self.unit_nanos())
    }

    /// Against a limit of tokens, each holds more than it will use: 9 of input as estimated, and 60. It uses 11 and 7.
    fn body(self) -> Value {
        let words = if self.tokens { "x".repeat(300) } else { "Hi".to_owned() };
        json!({"model": MODEL, "messages": [{"role": "user", "content": words}], "max_tokens": 60})
    }

    fn rates(self) -> Value {
        let (requests, tokens) = if self.tokens { (AMPLE, self.units) } else { (self.units, AMPLE) };
        json!({"max_requests_per_1_minute": requests, "max_requests_per_1_day": AMPLE, "max_tokens_per_1_minute": tokens})
    }
}

/// What the upstream wrote down about a request.
#[derive(Deserialize)]
struct Arrival {
    time_ms: u64,
    request_id: String,
    usage: Used,
}

#[derive(Deserialize)]
struct Used {
    total_tokens: u64,
}

fn arrivals(dir: &Path) -> HashMap<String, Arrival> {
    let log = std::fs::read_to_string(log_of(dir)).unwrap();
    let arrivals = log.lines().map(|line| serde_json::from_str::<Arrival>(line).unwrap());
    arrivals.map(|arrival| (arrival.request_id.clone(), arrival)).collect()
}

/// A gateway and its upstream, and keys of a project for each limit.
struct Stage {
    dir: tempfile::TempDir,
    gateway: crate::process::Gateway,
    _upstream: LookAlike,
    clock: Clock,
}

impl Stage {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let upstream = LookAlike::start(dir.path(), &["--chunks", "7"]);
        let gateway = Setup::new(dir.path(), &upstream).with("RESERVE", "strict").start();
        gateway.healthy().await;
        Self { dir, gateway, _upstream: upstream, clock: Clock::system() }
    }

    /// Four keys of a project that has this limit.
    async fn keys(&self, limit: Limit) -> Vec<Key> {
        let first = self.gateway.new_key(&json!({})).await;
        let path = format!("projects/{}/rate_limits/rl-{MODEL}", first.project_id);
        self.gateway.admin_post(&path, &limit.rates()).await;
        let mut keys = vec![first];
        for _ in 0..3 {
            keys.push(self.gateway.key_of(&keys[0].project_id, &json!({})).await);
        }
        keys
    }

    fn client(&self, key: &Key) -> Client {
        Client::new(self.gateway.calls, &key.plain, self.clock.clone())
    }

    /// What one request holds of the limit until it is settled, by the gateway's own word.
    async fn held(&self, key: &Key, limit: Limit) -> i64 {
        if !limit.tokens {
            return 1;
        }
        let headers = [("x-tollgate-dry-run", "true")];
        let asked = client::request("POST", "/v1/chat/completions", &key.plain, &headers, &limit.body().to_string());
        let told = client::exchange(self.gateway.calls, &asked).await.unwrap().json();
        told["estimate"]["reserved_tokens"].as_i64().unwrap()
    }

    /// All clients send without a pause until some time after the first of them was refused.
    async fn rush(&self, keys: &[Key], body: &Value, refused_for: Duration) -> Vec<Call> {
        let until = Arc::new(AtomicU64::new(self.clock.now().0 + PATIENCE));
        let mut clients = JoinSet::new();
        for key in keys.iter().cycle().take(CLIENTS) {
            let (client, body, until) = (self.client(key), body.to_string(), Arc::clone(&until));
            let refused_for = u64::try_from(refused_for.as_nanos()).unwrap();
            clients.spawn(async move {
                let mut calls = Vec::new();
                while client.now() < until.load(Ordering::Relaxed) {
                    let call = client.chat(&body).await;
                    if call.status == 429 {
                        until.fetch_min(call.answered + refused_for, Ordering::Relaxed);
                    }
                    calls.push(call);
                }
                calls
            });
        }
        clients.join_all().await.into_iter().flatten().collect()
    }
}

/// One client that has used up its limit, and then sends as fast as the limit refills: how many it sent and how many passed.
async fn paced(client: &Client, limit: Limit, paced_for: Duration, used: u64) -> (u64, u64) {
    let body = limit.body().to_string();
    let mut told = client.chat(&body).await;
    while told.status == 200 {
        told = client.chat(&body).await;
    }
    client.sleep_until(told.answered + told.wait_ms * MILLISECOND).await;
    let (step, start) = (limit.unit_nanos() * used, client.now());
    let count = u64::try_from(paced_for.as_nanos()).unwrap() / step + 1;
    let mut passed = 0;
    for nth in 0..count {
        client.sleep_until(start + nth * step).await;
        passed += u64::from(client.chat(&body).await.status == 200);
    }
    (count, passed)
}

/// What came of one limit in one run.
struct Found {
    limit: Limit,
    span: Span,
    of_arrivals: Span,
    admitted: usize,
    refused: usize,
    /// How much room there was at least, in units, when somebody was refused.
    room: u64,
}

fn judged(limit: Limit, held: i64, calls: &[Call], arrivals: &HashMap<String, Arrival>) -> Found {
    let start = calls.iter().map(|call| call.sent).min().unwrap() - MILLISECOND;
    let since_start = |nanos: u64| i64::try_from(nanos.saturating_sub(start)).unwrap();
    let (mut admitted, mut refused) = (Vec::new(), Vec::new());
    for call in calls {
        let (sent, answered) = (since_start(call.sent), since_start(call.answered));
        if call.status == 429 {
            refused.push(Refused { sent, answered });
            continue;
        }
        assert_eq!(call.status, 200);
        let arrival = &arrivals[&call.request_id];
        // Milliseconds are cut off in the upstream's log.
        let arrived = since_start((arrival.time_ms + 1) * MILLISECOND);
        let units = if limit.tokens { i64::try_from(arrival.usage.total_tokens).unwrap() } else { 1 };
        assert!(units <= held, "a request used {units} of {}, and held {held}", limit.name);
        admitted.push(Admitted { sent, arrived: arrived.max(sent), answered, units, held });
    }
    Found {
        limit,
        span: worst_span(&admitted, limit.units),
        of_arrivals: worst_span_of_arrivals(&admitted, limit.units),
        admitted: admitted.len(),
        refused: refused.len(),
        room: room_when_refused(&admitted, &refused, limit.units, held),
    }
}

impl Found {
    fn print(&self, run: u64, pace: Option<(u64, u64)>) {
        println!(
            "{run:>3}  {:<18}{:>9}{:>9}{:>10}{:>10}{:>8}{:>10}{:>6}{:>11}",
            self.limit.name,
            self.admitted,
            self.refused,
            self.span.units,
            self.span.allowed,
            self.span.excess(),
            self.of_arrivals.excess(),
            self.room,
            pace.map_or_else(|| "-".to_owned(), |(sent, passed)| format!("{passed}/{sent}")),
        );
    }
}

async fn run(nth: u64, effort: Effort) -> bool {
    let stage = Stage::new().await;
    let mut good = true;
    let mut rushes = Vec::new();
    let mut pacing = JoinSet::new();
    for (index, limit) in LIMITS.into_iter().enumerate() {
        let keys = stage.keys(limit).await;
        let held = stage.held(&keys[0], limit).await;
        let calls = stage.rush(&keys, &limit.body(), effort.refused_for).await;
        let client = stage.client(&keys[0]);
        // Two of them take long, and there is time for them while others rush.
        if limit.is_paced(effort) {
            let used = if limit.tokens { tokens_of(&calls, &arrivals(stage.dir.path())) } else { 1 };
            pacing.spawn(async move { (index, paced(&client, limit, effort.paced_for, used).await) });
        }
        rushes.push((limit, held, calls));
    }
    let paces: HashMap<usize, (u64, u64)> = pacing.join_all().await.into_iter().collect();
    let arrivals = arrivals(stage.dir.path());
    for (index, (limit, held, calls)) in rushes.iter().enumerate() {
        let (found, pace) = (judged(*limit, *held, calls, &arrivals), paces.get(&index).copied());
        found.print(nth, pace);
        assert!(found.refused > 0, "the clients never reached {}", limit.name);
        assert_eq!(pace.is_some_and(|(sent, _)| sent > 0), limit.is_paced(effort), "nobody kept to {}", limit.name);
        good &= found.span.excess() == 0 && found.room == 0 && pace.is_none_or(|(sent, passed)| sent == passed);
    }
    good
}

/// What every one of these requests used.
fn tokens_of(calls: &[Call], arrivals: &HashMap<String, Arrival>) -> u64 {
    let used = calls.iter().filter(|call| call.status == 200).map(|call| arrivals[&call.request_id].usage.total_tokens);
    used.max().unwrap()
}

/// For each limit: requests admitted and refused; of the span in which most was admitted for its length, the units and how
/// many were allowed; what was too much, and what seems so by the arrivals alone; the room that refusals left; and of a
/// client that sends as fast as the limit refills, how many requests passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_upstreams_clock_no_span_has_more_than_its_limit_and_nobody_is_refused_while_there_is_room() {
    let environment = tollgate::config::environment();
    let runs: Option<u64> = environment.get("TOLLGATE_PROVE_RUNS").map(|runs| runs.parse().unwrap());
    println!(
        "\nrun  {:<18}{:>9}{:>9}{:>10}{:>10}{:>8}{:>10}{:>6}{:>11}",
        "limit", "admitted", "refused", "in span", "allowed", "excess", "arrivals", "room", "paced"
    );
    let effort = if runs.is_some() { LONG } else { SHORT };
    let mut bad = 0;
    for nth in 1..=runs.unwrap_or(1) {
        bad += u64::from(!run(nth, effort).await);
    }
    assert_eq!(bad, 0, "runs in which a limit did not hold, or refused while there was room");
}

/// The gateway decides between a request's sending and its answer: what was answered a millisecond before the told time had
/// passed since the refused request was sent is refused, and what is sent when it has passed since the refusal came passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_as_told_passes_and_one_that_does_not_is_refused() {
    let stage = Stage::new().await;
    let plain = json!({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9});
    for limits in [json!({"requests_per_minute": 240}), json!({"tokens_per_minute": 2_880})] {
        let client = stage.client(&stage.gateway.new_key(&limits).await);
        let body = plain.to_string();
        let mut passed = 0;
        let mut refused = loop {
            let call = client.chat(&body).await;
            if call.status == 429 {
                break call;
            }
            passed += 1;
        };
        assert!((240..300).contains(&passed), "{passed} of {limits}");
        for _ in 0..3 {
            let (earliest, latest) = (refused.sent, refused.answered);
            let mut tried = 0;
            let early = loop {
                let call = client.chat(&body).await;
                if call.status == 200 {
                    break call;
                }
                tried += 1;
            };
            let due = earliest + (refused.wait_ms - 1) * MILLISECOND;
            assert!(early.answered >= due, "passed {} ns early, {limits}", due - early.answered);
            assert!(early.sent <= latest + refused.wait_ms * MILLISECOND + 100 * MILLISECOND, "{limits}");
            assert!(tried > 0, "nothing was tried too early");
            refused = client.chat(&body).await;
            assert_eq!(refused.status, 429, "{limits}");
            client.sleep_until(refused.answered + refused.wait_ms * MILLISECOND).await;
            assert_eq!(client.chat(&body).await.status, 200, "{limits}");
            refused = client.chat(&body).await;
            assert_eq!(refused.status, 429, "{limits}");
        }
    }
}
