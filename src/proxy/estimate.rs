//! The guess before sending: what a request will probably consume, and how much of the token limit to hold for it.

use std::num::NonZeroU32;

use super::{averages::Average, limiter::Asked};
use crate::{
    config::Reserve,
    domain::{
        limits::{Audio, Limits},
        pricing::{Charge, Prices, ServiceTier, charges},
        usage::{LineItem, Usage},
    },
};

/// What the scan of a request says about its size.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// `OpenAI`'s formula over the text of the request.
    pub text_tokens: u64,
    pub audio_tokens: u64,
    /// Those of the text and of the audio that are guesses themselves, though of what was sent: of images, and of clips
    /// whose length cannot be read.
    pub image_tokens: u64,
    pub guessed_audio_tokens: u64,
    pub choices: NonZeroU32,
    pub stated_max_output: Option<u64>,
    /// From the model's page.
    pub model_max_output: Option<u64>,
    pub wants_audio: bool,
}

impl Size {
    /// Of all choices together: what the request states, or else the model's page.
    pub fn max_output(&self) -> Option<u64> {
        let of_one = self.stated_max_output.or(self.model_max_output);
        of_one.map(|tokens| self.of_all_choices(tokens))
    }

    fn of_all_choices(&self, tokens: u64) -> u64 {
        tokens.saturating_mul(self.choices.get().into())
    }
}

/// The guess: per line item for the bill, in all for limits of tokens, and of audio alone for its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub usage: Usage,
    pub tokens: NonZeroU32,
    pub audio: Audio,
}

impl Estimate {
    /// What it takes of the limits.
    pub const fn asked(&self, stream: bool) -> Asked {
        Asked { tokens: self.tokens, audio: self.audio, stream }
    }

    /// At which of the service tiers that were asked for it is billed, and what it costs there.
    pub fn bill(&self, service_tiers: &[ServiceTier], prices: Option<&Prices>) -> (ServiceTier, Vec<Charge>) {
        let service_tier = ServiceTier::dearest(service_tiers, &self.usage, prices);
        (service_tier, charges(&self.usage, prices, service_tier))
    }
}

