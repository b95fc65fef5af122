//! What an answer consumed, and the JSON that says so.

use std::io::Write;

use serde::Serialize;

use super::faults::UsageStyle;

/// Disjoint counts; the wire's totals are sums of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt_text: u64,
    pub(super) prompt_audio: u64,
    pub(super) prompt_image: u64,
    /// The part of `prompt_text` that was cached.
    pub(super) cached: u64,
    pub(super) completion_text: u64,
    pub(super) completion_audio: u64,
    pub(super) reasoning: u64,
    /// Audio models also say how many tokens were text and image.
    pub(super) splits: bool,
}

/// The same in the log, flat, as numbers on the wire.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the keys of the log are the wire's")]
pub(super) struct Logged {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_text_tokens: u64,
    prompt_audio_tokens: u64,
    prompt_image_tokens: u64,
    cached_tokens: u64,
    completion_text_tokens: u64,
    completion_audio_tokens: u64,
    reasoning_tokens: u64,
}

impl Usage {
    const fn prompt(&self, style: UsageStyle) -> u64 {
        // Mistral does not count audio into `prompt_tokens`, only into the total.
        let audio = if matches!(style, UsageStyle::Mistral) { 0 } else { self.prompt_audio };
        self.prompt_text + self.prompt_image + audio
    }

    const fn completion(&self) -> u64 {
        self.completion_text + self.completion_audio + self.reasoning
    }

    const fn total(&self) -> u64 {
        self.prompt_text + self.prompt_image + self.prompt_audio + self.completion()
    }

    pub(super) fn logged(&self, style: UsageStyle) -> Option<Logged> {
        let reported = !matches!(style, UsageStyle::Absent | UsageStyle::Null);
        reported.then(|| Logged {
            prompt_tokens: self.prompt(style),
            completion_tokens: self.completion(),
            total_tokens: self.total(),
            prompt_text_tokens: self.prompt_text,
            prompt_audio_tokens: self.prompt_audio,
            prompt_image_tokens: self.prompt_image,
            cached_tokens: self.cached,
            completion_text_tokens: self.completion_text,
            completion_audio_tokens: self.completion_audio,
            reasoning_tokens: self.reasoning,
        })
    }

    /// The value of the key `usage`.
    pub(super) fn write(&self, style: UsageStyle, out: &mut Vec<u8>) {
        let (prompt, completion, total) = (self.prompt(style), self.completion(), self.total());
        // Writing into memory cannot fail.
        let _ = write!(
            out,
            r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":{}"#,
            self.cached, self.prompt_audio
        );
        if self.splits {
            let _ = write!(out, r#","text_tokens":{},"image_tokens":{}"#, self.prompt_text, self.prompt_image);
        }
        let _ = write!(
            out,
            r#"}},"completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":{},"accepted_prediction_tokens":0,"rejected_prediction_tokens":0"#,
            self.reasoning, self.completion_audio
        );
        if self.splits {
            let _ = write!(out, r#","text_tokens":{}"#, self.completion_text);
        }
        out.push(b'}');
        if matches!(style, UsageStyle::Mistral) {
            let _ = write!(out, r#","prompt_audio_seconds":{}"#, self.prompt_audio.div_ceil(10));
        }
        if matches!(style, UsageStyle::OnFinish) {
            let fresh = self.prompt(style) - self.cached;
            let _ = write!(out, r#","prompt_cache_hit_tokens":{},"prompt_cache_miss_tokens":{fresh}"#, self.cached);
        }
        out.push(b'}');
    }
}
