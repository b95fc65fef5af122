//! Stopping: what can finish within the grace finishes, the rest is cut and settled, and nothing stays open.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    scripted::{DONE, Gate, Scripted, Step, chunk, eventually, finish, last_chunk, stream_head, usage, word},
    support::{Gateway, Row, TEXT_MODEL, text, with},
};

fn request() -> Value {
    with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}))
}

/// One word, then a gate, then the rest with a usage of 5 and 2.
fn held(gate: &Gate) -> Vec<Step> {
    let rest = [chunk(word("two")), chunk(finish() + &usage(5, 2) + DONE), last_chunk()];
    [vec![stream_head(), chunk(word("one")), Step::Gate(gate.clone())], rest.to_vec()].concat()
}

/// The ledger's rows of a stopped gateway, read from its file; all that was admitted must be there.
async fn rows(gateway: &Gateway) -> Vec<Row> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(gateway.ledger_path()).read_only(true);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().connect_with(options).await.unwrap();
    sqlx::query_as("SELECT * FROM ledger ORDER BY request_id").fetch_all(&pool).await.unwrap()
}

/// Stops the gateway in the background, as a signal does.
fn stop(gateway: &mut Gateway) -> tokio::task::JoinHandle<Duration> {
    let running = gateway.running.take().unwrap();
    tokio::spawn(async move {
        let began = Instant::now();
        running.stop().await;
        began.elapsed()
    })
}

#[tokio::test]
async fn an_open_stream_finishes_within_the_grace() {
    let gate = Gate::closed();
    let upstream = Scripted::playing(held(&gate)).await;
    let mut gateway = upstream.gateway(|settings| settings.shutdown_grace_s = 10).await;
    let team = gateway.project("tier1").await;
    let mut response = team.open(&[], &request()).await;
    response.body_mut().frame().await.unwrap().unwrap();
    let address = team.url.trim_start_matches("http://").to_owned();
    let stopped = stop(&mut gateway);
    eventually("new connections are refused", async || TcpStream::connect(&address).await.is_err()).await;
    assert!(!stopped.is_finished());
    gate.open();
    let rest = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(rest, word("two") + &finish() + DONE);
    assert!(stopped.await.unwrap() < Duration::from_secs(5), "the grace is not waited for when nothing is open");
    let rows = rows(&gateway).await;
    assert_eq!((rows.len(), rows[0].outcome.as_str(), rows[0].output_text), (1, "completed", 2));
}

#[tokio::test]
async fn a_stream_that_outlasts_the_grace_is_told_so_and_settled() {
    let upstream = Scripted::playing(held(&Gate::closed())).await;
    let mut gateway = upstream.gateway(|settings| settings.shutdown_grace_s = 1).await;
    let team = gateway.project("tier1").await;
    let mut response = team.open(&[], &request()).await;
    response.body_mut().frame().await.unwrap().unwrap();
    // And one whose client has left.
    let mut left = team.open(&[], &request()).await;
    left.body_mut().frame().await.unwrap().unwrap();
    drop(left);
    eventually("one is read on", async || gateway.metric("drains").await == 1).await;
    let took = stop(&mut gateway).await.unwrap();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(4), "{took:?}");
    let rest = response.into_body().collect().await.expect("the answer ends in good order").to_bytes();
    let rest = String::from_utf8(rest.to_vec()).unwrap();
    let error = rest.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n"));
    let error: Value = serde_json::from_str(error.unwrap_or_else(|| panic!("no event: {rest:?}"))).unwrap();
    assert_eq!(error["error"]["code"], "server_is_overloaded", "one whole event, and no [DONE] after it");
    eventually("the upstream is left", async || upstream.hang_ups() == 2).await;
    let settled = rows(&gateway).await;
    assert_eq!(settled.len(), 2);
    let count = |outcome: &str| settled.iter().filter(|row| row.outcome == outcome).count();
    assert_eq!((count("interrupted"), count("client_left")), (1, 1), "{settled:?}");
    assert!(settled.iter().all(|row| row.basis == "estimated" && row.output_text >= 1));
    // Nothing was left for the next start.
    gateway.run().await;
    assert_eq!(gateway.running.as_ref().unwrap().recovered.interrupted, 0);
    assert_eq!(gateway.ledger().await.len(), 2);
}

#[tokio::test]
async fn a_request_without_an_answer_is_told_so_and_settled_too() {
    let upstream = Scripted::playing(vec![Step::Hang]).await;
    let mut gateway = upstream.gateway(|settings| settings.shutdown_grace_s = 0).await;
    let team = gateway.project("tier1").await;
    let mut sockets = Vec::new();
    for body in [request(), text(TEXT_MODEL, "Hi")] {
        let mut socket = TcpStream::connect(team.url.trim_start_matches("http://")).await.unwrap();
        socket.write_all(&raw(team.key.as_deref().unwrap(), &body)).await.unwrap();
        sockets.push(socket);
    }
    eventually("both are there", async || upstream.requests().len() == 2).await;
    assert!(stop(&mut gateway).await.unwrap() < Duration::from_secs(2));
    for mut socket in sockets {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("connection: close\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let error: Value = serde_json::from_str(body).unwrap();
        assert_eq!(error["error"]["code"], "server_is_overloaded");
    }
    eventually("the upstream is left", async || upstream.hang_ups() == 2).await;
    let rows = rows(&gateway).await;
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.outcome == "interrupted" && row.basis == "estimated"), "{rows:?}");
}

