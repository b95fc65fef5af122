//! The guess before sending: what a request will probably consume, and how much of the token limit to hold for it.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    config::Reserve,
    domain::{
        limits::Limits,
        usage::{LineItem, Usage},
    },
};

/// Until a key and model have answered once: tokens of text, and of audio (10 seconds) when audio is asked for.
const FIRST_GUESS_TEXT: u64 = 256;
const FIRST_GUESS_AUDIO: u64 = 200;

/// Running average of answers, in 1/16 tokens; zero is "never answered".
#[derive(Debug, Default)]
pub struct OutputAverage {
    text: AtomicU64,
    audio: AtomicU64,
}

const SCALE: u64 = 16;
const WEIGHT: u64 = 8;

impl OutputAverage {
    pub fn learn(&self, usage: &Usage) {
        learn(&self.text, usage.get(LineItem::OutputText));
        if usage.get(LineItem::OutputAudio) > 0 {
            learn(&self.audio, usage.get(LineItem::OutputAudio));
        }
    }

    fn text(&self) -> u64 {
        learned(&self.text).unwrap_or(FIRST_GUESS_TEXT)
    }

    fn audio(&self) -> u64 {
        learned(&self.audio).unwrap_or(FIRST_GUESS_AUDIO)
    }
}

fn learn(average: &AtomicU64, tokens: u64) {
    let sample = tokens.saturating_mul(SCALE).max(1);
    // The closure never returns None, so the update cannot fail.
    let _ = average.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
        Some(if old == 0 { sample } else { (old - old / WEIGHT).saturating_add(sample / WEIGHT).max(1) })
    });
}

fn learned(average: &AtomicU64) -> Option<u64> {
    match average.load(Ordering::Relaxed) {
        0 => None,
        scaled => Some(scaled.div_ceil(SCALE)),
    }
}

/// What the scan of a request says about its size.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// `OpenAI`'s formula over the text of the request.
    pub text_tokens: u64,
    pub audio_tokens: u64,
    pub choices: u64,
    pub stated_max_output: Option<u64>,
    /// From the model's page.
    pub model_max_output: Option<u64>,
    pub wants_audio: bool,
}

/// The guess: per line item for the bill, and in all for the token limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub usage: Usage,
    pub tokens: NonZeroU32,
}

pub fn estimate(size: &Size, average: &OutputAverage, reserve: Reserve, limits: &Limits) -> Estimate {
    let choices = size.choices.max(1);
    let guess = Usage::default()
        .with(LineItem::OutputText, average.text())
        .with(LineItem::OutputAudio, if size.wants_audio { average.audio() } else { 0 });
    let stated = size.stated_max_output.map(|tokens| tokens.saturating_mul(choices));
    let output = capped(guess, stated);
    let input =
        Usage::default().with(LineItem::InputText, size.text_tokens).with(LineItem::InputAudio, size.audio_tokens);
    let input_tokens = input.total();
    let tokens = match reserve {
        Reserve::Openai => size.text_tokens,
        Reserve::Strict => {
            let model_max = size.model_max_output.map(|tokens| tokens.saturating_mul(choices));
            input_tokens.saturating_add(stated.or(model_max).unwrap_or_else(|| output.total()))
        }
        Reserve::Learned => {
            // A guess alone never makes a request too large for its limit.
            let smallest = [limits.tokens_per_minute, limits.tokens_per_day].into_iter().flatten().min();
            let room = smallest.map_or(u64::MAX, |limit| u64::from(limit.get()).saturating_sub(input_tokens));
            input_tokens.saturating_add(output.total().min(room))
        }
    };
    let tokens = u32::try_from(tokens).ok().and_then(NonZeroU32::new);
    let tokens = tokens.unwrap_or(if input_tokens == 0 { NonZeroU32::MIN } else { NonZeroU32::MAX });
    let usage = input
        .with(LineItem::OutputText, output.get(LineItem::OutputText))
        .with(LineItem::OutputAudio, output.get(LineItem::OutputAudio));
    Estimate { usage, tokens }
}

/// `guess` with at most `maximum` output tokens, audio cut last because it is what was asked for.
fn capped(guess: Usage, maximum: Option<u64>) -> Usage {
    let Some(maximum) = maximum else { return guess };
    let audio = guess.get(LineItem::OutputAudio).min(maximum);
    let text = guess.get(LineItem::OutputText).min(maximum - audio);
    Usage::default().with(LineItem::OutputText, text).with(LineItem::OutputAudio, audio)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tpm(limit: u32) -> Limits {
        Limits { tokens_per_minute: NonZeroU32::new(limit), ..Limits::default() }
    }

    fn size(text_tokens: u64) -> Size {
        Size { text_tokens, choices: 1, ..Size::default() }
    }

    #[test]
    fn the_first_guess_gives_way_to_what_was_answered() {
        let average = OutputAverage::default();
        let tokens =
            |average: &OutputAverage| estimate(&size(16), average, Reserve::Learned, &Limits::default()).tokens.get();
        assert_eq!(tokens(&average), 16 + 256);
        average.learn(&Usage::default().with(LineItem::OutputText, 20));
        assert_eq!(tokens(&average), 16 + 20);
        for _ in 0..200 {
            average.learn(&Usage::default().with(LineItem::OutputText, 100));
        }
        assert_eq!(tokens(&average), 16 + 100);
    }

    #[test]
    fn a_guess_never_makes_a_request_too_large_for_its_limit() {
        let average = OutputAverage::default();
        let tokens = |text, limit| estimate(&size(text), &average, Reserve::Learned, &tpm(limit)).tokens.get();
        assert_eq!(tokens(90, 100), 100);
        assert_eq!(tokens(101, 100), 101);
        let daily = Limits { tokens_per_day: NonZeroU32::new(95), ..tpm(100) };
        assert_eq!(estimate(&size(90), &average, Reserve::Learned, &daily).tokens.get(), 95);
    }

    #[test]
    fn a_smaller_stated_maximum_wins_and_strict_takes_it_whole() {
        let average = OutputAverage::default();
        let stated = Size { stated_max_output: Some(10), choices: 2, ..size(5) };
        let take = |size: &Size, reserve| estimate(size, &average, reserve, &tpm(100_000)).tokens.get();
        assert_eq!(take(&stated, Reserve::Learned), 5 + 20);
        let large = Size { stated_max_output: Some(4_000), ..size(5) };
        assert_eq!((take(&large, Reserve::Learned), take(&large, Reserve::Strict)), (5 + 256, 5 + 4_000));
        let unsaid = Size { model_max_output: Some(16_384), ..size(5) };
        assert_eq!((take(&unsaid, Reserve::Strict), take(&unsaid, Reserve::Openai)), (5 + 16_384, 5));
    }

    #[test]
    fn numbers_past_the_range_of_a_limit_stay_large() {
        let huge = Size { text_tokens: u64::MAX, ..size(0) };
        let estimate = estimate(&huge, &OutputAverage::default(), Reserve::Strict, &tpm(1));
        assert_eq!(estimate.tokens, NonZeroU32::MAX);
    }
}
