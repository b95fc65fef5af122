//! How long a clip is, read from the base64 it came in without decoding it whole.
//!
//! The type is recognised from the bytes; `format` in the request is not asked. What is neither wav nor mp3, or is damaged,
//! counts as long as its bytes would last at 16 kbit/s: speech is hardly ever coded with less, so that the reservation is
//! rather too large than too small; as the guess that it is, it is told apart, so that nobody is refused for ever because of
//! it. The upstream refuses most of it anyway, and settling corrects the rest.

mod encoded;
mod mp3;
mod wav;

use self::encoded::Encoded;

const FALLBACK_BYTES_PER_SECOND: u64 = 2_000;
const TOKENS_PER_SECOND: u64 = 10;

/// The audio of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioInput {
    pub clips: u32,
    /// `floor(10 x seconds)` of each clip, as it is billed (protocol facts c.1).
    pub tokens: u64,
    /// Those of [`Self::tokens`] that clips count whose length cannot be read.
    pub guessed_tokens: u64,
    pub millis: u64,
}

impl AudioInput {
    /// `base64` as it stands between the quotes of a JSON string, escapes included.
    pub fn add_clip(&mut self, base64: &[u8]) {
        let encoded = Encoded::new(base64);
        let read = read(&encoded);
        let length = read.unwrap_or(Length { samples: encoded.len() as u64, rate: FALLBACK_BYTES_PER_SECOND });
        let tokens = length.times(TOKENS_PER_SECOND);
        self.clips = self.clips.saturating_add(1);
        self.tokens = self.tokens.saturating_add(tokens);
        if read.is_none() {
            self.guessed_tokens = self.guessed_tokens.saturating_add(tokens);
        }
        self.millis = self.millis.saturating_add(length.times(1_000));
    }
}

/// `samples / rate` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Length {
    samples: u64,
    rate: u64,
}

impl Length {
    /// Seconds times `factor`, rounded down.
    fn times(self, factor: u64) -> u64 {
        let scaled = u128::from(self.samples) * u128::from(factor);
        u64::try_from(scaled.checked_div(u128::from(self.rate)).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

fn read(encoded: &Encoded<'_>) -> Option<Length> {
    if wav::is_wav(encoded) { wav::length(encoded) } else { mp3::length(encoded) }
}

#[cfg(test)]
mod tests;
