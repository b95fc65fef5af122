//! Recorded answers of OpenAI and others through the whole gateway. The recordings are not part of the repository; without
//! them these tests only say so.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;
use tollgate::clock::Clock;

use crate::{
    stand_in::{Canned, StandIn},
    support::{Actor, Gateway, Row},
};

const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures");

struct Recording {
    name: String,
    request: Vec<u8>,
    answer: Vec<u8>,
    streams: bool,
}

/// All chat completions that were answered.
fn recordings() -> Vec<Recording> {
    let Ok(folders) = fs::read_dir(RECORDINGS) else {
        println!("skipped: no recordings at {RECORDINGS}");
        return Vec::new();
    };
    let read = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let is_chat = name.starts_with("chat") || name.starts_with("compat");
        let request = fs::read(path.join("request.body.json")).ok().filter(|_| is_chat)?;
        let (json, events) = (fs::read(path.join("response.body.json")), fs::read(path.join("response.body.sse")));
        let streams = events.is_ok();
        Some(Recording { name, request, answer: events.or(json).ok()?, streams })
    };
    let mut found: Vec<_> = folders.filter_map(|folder| read(folder.ok()?.path())).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(found.len() >= 30, "only {} recordings", found.len());
    found
}

/// Text, cached text and audio in; text and audio out.
type Split = [i64; 5];

fn split(row: &Row) -> Split {
    [row.input_text, row.input_cached_text, row.input_audio, row.output_text, row.output_audio]
}

/// What the recording says was used.
fn recorded_split(name: &str, usage: &Value) -> Split {
    if name == "compat_mistral_audio-in" {
        // Audio stands beside the prompt tokens there: 632 = 9 + 375 + 248.
        return [9, 0, 375, 248, 0];
    }
    let count = |path: &str| usage.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let cached = count("/prompt_tokens_details/cached_tokens");
    let (heard, spoken) =
        (count("/prompt_tokens_details/audio_tokens"), count("/completion_tokens_details/audio_tokens"));
    [count("/prompt_tokens") - cached - heard, cached, heard, count("/completion_tokens") - spoken, spoken]
}

fn event_json(event: &str) -> Option<Value> {
    serde_json::from_str(event.trim_start_matches("data: ")).ok()
}

impl Recording {
    fn usage(&self) -> Option<Value> {
        if !self.streams {
            return Some(serde_json::from_slice::<Value>(&self.answer).unwrap()["usage"].clone());
        }
        let text = std::str::from_utf8(&self.answer).unwrap();
        let usages = text.split("\n\n").filter_map(event_json).map(|event| event["usage"].clone());
        usages.filter(Value::is_object).last()
    }

    /// The answer for a client that did not ask for usage: without the chunk that has nothing else.
    fn without_usage_chunk(&self) -> String {
        let text = std::str::from_utf8(&self.answer).unwrap();
        let is_usage_chunk = |event: &str| {
            let json = event_json(event).unwrap_or_default();
            json["usage"].is_object() && json["choices"].as_array().is_some_and(Vec::is_empty)
        };
        text.split_inclusive("\n\n").filter(|event| !is_usage_chunk(event.trim_end())).collect()
    }

    fn asks_for_usage(&self) -> bool {
        let request: Value = serde_json::from_slice(&self.request).unwrap();
        request["stream_options"]["include_usage"] == true
    }

    fn canned(&self) -> Canned {
        if self.streams { Canned::events(self.answer.clone()) } else { Canned::json(self.answer.clone()) }
    }
}

async fn behind(upstream: &StandIn) -> (Gateway, Actor) {
    let allow = |settings: &mut tollgate::config::Settings| settings.allow_unpriced = true;
    let gateway = Gateway::start_before(&upstream.url, upstream.stop.clone(), Clock::system(), allow).await;
    let team = gateway.project("tier5").await;
    (gateway, team)
}

#[tokio::test]
async fn recorded_answers_pass_unchanged_and_are_metered_as_recorded() {
    let recordings = recordings();
    let upstream = StandIn::start().await;
    let (gateway, team) = behind(&upstream).await;
    let mut sent: BTreeMap<String, &Recording> = BTreeMap::new();
    for recording in &recordings {
        upstream.answer_with(recording.canned());
        let reply = team.post_bytes("/v1/chat/completions", &[], recording.request.clone()).await;
        let name = &recording.name;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let hidden = recording.streams && !recording.asks_for_usage();
        let expected = if hidden { recording.without_usage_chunk().into_bytes() } else { recording.answer.clone() };
        assert!(reply.body == expected, "{name}: {} bytes for {}", reply.body.len(), expected.len());
        sent.insert(reply.header("x-request-id").to_owned(), recording);
    }
    let rows = gateway.ledger().await;
    assert_eq!(rows.len(), recordings.len());
    for row in &rows {
        let recording = sent[&row.request_id];
        let name = &recording.name;
        assert_eq!((row.outcome.as_str(), row.stream == 1), ("completed", recording.streams), "{name}");
        let foreign = ["deepseek", "voxtral"].iter().any(|service| row.requested_model.starts_with(service));
        assert_eq!((row.priced == 0, row.cost_pico.is_none()), (foreign, foreign), "{name}: {row:?}");
        match recording.usage() {
            Some(usage) => {
                assert_eq!((row.basis.as_str(), split(row)), ("reported", recorded_split(name, &usage)), "{name}");
            }
            None => assert!(row.basis == "estimated" && row.output_text > 0, "{name}: {row:?}"),
        }
    }
}

#[tokio::test]
async fn recorded_streams_hide_the_usage_chunk_from_those_who_did_not_ask() {
    let upstream = StandIn::start().await;
    let (gateway, team) = behind(&upstream).await;
    let mut streams = recordings();
    streams.retain(|recording| recording.streams && recording.asks_for_usage());
    for recording in &streams {
        upstream.answer_with(recording.canned());
        let mut request: Value = serde_json::from_slice(&recording.request).unwrap();
        request.as_object_mut().unwrap().remove("stream_options");
        let reply = team.chat(&request).await;
        assert!(reply.text() == recording.without_usage_chunk(), "{}", recording.name);
    }
    let mut metered: Vec<_> = gateway.ledger().await.iter().map(split).collect();
    let mut expected: Vec<_> =
        streams.iter().map(|recording| recorded_split(&recording.name, &recording.usage().unwrap())).collect();
    metered.sort_unstable();
    expected.sort_unstable();
    assert_eq!(metered, expected);
}

#[tokio::test]
async fn the_recorded_beep_costs_what_openai_charges() {
    let name = "chat-audio-out_nonstream_mini-preview_opus";
    let recordings = recordings();
    let Some(beep) = recordings.iter().find(|recording| recording.name == name) else { return };
    let upstream = StandIn::start().await;
    upstream.answer_with(beep.canned());
    let (gateway, team) = behind(&upstream).await;
    assert_eq!(team.post_bytes("/v1/chat/completions", &[], beep.request.clone()).await.status, 200);
    gateway.at_rest().await;
    let start = gateway.clock.now().seconds() - 60;
    let page = gateway.admin().get(&format!("/v1/organization/costs?start_time={start}")).await.text();
    // As digits on the wire, not as a float.
    assert!(page.contains(r#""amount":{"value":0.0002469,"currency":"usd"}"#), "{page}");
    let page =
        gateway.admin().get(&format!("/v1/organization/costs?start_time={start}&group_by=line_item")).await.text();
    for amount in ["0.0000033", "0.0000036", "0.00024"] {
        assert!(page.contains(&format!(r#""value":{amount},"#)), "{amount}: {page}");
    }
}
