//! Audio answers play, for as long as their tokens say.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Reply, Running};

fn spoken(format: &str) -> Value {
    json!({
        "messages": [{ "role": "user", "content": "Speak." }], "model": "gpt-4o-mini-audio-preview",
        "modalities": ["text", "audio"], "audio": { "voice": "alloy", "format": format }
    })
}

fn audio(reply: &Reply) -> (Vec<u8>, u64) {
    let json = reply.json();
    let data = json["choices"][0]["message"]["audio"]["data"].as_str().unwrap();
    let tokens = &json["usage"]["completion_tokens_details"]["audio_tokens"];
    (STANDARD.decode(data).unwrap(), tokens.as_u64().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[tokio::test]
async fn wav_answers_have_a_valid_head_and_exactly_the_billed_samples() {
    let server = Running::default().await;
    for (seconds, tokens) in [("0.05", 1), ("2", 40), ("31.5", 630)] {
        let asked = server.post(&spoken("wav")).header(&format!("x-simulate-audio-seconds: {seconds}"));
        let (bytes, billed) = audio(&asked.send().await);
        assert_eq!(billed, tokens);
        assert_eq!((&bytes[..4], &bytes[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
        assert_eq!(u32_at(&bytes, 4) as usize, bytes.len() - 8);
        assert_eq!((u32_at(&bytes, 24), u32_at(&bytes, 28)), (24_000, 48_000));
        assert_eq!(&bytes[70..74], b"data");
        assert_eq!(u32_at(&bytes, 74) as usize, bytes.len() - 78);
        assert_eq!(bytes.len() as u64 - 78, tokens * 1_200 * 2);
    }
}

#[tokio::test]
async fn a_wav_answer_sent_back_is_heard_at_half_its_tokens() {
    let server = Running::default().await;
    let (bytes, spoken_tokens) = audio(&server.chat(spoken("wav")).await);
    let part = json!({ "type": "input_audio", "input_audio": { "data": STANDARD.encode(bytes), "format": "wav" } });
    let request = json!({ "messages": [{ "role": "user", "content": [part] }], "model": "gpt-4o-mini-audio-preview" });
    let usage = server.chat(request).await.json()["usage"].clone();
    assert_eq!(usage["prompt_tokens_details"]["audio_tokens"], spoken_tokens / 2);
}

#[tokio::test]
async fn each_streamed_chunk_of_audio_decodes_alone_and_together_they_are_the_whole() {
    let server = Running::default().await;
    let whole = audio(&server.chat(spoken("pcm16")).await).0;
    let mut request = spoken("pcm16");
    request["stream"] = json!(true);
    let mut streamed = Vec::new();
    for chunk in server.chat(request).await.chunks() {
        if let Some(data) = chunk["choices"][0]["delta"]["audio"]["data"].as_str() {
            assert!(data.len() <= 25_600);
            streamed.extend(STANDARD.decode(data).unwrap());
        }
    }
    assert_eq!(streamed.len(), 40 * 2_400);
    assert!(streamed == whole);
}

#[tokio::test]
async fn the_melody_is_neither_silent_nor_clipped() {
    let server = Running::default().await;
    let (bytes, _) = audio(&server.chat(spoken("pcm16")).await);
    let samples = bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs());
    let loudest = samples.max().unwrap();
    assert!((2_000..12_000).contains(&loudest), "{loudest}");
}

/// Length of each format in samples and their rate, read from the file itself.
fn length(format: &str, bytes: &[u8]) -> (u64, u64) {
    match format {
        "mp3" => {
            // 32 kbit/s at 24 kHz: 96 bytes and 576 samples a frame.
            assert!(bytes.chunks(96).all(|frame| frame.len() == 96 && frame[..2] == [0xFF, 0xF3]));
            (bytes.len() as u64 / 96 * 576, 24_000)
        }
        "flac" => {
            assert_eq!(&bytes[..4], b"fLaC");
            let info = u64::from_be_bytes(bytes[18..26].try_into().unwrap());
            (info & 0xF_FFFF_FFFF, info >> 44)
        }
        "aac" => {
            let (mut at, mut frames) = (0, 0);
            while at < bytes.len() {
                assert_eq!(bytes[at], 0xFF);
                let size = u32::from_be_bytes([0, bytes[at + 3] & 3, bytes[at + 4], bytes[at + 5]]) >> 5;
                at += size as usize;
                frames += 1;
            }
            (frames * 1_024, 24_000)
        }
        "opus" => {
            assert_eq!(&bytes[..4], b"OggS");
            let head = memchr::memmem::find(bytes, b"OpusHead").unwrap();
            let skipped = u16::from_le_bytes(bytes[head + 10..head + 12].try_into().unwrap());
            let page = memchr::memmem::rfind(bytes, b"OggS").unwrap();
            let end = u64::from_le_bytes(bytes[page + 6..page + 14].try_into().unwrap());
            (end - u64::from(skipped), 48_000)
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn compressed_clips_play_exactly_what_they_cost() {
    let server = Running::default().await;
    for format in ["mp3", "opus", "flac", "aac"] {
        let (bytes, tokens) = audio(&server.chat(spoken(format)).await);
        let (samples, rate) = length(format, &bytes);
        assert_eq!(samples * 20, tokens * rate, "{format}");
        assert!(bytes.len() < 12 * 1_024, "{format}");
    }
}

#[tokio::test]
async fn speech_is_cut_to_the_tokens_allowed() {
    let server = Running::default().await;
    for (format, max, audio_tokens, text_tokens) in
        [("wav", 11, 10, 1), ("wav", 1, 0, 1), ("wav", 44, 40, 4), ("mp3", 20, 0, 3)]
    {
        let mut request = spoken(format);
        request["max_completion_tokens"] = json!(max);
        let json = server.chat(request).await.json();
        let details = &json["usage"]["completion_tokens_details"];
        assert_eq!((&details["audio_tokens"], &details["text_tokens"]), (&json!(audio_tokens), &json!(text_tokens)));
        let finish = if max == 44 { "stop" } else { "length" };
        assert_eq!(json["choices"][0]["finish_reason"], finish);
    }
}

#[tokio::test]
async fn a_replayed_answer_is_billed_again_until_it_expires() {
    let server = Running::default().await;
    let first = server.chat(spoken("wav")).await.json();
    let id = first["choices"][0]["message"]["audio"]["id"].as_str().unwrap();
    let replay = |id: &str| {
        let mut request = spoken("wav");
        let messages = request["messages"].as_array_mut().unwrap();
        messages.push(json!({ "role": "assistant", "audio": { "id": id } }));
        messages.push(json!({ "role": "user", "content": "Go on." }));
        request
    };
    let usage = server.chat(replay(id)).await.json()["usage"].clone();
    assert_eq!(usage["prompt_tokens_details"]["audio_tokens"], 40);

    let forged = format!("{}0", &id[..id.len() - 1]);
    let foreign = "audio_689d37b918708191a17f6a577df19b56";
    for id in [if forged == id { foreign } else { &forged }, foreign, "audio_", "x"] {
        let error = server.chat(replay(id)).await.json()["error"].clone();
        assert_eq!(error["code"], "audio_not_found");
        assert_eq!(error["param"], "content.messages[1].audio.id");
    }
}
