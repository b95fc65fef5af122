//! An upstream that is not what it says, or says what nobody expects.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener as StdListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use tollgate::clock::Clock;

use crate::{
    fault_proxy::{Carriage, FaultProxy},
    scripted::{
        DONE, Scripted, Step, answer, chunk, eventually, finish, good_json, last_chunk, stream_head, streamed,
        text_events, usage, word,
    },
    support::{Gateway, Reply, Row, TEXT_MODEL, text, with},
};

fn streaming() -> Value {
    with(text(TEXT_MODEL, "Hi"), &json!({"stream": true, "stream_options": {"include_usage": true}}))
}

fn code(reply: &Reply) -> (u16, String) {
    (reply.status.as_u16(), reply.error()["code"].as_str().unwrap_or_default().to_owned())
}

/// One request, to an upstream of which only the address is known.
async fn asked_of(url: &str) -> (Reply, Duration, Row) {
    let gateway = Gateway::start_before(url, CancellationToken::new(), Clock::system(), |settings| {
        settings.upstream_connect_timeout_s = 1;
    })
    .await;
    let team = gateway.project("tier1").await;
    let asked = Instant::now();
    let reply = team.say("Hi").await;
    let took = asked.elapsed();
    let rows = gateway.ledger().await;
    assert_eq!(rows.len(), 1);
    (reply, took, rows[0].clone())
}

fn costs_nothing(row: &Row) {
    assert_eq!((row.outcome.as_str(), row.input_text, row.cost_pico), ("upstream_failed", 0, Some(0)), "{row:?}");
}

/// What came of one answer.
async fn played(steps: Vec<Step>, body: &Value) -> (Reply, Row) {
    let upstream = Scripted::playing(steps).await;
    let gateway = upstream.gateway(|settings| settings.upstream_first_byte_timeout_s = 1).await;
    let reply = gateway.project("tier1").await.chat(body).await;
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), upstream.requests().len()), (1, 1));
    (reply, rows[0].clone())
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_an_upstream_that_is_not_reached() {
    // No label is that long, so that nobody outside is asked for it.
    let url = format!("http://{}.test/v1", "x".repeat(64));
    let (reply, took, row) = asked_of(&url).await;
    assert_eq!(code(&reply), (502, "upstream_unavailable".to_owned()));
    assert!(took < Duration::from_secs(3), "{took:?}");
    costs_nothing(&row);
}

#[tokio::test]
async fn a_handshake_of_tls_that_stalls_is_given_up_like_a_connection_that_does_and_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            silent.push(stream);
        }
    });
    let (reply, took, row) = asked_of(&url).await;
    assert_eq!(code(&reply), (504, "upstream_timeout".to_owned()));
    assert!(took < Duration::from_secs(3), "{took:?}");
    costs_nothing(&row);
}

#[tokio::test]
async fn where_tls_is_asked_for_nothing_is_ever_sent_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn({
        let heard = Arc::clone(&heard);
        async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut hello = [0; 4096];
                let length = stream.read(&mut hello).await.unwrap_or(0);
                heard.lock().unwrap().extend_from_slice(&hello[..length]);
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
                let length = stream.read(&mut hello).await.unwrap_or(0);
                heard.lock().unwrap().extend_from_slice(&hello[..length]);
            }
        }
    });
    let (reply, _, row) = asked_of(&url).await;
    assert_eq!(code(&reply), (502, "upstream_unavailable".to_owned()));
    costs_nothing(&row);
    let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    assert!(!heard.is_empty() && !heard.contains("POST") && !heard.contains("sk-upstream"), "{heard}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_believed() {
    let certificate = CertificateDer::from(&include_bytes!("../fixtures/self_signed.cert.der")[..]);
    let key = PrivateKeyDer::try_from(&include_bytes!("../fixtures/self_signed.key.der")[..]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    let refused = Arc::new(AtomicUsize::new(0));
    let server = std::thread::spawn({
        let refused = Arc::clone(&refused);
        move || {
            // Both attempts that one call makes.
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut heard = Vec::new();
                let mut talk = rustls::Stream::new(&mut tls, &mut stream);
                let ended = talk.write_all(b"").and_then(|()| talk.read_to_end(&mut heard));
                assert!(heard.is_empty(), "nothing is told to a stranger");
                refused.fetch_add(usize::from(ended.is_err()), Ordering::SeqCst);
            }
        }
    });
    let (reply, _, row) = asked_of(&url).await;
    assert_eq!(code(&reply), (502, "upstream_unavailable".to_owned()));
    costs_nothing(&row);
    eventually("both have been refused", async || refused.load(Ordering::SeqCst) == 2).await;
    server.join().unwrap();
}

