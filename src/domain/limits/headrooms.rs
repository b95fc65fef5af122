//! What is left of limits: the values behind the `x-ratelimit-*` headers.

use serde::{Deserialize, Serialize};

use super::{Dimension, audio};
use crate::domain::bucket::Headroom;

/// What is left after a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headrooms {
    /// The day bucket where there is one, else the minute bucket (as recorded from `OpenAI`).
    pub requests: Option<Headroom>,
    pub tokens: Option<Headroom>,
    /// Only where there is such a limit; unknown for what was refused before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_tokens: Option<Headroom>,
    /// In whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_seconds: Option<Headroom>,
}

/// Finds of each kind the bucket with the least left, whoever's it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tightest {
    found: Headrooms,
    requests_per_minute: Option<Headroom>,
}

impl Tightest {
    /// One more bucket.
    #[inline]
    pub fn add(&mut self, dimension: Dimension, headroom: Headroom) {
        let found = match dimension {
            Dimension::RequestsPerMinute => &mut self.requests_per_minute,
            Dimension::RequestsPerDay => &mut self.found.requests,
            Dimension::TokensPerMinute | Dimension::TokensPerDay => &mut self.found.tokens,
            Dimension::AudioTokensPerMinute => &mut self.found.audio_tokens,
            Dimension::AudioSecondsPerDay => &mut self.found.audio_seconds,
            Dimension::ConcurrentRequests | Dimension::ConcurrentStreams => return,
        };
        if found.is_none_or(|found| (headroom.remaining, headroom.limit) < (found.remaining, found.limit)) {
            *found = Some(headroom);
        }
    }

    #[inline]
    pub fn headrooms(self) -> Headrooms {
        let Self { found, requests_per_minute } = self;
        Headrooms {
            requests: found.requests.or(requests_per_minute),
            audio_seconds: found.audio_seconds.map(audio::in_seconds),
            ..found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_bucket_of_each_kind_is_shown() {
        let headroom = |limit, remaining, reset_nanos| Headroom { limit, remaining, reset_nanos };
        let mut tightest = Tightest::default();
        assert_eq!(tightest.headrooms(), Headrooms::default());
        let mut shown = |dimension, limit, remaining| {
            tightest.add(dimension, headroom(limit, remaining, 7));
            let Headrooms { requests, tokens, audio_tokens, audio_seconds } = tightest.headrooms();
            [requests, tokens, audio_tokens, audio_seconds].map(|it| it.map(|it| (it.limit, it.remaining)))
        };
        let day = Some((50, 50));
        assert_eq!(shown(Dimension::RequestsPerMinute, 3, 2), [Some((3, 2)), None, None, None]);
        assert_eq!(shown(Dimension::RequestsPerDay, 50, 50), [day, None, None, None], "the day before the minute");
        assert_eq!(shown(Dimension::RequestsPerMinute, 2, 1), [day, None, None, None]);
        assert_eq!(shown(Dimension::TokensPerMinute, 1_000, 600)[1], Some((1_000, 600)));
        assert_eq!(shown(Dimension::TokensPerMinute, 600, 600)[1], Some((600, 600)), "of equals the smaller limit");
        assert_eq!(shown(Dimension::TokensPerDay, 900, 600)[1], Some((600, 600)));
        assert_eq!(shown(Dimension::TokensPerDay, 900, 599)[1], Some((900, 599)));
        let audio = [day, Some((900, 599)), Some((9, 8)), None];
        assert_eq!(shown(Dimension::AudioTokensPerMinute, 9, 8), audio);
        assert_eq!(shown(Dimension::AudioSecondsPerDay, 60, 39), [day, audio[1], audio[2], Some((3, 1))]);
        assert_eq!(tightest.headrooms().audio_seconds, Some(headroom(3, 1, 7)));
    }
}
