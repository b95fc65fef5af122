//! An upstream that cannot be reached, does not answer, or answers something else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tollgate::clock::Clock;

use crate::{
    scripted::{Scripted, Step, answer, good_json},
    support::{Gateway, Reply, Row, TEXT_MODEL, text, with},
};

/// The same request as JSON and as a stream.
fn both() -> [Value; 2] {
    let body = text(TEXT_MODEL, "Hi");
    [body.clone(), with(body, &json!({"stream": true}))]
}

fn left(reply: &Reply) -> (u64, u64) {
    let header = |name| reply.header(name).parse().unwrap();
    (header("x-ratelimit-remaining-requests"), header("x-ratelimit-remaining-tokens"))
}

fn code(reply: &Reply) -> (u16, String) {
    let error = reply.error();
    assert!(["message", "type", "param", "code"].iter().all(|key| error.get(key).is_some()), "{error}");
    (reply.status.as_u16(), error["code"].as_str().unwrap_or_default().to_owned())
}

/// So many rows, each settled as a failure of the upstream, for nothing.
fn failed_for_nothing(rows: &[Row], expected: usize, status: i64) {
    assert_eq!(rows.len(), expected);
    for row in rows {
        assert_eq!((row.outcome.as_str(), row.status), ("upstream_failed", status));
        assert_eq!((row.input_text, row.output_text, row.cost_pico), (0, 0, Some(0)), "nothing is charged");
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_is_tried_twice_and_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let gateway = Gateway::start_before(&url, CancellationToken::new(), Clock::system(), |_| {}).await;
    let team = gateway.project("tier1").await;
    let mut before = None;
    for (number, body) in (1..).zip(both()) {
        let reply = team.chat(&body).await;
        assert_eq!(code(&reply), (502, "upstream_unavailable".to_owned()));
        assert_eq!(gateway.metric("upstream_calls_total").await, 2 * number);
        assert_eq!(gateway.metric("upstream_retries_total").await, number);
        assert_eq!(*before.get_or_insert(left(&reply)), left(&reply), "the limits got everything back");
    }
    failed_for_nothing(&gateway.ledger().await, 2, 502);
}

#[tokio::test]
async fn an_upstream_that_does_not_take_connections_is_given_up_in_time_and_costs_nothing() {
    // The kernel drops what does not fit into the queue of a listener that accepts nothing.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        queue.push(stream);
    }
    let url = format!("http://{address}/v1");
    let gateway = Gateway::start_before(&url, CancellationToken::new(), Clock::system(), |settings| {
        settings.upstream_connect_timeout_s = 1;
    })
    .await;
    let team = gateway.project("tier1").await;
    let asked = Instant::now();
    let reply = team.say("Hi").await;
    assert_eq!(code(&reply), (504, "upstream_timeout".to_owned()));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(gateway.metric("upstream_calls_total").await, 1);
    failed_for_nothing(&gateway.ledger().await, 1, 504);
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_given_up_and_not_asked_again() {
    let upstream = Scripted::playing(vec![Step::Hang]).await;
    let gateway = upstream.gateway(|settings| settings.upstream_first_byte_timeout_s = 1).await;
    let team = gateway.project("tier1").await;
    for body in both() {
        let asked = Instant::now();
        let reply = team.chat(&body).await;
        assert_eq!(code(&reply), (504, "upstream_timeout".to_owned()));
        assert!(asked.elapsed() > Duration::from_millis(900) && asked.elapsed() < Duration::from_secs(2));
    }
    for row in unknown_but_charged(&gateway, &upstream).await {
        assert_eq!(row.status, 504);
    }
}

/// Nobody knows whether the request was processed: its input is charged, marked as estimated, and it is not sent again.
async fn unknown_but_charged(gateway: &Gateway, upstream: &Scripted) -> Vec<Row> {
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), upstream.requests().len()), (2, 2), "no request is sent twice");
    for row in &rows {
        assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("upstream_failed", "estimated"));
        assert!(row.input_text > 0 && row.output_text == 0, "{row:?}");
    }
    rows
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_no_reason_to_send_again() {
    for end in [Step::Reset, Step::Close] {
        let upstream = Scripted::playing(vec![end]).await;
        let gateway = upstream.gateway(|_| {}).await;
        let team = gateway.project("tier1").await;
        for body in both() {
            assert_eq!(code(&team.chat(&body).await), (502, "upstream_connection_lost".to_owned()));
        }
        for row in unknown_but_charged(&gateway, &upstream).await {
            assert_eq!(row.status, 502);
        }
    }
}

#[tokio::test]
async fn a_connection_lost_within_the_head_is_no_reason_to_send_again() {
    let half = Step::Send("HTTP/1.1 200 OK\r\ncontent-type: appl".into());
    let upstream = Scripted::playing(vec![half, Step::Reset]).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    for body in both() {
        assert_eq!(team.chat(&body).await.status, 502);
    }
    unknown_but_charged(&gateway, &upstream).await;
}

