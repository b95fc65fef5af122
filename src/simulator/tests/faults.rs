//! Each fault does what its name says.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{End, Reply, Running};
use crate::simulator::{
    Options,
    faults::{FAULTS, Fault},
    serve,
};

fn request(stream: bool) -> Value {
    let mut request =
        json!({ "messages": [{ "role": "user", "content": "Hi" }], "model": "gpt-4o-mini", "stream": stream });
    if stream {
        request["stream_options"] = json!({ "include_usage": true });
    }
    request
}

async fn spoiled(server: &Running, stream: bool, wish: &str) -> Reply {
    server.post(&request(stream)).header(&format!("x-simulate: {wish}")).patience(3_000).send().await
}

#[tokio::test]
async fn statuses_are_answered_with_an_error_object() {
    let server = Running::default().await;
    for (name, fault) in FAULTS {
        let Fault::Status(status) = *fault else { continue };
        for stream in [false, true] {
            let reply = spoiled(&server, stream, name).await;
            assert_eq!(reply.status, status);
            let error = &reply.json()["error"];
            assert!(error["message"].is_string() && error.get("param").is_some() && error.get("code").is_some());
        }
    }
}

#[tokio::test]
async fn a_429_says_when_to_come_back() {
    let server = Running::default().await;
    let reply = spoiled(&server, false, "429; retry-after-ms=1500").await;
    assert_eq!((reply.header("retry-after-ms"), reply.header("retry-after")), (Some("1500"), Some("2")));
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("0"));
    let error = reply.json()["error"].clone();
    assert_eq!((&error["type"], &error["code"]), (&json!("requests"), &json!("rate_limit_exceeded")));
    assert!(error["message"].as_str().unwrap().contains("Limit 500, Used 500, Requested 1. Please try again in 1.5s."));

    let tokens = spoiled(&server, false, "429, limit=tokens").await;
    assert_eq!(tokens.json()["error"]["type"], "tokens");
    assert_eq!(tokens.header("x-ratelimit-remaining-tokens"), Some("0"));
    let quota = spoiled(&server, false, "429; limit=quota").await;
    assert_eq!((quota.header("retry-after"), &quota.json()["error"]["code"]), (None, &json!("insufficient_quota")));
    let odd = spoiled(&server, false, "429; retry-after=-5").await;
    assert_eq!((odd.header("retry-after"), odd.header("retry-after-ms")), (Some("-5"), None));
}

#[tokio::test]
async fn a_model_name_asks_for_a_fault_and_the_header_wins() {
    let server = Running::default().await;
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "model": "sim-503" });
    assert_eq!(server.chat(body.clone()).await.status, 503);
    assert_eq!(server.post(&body).header("x-simulate: 500").send().await.status, 500);
    let unknown = spoiled(&server, false, "explode").await;
    assert_eq!((unknown.status, &unknown.json()["error"]["param"]), (400, &json!("x-simulate")));
}

#[tokio::test]
async fn hanging_answers_never_come_or_never_end() {
    let server = Running::default().await;
    let asked = |stream, wish: &str| server.post(&request(stream)).header(&format!("x-simulate: {wish}")).patience(150);
    let silent = asked(false, "hang").send().await;
    assert_eq!((silent.status, silent.end), (0, End::Silence));
    for stream in [false, true] {
        let reply = asked(stream, "hang-midstream").send().await;
        assert_eq!((reply.status, reply.end), (200, End::Silence));
        assert!(!reply.body.is_empty());
    }
}

#[tokio::test]
async fn a_reset_arrives_as_one() {
    let server = Running::default().await;
    let reply = spoiled(&server, false, "reset").await;
    assert_eq!((reply.status, reply.end), (0, End::Reset));
}

#[tokio::test]
async fn cut_answers_break_off_where_they_should() {
    let server = Running::default().await;
    let event = spoiled(&server, true, "cut-event").await;
    assert_eq!((event.status, event.end), (200, End::Torn));
    assert!(!event.text().ends_with("\n\n"));
    let clean = spoiled(&server, true, "cut-clean").await;
    assert_eq!(clean.end, End::Whole);
    assert!(
        clean.text().ends_with("\n\n") && !clean.text().contains("[DONE]") && !clean.text().contains("total_tokens")
    );
    let body = spoiled(&server, false, "cut-body").await;
    assert_eq!(body.end, End::Torn);
    assert!(body.header("content-length").unwrap().parse::<usize>().unwrap() > body.body.len());
    assert!(!body.body.is_empty());
    let half = spoiled(&server, false, "cut-clean").await;
    assert_eq!(half.end, End::Whole);
    assert!(serde_json::from_str::<Value>(half.text()).is_err());
    assert_eq!(spoiled(&server, true, "cut-body").await.end, End::Torn);
}

