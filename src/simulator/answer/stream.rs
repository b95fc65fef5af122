//! An answer as events, each of them one frame. The anatomy is that of the recordings (protocol facts a.3): an audio stream has
//! chunks without `choices`, no finish reason, and a chunk after the one with the usage.

use std::io::Write;

use bytes::Bytes;

use super::{
    Answer, Call, Content, Head, Speech,
    text::{Text, words, write_json},
};
use crate::simulator::{
    faults::UsageStyle,
    ids::Letters,
    models::Kind,
    sound::{self, Melody, TOKEN_CHARACTERS},
};

pub(in crate::simulator) const DONE: &[u8] = b"data: [DONE]\n\n";
/// Longest base64 in one chunk: 25,600 characters, 0.4 s.
const SPEECH_TOKENS_PER_CHUNK: usize = 8;
/// Chunks that say nothing, as recorded: while the model gets ready to speak, and before each pair of chunks of audio.
const SILENT_BEFORE_SPEECH: usize = 17;
const SILENT_WHILE_SPEAKING: usize = 2;
const MAX_PADDING: u64 = 16;
const AZURE_FIRST: &[u8] = br#"data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"filtered":false,"detected":false},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}}]}

"#;

/// All events of the answer in order, `[DONE]` included.
pub(in crate::simulator) fn stream(
    head: &Head<'_>,
    answer: &Answer,
    melody: &Melody,
    letters: &mut Letters,
) -> Vec<Bytes> {
    let mut events = Events::new(head, letters.clone());
    if head.usage_style == UsageStyle::Azure {
        events.raw(AZURE_FIRST);
    }
    match &answer.content {
        Content::Text(text) => events.text(text, answer),
        Content::Calls(calls) => events.calls(calls, answer),
        Content::Speech(speech) => events.speech(speech, answer, melody, letters),
    }
    events.raw(DONE);
    events.into_frames()
}

struct Events<'a> {
    head: &'a Head<'a>,
    /// What all chunks start with.
    prefix: Vec<u8>,
    out: Vec<u8>,
    ends: Vec<usize>,
    padding: Letters,
}