#[tokio::test]
async fn interim_answers_are_no_answers_however_many_come() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let Step::Send(good) = good_json() else { unreachable!() };
    let few = Step::Send([interim.repeat(16).as_bytes(), good.as_ref()].concat().into());
    let (reply, row) = played(vec![few], &text(TEXT_MODEL, "Hi")).await;
    assert_eq!((reply.status.as_u16(), row.basis.as_str(), row.output_text), (200, "reported", 7));
    assert_eq!(reply.header("link"), "");
    let asked = Instant::now();
    let (reply, row) = played(vec![Step::Flood(interim.into())], &text(TEXT_MODEL, "Hi")).await;
    assert_eq!(code(&reply), (504, "upstream_timeout".to_owned()), "it has the time that any answer has");
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("upstream_failed", "estimated"));
}

#[tokio::test]
async fn what_follows_an_answer_is_never_the_answer_to_the_next_request() {
    let Step::Send(good) = good_json() else { unreachable!() };
    let smuggled = answer("200 OK", "application/json", r#"{"choices":[],"smuggled":true}"#);
    let Step::Send(smuggled) = smuggled else { unreachable!() };
    let both = Step::Send([good, smuggled].concat().into());
    let upstream = Scripted::playing(vec![both]).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    for number in 1..=10 {
        let reply = team.say("Hi").await;
        assert_eq!((reply.status.as_u16(), reply.text().contains("smuggled")), (200, false), "{number}");
    }
    assert_eq!((upstream.connections(), upstream.requests().len()), (10, 10), "none is used again");
    assert!(gateway.ledger().await.iter().all(|row| row.output_text == 7));
}

#[tokio::test]
async fn a_length_that_is_too_short_or_too_long_makes_no_answer() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    let body = r#"{"choices":[{"index":0,"message":{"content":"Hi"}}],"usage":{"total_tokens":3}}"#;
    let of = |length: usize| Step::Send(format!("{head}{length}\r\n\r\n{body}").into());
    let (reply, row) = played(vec![of(body.len() - 10), Step::Close], &text(TEXT_MODEL, "Hi")).await;
    assert_eq!(code(&reply), (502, "upstream_invalid_response".to_owned()));
    assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("upstream_failed", "estimated"));
    let (reply, row) = played(vec![of(body.len() + 10), Step::Close], &text(TEXT_MODEL, "Hi")).await;
    assert_eq!(code(&reply), (502, "upstream_connection_lost".to_owned()));
    assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("upstream_failed", "estimated"));
}

#[tokio::test]
async fn an_answer_that_is_compressed_although_that_was_not_asked_for_is_none() {
    for (kind, body) in [("application/json", text(TEXT_MODEL, "Hi")), ("text/event-stream", streaming())] {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\u{1f}xx"
        );
        let (reply, row) = played(vec![Step::Send(head.into()), Step::Close], &body).await;
        assert_eq!(code(&reply), (502, "upstream_invalid_response".to_owned()), "{kind}");
        assert_eq!((reply.header("content-encoding"), reply.header("content-type")), ("", "application/json"));
        assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("upstream_failed", "estimated"));
        assert!(row.input_text > 0, "it was processed");
    }
}

