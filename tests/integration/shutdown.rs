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
async fn a_stream_that_outlasts_the_grace_is_cut_and_settled() {
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
    let rest = response.into_body().collect().await;
    assert!(rest.is_err(), "the client sees that its answer broke off");
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
async fn a_request_without_an_answer_is_cut_and_settled_too() {
    let upstream = Scripted::playing(vec![Step::Hang]).await;
    let mut gateway = upstream.gateway(|settings| settings.shutdown_grace_s = 0).await;
    let team = gateway.project("tier1").await;
    for body in [request(), text(TEXT_MODEL, "Hi")] {
        let mut socket = TcpStream::connect(team.url.trim_start_matches("http://")).await.unwrap();
        socket.write_all(&raw(team.key.as_deref().unwrap(), &body)).await.unwrap();
        // Kept open beyond the test's end.
        std::mem::forget(socket);
    }
    eventually("both are there", async || upstream.requests().len() == 2).await;
    assert!(stop(&mut gateway).await.unwrap() < Duration::from_secs(2));
    eventually("the upstream is left", async || upstream.hang_ups() == 2).await;
    let rows = rows(&gateway).await;
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.outcome == "interrupted" && row.basis == "estimated"), "{rows:?}");
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
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(stopped.await.unwrap() < Duration::from_secs(4));
}
