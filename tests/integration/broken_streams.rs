//! A stream that breaks off ends for the client with whole events and one error event, never with `[DONE]`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    scripted::{
        DONE, Scripted, Step, chunk, finish, last_chunk, spoken_events, stream_head, streamed, text_events, word,
    },
    support::{Gateway, Reply, TEXT_MODEL, spoken, text, with},
};

fn request() -> Value {
    with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}))
}

/// Checks what a client may see of a stream that broke off; hands back what came before the error.
fn broken_off(reply: &Reply, expected: &str) -> Vec<Value> {
    assert_eq!(reply.status, 200);
    assert!(!reply.text().contains("[DONE]"), "a broken stream never looks complete: {}", reply.text());
    assert!(reply.text().ends_with("\n\n"), "whole events only");
    let mut events = reply.events();
    let error = events.pop().unwrap()["error"].clone();
    assert_eq!(error["code"], expected, "{}", reply.text());
    assert!(error["message"].is_string() && error["type"].is_string() && error["param"].is_null());
    assert!(events.iter().all(|event| event["error"].is_null()), "one error event");
    events
}

#[tokio::test]
async fn breaks_that_the_look_alike_knows() {
    let gateway = Gateway::start_with(|settings| settings.stream_idle_timeout_s = 1).await;
    let team = gateway.project("tier1").await;
    let faults = [
        ("cut-event", "upstream_connection_lost"),
        ("cut-body", "upstream_connection_lost"),
        ("cut-clean", "upstream_incomplete"),
        ("hang-midstream", "upstream_timeout"),
    ];
    let spoken = with(spoken("pcm16"), &json!({"stream": true}));
    for (number, (fault, expected)) in (1..).zip(faults) {
        for (place, body) in [request(), spoken.clone()].iter().enumerate() {
            let asked = Instant::now();
            let reply = team.chat_with_fault(fault, body).await;
            assert!(asked.elapsed() < Duration::from_secs(2), "{fault}");
            let events = broken_off(&reply, expected);
            assert!(!events.is_empty());
            let rows = gateway.ledger().await;
            assert_eq!(rows.len(), 2 * number - 1 + place);
            let row = rows.last().unwrap();
            assert_eq!((row.outcome.as_str(), row.basis.as_str()), ("upstream_failed", "estimated"), "{fault}");
            let said = events.iter().filter(|event| {
                let delta = &event["choices"][0]["delta"];
                [&delta["content"], &delta["audio"]["transcript"]]
                    .iter()
                    .any(|said| said.as_str().is_some_and(|s| !s.is_empty()))
            });
            assert_eq!(row.output_text, i64::try_from(said.count()).unwrap(), "what was delivered is charged");
        }
    }
}

/// What the gateway makes of `steps`, and the row.
async fn played(steps: Vec<Step>, body: &Value) -> (Reply, crate::support::Row) {
    let upstream = Scripted::playing(steps).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    let reply = team.chat(body).await;
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), upstream.requests().len()), (1, 1));
    (reply, rows[0].clone())
}

#[tokio::test]
async fn a_reset_at_any_place_leaves_whole_events_and_an_error() {
    let events = text_events(4);
    let places: Vec<_> = (0..events.len() - 2).flat_map(|whole| [0, 1, 6, 40].map(|torn| (whole, torn))).collect();
    let scripts: Vec<_> = places.iter().map(|(whole, torn)| torn_by_reset(&events, *whole, *torn)).collect();
    let upstream = Scripted::start(move |number| scripts[number].clone()).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier5").await;
    for (whole, _) in &places {
        let reply = team.chat(&request()).await;
        // A reset may overtake what was sent before it.
        let before = broken_off(&reply, "upstream_connection_lost");
        assert!(before.len() <= *whole && reply.text().starts_with(&events[..before.len()].concat()));
    }
    let rows = gateway.ledger().await;
    assert_eq!((rows.len(), upstream.requests().len()), (places.len(), places.len()));
    assert!(rows.iter().all(|row| row.outcome == "upstream_failed" && row.basis == "estimated"), "{rows:?}");
}

fn torn_by_reset(events: &[String], whole: usize, torn: usize) -> Vec<Step> {
    let mut steps: Vec<_> = std::iter::once(stream_head()).chain(events[..whole].iter().map(chunk)).collect();
    if torn > 0 {
        steps.push(chunk(&events[whole][..torn]));
    }
    steps.push(Step::Reset);
    steps
}

