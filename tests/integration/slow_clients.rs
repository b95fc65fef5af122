//! Clients that are slow, silent or many hold what they hold for a bounded time, and no memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    scripted::{Scripted, Step, chunk, eventually, stream_head, text_events, word},
    support::{Actor, Gateway, TEXT_MODEL, text, with},
};

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.trim_start_matches("http://")).await.unwrap()
}

/// With little room for what comes.
async fn connect_small(url: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(url.trim_start_matches("http://").parse().unwrap()).await.unwrap()
}

fn head(team: &Actor, length: usize) -> String {
    let key = team.key.as_deref().unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    format!("{head}authorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n")
}

/// Everything until the connection closes, and how long that took.
async fn until_closed(socket: &mut TcpStream) -> (String, Duration) {
    let (began, mut answer) = (Instant::now(), Vec::new());
    let _ = socket.read_to_end(&mut answer).await;
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

#[tokio::test]
async fn a_head_that_does_not_come_closes_the_connection() {
    let gateway = Gateway::start_with(|settings| settings.header_timeout_s = 1).await;
    let connections = gateway.metric("connections").await;
    let mut sockets = Vec::new();
    for beginning in ["", "P", "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthor"] {
        let mut socket = connect(&gateway.calls_url).await;
        socket.write_all(beginning.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    for socket in &mut sockets {
        let (answer, took) = until_closed(socket).await;
        assert!(took < Duration::from_secs(2) && !answer.contains(" 200 "), "{answer}");
    }
    eventually("the places are free", async || gateway.metric("connections").await <= connections).await;
    assert_eq!(gateway.project("tier1").await.say("Hi").await.status, 200);
}

#[tokio::test]
async fn a_head_that_drips_closes_the_connection() {
    let gateway = Gateway::start_with(|settings| settings.header_timeout_s = 1).await;
    let began = Instant::now();
    let mut socket = connect(&gateway.calls_url).await;
    while socket.write_all(b"GET").await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(3));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() > Duration::from_millis(900));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408_that_consumes_nothing() {
    let gateway = Gateway::start_with(|settings| settings.body_idle_timeout_s = 1).await;
    let team = gateway.project("tier1").await;
    let left = |reply: &crate::support::Reply| reply.header("x-ratelimit-remaining-requests").parse::<u64>().unwrap();
    let before = left(&team.say("Hi").await);
    for beginning in ["", "{\"model\":\"gpt-4o-mini\","] {
        let mut socket = connect(&gateway.calls_url).await;
        socket.write_all((head(&team, 100) + beginning).as_bytes()).await.unwrap();
        let (answer, took) = until_closed(&mut socket).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"error\""), "{answer}");
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(2));
    }
    assert_eq!(gateway.metric("upstream_calls_total").await, 1);
    assert_eq!(left(&team.say("Hi").await), before - 1);
    assert_eq!(gateway.ledger().await.len(), 2);
}

#[tokio::test]
async fn connections_over_the_bound_wait_and_administrators_are_not_locked_out() {
    let gateway = Gateway::start_with(|settings| settings.max_connections = 2).await;
    let mut inside = [connect(&gateway.calls_url).await, connect(&gateway.calls_url).await];
    // The place of the listener itself is one of them.
    eventually("both are inside", async || gateway.metric("connections").await >= 3).await;
    let mut waiting = connect(&gateway.calls_url).await;
    waiting.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    let early = tokio::time::timeout(Duration::from_millis(200), waiting.read_exact(&mut answer)).await;
    assert!(early.is_err(), "no third one is served");
    assert_eq!(gateway.admin().get("/health").await.status, 200);
    inside[0].shutdown().await.unwrap();
    waiting.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

fn request() -> Value {
    with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}))
}

#[tokio::test]
async fn a_client_that_never_reads_stops_the_upstream_and_is_given_up() {
    // 64 KiB a piece.
    let piece = word(&"x".repeat(1_000));
    let Step::Send(flood) = chunk(piece.repeat(60)) else { unreachable!() };
    let upstream = Scripted::playing(vec![stream_head(), Step::Flood(flood)]).await;
    let gateway = upstream
        .gateway(|settings| {
            settings.unread_timeout_s = 2;
            settings.drain_max_bytes = 1_024;
        })
        .await;
    let team = gateway.project("tier1").await;
    let body = request().to_string();
    let mut socket = connect_small(&team.url).await;
    socket.write_all((head(&team, body.len()) + &body).as_bytes()).await.unwrap();
    // What the gateway has read is in the sockets' buffers or its own; its own are bounded when this one is.
    let (mut written, mut steady) = (0, 0);
    while steady < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        steady = if upstream.written() == written && written > 0 { steady + 1 } else { 0 };
        written = upstream.written();
        assert!(written < 16 << 20, "the upstream is not held back: {written} bytes");
    }
    eventually("the upstream is left", async || upstream.hang_ups() == 1).await;
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), rows[0].outcome.as_str(), rows[0].basis.as_str()), (1, "client_left", "estimated"));
    drop(socket);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let events: Vec<_> = (0..200).map(|_| word(&"~".repeat(5_000))).chain(text_events(1)).collect();
    let steps = std::iter::once(stream_head()).chain(events.iter().map(chunk)).chain([crate::scripted::last_chunk()]);
    let upstream = Scripted::playing(steps.collect()).await;
    let gateway = upstream.gateway(|settings| settings.unread_timeout_s = 1).await;
    let team = gateway.project("tier1").await;
    let body = request().to_string();
    let mut socket = connect(&team.url).await;
    let head = head(&team, body.len()).replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    socket.write_all((head + &body).as_bytes()).await.unwrap();
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let length = socket.read(&mut buffer).await.unwrap();
        if length == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..length]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let text = String::from_utf8(all).unwrap();
    // Counted one by one: the connection's own chunks may lie anywhere between them.
    assert_eq!(text.matches('~').count(), 200 * 5_000);
    assert!(text.contains("data: [DONE]"));
    assert_eq!(gateway.ledger().await[0].outcome, "completed");
}