/// The grace period ends in the middle of an event, the rest of which comes a little later.
#[tokio::test]
async fn an_event_that_is_passing_when_the_grace_ends_is_finished_first() {
    let gate = Gate::closed();
    let long = word(&"long ".repeat(40_000));
    let (first, second) = long.split_at(long.len() / 2);
    let steps =
        vec![stream_head(), chunk(word("one")), chunk(first), Step::Gate(gate.clone()), chunk(second), Step::Hang];
    let upstream = Scripted::playing(steps).await;
    let mut gateway = upstream.gateway(|settings| settings.shutdown_grace_s = 0).await;
    let team = gateway.project("tier1").await;
    let mut response = team.open(&[], &request()).await;
    let mut came = Vec::new();
    while came.len() < first.len() {
        came.extend(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap());
    }
    let app = std::sync::Arc::clone(&gateway.running.as_ref().unwrap().app);
    let stopped = stop(&mut gateway);
    eventually("it is being cut", async || app.proxy.drainer.is_stopped()).await;
    gate.open();
    came.extend(response.into_body().collect().await.expect("it ends in good order").to_bytes());
    let came = String::from_utf8(came).unwrap();
    let rest = came.strip_prefix(&(word("one") + &long)).expect("whole events come first");
    assert!(rest.starts_with("data: {\"error\":") && rest.matches("\n\n").count() == 1, "{rest}");
    assert!(stopped.await.unwrap() < Duration::from_secs(4));
    assert_eq!(rows(&gateway).await[0].outcome, "interrupted");
}

fn raw(key: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    format!("{head}authorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn an_answer_without_its_client_is_read_on_within_the_grace() {
    let gate = Gate::closed();
    let upstream = Scripted::playing(held(&gate)).await;
    let mut gateway = upstream.gateway(|settings| settings.shutdown_grace_s = 10).await;
    let team = gateway.project("tier1").await;
    drop(team.open(&[], &request()).await);
    eventually("it is read on", async || gateway.metric("drains").await == 1).await;
    let stopped = stop(&mut gateway);
    let address = team.url.trim_start_matches("http://").to_owned();
    eventually("new connections are refused", async || TcpStream::connect(&address).await.is_err()).await;
    // Longer than what follows the cut.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    gate.open();
    assert!(stopped.await.unwrap() < Duration::from_secs(5));
    let rows = rows(&gateway).await;
    assert_eq!((rows.len(), rows[0].basis.as_str(), rows[0].output_text), (1, "reported", 2));
}

#[tokio::test]
async fn idle_connections_are_closed_and_do_not_hold_up_the_end() {
    let mut gateway = Gateway::start_with(|settings| settings.shutdown_grace_s = 10).await;
    let address = gateway.calls_url.trim_start_matches("http://").to_owned();
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let mut used = TcpStream::connect(&address).await.unwrap();
    used.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    assert!(used.read(&mut answer).await.unwrap() > 0);
    eventually("both are open", async || gateway.metric("connections").await >= 2).await;
    assert!(stop(&mut gateway).await.unwrap() < Duration::from_secs(3));
    for socket in [&mut silent, &mut used] {
        assert_eq!(socket.read(&mut answer).await.unwrap_or(0), 0, "closed");
    }
}

#[tokio::test]
async fn health_says_that_the_gateway_stops_to_those_who_can_still_ask() {
    let mut gateway = Gateway::start_with(|settings| settings.shutdown_grace_s = 2).await;
    let mut socket = TcpStream::connect(gateway.calls_url.trim_start_matches("http://")).await.unwrap();
    // In the middle of a head the connection is not idle, so it is not closed yet.
    socket.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    eventually("it is open", async || gateway.metric("connections").await >= 1).await;
    let app = std::sync::Arc::clone(&gateway.running.as_ref().unwrap().app);
    let stopped = stop(&mut gateway);
    eventually("no requests are taken", async || !app.takes_requests()).await;
    drop(app);
    let _ = socket.write_all(b"\r\n").await;
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(stopped.await.unwrap() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_kept_connection_that_asks_once_more_is_answered_and_then_closed() {
    let mut gateway = Gateway::start_with(|settings| settings.shutdown_grace_s = 5).await;
    let team = gateway.project("tier1").await;
    let mut kept = TcpStream::connect(team.url.trim_start_matches("http://")).await.unwrap();
    let call = raw(team.key.as_deref().unwrap(), &text(TEXT_MODEL, "Hi"));
    kept.write_all(&call).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = kept.read(&mut answer).await.unwrap();
    assert!(
        !String::from_utf8_lossy(&answer[..length]).contains("connection: close"),
        "the next request may come here"
    );
    let app = std::sync::Arc::clone(&gateway.running.as_ref().unwrap().app);
    let stopped = stop(&mut gateway);
    eventually("it is stopping", async || app.is_stopping()).await;
    kept.write_all(&call).await.unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(stopped.await.unwrap() < Duration::from_secs(4));
    assert_eq!(rows(&gateway).await.len(), 2);
}

/// What a test is told at its end.
fn end_of(gateway: Gateway) -> std::thread::Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || drop(gateway)))
}

#[tokio::test]
async fn a_test_that_leaves_something_over_fails() {
    let mut gateway = Gateway::start().await;
    gateway.patience = Duration::from_millis(200);
    let team = gateway.project("tier1").await;
    let open = team.open(&[("x-simulate", "hang-midstream")], &request()).await;
    assert!(end_of(gateway).is_err(), "a stream is open");
    drop(open);

    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    assert_eq!(team.say("Hi").await.status, 200);
    gateway.at_rest().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(gateway.ledger_path());
    let pool = sqlx::sqlite::SqlitePoolOptions::new().connect_with(options).await.unwrap();
    sqlx::query("DELETE FROM rollups WHERE detail = 1").execute(&pool).await.unwrap();
    pool.close().await;
    assert!(end_of(gateway).is_err(), "a sum is gone");
}