pub fn estimate(size: &Size, average: Average, reserve: Reserve, limits: &Limits) -> Estimate {
    let guess = Usage::default()
        .with(LineItem::OutputText, size.of_all_choices(average.text()))
        .with(LineItem::OutputAudio, if size.wants_audio { size.of_all_choices(average.audio()) } else { 0 });
    let output = capped(guess, size.stated_max_output.and_then(|_| size.max_output()));
    let input =
        Usage::default().with(LineItem::InputText, size.text_tokens).with(LineItem::InputAudio, size.audio_tokens);
    let usage = input
        .with(LineItem::OutputText, output.get(LineItem::OutputText))
        .with(LineItem::OutputAudio, output.get(LineItem::OutputAudio));
    // All of it may come, and all of it may be spoken.
    let maximum = if reserve == Reserve::Strict { size.max_output() } else { None };
    let tokens = match reserve {
        Reserve::Openai => size.text_tokens,
        Reserve::Strict | Reserve::Learned => reserved_tokens(size, &usage, maximum, limits),
    };
    let tokens = NonZeroU32::new(u32::try_from(tokens).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
    // OpenAI has no limits of audio, so there is nothing of its own to follow.
    let audio = reserved_audio(size, &usage, maximum.filter(|_| size.wants_audio), limits);
    Estimate { usage, tokens, audio }
}

/// A guess alone never makes a request too large for its limit; what is known, and a `maximum` that is to be held, does.
fn reserved_tokens(size: &Size, guess: &Usage, maximum: Option<u64>, limits: &Limits) -> u64 {
    let input = size.text_tokens.saturating_add(size.audio_tokens);
    let guessed_input = size.image_tokens.saturating_add(size.guessed_audio_tokens);
    let known = input.saturating_sub(guessed_input).saturating_add(maximum.unwrap_or(0));
    let guessed_output = if maximum.is_some() { 0 } else { guess.total().saturating_sub(input) };
    let guessed = guessed_input.saturating_add(guessed_output);
    let room = limits.most_tokens_at_once().map_or(u64::MAX, |most| u64::from(most).saturating_sub(known));
    known.saturating_add(guessed.min(room))
}

/// As [`reserved_tokens`], for limits of audio.
fn reserved_audio(size: &Size, guess: &Usage, maximum: Option<u64>, limits: &Limits) -> Audio {
    let known_input = size.audio_tokens.saturating_sub(size.guessed_audio_tokens);
    let known = Audio { input: known_input, output: maximum.unwrap_or(0) };
    let output = if maximum.is_some() { 0 } else { Audio::of(guess).output };
    known.with_guess(Audio { input: size.guessed_audio_tokens, output }, limits)
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
    use crate::domain::limits::{ByScope, Dimension, Scope};

    fn tpm(limit: u32) -> Limits {
        Limits { tokens_per_minute: NonZeroU32::new(limit), ..Limits::default() }
    }

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    fn choices(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    fn size(text_tokens: u64) -> Size {
        Size {
            text_tokens,
            audio_tokens: 0,
            image_tokens: 0,
            guessed_audio_tokens: 0,
            choices: ONE,
            stated_max_output: None,
            model_max_output: None,
            wants_audio: false,
        }
    }

    #[test]
    fn the_first_guess_gives_way_to_what_was_answered() {
        let mut average = Average::default();
        let tokens = |average: Average| estimate(&size(16), average, Reserve::Learned, &Limits::default()).tokens.get();
        assert_eq!(tokens(average), 16 + 256);
        average = average.after(&Usage::default().with(LineItem::OutputText, 20), ONE);
        assert_eq!(tokens(average), 16 + 20);
        for _ in 0..200 {
            average = average.after(&Usage::default().with(LineItem::OutputText, 100), ONE);
        }
        assert_eq!(tokens(average), 16 + 100);
    }

    #[test]
    fn every_choice_is_guessed_and_an_answer_of_many_teaches_what_one_of_them_has() {
        let average = Average::default();
        let tokens = |average, n, limit| {
            let all = Size { choices: choices(n), ..size(16) };
            estimate(&all, average, Reserve::Learned, &tpm(limit)).tokens.get()
        };
        assert_eq!(tokens(average, 128, 1_000_000), 16 + 128 * 256);
        assert_eq!(tokens(average, 128, 1_000), 1_000, "it stays a guess");
        let average = average.after(&Usage::default().with(LineItem::OutputText, 128 * 300 + 63), choices(128));
        assert_eq!((tokens(average, 1, 1_000_000), tokens(average, 128, 1_000_000)), (16 + 300, 16 + 128 * 300));
        let stated = Size { stated_max_output: Some(50), choices: choices(3), ..size(16) };
        assert_eq!(estimate(&stated, average, Reserve::Learned, &tpm(1_000)).tokens.get(), 16 + 150);

        let average = Average::default();
        let said = Usage::default().with(LineItem::OutputText, 3).with(LineItem::OutputAudio, 101);
        let spoken = |n| Size { wants_audio: true, choices: choices(n), ..size(16) };
        let audio = |average, n| estimate(&spoken(n), average, Reserve::Learned, &Limits::default()).audio.output;
        assert_eq!(audio(average, 2), 2 * 200);
        let average = average.after(&said, choices(2));
        // 50.5 of each are 51.
        assert_eq!((audio(average, 1), audio(average, 2)), (51, 102));
    }

    #[test]
    fn a_guess_never_makes_a_request_too_large_for_its_limit() {
        let average = Average::default();
        let tokens = |text, limit| estimate(&size(text), average, Reserve::Learned, &tpm(limit)).tokens.get();
        assert_eq!(tokens(90, 100), 100);
        assert_eq!(tokens(101, 100), 101);
        let daily = Limits { tokens_per_day: NonZeroU32::new(95), ..tpm(100) };
        assert_eq!(estimate(&size(90), average, Reserve::Learned, &daily).tokens.get(), 95);
    }

    #[test]
    fn a_first_guess_fits_every_limit_of_tokens_of_either_scope() {
        let limits = |dimension| match dimension {
            Dimension::TokensPerMinute => tpm(60),
            Dimension::TokensPerDay => Limits { tokens_per_day: NonZeroU32::new(60), ..Limits::default() },
            other => panic!("{other:?} is no limit of tokens"),
        };
        let of_tokens = Dimension::ALL.into_iter().filter(|dimension| dimension.is_tokens());
        for (dimension, scope) in of_tokens.flat_map(|dimension| Scope::ALL.map(|scope| (dimension, scope))) {
            let mut of = ByScope { project: tpm(100_000), key: Limits::default() };
            of[scope] = limits(dimension);
            let narrowest = of.project.narrowed_by(&of.key);
            let spoken = Size { wants_audio: true, audio_tokens: 17, ..size(40) };
            for reserve in [Reserve::Learned, Reserve::Strict] {
                let tokens = |size: &Size| estimate(size, Average::default(), reserve, &narrowest).tokens.get();
                assert_eq!((tokens(&spoken), tokens(&size(59))), (60, 60), "{dimension:?} of the {}", scope.name());
                assert_eq!(tokens(&size(61)), 61, "what was sent is no guess");
            }
        }
    }

    #[test]
    fn strict_does_not_give_way_where_a_maximum_is_known() {
        let strict = |size: &Size| estimate(size, Average::default(), Reserve::Strict, &tpm(60)).tokens.get();
        let of_page = Size { model_max_output: Some(100), choices: choices(2), ..size(10) };
        assert_eq!((strict(&of_page), of_page.max_output()), (210, Some(200)));
        let stated = Size { stated_max_output: Some(300), ..of_page };
        assert_eq!((strict(&stated), stated.max_output(), size(1).max_output()), (610, Some(600), None));
    }

    #[test]
    fn openais_way_holds_the_text_alone() {
        let all = Size {
            audio_tokens: 1_000,
            stated_max_output: Some(500),
            model_max_output: Some(16_384),
            wants_audio: true,
            choices: choices(3),
            ..size(7)
        };
        let average = Average::default().after(&Usage::default().with(LineItem::OutputText, 90), ONE);
        assert_eq!(estimate(&all, average, Reserve::Openai, &tpm(100)).tokens.get(), 7);
    }

    #[test]
    fn a_smaller_stated_maximum_wins_and_strict_takes_it_whole() {
        let average = Average::default();
        let stated = Size { stated_max_output: Some(10), choices: choices(2), ..size(5) };
        let take = |size: &Size, reserve| estimate(size, average, reserve, &tpm(100_000)).tokens.get();
        assert_eq!(take(&stated, Reserve::Learned), 5 + 20);
        let large = Size { stated_max_output: Some(4_000), ..size(5) };
        assert_eq!((take(&large, Reserve::Learned), take(&large, Reserve::Strict)), (5 + 256, 5 + 4_000));
        let unsaid = Size { model_max_output: Some(16_384), ..size(5) };
        assert_eq!((take(&unsaid, Reserve::Strict), take(&unsaid, Reserve::Openai)), (5 + 16_384, 5));
    }

    #[test]
    fn audio_is_reserved_by_its_clips_and_what_is_probably_or_possibly_said() {
        let average = Average::default();
        let audio = |size: &Size, reserve, limit| {
            let limits = Limits { audio_tokens_per_minute: NonZeroU32::new(limit), ..Limits::default() };
            let audio = estimate(size, average, reserve, &limits).audio;
            (audio.input, audio.output)
        };
        let heard = Size { audio_tokens: 69, ..size(5) };
        let spoken = Size { wants_audio: true, ..heard };
        let stated = Size { stated_max_output: Some(50), ..spoken };
        for (size, reserve, limit, expected) in [
            (heard, Reserve::Learned, 0, (69, 0)),
            (heard, Reserve::Strict, 0, (69, 0)),
            (spoken, Reserve::Learned, 0, (69, 200)),
            (spoken, Reserve::Openai, 0, (69, 200)),
            (stated, Reserve::Learned, 0, (69, 50)),
            // A guess alone never makes a request too large, its clips do.
            (spoken, Reserve::Learned, 100, (69, 31)),
            (spoken, Reserve::Learned, 50, (69, 0)),
            (Size { stated_max_output: Some(4_000), ..spoken }, Reserve::Strict, 100, (69, 4_000)),
            (Size { model_max_output: Some(16_384), ..spoken }, Reserve::Strict, 0, (69, 16_384)),
            // Without a maximum there is nothing but the guess.
            (spoken, Reserve::Strict, 0, (69, 200)),
            (spoken, Reserve::Strict, 100, (69, 31)),
            (spoken, Reserve::Strict, 50, (69, 0)),
        ] {
            assert_eq!(audio(&size, reserve, limit), expected, "{size:?} {reserve:?} {limit}");
        }
        assert_eq!(audio(&size(5), Reserve::Learned, 1), (0, 0));
    }

    #[test]
    fn what_is_guessed_of_the_input_gives_way_and_what_is_known_of_it_does_not() {
        let average = Average::default();
        let seen = Size { image_tokens: 765, ..size(765 + 5) };
        let stated = Size { stated_max_output: Some(50), ..seen };
        for (size, reserve, limit, expected) in [
            (seen, Reserve::Learned, 10_000, 770 + 256),
            (seen, Reserve::Learned, 800, 800),
            (seen, Reserve::Learned, 500, 500),
            (seen, Reserve::Strict, 500, 500),
            (stated, Reserve::Strict, 10_000, 770 + 50),
            (stated, Reserve::Strict, 500, 500),
            (stated, Reserve::Strict, 40, 55),
            (seen, Reserve::Learned, 4, 5),
            // As recorded, whatever the image turns out to need.
            (seen, Reserve::Openai, 500, 770),
        ] {
            let tokens = estimate(&size, average, reserve, &tpm(limit)).tokens.get();
            assert_eq!(tokens, expected, "{size:?} {reserve:?} {limit}");
        }

        let heard = Size { audio_tokens: 69 + 750, guessed_audio_tokens: 750, ..size(5) };
        let spoken = Size { wants_audio: true, ..heard };
        let stated = Size { stated_max_output: Some(50), ..spoken };
        for (size, reserve, limit, expected) in [
            (heard, Reserve::Learned, 0, (819, 0)),
            (heard, Reserve::Openai, 600, (600, 0)),
            (spoken, Reserve::Learned, 900, (819, 81)),
            (spoken, Reserve::Strict, 600, (600, 0)),
            (stated, Reserve::Strict, 600, (550, 50)),
            (stated, Reserve::Strict, 100, (69, 50)),
            (heard, Reserve::Learned, 50, (69, 0)),
        ] {
            let limits = Limits { audio_tokens_per_minute: NonZeroU32::new(limit), ..Limits::default() };
            let estimate = estimate(&size, average, reserve, &limits);
            assert_eq!((estimate.audio.input, estimate.audio.output), expected, "{size:?} {reserve:?} {limit}");
            // What it may cost and what is billed when nobody says more is not smaller for that.
            assert_eq!(estimate.usage.get(LineItem::InputAudio), 819);
        }
        assert_eq!(estimate(&heard, average, Reserve::Learned, &tpm(600)).tokens.get(), 600);
    }

    #[test]
    fn numbers_past_the_range_of_a_limit_stay_large() {
        let huge = Size { text_tokens: u64::MAX, ..size(0) };
        let estimate = estimate(&huge, Average::default(), Reserve::Strict, &tpm(1));
        assert_eq!(estimate.tokens, NonZeroU32::MAX);
    }
}
