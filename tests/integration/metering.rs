//! Every way an upstream has of telling usage, from its answer to the ledger's row and its price.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    scripted::{DONE, Scripted, finish, streamed, word},
    support::{Actor, Gateway, MODEL, Row, SNAPSHOT, TEXT_MODEL, spoken, text, with},
};

/// A second of silence at 16 kHz has 32,000 bytes.
pub fn wav(tenths: u32) -> String {
    let data = vec![0; usize::try_from(tenths).unwrap() * 3_200];
    let length = u32::try_from(data.len()).unwrap();
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&(36 + length).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend_from_slice(&16_000_u32.to_le_bytes());
    file.extend_from_slice(&32_000_u32.to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data");
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(&data);
    STANDARD.encode(file)
}

/// Frames of 1,152 samples at 44.1 kHz and 128 kbit/s: 26.1 ms each.
fn mp3(frames: usize) -> String {
    let mut frame = vec![0; 417];
    frame[..4].copy_from_slice(&[0xFF, 0xFB, 0x90, 0xC4]);
    STANDARD.encode(frame.repeat(frames))
}

/// A question in sound. "Listen." is 2 tokens, a message 4.
pub fn heard(format: &str, data: &str) -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": [
        {"type": "text", "text": "Listen."},
        {"type": "input_audio", "input_audio": {"data": data, "format": format}},
    ]}]})
}

/// Text, cached text and audio in; text and audio out.
type Split = [i64; 5];

fn split(row: &Row) -> Split {
    [row.input_text, row.input_cached_text, row.input_audio, row.output_text, row.output_audio]
}

async fn row(gateway: &Gateway, request_id: &str) -> Row {
    let rows = gateway.ledger().await;
    rows.into_iter().find(|row| row.request_id == request_id).expect("no row for the request")
}

/// Sends `body` with a wish of the look-alike, as it is and as a stream, and compares what the ledger holds.
async fn meter(team: &Actor, gateway: &Gateway, wish: &str, body: &Value, expected: [(&str, Split); 2]) {
    let streamed = with(body.clone(), &json!({"stream": true}));
    for (body, (basis, expected)) in [body, &streamed].into_iter().zip(expected) {
        let reply = team.chat_with_fault(wish, body).await;
        assert_eq!(reply.status, 200, "{wish}: {}", reply.text());
        let row = row(gateway, reply.header("x-request-id")).await;
        assert_eq!((row.basis.as_str(), split(&row)), (basis, expected), "{wish}: {body}");
        assert_eq!((row.outcome.as_str(), row.priced), ("completed", 1), "{wish}: {row:?}");
        let [input, cached, audio, output, spoken] = expected;
        // gpt-4o-mini has a price for cached text, and both cost the same otherwise.
        let cached_pico = if row.model == SNAPSHOT { 150_000 } else { 75_000 };
        let cost = input * 150_000 + cached * cached_pico + audio * 10_000_000 + output * 600_000 + spoken * 20_000_000;
        assert_eq!(row.cost_pico, Some(cost), "{wish}: {body}");
    }
}

const REPORTED: &str = "reported";
const ESTIMATED: &str = "estimated";

#[tokio::test]
async fn usage_of_every_service_is_read_where_it_stands() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier5").await;
    let hi = text(TEXT_MODEL, "Hi");
    let same = |split: Split| [(REPORTED, split), (REPORTED, split)];
    for wish in ["", "usage-azure", "usage-on-finish"] {
        meter(&team, &gateway, wish, &hi, same([5, 0, 0, 16, 0])).await;
    }
    meter(&team, &gateway, "usage-groq", &hi, same([5, 0, 0, 16, 0])).await;
    meter(&team, &gateway, "cached=3", &hi, same([2, 3, 0, 16, 0])).await;
    meter(&team, &gateway, "cached=3;usage-on-finish", &hi, same([2, 3, 0, 16, 0])).await;
    let two = with(hi, &json!({"n": 2}));
    meter(&team, &gateway, "", &two, same([5, 0, 0, 32, 0])).await;
}

#[tokio::test]
async fn audio_outside_of_the_prompt_tokens_is_billed_too() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier5").await;
    let heard = heard("wav", &wav(375));
    let same = [(REPORTED, [6, 0, 375, 16, 0]); 2];
    meter(&team, &gateway, "usage-mistral", &heard, same).await;
    meter(&team, &gateway, "", &heard, same).await;
}

#[tokio::test]
async fn audio_in_both_formats_is_billed_as_audio() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier5").await;
    // 100 frames are 2.61 seconds.
    for (heard, tokens) in [(heard("wav", &wav(17)), 17), (heard("mp3", &mp3(100)), 26), (heard("wav", &wav(0)), 0)] {
        meter(&team, &gateway, "", &heard, [(REPORTED, [6, 0, tokens, 16, 0]); 2]).await;
    }
    let both = with(
        heard("mp3", &mp3(100)),
        &json!({
            "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"},
        }),
    );
    meter(&team, &gateway, "audio-seconds=0.6", &both, [(REPORTED, [6, 0, 26, 1, 12]); 2]).await;
}