#[tokio::test]
async fn nonsense_is_served_with_a_straight_face() {
    let server = Running::default().await;
    let garbage = spoiled(&server, false, "garbage").await;
    assert_eq!((garbage.status, garbage.header("content-type")), (200, Some("application/json")));
    assert!(serde_json::from_slice::<Value>(&garbage.body).is_err());
    let html = spoiled(&server, true, "html").await;
    assert_eq!((html.status, html.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let moved = spoiled(&server, false, "redirect").await;
    assert_eq!(moved.status, 302);
    assert!(moved.header("location").unwrap().starts_with("https://elsewhere.invalid/"));
}

#[tokio::test]
async fn a_stream_can_fail_after_its_status() {
    let server = Running::default().await;
    let reply = spoiled(&server, true, "error-event").await;
    assert_eq!((reply.status, reply.end), (200, End::Whole));
    let chunks = reply.chunks();
    assert_eq!(chunks.last().unwrap()["error"]["type"], "server_error");
    assert!(chunks.len() > 2 && !reply.text().contains("[DONE]"));
    let bare = spoiled(&server, true, "error-event; bare; done").await;
    assert_eq!(bare.events().len(), 2);
    assert!(bare.events()[0].starts_with(r#"{"error":"#) && bare.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn usage_can_be_missing_null_or_elsewhere() {
    let server = Running::default().await;
    for wish in ["no-usage", "usage-null"] {
        assert!(!spoiled(&server, true, wish).await.text().contains("total_tokens"));
        let whole = spoiled(&server, false, wish).await.json();
        assert_eq!(whole.get("usage"), (wish == "usage-null").then_some(&Value::Null));
    }
    let finish = spoiled(&server, true, "usage-on-finish").await.chunks();
    let last = finish.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!((&last["usage"]["total_tokens"], &last["usage"]["prompt_cache_miss_tokens"]), (&json!(21), &json!(5)));
    let groq = spoiled(&server, true, "usage-groq").await.chunks();
    assert_eq!(groq.last().unwrap()["x_groq"]["usage"]["total_tokens"], 21);
    assert!(groq.iter().all(|chunk| chunk.get("usage").is_none()));
    let azure = spoiled(&server, true, "usage-azure").await.chunks();
    assert_eq!((&azure[0]["choices"], azure[0].get("usage")), (&json!([]), None));
    assert_eq!(azure.last().unwrap()["usage"]["total_tokens"], 21);
}

#[tokio::test]
async fn mistral_counts_audio_on_top_of_the_prompt() {
    let server = Running::default().await;
    let wav = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAAQAAAAEAAAABAAgAZGF0YQAAAAA=";
    let part = json!({ "type": "input_audio", "input_audio": { "data": wav, "format": "wav" } });
    let body = json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "What is it?" }, part] }],
        "model": "gpt-audio-mini" });
    let usage = server.post(&body).header("x-simulate: usage-mistral").send().await.json()["usage"].clone();
    let number = |key: &str| usage[key].as_u64().unwrap();
    let audio = usage["prompt_tokens_details"]["audio_tokens"].as_u64().unwrap();
    assert_eq!(number("total_tokens"), number("prompt_tokens") + audio + number("completion_tokens"));
    assert!(usage["prompt_audio_seconds"].is_u64());
}

#[tokio::test]
async fn slow_streams_and_delays_take_their_time() {
    let server = Running::default().await;
    let begun = Instant::now();
    let reply = spoiled(&server, true, "slow; chunks=1").await;
    // Role, word, finish, usage, end: four gaps.
    assert_eq!(reply.events().len(), 5);
    assert!(begun.elapsed() >= Duration::from_millis(4 * 200));
    let begun = Instant::now();
    let late = spoiled(&server, false, "delay-ms=80; chunks=3").await;
    assert!(begun.elapsed() >= Duration::from_millis(80));
    assert_eq!(late.json()["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn a_hanging_answer_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap().to_string(), CancellationToken::new());
    let server = Running { address, _stop: stop.clone().drop_guard() };
    let serving = tokio::spawn(serve(listener, Options::default(), stop.clone()));
    let hanging = server.post(&request(false)).header("x-simulate: hang").patience(300).send();
    assert_eq!(hanging.await.end, End::Silence);
    let hanging = tokio::spawn(server.post(&request(false)).header("x-simulate: hang").send());
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap().unwrap();
    assert_ne!(hanging.await.unwrap().end, End::Silence);
}

#[tokio::test]
async fn a_fault_wanted_once_spares_the_retry() {
    let server = Running::default().await;
    let ask = |id: &str| {
        server
            .post(&request(false))
            .header("x-simulate: 500; once")
            .header(&format!("x-client-request-id: {id}"))
            .send()
    };
    assert_eq!([ask("a").await.status, ask("a").await.status, ask("b").await.status], [500, 200, 500]);
}
