//! What is answered, and what it costs. How it is written is in [`mod@completion`] and [`mod@stream`].

mod completion;
mod example;
mod stream;
mod text;
mod tools;

use super::{
    faults::{UsageStyle, Wish},
    ids::Letters,
    models::Kind,
    request::{ChatRequest, Prompt},
    sound,
    usage::Usage,
};

pub(super) use self::{
    completion::completion,
    stream::{DONE, stream},
};
use self::{text::Text, tools::Call};

/// Thinking costs this much, unless it is turned off.
const REASONING_TOKENS: u64 = 64;
/// A call's name and marks.
const TOKENS_PER_CALL: u64 = 8;
/// Two seconds of speech.
const SPEECH_TOKENS: u64 = 40;
/// Two words a second.
const SPEECH_TOKENS_PER_WORD: u64 = 10;
/// All choices together: 300 s of speech, or 200,000 words.
const MAX_SPEECH_TOKENS: u64 = 6_000;
const MAX_WORDS: u64 = 200_000;
/// `OpenAI` caches long prompts in steps of 128 tokens.
const CACHE_MINIMUM: u64 = 1_024;
const CACHE_STEP: u64 = 128;

pub(super) enum Content {
    Text(Text),
    Calls(Vec<Call>),
    Speech(Speech),
}

pub(super) struct Speech {
    pub(super) words: u64,
    pub(super) tokens: u64,
    pub(super) format: String,
}

pub(super) struct Answer {
    pub(super) content: Content,
    pub(super) finish: &'static str,
    pub(super) choices: u64,
    pub(super) usage: Usage,
}

/// What every answer and every chunk repeats.
pub(super) struct Head<'a> {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) tier: &'static str,
    pub(super) kind: Kind,
    pub(super) usage_style: UsageStyle,
    /// Padding is left out when it was not wanted.
    pub(super) obfuscation: bool,
}

impl Head<'_> {
    /// As JSON; reasoning models have none.
    fn fingerprint(&self) -> &'static str {
        if self.kind == Kind::Reasoning { "null" } else { r#""fp_58b2b3ae96""# }
    }
}

impl Answer {
    pub(super) fn plan(
        request: &ChatRequest<'_>,
        kind: Kind,
        prompt: &Prompt,
        wish: &Wish,
        letters: &mut Letters,
    ) -> Self {
        let (choices, max) = (request.choices(), request.max_tokens());
        let reasoning = reasoning_tokens(request, kind).min(max);
        let room = max - reasoning;
        let (content, text_tokens, audio_tokens, complete) = if request.speaks() {
            speak(request.format(), wish.audio_tokens, choices, room)
        } else {
            write(request, wish, room, letters)
        };
        let finish = match content {
            _ if !complete => "length",
            Content::Calls(_) if !tools::is_named(request) => "tool_calls",
            _ => "stop",
        };
        let usage = Usage {
            completion_text: text_tokens * choices,
            completion_audio: audio_tokens * choices,
            reasoning: reasoning * choices,
            ..prompt_usage(request, kind, prompt, wish)
        };
        Self { content, finish, choices, usage }
    }
}

fn prompt_usage(request: &ChatRequest<'_>, kind: Kind, prompt: &Prompt, wish: &Wish) -> Usage {
    let text = prompt.text_tokens();
    // A request with a cache key is taken for the second of its kind.
    let repeated = request.prompt_cache_key.is_some() && text >= CACHE_MINIMUM;
    let cached = wish.cached.unwrap_or(if repeated { text / CACHE_STEP * CACHE_STEP } else { 0 });
    Usage {
        prompt_text: text,
        prompt_audio: prompt.audio_tokens,
        prompt_image: prompt.image_tokens(),
        cached: cached.min(text),
        splits: kind == Kind::Audio,
        ..Usage::default()
    }
}

fn reasoning_tokens(request: &ChatRequest<'_>, kind: Kind) -> u64 {
    let off = matches!(request.reasoning_effort.as_deref(), Some("none" | "minimal"));
    if kind == Kind::Reasoning && !off { REASONING_TOKENS } else { 0 }
}

type Planned = (Content, u64, u64, bool);

/// A transcript and speech within `room` tokens. A clip of a compressed format is spoken whole or not at all.
fn speak(format: &str, wanted: Option<u64>, choices: u64, room: u64) -> Planned {
    let clip = sound::clip(format).map(|clip| clip.tokens);
    let longest = MAX_SPEECH_TOKENS / choices.max(1);
    let full = clip.unwrap_or_else(|| wanted.unwrap_or(SPEECH_TOKENS).min(longest));
    let full_words = (full / SPEECH_TOKENS_PER_WORD).max(1);
    let complete = full + full_words <= room;
    let (words, tokens) = match clip {
        _ if complete => (full_words, full),
        Some(_) => (full_words.min(room), 0),
        None => {
            let words = (room / (SPEECH_TOKENS_PER_WORD + 1)).clamp(1, full_words).min(room);
            (words, full.min(room - words))
        }
    };
    (Content::Speech(Speech { words, tokens, format: format.to_owned() }), words, tokens, complete)
}

fn write(request: &ChatRequest<'_>, wish: &Wish, room: u64, letters: &mut Letters) -> Planned {
    let calls = tools::calls(request, letters);
    if !calls.is_empty() {
        return call(calls, room);
    }
    let words = u64::from(wish.chunks).min(MAX_WORDS / request.choices().max(1));
    let full = match request.response_format.as_ref().map(|format| &*format.kind) {
        Some("json_object") => {
            let text: String = text::words(words).collect();
            Text::Written(serde_json::json!({ "answer": text }).to_string())
        }
        Some("json_schema") => Text::Written(structured(request).unwrap_or_else(|| "{}".to_owned())),
        _ => Text::Words(words),
    };
    let complete = full.tokens() <= room;
    let text = full.cut(room);
    let tokens = text.tokens();
    (Content::Text(text), tokens, 0, complete)
}

fn structured(request: &ChatRequest<'_>) -> Option<String> {
    let schema = request.response_format.as_ref()?.json_schema.as_ref()?.schema?;
    Some(example::example(&serde_json::from_str(schema.get()).ok()?).to_string())
}

fn call(mut calls: Vec<Call>, room: u64) -> Planned {
    let (mut used, mut complete) = (0, true);
    for call in &mut calls {
        let left = room.saturating_sub(used + TOKENS_PER_CALL);
        complete &= call.arguments.tokens() <= left;
        call.arguments = std::mem::replace(&mut call.arguments, Text::Words(0)).cut(left);
        used = (used + TOKENS_PER_CALL + call.arguments.tokens()).min(room);
    }
    (Content::Calls(calls), used, 0, complete)
}