#[tokio::test]
async fn without_usage_the_input_is_estimated_and_the_output_counted() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier5").await;
    let hi = text(TEXT_MODEL, "Hi");
    for wish in ["no-usage", "usage-null"] {
        // 3 as estimated. A stream has an event per token; a whole answer is counted by its length.
        let reply = team.chat_with_fault(wish, &hi).await;
        let content = reply.json()["choices"][0]["message"]["content"].as_str().unwrap().len();
        let output = i64::try_from(content.div_ceil(4)).unwrap();
        meter(&team, &gateway, wish, &hi, [(ESTIMATED, [3, 0, 0, output, 0]), (ESTIMATED, [3, 0, 0, 16, 0])]).await;
    }
    let body = with(
        heard("wav", &wav(17)),
        &json!({
            "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"},
        }),
    );
    let reply = team.chat_with_fault("no-usage;audio-seconds=0.6", &with(body, &json!({"stream": true}))).await;
    let row = row(&gateway, reply.header("x-request-id")).await;
    // 2 of text, 1 of the message, 1 of the choice; 12 tokens of sound as they were delivered.
    assert_eq!((row.basis.as_str(), split(&row)), (ESTIMATED, [4, 0, 17, 1, 12]));
    assert_eq!(row.cost_pico, Some(4 * 150_000 + 17 * 10_000_000 + 600_000 + 12 * 20_000_000));
}

#[tokio::test]
async fn a_clip_in_the_answer_costs_its_tokens_in_every_format() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier5").await;
    for format in ["wav", "mp3", "opus", "aac", "flac", "pcm16"] {
        let reply = team.chat(&spoken(format)).await;
        let usage = reply.json()["usage"].clone();
        let count = |side: &str, kind: &str| usage[side][kind].as_i64().unwrap();
        let expected = [
            count("prompt_tokens_details", "text_tokens"),
            0,
            0,
            count("completion_tokens_details", "text_tokens"),
            count("completion_tokens_details", "audio_tokens"),
        ];
        let row = row(&gateway, reply.header("x-request-id")).await;
        assert_eq!((split(&row), expected[4] > 0), (expected, true), "{format}");
        let cost = expected[0] * 150_000 + expected[3] * 600_000 + expected[4] * 20_000_000;
        assert_eq!(row.cost_pico, Some(cost), "{format}");
    }
}

/// A word and the end, without usage; the first event may tell the service tier.
fn without_usage(told: Option<&str>) -> Vec<String> {
    let told =
        told.map(|tier| format!("data: {{\"model\":\"gpt-5-mini\",\"service_tier\":\"{tier}\",\"choices\":[]}}\n\n"));
    told.into_iter().chain([word("one"), finish(), DONE.to_owned()]).collect()
}

#[tokio::test]
async fn without_a_word_from_the_upstream_the_tier_that_was_asked_for_is_billed() {
    // Pico-dollars for a token of output. Of those that `auto` may mean it is the dearest, as it was held.
    for (asked, told, billed, output) in [
        (json!(null), None, "default", 2_000_000),
        (json!("flex"), None, "flex", 1_000_000),
        (json!("priority"), None, "priority", 3_600_000),
        (json!("auto"), None, "priority", 3_600_000),
        (json!("auto"), Some("default"), "default", 2_000_000),
        (json!("priority"), Some("flex"), "flex", 1_000_000),
    ] {
        let upstream = Scripted::playing(streamed(&without_usage(told))).await;
        let gateway = upstream.gateway(|_| {}).await;
        let team = gateway.project("tier5").await;
        let body = with(text("gpt-5-mini", "Hi"), &json!({"service_tier": asked, "stream": true}));
        let reply = team.chat(&body).await;
        let row = row(&gateway, reply.header("x-request-id")).await;
        assert_eq!((row.basis.as_str(), row.service_tier.as_str()), ("estimated", billed), "{asked} {told:?}");
        let input = row.cost_pico.unwrap() - output;
        assert_eq!((row.output_text, input * 8), (1, row.input_text * output), "an input token is an eighth of it");
    }
}

#[tokio::test]
async fn the_tier_that_served_a_request_decides_its_price() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier5").await;
    // gpt-5-mini thinks for 64 tokens before it answers with 16. Pico-dollars per token, in and out.
    for (asked, served, input, output) in [
        (json!(null), "default", 250_000, 2_000_000),
        (json!("auto"), "default", 250_000, 2_000_000),
        (json!("flex"), "flex", 125_000, 1_000_000),
        (json!("priority"), "priority", 450_000, 3_600_000),
        (json!("fast"), "priority", 450_000, 3_600_000),
    ] {
        for stream in [false, true] {
            let body = with(text("gpt-5-mini", "Hi"), &json!({"service_tier": asked, "stream": stream}));
            let reply = team.chat(&body).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let row = row(&gateway, reply.header("x-request-id")).await;
            assert_eq!((row.service_tier.as_str(), split(&row)), (served, [5, 0, 0, 80, 0]), "{asked} {stream}");
            assert_eq!(row.cost_pico, Some(5 * input + 80 * output), "{asked} {stream}");
        }
    }
    let cached = with(text("gpt-5-mini", "Hi"), &json!({"service_tier": "flex"}));
    let reply = team.chat_with_fault("cached=2", &cached).await;
    let row = row(&gateway, reply.header("x-request-id")).await;
    assert_eq!((split(&row), row.cost_pico), ([3, 2, 0, 80, 0], Some(3 * 125_000 + 2 * 12_500 + 80 * 1_000_000)));
}

#[tokio::test]
async fn the_dated_model_that_answers_is_the_one_in_the_books() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    for asked in [MODEL, SNAPSHOT] {
        let reply = team.chat(&with(spoken("opus"), &json!({"model": asked}))).await;
        let row = row(&gateway, reply.header("x-request-id")).await;
        assert_eq!((row.model.as_str(), row.requested_model.as_str()), (SNAPSHOT, asked));
    }
}