#[tokio::test]
async fn a_head_without_end_is_no_answer() {
    let head = |bytes: usize| format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n", "x".repeat(bytes));
    let upstream = Scripted::playing(vec![Step::Send(head(65 << 10).into()), Step::Hang]).await;
    let gateway = upstream.gateway(|settings| settings.upstream_first_byte_timeout_s = 5).await;
    let reply = gateway.project("tier1").await.say("Hi").await;
    assert_eq!(code(&reply), (502, "upstream_connection_lost".to_owned()));
    assert_eq!(gateway.ledger().await[0].basis, "estimated");
    let Step::Send(good) = good_json() else { unreachable!() };
    let good = String::from_utf8(good.to_vec()).unwrap();
    let long = head(30 << 10) + good.split_once("\r\n").unwrap().1;
    let (reply, _) = played(vec![Step::Send(long.into())], &text(TEXT_MODEL, "Hi")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_heartbeat_without_an_answer_does_not_live_for_ever() {
    let Step::Send(beat) = chunk(": still here\n\n") else { unreachable!() };
    for pause in [Duration::ZERO, Duration::from_millis(50)] {
        let upstream = Scripted::playing(vec![stream_head(), Step::Flood(beat.clone())]).await;
        let piece_bytes = (!pause.is_zero()).then_some(beat.len());
        let carriage = Carriage { latency: pause, piece_bytes, ..Carriage::default() };
        let proxy = FaultProxy::before(&upstream.url, move |_| carriage).await;
        let url = if pause.is_zero() { &upstream.url } else { &proxy.url };
        let gateway = Gateway::start_before(url, CancellationToken::new(), Clock::system(), |settings| {
            settings.stream_max_s = 1;
        })
        .await;
        let team = gateway.project("tier1").await;
        let asked = Instant::now();
        let reply = team.chat(&streaming()).await;
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
        let last = reply.text().rsplit("data: ").next().unwrap().to_owned();
        let error: Value = serde_json::from_str(last.trim_end()).unwrap();
        assert_eq!(error["error"]["code"], "upstream_timeout");
        let rows = gateway.ledger().await;
        assert_eq!((rows[0].outcome.as_str(), rows[0].output_text), ("upstream_failed", 0));
        eventually("the upstream is left", async || upstream.hang_ups() == 1).await;
    }
}

#[tokio::test]
async fn a_model_that_is_slow_within_its_time_is_no_fault() {
    let gate = crate::scripted::Gate::closed();
    let mut steps = vec![Step::Gate(gate.clone()), stream_head()];
    for event in text_events(3) {
        steps.extend([Step::Gate(gate.clone()), chunk(event)]);
    }
    steps.push(last_chunk());
    let upstream = Scripted::playing(steps).await;
    let gateway = upstream
        .gateway(|settings| {
            settings.stream_idle_timeout_s = 2;
            settings.upstream_first_byte_timeout_s = 2;
        })
        .await;
    let team = gateway.project("tier1").await;
    let request = tokio::spawn(async move { team.chat(&streaming()).await });
    // Longer in all than either of the two may take.
    while !request.is_finished() {
        tokio::time::sleep(Duration::from_millis(600)).await;
        gate.open();
    }
    let reply = request.await.unwrap();
    assert_eq!(reply.text(), text_events(3).concat());
    let rows = gateway.ledger().await;
    assert_eq!((rows[0].outcome.as_str(), rows[0].basis.as_str(), rows[0].output_text), ("completed", "reported", 3));
}

#[tokio::test]
async fn advice_to_wait_passes_within_an_hour_or_not_at_all() {
    let error = r#"{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
    for (told, passed) in [
        ("retry-after: 7", ("7", "")),
        ("retry-after: 1000000000", ("3600", "")),
        ("retry-after: Sun, 06 Nov 1994 08:49:37 GMT", ("1", "")),
        ("retry-after: -5", ("", "")),
        ("retry-after: 1e9", ("", "")),
        ("retry-after: 2\r\nretry-after-ms: 1500", ("2", "1500")),
        ("retry-after-ms: 99999999999", ("", "3600000")),
    ] {
        let length = error.len();
        let head = format!(
            "HTTP/1.1 429 Too Many Requests\r\n{told}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{error}"
        );
        let (reply, _) = played(vec![Step::Send(head.into())], &text(TEXT_MODEL, "Hi")).await;
        assert_eq!(reply.status, 429);
        assert_eq!((reply.header("retry-after"), reply.header("retry-after-ms")), passed, "{told}");
    }
}

#[tokio::test]
async fn a_usage_that_cannot_be_is_never_negative_and_never_believed() {
    let message = json!({"role": "assistant", "content": "Hello there."});
    for (told, basis) in [
        (json!({"prompt_tokens": -5, "completion_tokens": -7, "total_tokens": -12}), "estimated"),
        (json!({"prompt_tokens": 9_223_372_036_854_775_808_u64, "completion_tokens": 1}), "estimated"),
        (json!({"prompt_tokens": 1, "completion_tokens": 18_446_744_073_709_551_615_u64}), "estimated"),
        (json!(null), "estimated"),
        (json!("many"), "estimated"),
    ] {
        let body = json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": told});
        let whole = vec![answer("200 OK", "application/json", &body.to_string())];
        let last = format!("data: {}\n\n", json!({"choices": [], "usage": told}));
        let stream = streamed(&[word("one"), finish(), last, DONE.to_owned()]);
        for (steps, body) in [(whole, text(TEXT_MODEL, "Hi")), (stream, streaming())] {
            let (reply, row) = played(steps, &body).await;
            assert_eq!((reply.status.as_u16(), row.basis.as_str()), (200, basis), "{told}");
            assert!(row.input_text > 0 && row.output_text > 0, "{told}: {row:?}");
            assert!(row.input_text < 1_000 && row.output_text < 100_000, "{told}: {row:?}");
        }
    }
    // Said twice, and smaller the second time: the last one counts.
    let twice = [word("one"), finish(), usage(5, 9), usage(5, 6), DONE.to_owned()];
    let (_, row) = played(streamed(&twice), &streaming()).await;
    assert_eq!((row.basis.as_str(), row.output_text), ("reported", 6));
}
