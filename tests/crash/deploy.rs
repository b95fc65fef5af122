//! A restart that nobody notices: the next gateway takes over the sockets, and what the last one has begun it finishes.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinSet, block_in_place},
    time::timeout,
};

use crate::{
    client::{exchange, open, request, rest},
    kill::number,
    ledger::{Ledger, Verdict, read_log, until_seen},
    load::{Tally, Team, teams},
    process::{LookAlike, Setup, log_of},
};

const GRACE_S: u64 = 15;
/// Clients that keep their connections; the others open one for each request.
const KEPT: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn body(team: &Team, stream: bool) -> String {
    let words = json!([{"role": "user", "content": "Count to twenty."}]);
    json!({"model": team.text_model, "messages": words, "stream": stream}).to_string()
}

/// What clients saw that is no whole answer, and how often.
type Failures = BTreeMap<String, u64>;

struct Client {
    gateway: SocketAddr,
    team: Team,
    over: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    tally: Tally,
    failures: Failures,
}

impl Client {
    fn fail(&mut self, what: impl Into<String>) {
        *self.failures.entry(what.into()).or_default() += 1;
    }

    fn finish(&mut self, request_id: &str) {
        self.tally.finished.insert(request_id.to_owned(), self.team.key.id.clone());
        *self.tally.statuses.entry(200).or_default() += 1;
    }

    async fn fresh(&mut self, stream: bool) {
        let call = request("POST", "/v1/chat/completions", &self.team.key.plain, &[], &body(&self.team, stream));
        match exchange(self.gateway, &call).await {
            Ok(answer) if answer.is_finished() => self.finish(answer.header("x-request-id").unwrap()),
            Ok(answer) => self.fail(format!("status {}, cut: {}", answer.status, answer.text())),
            Err(error) => self.fail(format!("fresh: {:?}", error.kind())),
        }
    }

    /// One request after the other on a connection, until an answer says that it is the last one there.
    async fn kept(&mut self, connection: &mut Option<TcpStream>) {
        let text = String::from_utf8(request(
            "POST",
            "/v1/chat/completions",
            &self.team.key.plain,
            &[],
            &body(&self.team, false),
        ));
        let call = text.unwrap().replace("connection: close\r\n", "");
        match timeout(PATIENCE, converse(self.gateway, connection, call.as_bytes())).await {
            Ok(Ok((head, is_last))) => {
                if is_last {
                    *connection = None;
                }
                let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
                if head.starts_with("HTTP/1.1 200 ") { self.finish(id.unwrap()) } else { self.fail(head) }
            }
            Ok(Err(error)) => {
                *connection = None;
                self.fail(format!("kept: {:?}", error.kind()));
            }
            Err(_) => self.fail("kept: no answer"),
        }
    }
}

/// The head of the answer, and whether the server closes the connection after it.
async fn converse(to: SocketAddr, kept: &mut Option<TcpStream>, call: &[u8]) -> io::Result<(String, bool)> {
    if kept.is_none() {
        *kept = Some(TcpStream::connect(to).await?);
    }
    let connection = kept.as_mut().unwrap();
    connection.write_all(call).await?;
    let mut bytes = Vec::new();
    loop {
        if connection.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if bytes.len() - end - 4 == length.parse::<usize>().unwrap() {
            let is_last = head.lines().any(|line| line == "connection: close");
            return Ok((head, is_last));
        }
    }
}

/// `rate` requests a second, half of them on kept connections, and so many streams at any time.
struct Load {
    over: Arc<AtomicBool>,
    /// Requests that are no streams.
    asked: Arc<AtomicU64>,
    clients: JoinSet<(Tally, Failures)>,
}

impl Load {
    fn start(gateway: SocketAddr, teams: &[Team], rate: u64, streams: u64) -> Self {
        let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        let client = |number: u64| {
            let team = teams[usize::try_from(number).unwrap() % teams.len()].clone();
            let (tally, failures) = (Tally::default(), Failures::new());
            Client { gateway, team, over: Arc::clone(&over), asked: Arc::clone(&asked), tally, failures }
        };
        let pace = Duration::from_micros(1_000_000 * KEPT * 2 / rate);
        for number in 0..KEPT {
            clients.spawn(keeping(client(number), pace));
            clients.spawn(coming_and_going(client(number), pace));
        }
        for number in 0..streams {
            clients.spawn(streaming(client(number)));
        }
        Self { over, asked, clients }
    }

