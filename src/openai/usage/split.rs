//! From a usage object to disjoint line items: the only place where audio and cached tokens are subtracted from totals.
//!
//! Servers disagree on what the totals include (protocol facts b). Whatever they say, the items add up to at least each
//! total that was reported, and none is negative.

use serde_json::value::RawValue;

use super::count::count;
use crate::{
    domain::usage::{LineItem, Usage},
    openai::json,
};

/// The numbers as reported.
#[derive(Clone, Copy, Debug, Default)]
struct Reported {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    input: Details,
    output: Details,
    /// `DeepSeek`'s name for cached tokens.
    cache_hit: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Details {
    audio: u64,
    image: u64,
    cached: Option<u64>,
    cache_write: u64,
    text: Option<u64>,
    reasoning: u64,
}

/// `None` for anything that carries no total: nothing is known then, which is not the same as zero.
pub(super) fn usage(raw: &RawValue) -> Option<Usage> {
    let reported = Reported::read(raw)?;
    let (input, output) = reported.totals()?;
    let mut usage = Usage::default();
    reported.split_input(input, &mut usage);
    reported.split_output(output, &mut usage);
    Some(usage)
}

impl Reported {
    fn read(raw: &RawValue) -> Option<Self> {
        let mut reported = Self::default();
        let is_object = json::members(
            raw.get().as_bytes(),
            |_| true,
            |key, value| match key {
                "prompt_tokens" => reported.prompt = count(value),
                "completion_tokens" => reported.completion = count(value),
                "total_tokens" => reported.total = count(value),
                "prompt_cache_hit_tokens" => reported.cache_hit = count(value),
                "prompt_tokens_details" => reported.input = Details::read(value),
                "completion_tokens_details" => reported.output = Details::read(value),
                _ => {}
            },
        );
        is_object.then_some(reported)
    }

    /// All input and all output tokens. Where the total is larger than both together, it is right: Mistral counts audio
    /// outside of the prompt, xAI and Gemini count reasoning outside of the completion.
    fn totals(&self) -> Option<(u64, u64)> {
        let (prompt, completion) = match (self.prompt, self.completion, self.total) {
            (None, None, None) => return None,
            (None, completion, total) => {
                let completion = completion.unwrap_or(0);
                (total.unwrap_or(0).saturating_sub(completion), completion)
            }
            (Some(prompt), completion, total) => {
                (prompt, completion.unwrap_or_else(|| total.unwrap_or(0).saturating_sub(prompt)))
            }
        };
        let missing = self.total.unwrap_or(0).saturating_sub(prompt.saturating_add(completion));
        let audio = self.input.audio;
        // The numbers may be equal by chance: then the parts tell what the prompt holds, or what is missing.
        let parts_fill_prompt = self.input.text.is_some_and(|text| text.saturating_add(audio) == prompt);
        let audio_is_inside = audio > 0 && (parts_fill_prompt || self.output.reasoning == missing);
        let audio_is_outside = (missing == audio && !audio_is_inside) || (missing > audio && audio > prompt);
        let (more_input, more_output) = if audio_is_outside { (audio, missing - audio) } else { (0, missing) };
        // Parts larger than their total are believed: they are what is billed.
        let input = prompt.saturating_add(more_input).max(self.input.audio.saturating_add(self.input.image));
        let output = completion.saturating_add(more_output).max(self.output.audio.saturating_add(self.output.image));
        Some((input, output))
    }

    /// Cached tokens are text as far as there is text, then images: chat completions do not say, and cached audio is rare.
    fn split_input(&self, input: u64, usage: &mut Usage) {
        let Details { audio, image, cache_write, .. } = self.input;
        let text = input.saturating_sub(audio).saturating_sub(image);
        let mut cached = self.input.cached.or(self.cache_hit).unwrap_or(0);
        let mut take_cached = |available: u64| {
            let taken = cached.min(available);
            cached -= taken;
            taken
        };
        let (cached_text, cached_image, cached_audio) = (take_cached(text), take_cached(image), take_cached(audio));
        let written = cache_write.min(text - cached_text);
        usage.set(LineItem::InputText, text - cached_text - written);
        usage.set(LineItem::InputCachedText, cached_text);
        usage.set(LineItem::InputCacheWriteText, written);
        usage.set(LineItem::InputAudio, audio - cached_audio);
        usage.set(LineItem::InputCachedAudio, cached_audio);
        usage.set(LineItem::InputImage, image - cached_image);
        usage.set(LineItem::InputCachedImage, cached_image);
    }

    /// Reasoning and rejected predictions are output text.
    fn split_output(&self, output: u64, usage: &mut Usage) {
        let Details { audio, image, .. } = self.output;
        usage.set(LineItem::OutputText, output.saturating_sub(audio).saturating_sub(image));
        usage.set(LineItem::OutputAudio, audio);
        usage.set(LineItem::OutputImage, image);
    }
}

impl Details {
    /// Anything but an object has no details.
    fn read(raw: &RawValue) -> Self {
        let mut details = Self::default();
        json::members(
            raw.get().as_bytes(),
            |_| true,
            |key, value| match key {
                "audio_tokens" => details.audio = count(value).unwrap_or(0),
                "image_tokens" => details.image = count(value).unwrap_or(0),
                "cached_tokens" => details.cached = count(value),
                "cache_write_tokens" => details.cache_write = count(value).unwrap_or(0),
                "text_tokens" => details.text = count(value),
                "reasoning_tokens" => details.reasoning = count(value).unwrap_or(0),
                _ => {}
            },
        );
        details
    }
}
