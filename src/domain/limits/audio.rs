//! Audio as limits count it.
//!
//! Its seconds are counted by its tokens: a token of input is a tenth of a second and one of output a twentieth (protocol
//! facts c.1). So what is reserved, what the upstream bills, what the journal tells again after a crash and what a replay of
//! the ledger finds are one number, and nothing has to be measured that only passes by. What it costs is a part of a tenth
//! of a second for each clip, as on the bill; and an answer of before that is sent again by its id counts as long as its
//! tokens are billed, which is twice its time.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{Dimension, Limits};
use crate::domain::{
    bucket::Headroom,
    usage::{LineItem, Usage},
};

/// Tokens of audio, cached ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audio {
    pub input: u64,
    pub output: u64,
}

/// Twentieths of a second, the length of a token of output: with them seconds are whole numbers.
const TICKS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();
const TICKS_PER_INPUT_TOKEN: u64 = 2;

/// The largest limit whose bucket is a number of 32 bits: of seconds that is more than anybody hears.
pub const MAX_AUDIO_SECONDS: u32 = u32::MAX / TICKS_PER_SECOND.get();

impl Audio {
    pub const NONE: Self = Self { input: 0, output: 0 };

    pub const fn of(usage: &Usage) -> Self {
        let input = usage.get(LineItem::InputAudio).saturating_add(usage.get(LineItem::InputCachedAudio));
        Self { input, output: usage.get(LineItem::OutputAudio) }
    }

    pub(in crate::domain) fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// What it takes of a limit of audio; nothing of another.
    pub const fn units(self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::AudioTokensPerMinute => self.input.saturating_add(self.output),
            Dimension::AudioSecondsPerDay => {
                self.input.saturating_mul(TICKS_PER_INPUT_TOKEN).saturating_add(self.output)
            }
            _ => 0,
        }
    }

    /// With an output, which is a guess, that never makes a request too large for `limits`.
    #[must_use]
    pub fn within(self, limits: &Limits) -> Self {
        let (known, guess) = (Self { output: 0, ..self }, Self { input: 0, ..self });
        known.with_guess(guess, limits)
    }

    /// With as much of `guess` as does not make a request too large for `limits`: first of what was sent, then of what
    /// may be said.
    #[must_use]
    pub fn with_guess(self, guess: Self, limits: &Limits) -> Self {
        let input = guess.input.min(self.room(Self { input: 1, output: 0 }, limits));
        let with_input = Self { input: self.input.saturating_add(input), ..self };
        let output = guess.output.min(with_input.room(Self { input: 0, output: 1 }, limits));
        Self { output: with_input.output.saturating_add(output), ..with_input }
    }

    /// How many of `each` fit beside it.
    fn room(self, each: Self, limits: &Limits) -> u64 {
        let room = |dimension: Dimension| {
            let left = u64::from(limits.per_window(dimension)?.get()).saturating_sub(self.units(dimension));
            left.checked_div(each.units(dimension))
        };
        Dimension::AUDIO.into_iter().filter_map(room).min().unwrap_or(u64::MAX)
    }
}

/// A limit of seconds in the units of its bucket.
pub(super) const fn ticks(seconds: NonZeroU32) -> NonZeroU32 {
    seconds.saturating_mul(TICKS_PER_SECOND)
}

/// What is left of a limit of seconds, from the units of its bucket: a second that has begun is gone.
pub(super) const fn in_seconds(ticks: Headroom) -> Headroom {
    let (limit, remaining) = (ticks.limit / TICKS_PER_SECOND.get(), ticks.remaining / TICKS_PER_SECOND.get());
    Headroom { limit, remaining, ..ticks }
}

impl Dimension {
    /// The units of a bucket as its limit is written, and what has begun counts as whole.
    pub fn shown(self, units: u64) -> u64 {
        match self {
            Self::AudioSecondsPerDay => units.div_ceil(TICKS_PER_SECOND.get().into()),
            _ => units,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_those_of_the_recorded_clips_to_the_token() {
        // Input of 6.960 s is 69 tokens, output of 4.65 s is 93 (protocol facts c.1).
        let clips = Audio { input: 69, output: 93 };
        assert_eq!(clips.units(Dimension::AudioTokensPerMinute), 162);
        assert_eq!(clips.units(Dimension::AudioSecondsPerDay), 6_900 / 50 + 4_650 / 50);
        assert_eq!(Dimension::AudioSecondsPerDay.shown(231), 12);
        assert_eq!((clips.units(Dimension::TokensPerMinute), Dimension::TokensPerDay.shown(231)), (0, 231));
    }

    #[test]
    fn a_limit_of_seconds_is_counted_in_twentieths() {
        let seconds = |n| Limits { audio_seconds_per_day: NonZeroU32::new(n), ..Limits::default() };
        let ticks = |n| seconds(n).rate(Dimension::AudioSecondsPerDay).unwrap().limit();
        assert_eq!((ticks(3), ticks(MAX_AUDIO_SECONDS), ticks(u32::MAX)), (60, u32::MAX - 15, u32::MAX));
        assert_eq!(seconds(3).ceiling(Dimension::AudioSecondsPerDay), Some(3));
    }

    #[test]
    fn a_guess_gives_way_to_the_smaller_room_and_the_input_never() {
        let limits = |tokens, seconds| Limits {
            audio_tokens_per_minute: NonZeroU32::new(tokens),
            audio_seconds_per_day: NonZeroU32::new(seconds),
            ..Limits::default()
        };
        let output = |input, limits: Limits| Audio { input, output: 200 }.within(&limits);
        assert_eq!(output(30, limits(0, 0)), Audio { input: 30, output: 200 });
        assert_eq!(output(30, limits(100, 0)), Audio { input: 30, output: 70 });
        assert_eq!(output(30, limits(100, 5)), Audio { input: 30, output: 40 });
        assert_eq!(output(300, limits(100, 5)), Audio { input: 300, output: 0 });
    }

    #[test]
    fn an_input_that_is_a_guess_gives_way_last_and_what_is_known_never() {
        let limits = |tokens, seconds| Limits {
            audio_tokens_per_minute: NonZeroU32::new(tokens),
            audio_seconds_per_day: NonZeroU32::new(seconds),
            ..Limits::default()
        };
        let audio = |input, output| Audio { input, output };
        let all = |limits: Limits| audio(30, 0).with_guess(audio(750, 200), &limits);
        assert_eq!(all(limits(0, 0)), audio(780, 200));
        assert_eq!(all(limits(1_000, 0)), audio(780, 200));
        assert_eq!(all(limits(800, 0)), audio(780, 20));
        assert_eq!(all(limits(600, 0)), audio(600, 0));
        // A token of input is two twentieths of a second, and of 41 of them one is left for the output.
        assert_eq!(all(limits(600, 40)), audio(400, 0));
        assert_eq!(audio(30, 1).with_guess(audio(750, 200), &limits(0, 4)), audio(39, 2));
        assert_eq!(all(limits(20, 0)), audio(30, 0));
    }

    #[test]
    fn cached_audio_counts_as_input() {
        let usage = Usage::default()
            .with(LineItem::InputAudio, 3)
            .with(LineItem::InputCachedAudio, 4)
            .with(LineItem::OutputAudio, 5)
            .with(LineItem::OutputText, 6);
        assert_eq!(Audio::of(&usage), Audio { input: 7, output: 5 });
    }
}
