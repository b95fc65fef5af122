//! An answer in one piece, with the keys in the recorded order.

use std::io::Write;

use bytes::Bytes;

use super::{
    Answer, Call, Content, Head, Speech,
    text::{words, write_json},
};
use crate::simulator::{
    faults::UsageStyle,
    ids::Letters,
    models::Kind,
    sound::{self, Melody},
};

/// Text collected between shared pieces of audio, which are never copied.
#[derive(Default)]
struct Frames {
    done: Vec<Bytes>,
    text: Vec<u8>,
}

impl Frames {
    fn share(&mut self, bytes: Bytes) {
        self.done.push(std::mem::take(&mut self.text).into());
        self.done.push(bytes);
    }
}

pub(in crate::simulator) fn completion(
    head: &Head<'_>,
    answer: &Answer,
    melody: &Melody,
    letters: &mut Letters,
) -> Vec<Bytes> {
    let mut frames = Frames { done: Vec::new(), text: Vec::with_capacity(1_024) };
    // Writing into memory cannot fail, here and below.
    let _ =
        write!(frames.text, r#"{{"id":"{}","object":"chat.completion","created":{},"model":"#, head.id, head.created);
    write_json(head.model, &mut frames.text);
    frames.text.extend_from_slice(br#","choices":["#);
    for index in 0..answer.choices {
        write_choice(index, head, answer, melody, letters, &mut frames);
    }
    let out = &mut frames.text;
    out.push(b']');
    write_usage(head, answer, out);
    let _ = write!(out, r#","service_tier":"{}","system_fingerprint":{}}}"#, head.tier, head.fingerprint());
    frames.done.push(std::mem::take(out).into());
    frames.done
}

fn write_choice(
    index: u64,
    head: &Head<'_>,
    answer: &Answer,
    melody: &Melody,
    letters: &mut Letters,
    frames: &mut Frames,
) {
    let comma = if index == 0 { "" } else { "," };
    let _ = write!(frames.text, r#"{comma}{{"index":{index},"message":{{"role":"assistant","content":"#);
    match &answer.content {
        Content::Text(text) => {
            text.write_json(&mut frames.text);
            frames.text.extend_from_slice(br#","refusal":null"#);
        }
        Content::Calls(calls) => {
            frames.text.extend_from_slice(br#"null,"tool_calls":["#);
            for (place, call) in calls.iter().enumerate() {
                write_call(place, call, &mut frames.text);
            }
            frames.text.extend_from_slice(br#"],"refusal":null"#);
        }
        Content::Speech(speech) => {
            frames.text.extend_from_slice(br#"null,"refusal":null"#);
            write_speech(speech, head, melody, letters, frames);
        }
    }
    let logprobs = if head.kind == Kind::Text { r#","logprobs":null"# } else { "" };
    let _ = write!(frames.text, r#","annotations":[]}}{logprobs},"finish_reason":"{}"}}"#, answer.finish);
}

fn write_call(place: usize, call: &Call, out: &mut Vec<u8>) {
    let (kind, argument) = if call.custom { ("custom", "input") } else { ("function", "arguments") };
    let comma = if place == 0 { "" } else { "," };
    let _ = write!(out, r#"{comma}{{"id":"{}","type":"{kind}","{kind}":{{"name":"#, call.id);
    write_json(&call.name, out);
    let _ = write!(out, r#","{argument}":"#);
    call.arguments.write_json(out);
    out.extend_from_slice(b"}}");
}

fn write_speech(speech: &Speech, head: &Head<'_>, melody: &Melody, letters: &mut Letters, frames: &mut Frames) {
    let id = sound::audio_id(head.created, speech.tokens, letters);
    let _ = write!(frames.text, r#","audio":{{"id":"{id}","data":""#);
    match (speech.format.as_str(), sound::clip(&speech.format)) {
        (_, Some(clip)) if speech.tokens > 0 => frames.share(clip.base64.clone()),
        (_, Some(_)) => {}
        ("wav", None) => melody.wav(speech.tokens).into_iter().for_each(|bytes| frames.share(bytes)),
        (_, None) => frames.share(melody.pcm16(speech.tokens)),
    }
    let expires = head.created + sound::LIFETIME_SECONDS;
    let _ = write!(frames.text, r#"","expires_at":{expires},"transcript":""#);
    words(speech.words).for_each(|word| frames.text.extend_from_slice(word.as_bytes()));
    frames.text.extend_from_slice(br#""}"#);
}

fn write_usage(head: &Head<'_>, answer: &Answer, out: &mut Vec<u8>) {
    match head.usage_style {
        UsageStyle::Absent => {}
        UsageStyle::Null => out.extend_from_slice(br#","usage":null"#),
        style => {
            out.extend_from_slice(br#","usage":"#);
            answer.usage.write(style, out);
        }
    }
}
