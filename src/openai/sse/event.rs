//! What one event says. The common event is only searched for a few keys; it is parsed when it brings usage, an error or
//! the model's name.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::{
    Seen,
    needles::{NEEDLES, split_at_quote},
};
use crate::openai::usage::{read_event, read_usage_prefix};

/// How much of the end of an event is remembered that passes in pieces: usage stands there, if anywhere.
const TAIL: usize = 4 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) seen: Seen,
    /// The end of what has come of an event that passes in pieces.
    tail: Vec<u8>,
    /// The pieces are inside the base64 of a piece of audio.
    inside_audio: bool,
}

impl Watch {
    pub(super) fn count_bytes(&mut self, bytes: usize) {
        add(&mut self.seen.bytes, bytes);
    }

    /// Notes what a complete event says; true when it is the usage chunk.
    pub(super) fn event(&mut self, event: &[u8]) -> bool {
        let (data, names_error) = data(event);
        self.seen.error |= names_error;
        let Some(data) = data else { return false };
        add(&mut self.seen.events, 1);
        if data.trim_ascii() == b"[DONE]" {
            self.seen.done = true;
            return false;
        }
        let Around { parts, .. } = self.around_audio(&data);
        self.skim(parts);
        let any = |test: &dyn Fn(&[u8]) -> bool| parts.into_iter().any(test);
        let has_usage = any(&|part| NEEDLES.usage.value(part, b'{').is_some());
        let has_error = any(&|part| NEEDLES.error.values(part).any(|value| !value.starts_with(b"null")));
        let has_model = self.seen.model.is_none() && any(&|part| NEEDLES.model.string(part).is_some());
        (has_usage || has_error || has_model) && self.parse(&data)
    }

    fn parse(&mut self, data: &[u8]) -> bool {
        let Some(facts) = read_event(data) else { return false };
        self.seen.usage = facts.usage.or(self.seen.usage);
        add(&mut self.seen.usage_chunks, usize::from(facts.is_usage_chunk));
        self.seen.error |= facts.is_error;
        self.seen.service_tier = facts.service_tier.or(self.seen.service_tier);
        if self.seen.model.is_none() {
            self.seen.model = facts.model;
        }
        facts.is_usage_chunk
    }

    /// The beginning of an event that passes in pieces.
    pub(super) fn first_piece(&mut self, piece: &[u8]) {
        add(&mut self.seen.events, 1);
        let Around { parts, is_open } = self.around_audio(piece);
        self.skim(parts);
        self.inside_audio = is_open;
        self.remember(piece);
    }

    /// More of it.
    pub(super) fn piece(&mut self, piece: &[u8]) {
        if self.inside_audio {
            let audio = memchr(b'"', piece);
            add(&mut self.seen.audio_base64_bytes, audio.unwrap_or(piece.len()));
            self.inside_audio = audio.is_none();
        }
        self.remember(piece);
    }

    /// Its end: usage is looked for in what was remembered.
    pub(super) fn end_of_pieces(&mut self) {
        self.inside_audio = false;
        let usage = NEEDLES.usage.values(&self.tail).filter(|value| value.first() == Some(&b'{')).last();
        self.seen.usage = usage.and_then(read_usage_prefix).or(self.seen.usage);
        self.seen.finished |= NEEDLES.finish_reason.string(&self.tail).is_some();
        self.tail.clear();
    }

    fn remember(&mut self, piece: &[u8]) {
        let end = piece.get(piece.len().saturating_sub(TAIL)..).unwrap_or(piece);
        self.tail.extend_from_slice(end);
        // Cut only when twice as long, so that tiny pieces do not move the rest each time.
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
    }

    /// `json` without the base64 of its first piece of audio: keys need not be searched for in there. All audio is counted.
    fn around_audio<'d>(&mut self, json: &'d [u8]) -> Around<'d> {
        let mut around = Around { parts: [json, &[]], is_open: false };
        let mut remaining = json;
        while let Some(quoted) = NEEDLES.data.value(remaining, b'"') {
            let (audio, rest) = split_at_quote(quoted.get(1..).unwrap_or_default());
            add(&mut self.seen.audio_base64_bytes, audio.len());
            let after = rest.unwrap_or_default();
            if remaining.len() == json.len() {
                let before = json.len() - quoted.len() + 1;
                around.parts = [json.get(..before).unwrap_or(json), after];
            }
            around.is_open = rest.is_none();
            remaining = after;
        }
        around
    }

    /// Looks for what a choice said, and whether it ended.
    fn skim(&mut self, parts: [&[u8]; 2]) {
        for part in parts {
            self.seen.finished |= NEEDLES.finish_reason.string(part).is_some();
        }
        let Some(delta) = parts.into_iter().find_map(|part| NEEDLES.delta.value(part, b'{')) else { return };
        let said_bytes = NEEDLES.said.iter().find_map(|key| key.string(delta)).map_or(0, <[u8]>::len);
        let calls_tool = said_bytes == 0 && NEEDLES.tool_calls.value(delta, b'[').is_some();
        add(&mut self.seen.text_events, usize::from(said_bytes > 0 || calls_tool));
        add(&mut self.seen.text_bytes, said_bytes);
    }
}

/// The text before and after audio, and whether the audio goes on after the text.
struct Around<'d> {
    parts: [&'d [u8]; 2],
    is_open: bool,
}

fn add(count: &mut u64, more: usize) {
    *count = count.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
}

/// Whether an event that lost its blank line is whole: its data is JSON or `[DONE]`, or it has no data and ends in a line.
pub(super) fn is_whole(event: &[u8]) -> bool {
    match data(event).0 {
        Some(data) => data.trim_ascii() == b"[DONE]" || serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok(),
        None => event.starts_with(b":") || event.ends_with(b"\n") || event.ends_with(b"\r"),
    }
}

/// Whether choices that are not empty have begun.
pub(super) fn has_choices(open: &[u8]) -> bool {
    let lists = NEEDLES.choices.values(open).filter_map(|value| value.strip_prefix(b"["));
    lists.map(<[u8]>::trim_ascii_start).any(|list| list.starts_with(b"{"))
}

/// The data of an event, its lines joined as the standard says, and whether the event is named `error`.
fn data(event: &[u8]) -> (Option<Cow<'_, [u8]>>, bool) {
    let (mut data, mut names_error): (Option<Cow<'_, [u8]>>, bool) = (None, false);
    let mut rest = event.strip_prefix(BYTE_ORDER_MARK).unwrap_or(event);
    while !rest.is_empty() {
        let length = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at(length);
        rest = after.get(1..).unwrap_or_default();
        if let Some(value) = field(line, b"data") {
            match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(lines) => {
                    let lines = lines.to_mut();
                    lines.push(b'\n');
                    lines.extend_from_slice(value);
                }
            }
        }
        names_error |= field(line, b"event").is_some_and(|name| name == b"error");
    }
    (data, names_error)
}

/// The value of a line `name: value`, `name:value` or `name`.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    if value.is_empty() {
        return Some(value);
    }
    let value = value.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}
