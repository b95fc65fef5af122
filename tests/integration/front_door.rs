//! What is no request as we take them is refused before any handler sees it, and its connection is closed.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::Gateway;

/// Long before the header time-out: the server closes by itself.
const AT_ONCE: Duration = Duration::from_secs(5);

/// All that comes until the connection is closed; `None` when it is not.
async fn answer(gateway: &Gateway, request: &[u8]) -> Option<String> {
    let mut socket = TcpStream::connect(gateway.calls_url.trim_start_matches("http://")).await.unwrap();
    // What is too long may be refused while it is still being sent.
    let _ = socket.write_all(request).await;
    let mut bytes = Vec::new();
    let _ = timeout(AT_ONCE, socket.read_to_end(&mut bytes)).await.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_closed() {
    let gateway = Gateway::start_with(|settings| settings.header_timeout_s = 60).await;
    let many: String = (0..101).fold(String::new(), |all, number| all + &format!("x-{number}: x\r\n"));
    let long = "x".repeat(70_000);
    let chunked = "transfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let table = [
        ("400", "GET /health HTTP/1.1\r\n\r\n".to_owned()),
        ("400", "GET /health HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n".to_owned()),
        ("400", "GET /health HTTP/1.1\r\nhost: a, b/c\r\n\r\n".to_owned()),
        ("400", "GET /health HTTP/1.1\r\nhost: user@a\r\n\r\n".to_owned()),
        ("400", "GET /health HTTP/1.2\r\nhost: a\r\n\r\n".to_owned()),
        ("400", "GET  /health HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("400", format!("POST /v1/chat/completions HTTP/1.0\r\nhost: a\r\n{chunked}")),
        ("431", format!("GET /health HTTP/1.1\r\nhost: a\r\n{many}\r\n")),
        ("431", format!("GET /health HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n")),
        ("414", format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n")),
    ];
    for (status, request) in table {
        let shown = &request[..request.len().min(80)];
        let answer = answer(&gateway, request.as_bytes()).await.unwrap_or_else(|| panic!("stays open: {shown}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown} was answered {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close\r\n"), "{answer}");
    }
    assert_eq!(gateway.ledger().await.len(), 0);
}

#[tokio::test]
async fn http2_is_not_spoken() {
    let gateway = Gateway::start_with(|settings| settings.header_timeout_s = 60).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    assert_eq!(answer(&gateway, preface).await.as_deref(), Some(""), "closed, as RFC 9113 has it for a server without");
    let upgrade = b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\n\
        http2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = answer(&gateway, upgrade).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
}

#[tokio::test]
async fn a_connection_that_is_kept_and_not_used_is_closed() {
    let gateway = Gateway::start_with(|settings| settings.header_timeout_s = 1).await;
    let mut socket = TcpStream::connect(gateway.calls_url.trim_start_matches("http://")).await.unwrap();
    for _ in 0..2 {
        socket.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = socket.try_read(&mut [0; 1_024]).unwrap();
    }
    let (idle_since, mut rest) = (Instant::now(), Vec::new());
    timeout(AT_ONCE, socket.read_to_end(&mut rest)).await.expect("it stays open").unwrap();
    assert!(rest.is_empty() && idle_since.elapsed() > Duration::from_millis(500));
}