#[tokio::test]
async fn a_pooled_connection_that_the_upstream_closed_is_not_noticed_by_the_caller() {
    // Answers as if the connection stayed, then closes it.
    let upstream = Scripted::playing(vec![good_json(), Step::Close]).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    for number in 1..=10 {
        assert_eq!(team.say("Hi").await.status, 200);
        assert_eq!((upstream.connections(), upstream.requests().len()), (number, number));
        // The close may still be on its way.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (calls, retries) =
        (gateway.metric("upstream_calls_total").await, gateway.metric("upstream_retries_total").await);
    assert_eq!(calls - retries, 10, "each retry is counted");
    assert!(gateway.ledger().await.iter().all(|row| row.outcome == "completed" && row.output_text == 7));
}

#[tokio::test]
async fn the_upstreams_refusal_of_our_key_is_told_in_our_words() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    for (fault, told) in [("401", "upstream_auth_error"), ("403", "upstream_model_access")] {
        for body in both() {
            let reply = team.chat_with_fault(fault, &body).await;
            assert_eq!(code(&reply), (502, told.to_owned()));
            let text = reply.text();
            assert!(
                !text.contains("sk-") && !text.contains("Incorrect API key") && !text.contains("openai.com"),
                "{text}"
            );
            assert!(reply.headers.get("www-authenticate").is_none());
        }
    }
    failed_for_nothing(&gateway.ledger().await, 4, 502);
}

#[tokio::test]
async fn the_upstreams_own_limit_passes_with_its_advice() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    for body in both() {
        let reply = team.chat_with_fault("429; retry-after-ms=1500", &body).await;
        assert_eq!(code(&reply), (429, "rate_limit_exceeded".to_owned()));
        assert_eq!((reply.header("retry-after"), reply.header("retry-after-ms")), ("2", "1500"));
    }
    failed_for_nothing(&gateway.ledger().await, 2, 429);
}

#[tokio::test]
async fn failures_in_the_shape_of_openai_pass_as_they_came() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    for fault in ["500", "502", "503", "504"] {
        for body in both() {
            let reply = team.chat_with_fault(fault, &body).await;
            assert_eq!(reply.status.as_str(), fault);
            assert!(reply.error()["message"].is_string() && reply.error()["type"].is_string(), "{}", reply.text());
            assert!(!reply.text().contains("The upstream failed"), "as it came: {}", reply.text());
        }
    }
    // Requests of one millisecond have no order among themselves.
    let mut rows = gateway.ledger().await;
    rows.sort_by_key(|row| row.status);
    for (two, status) in rows.chunks(2).zip([500, 502, 503, 504]) {
        failed_for_nothing(two, 2, status);
    }
    assert_eq!(rows.len(), 8);
}

#[tokio::test]
async fn answers_that_are_none_become_errors() {
    let gateway = Gateway::start_with(|settings| settings.max_answer_bytes = 100_000).await;
    let team = gateway.project("tier1").await;
    for (fault, expected) in [
        ("html", "upstream_invalid_response"),
        ("garbage", "upstream_invalid_response"),
        ("redirect", "upstream_redirect"),
        ("chunks=50000", "upstream_answer_too_large"),
    ] {
        let reply = team.chat_with_fault(fault, &text(TEXT_MODEL, "Hi")).await;
        assert_eq!(code(&reply), (502, expected.to_owned()), "{fault}");
        assert!(!reply.text().contains("<html"), "nothing of it passes");
        assert_eq!(reply.header("location"), "");
    }
    let rows = gateway.ledger().await;
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.outcome == "upstream_failed" && row.status == 502 && row.output_text == 0));
}

#[tokio::test]
async fn an_error_page_that_is_not_openais_is_replaced() {
    let page = "<html>secret internals</html>";
    for (status, expected) in [("503 Service Unavailable", 503), ("404 Not Found", 502), ("418 I'm a teapot", 502)] {
        let upstream = Scripted::playing(vec![answer(status, "text/html", page)]).await;
        let gateway = upstream.gateway(|_| {}).await;
        let team = gateway.project("tier1").await;
        for body in both() {
            let reply = team.chat(&body).await;
            assert_eq!(code(&reply), (expected, "upstream_error".to_owned()));
            assert!(!reply.text().contains("secret"));
            assert_eq!(reply.header("content-type"), "application/json");
        }
        failed_for_nothing(&gateway.ledger().await, 2, expected.into());
        assert_eq!(upstream.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_json_answer_that_breaks_off_is_never_half_an_answer() {
    let gateway = Gateway::start_with(|settings| settings.stream_idle_timeout_s = 1).await;
    let team = gateway.project("tier1").await;
    let faults = [("cut-body", 502, "upstream_connection_lost"), ("hang-midstream", 504, "upstream_timeout")];
    for (fault, status, expected) in faults {
        let reply = team.chat_with_fault(fault, &text(TEXT_MODEL, "Hi")).await;
        assert_eq!(code(&reply), (status, expected.to_owned()), "{fault}");
    }
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"choices\":[";
    let upstream = Scripted::playing(vec![Step::Send(half.into()), Step::Reset]).await;
    let behind_reset = upstream.gateway(|_| {}).await;
    let reply = behind_reset.project("tier1").await.say("Hi").await;
    assert_eq!(code(&reply), (502, "upstream_connection_lost".to_owned()));
    assert_eq!(upstream.requests().len(), 1);
    for row in [gateway.ledger().await, behind_reset.ledger().await].concat() {
        assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("upstream_failed", "estimated"));
    }
}

#[tokio::test]
async fn a_json_answer_that_drips_is_given_up() {
    let gateway = Gateway::start_with(|settings| settings.stream_max_s = 1).await;
    let team = gateway.project("tier1").await;
    let asked = Instant::now();
    let reply = team.chat_with_fault("slow; gap-ms=300", &text(TEXT_MODEL, "Hi")).await;
    assert_eq!(code(&reply), (504, "upstream_timeout".to_owned()));
    assert!(asked.elapsed() < Duration::from_secs(2));
    assert_eq!(gateway.ledger().await.len(), 1);
}