impl<'a> Events<'a> {
    fn new(head: &'a Head<'a>, padding: Letters) -> Self {
        let mut prefix = Vec::with_capacity(256);
        // Writing into memory cannot fail, here and below.
        let _ = write!(
            prefix,
            r#"data: {{"id":"{}","object":"chat.completion.chunk","created":{},"model":"#,
            head.id, head.created
        );
        write_json(head.model, &mut prefix);
        let _ = write!(prefix, r#","service_tier":"{}","system_fingerprint":{}"#, head.tier, head.fingerprint());
        Self { head, prefix, out: Vec::with_capacity(8_192), ends: Vec::with_capacity(32), padding }
    }

    fn text(&mut self, text: &Text, answer: &Answer) {
        for index in 0..answer.choices {
            self.delta(index, |out| out.extend_from_slice(br#"{"role":"assistant","content":"","refusal":null}"#));
        }
        text.each_piece(|piece| {
            for index in 0..answer.choices {
                self.delta(index, |out| {
                    out.extend_from_slice(br#"{"content":"#);
                    write_json(piece, out);
                    out.push(b'}');
                });
            }
        });
        self.finish(answer);
    }

    fn calls(&mut self, calls: &[Call], answer: &Answer) {
        for index in 0..answer.choices {
            for (place, call) in calls.iter().enumerate() {
                let (kind, argument) = if call.custom { ("custom", "input") } else { ("function", "arguments") };
                self.delta(index, |out| {
                    let role = if place == 0 { r#""role":"assistant","content":null,"# } else { "" };
                    let _ =
                        write!(out, r#"{{{role}"tool_calls":[{{"index":{place},"id":"{}","type":"{kind}","#, call.id);
                    let _ = write!(out, r#""{kind}":{{"name":"#);
                    write_json(&call.name, out);
                    let refusal = if place == 0 { r#","refusal":null"# } else { "" };
                    let _ = write!(out, r#","{argument}":""}}}}]{refusal}}}"#);
                });
                call.arguments.each_piece(|piece| {
                    self.delta(index, |out| {
                        let _ = write!(out, r#"{{"tool_calls":[{{"index":{place},"{kind}":{{"{argument}":"#);
                        write_json(piece, out);
                        out.extend_from_slice(b"}}]}");
                    });
                });
            }
        }
        self.finish(answer);
    }

    fn finish(&mut self, answer: &Answer) {
        for index in 0..answer.choices {
            self.begin();
            let logprobs = self.logprobs();
            let finish = answer.finish;
            let _ = write!(
                self.out,
                r#","choices":[{{"index":{index},"delta":{{}}{logprobs},"finish_reason":"{finish}"}}]"#
            );
            self.end_with_usage(answer, index + 1 == answer.choices);
        }
        self.usage(answer);
    }

    fn speech(&mut self, speech: &Speech, answer: &Answer, melody: &Melody, letters: &mut Letters) {
        let data = melody.pcm16(speech.tokens);
        let ids: Vec<String> =
            (0..answer.choices).map(|_| sound::audio_id(self.head.created, speech.tokens, letters)).collect();
        for (index, id) in (0..).zip(&ids) {
            self.delta(index, |out| out.extend_from_slice(br#"{"role":"assistant","refusal":null}"#));
            self.transcript(index, id, speech.words);
            (0..SILENT_BEFORE_SPEECH).for_each(|_| self.silence());
            for (place, piece) in data.chunks(SPEECH_TOKENS_PER_CHUNK * TOKEN_CHARACTERS).enumerate() {
                if place % 2 == 1 {
                    (0..SILENT_WHILE_SPEAKING).for_each(|_| self.silence());
                }
                self.delta(index, |out| {
                    if place == 0 {
                        let _ = write!(
                            out,
                            r#"{{"role":"assistant","content":null,"refusal":null,"audio":{{"id":"{id}","data":""#
                        );
                    } else {
                        out.extend_from_slice(br#"{"audio":{"data":""#);
                    }
                    out.extend_from_slice(piece);
                    out.extend_from_slice(br#""}}"#);
                });
            }
        }
        self.silence();
        self.usage(answer);
        let expires = self.head.created + sound::LIFETIME_SECONDS;
        for index in 0..answer.choices {
            self.begin();
            let _ =
                write!(self.out, r#","choices":[{{"index":{index},"delta":{{"audio":{{"expires_at":{expires}}}}}}}]"#);
            self.end_with_usage(answer, index + 1 == answer.choices);
        }
    }

    fn transcript(&mut self, index: u64, id: &str, count: u64) {
        for (place, word) in words(count).enumerate() {
            self.delta(index, |out| {
                if place == 0 {
                    let _ = write!(out, r#"{{"content":null,"audio":{{"id":"{id}","transcript":"{word}"}}}}"#);
                } else {
                    let _ = write!(out, r#"{{"audio":{{"transcript":"{word}"}}}}"#);
                }
            });
        }
    }

    fn silence(&mut self) {
        self.begin();
        self.end();
    }

    fn delta(&mut self, index: u64, write_delta: impl FnOnce(&mut Vec<u8>)) {
        self.begin();
        let _ = write!(self.out, r#","choices":[{{"index":{index},"delta":"#);
        write_delta(&mut self.out);
        let logprobs = self.logprobs();
        let _ = write!(self.out, r#"{logprobs},"finish_reason":null}}]"#);
        self.end();
    }

    /// The chunk of its own that usage has at `OpenAI`.
    fn usage(&mut self, answer: &Answer) {
        let value: &dyn Fn(&mut Vec<u8>) = match self.head.usage_style {
            UsageStyle::Absent | UsageStyle::OnFinish | UsageStyle::Groq => return,
            UsageStyle::Null => &|out| out.extend_from_slice(b"null"),
            style => &move |out| answer.usage.write(style, out),
        };
        self.begin();
        self.out.extend_from_slice(br#","choices":[],"usage":"#);
        value(&mut self.out);
        self.pad();
    }

    /// Ends the chunk that closes an answer; some services tell the usage there.
    fn end_with_usage(&mut self, answer: &Answer, last: bool) {
        let key = match self.head.usage_style {
            UsageStyle::OnFinish if last => r#","usage":"#,
            UsageStyle::Groq if last => r#","x_groq":{"id":"req_simulated","usage":"#,
            _ => return self.end(),
        };
        self.out.extend_from_slice(key.as_bytes());
        answer.usage.write(self.head.usage_style, &mut self.out);
        if self.head.usage_style == UsageStyle::Groq {
            self.out.push(b'}');
        }
        self.pad();
    }

    fn logprobs(&self) -> &'static str {
        if self.head.kind == Kind::Text { r#","logprobs":null"# } else { "" }
    }

    fn begin(&mut self) {
        self.out.extend_from_slice(&self.prefix);
    }

    fn end(&mut self) {
        if !matches!(self.head.usage_style, UsageStyle::Absent | UsageStyle::Groq) {
            self.out.extend_from_slice(br#","usage":null"#);
        }
        self.pad();
    }

    fn pad(&mut self) {
        if self.head.obfuscation {
            self.out.extend_from_slice(br#","obfuscation":""#);
            let length = usize::try_from(self.padding.number() % MAX_PADDING).unwrap_or(0);
            self.padding.text(length, &mut self.out);
            self.out.push(b'"');
        }
        self.raw(b"}\n\n");
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.ends.push(self.out.len());
    }

    fn into_frames(self) -> Vec<Bytes> {
        let all = Bytes::from(self.out);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| all.slice(start..*end)).collect()
    }
}