#[tokio::test]
async fn a_large_event_that_breaks_off_does_not_run_into_the_error() {
    let events = spoken_events();
    let torn = &events[5][..9_000];
    let steps = vec![stream_head(), chunk(events[..5].concat()), chunk(torn), Step::Close];
    let (reply, row) = played(steps, &with(spoken("pcm16"), &json!({"stream": true}))).await;
    let text = reply.text();
    let parts: Vec<_> = text.split_inclusive("\n\n").collect();
    // It began to pass before it broke off, which cannot be taken back.
    assert_eq!(parts[..5].concat(), events[..5].concat());
    assert_eq!(parts[5].trim_end(), torn);
    let error: Value = serde_json::from_str(parts[6].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((parts.len(), &error["error"]["code"]), (7, &json!("upstream_connection_lost")));
    assert_eq!((row.outcome.as_str(), row.output_text, row.output_audio), ("upstream_failed", 2, 3));
}

#[tokio::test]
async fn a_last_event_without_its_blank_line_does_not_run_into_the_error() {
    let open = word("two").trim_end().to_owned();
    let steps = vec![stream_head(), chunk(word("one")), chunk(&open), last_chunk()];
    let (reply, row) = played(steps, &request()).await;
    assert_eq!(broken_off(&reply, "upstream_incomplete").len(), 2);
    assert_eq!((row.outcome.as_str(), row.output_text), ("upstream_failed", 2));
}

#[tokio::test]
async fn a_stream_that_ends_well_without_done_is_complete() {
    let events = text_events(3);
    for length in [4, 5] {
        let (reply, row) = played(streamed(&events[..length]), &request()).await;
        assert_eq!(reply.text(), events[..4].concat(), "nothing is added");
        let basis = if length == 5 { "reported" } else { "estimated" };
        assert_eq!((row.outcome.as_str(), row.basis.as_str(), row.output_text), ("completed", basis, 3));
    }
}

#[tokio::test]
async fn a_connection_lost_after_done_changes_nothing() {
    let events = text_events(3);
    for end in [Step::Close, Step::Reset] {
        let mut steps = streamed(&events);
        *steps.last_mut().unwrap() = end;
        let (reply, row) = played(steps, &request()).await;
        if reply.text().contains("[DONE]") {
            assert_eq!(reply.text(), events[..4].concat() + DONE);
            assert_eq!((row.outcome.as_str(), row.basis.as_str(), row.output_text), ("completed", "reported", 3));
        } else {
            // The reset overtook it.
            broken_off(&reply, "upstream_connection_lost");
        }
    }
}

#[tokio::test]
async fn errors_inside_a_stream_pass_and_are_the_upstreams_failure() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    for fault in ["error-event", "error-event; done", "error-event; bare", "error-event; bare; done"] {
        let reply = team.chat_with_fault(fault, &request()).await;
        assert_eq!(reply.status, 200);
        let errors: Vec<_> = reply.events().into_iter().filter(|event| !event["error"].is_null()).collect();
        assert_eq!(errors.len(), 1, "the upstream's own, and none of ours: {}", reply.text());
        assert_eq!(errors[0]["error"]["type"], "server_error");
        assert_eq!(reply.text().ends_with(DONE), fault.ends_with("done"));
    }
    let rows = gateway.ledger().await;
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.outcome == "upstream_failed"), "{rows:?}");
}

#[tokio::test]
async fn an_error_inside_a_stream_is_followed_by_no_second_one_when_the_stream_breaks_off() {
    let error = "data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n";
    for end in [Step::Close, last_chunk()] {
        let steps = vec![stream_head(), chunk(word("one")), chunk(error), end];
        let (reply, row) = played(steps, &request()).await;
        assert_eq!(reply.text(), word("one") + error);
        assert_eq!((row.outcome.as_str(), row.output_text), ("upstream_failed", 1));
    }
}

#[tokio::test]
async fn a_stream_without_usage_is_counted_by_what_it_delivered() {
    let said = "a sentence of about fifty bytes, which is no token ".to_owned();
    let bundled: Vec<_> = (0..4).map(|_| word(&said)).chain([finish(), DONE.to_owned()]).collect();
    let single: Vec<_> = text_events(4).into_iter().filter(|event| !event.contains(r#""choices":[]"#)).collect();
    for (events, tokens) in [(single, 4), (bundled, 51)] {
        let (reply, row) = played(streamed(&events), &request()).await;
        assert_eq!(reply.text(), events.concat());
        assert_eq!((row.outcome.as_str(), row.basis.as_str(), row.output_text), ("completed", "estimated", tokens));
    }
}

#[tokio::test]
async fn a_stream_may_not_last_for_ever() {
    let gateway = Gateway::start_with(|settings| settings.stream_max_s = 1).await;
    let team = gateway.project("tier1").await;
    let asked = Instant::now();
    let reply = team.chat_with_fault("slow; gap-ms=50; chunks=200", &request()).await;
    assert!(asked.elapsed() < Duration::from_secs(2));
    assert!(broken_off(&reply, "upstream_timeout").len() > 5);
    assert_eq!(gateway.ledger().await[0].outcome, "upstream_failed");
}