    async fn end(mut self) -> (Tally, Failures) {
        self.over.store(true, Ordering::Release);
        let (mut tally, mut failures) = (Tally::default(), Failures::new());
        while let Some(one) = self.clients.join_next().await {
            let (more, failed) = one.unwrap();
            tally.add(more);
            for (what, count) in failed {
                *failures.entry(what).or_default() += count;
            }
        }
        (tally, failures)
    }
}

async fn keeping(mut client: Client, pace: Duration) -> (Tally, Failures) {
    let mut connection = None;
    // A schedule and not a pause: what a slow answer took is made up for.
    let mut next = Instant::now();
    while !client.over.load(Ordering::Acquire) {
        next += pace;
        client.asked.fetch_add(1, Ordering::Relaxed);
        client.kept(&mut connection).await;
        tokio::time::sleep_until(next.into()).await;
    }
    (client.tally, client.failures)
}

async fn coming_and_going(mut client: Client, pace: Duration) -> (Tally, Failures) {
    // A schedule and not a pause: what a slow answer took is made up for.
    let mut next = Instant::now();
    while !client.over.load(Ordering::Acquire) {
        next += pace;
        client.asked.fetch_add(1, Ordering::Relaxed);
        client.fresh(false).await;
        tokio::time::sleep_until(next.into()).await;
    }
    (client.tally, client.failures)
}

async fn streaming(mut client: Client) -> (Tally, Failures) {
    while !client.over.load(Ordering::Acquire) {
        client.fresh(true).await;
    }
    (client.tally, client.failures)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_takes_over_refuses_resets_and_cuts_nobody() {
    let environment = tollgate::config::environment();
    let cycles = number(&environment, "TOLLGATE_DEPLOY_CYCLES", 3);
    let rate = number(&environment, "TOLLGATE_DEPLOY_RATE", 60);
    let streams = number(&environment, "TOLLGATE_DEPLOY_STREAMS", 40);
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--chunks", "20", "--chunk-gap-ms", "40", "--delay-ms", "5"]);
    let setup = Setup::new(dir.path(), &upstream).with("SHUTDOWN_GRACE_S", &GRACE_S.to_string());
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    let load = Load::start(gateway.calls, &teams, rate, streams);
    let (asked, load_began) = (Arc::clone(&load.asked), Instant::now());
    let (mut slowest_stop, mut widest_gap) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..cycles {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let began = Instant::now();
        let next = block_in_place(|| setup.started_with(&["--take-over"]).start());
        widest_gap = widest_gap.max(began.elapsed());
        assert_eq!((next.calls, next.admin), (gateway.calls, gateway.admin), "the addresses stay");
        assert_eq!(block_in_place(|| gateway.wait()).code(), Some(0));
        slowest_stop = slowest_stop.max(began.elapsed());
        gateway = next;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let offered = u128::from(asked.load(Ordering::Relaxed)) * 1_000 / load_began.elapsed().as_millis();
    let (tally, failures) = load.end().await;
    gateway.stop();

    let ledger = Ledger::open(&setup.ledger()).await;
    let (log, rows) = (read_log(&log_of(dir.path())), ledger.rows().await);
    let verdict = Verdict::of(&log, &rows, &teams, &tally);
    println!(
        "take-over: cycles: {cycles}, requests a second: {offered} of {rate}, streams: {streams}, {verdict}, whole answers: {}, failures: \
         {failures:?}, start to ready with the last one's end: {} ms at most, the last one's end: {} ms at most",
        tally.finished.len(),
        widest_gap.as_millis(),
        slowest_stop.as_millis()
    );
    assert_eq!(failures, Failures::new(), "refused, reset or cut");
    assert!(slowest_stop < Duration::from_secs(GRACE_S + 2), "{slowest_stop:?}");
    assert!(tally.finished.len() as u64 > cycles * 20, "nothing was tested");
    verdict.assert_good();
    assert_eq!(verdict.interrupted, 0);
    ledger.assert_sound().await;
    setup.assert_quiet_log();
}

/// The events of a chunked answer's body, without the lengths of the chunks between them.
fn events(chunked: &str) -> Vec<String> {
    let mut whole = String::new();
    let mut left = chunked;
    while let Some((length, after)) = left.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&after[..length]);
        assert_eq!(&after[length..length + 2], "\r\n", "a chunk that ends in good order");
        left = &after[length + 2..];
        if length == 0 {
            break;
        }
    }
    let events = whole.strip_suffix("\n\n").expect("whole events").split("\n\n");
    events.map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_left_when_the_grace_ends_is_told_so_and_settled() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream).with("SHUTDOWN_GRACE_S", "1");
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    let (mut streams, mut whole) = (Vec::new(), Vec::new());
    for team in teams.iter().cycle().take(20) {
        let call = |fault: &str, stream| {
            let body = body(team, stream);
            request("POST", "/v1/chat/completions", &team.key.plain, &[("x-simulate", fault)], &body)
        };
        streams.push(open(gateway.calls, &call("hang-midstream", true), 900).await.unwrap());
        whole.push(open(gateway.calls, &call("hang", false), 0).await.unwrap());
    }
    until_seen(&dir, 40).await;
    gateway.tell_to_stop();
    let told = Instant::now();
    for (connection, begun) in streams {
        let answer = rest(connection, begun).await;
        let events = events(&answer.text());
        let error: Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(error["error"]["code"], "server_is_overloaded", "{events:?}");
        assert_eq!(error["error"]["type"], "service_unavailable_error");
        let answers = &events[..events.len() - 1];
        assert!(!answers.is_empty() && answers.iter().all(|event| serde_json::from_str::<Value>(event).is_ok()));
    }
    for (connection, begun) in whole {
        let answer = rest(connection, begun).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "server_is_overloaded");
    }
    assert_eq!(gateway.wait().code(), Some(0));
    // The grace of a second and two more, on a machine that may be busy.
    assert!(told.elapsed() < Duration::from_secs(6), "{:?}", told.elapsed());
    let rows = Ledger::open(&setup.ledger()).await.rows().await;
    assert_eq!(rows.len(), 40);
    assert!(rows.iter().all(|row| row.outcome == "interrupted" && row.basis == "estimated"), "{rows:?}");
    Verdict::of(&read_log(&log_of(dir.path())), &rows, &teams, &Tally::default()).assert_good();
    // All of it was settled by the one that stopped.
    assert!(!setup.start().screen().contains("open when it last stopped"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_a_service_manager_keep_their_queue_while_no_gateway_runs() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let setup = Setup::new(dir.path(), &upstream).with("LISTEN", &address.to_string()).with_socket(socket);
    let mut gateway = setup.start();
    assert_eq!(gateway.calls, address);
    let key = gateway.new_key(&json!({})).await;
    block_in_place(|| gateway.stop());
    // Nobody listens now but the queue.
    let words = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Is anybody there?"}]});
    let call = request("POST", "/v1/chat/completions", &key.plain, &[], &words.to_string());
    let waiting = tokio::spawn(async move { exchange(address, &call).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut gateway = block_in_place(|| setup.start());
    let answer = waiting.await.unwrap().unwrap();
    assert!(answer.is_finished(), "{}", answer.text());
    block_in_place(|| gateway.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_waits_to_take_over_or_for_its_database_can_be_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--delay-ms", "500", "--chunks", "10", "--chunk-gap-ms", "200"]);
    let setup = Setup::new(dir.path(), &upstream).with("SHUTDOWN_GRACE_S", "20");
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    let call = request("POST", "/v1/chat/completions", &teams[0].key.plain, &[], &body(&teams[0], true));
    let (streaming, begun) = open(gateway.calls, &call, 400).await.unwrap();
    let (code, took) =
        block_in_place(|| setup.started_with(&["--take-over"]).start_and_stop(Duration::from_millis(500)));
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(rest(streaming, begun).await.is_finished(), "the one before has finished what it began");
    assert_eq!(block_in_place(|| gateway.wait()).code(), Some(0));

    // Somebody holds the database: the start waits for it, where a migration or the journal's replay would be.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(setup.ledger());
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut *connection).await.unwrap();
    let (code, took) = block_in_place(|| setup.start_and_stop(Duration::from_millis(500)));
    assert!(code == Some(0) && took < Duration::from_secs(10), "{code:?} after {took:?}");
    sqlx::query("ROLLBACK").execute(&mut *connection).await.unwrap();
    drop(connection);
    pool.close().await;
    // At any moment of a start.
    for millis in [0, 5, 10, 20, 40, 80] {
        block_in_place(|| setup.start_and_stop(Duration::from_millis(millis)));
    }
    let mut gateway = block_in_place(|| setup.start());
    gateway.healthy().await;
    block_in_place(|| gateway.stop());
    let ledger = Ledger::open(&setup.ledger()).await;
    assert_eq!(ledger.count().await, 1);
    ledger.assert_sound().await;
}
