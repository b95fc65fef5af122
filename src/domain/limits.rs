//! The ceilings of a project or a key on a model, and the answer when one is hit.

mod audio;
mod headrooms;
mod read;
mod scopes;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

pub use self::{
    audio::{Audio, MAX_AUDIO_SECONDS},
    headrooms::{Headrooms, Tightest},
    read::{WrittenLimits, limit},
    scopes::{ByScope, Scope},
};
use super::bucket::{HoldNumber, Level, Rate};

/// When to ask again for what requests under way hold: nobody knows when one of them ends.
pub const NEXT_END_NANOS: u64 = 1_000_000_000;

/// Ceilings per time for one model. `None` is no limit; read from text, so is `"-"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    #[serde(default, deserialize_with = "read::limit", skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    #[serde(default, deserialize_with = "read::limit", skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<NonZeroU32>,
    #[serde(default, deserialize_with = "read::limit", skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU32>,
    #[serde(default, deserialize_with = "read::limit", skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<NonZeroU32>,
    /// Tokens of audio, input and output; and seconds of it, as its tokens tell them (see [`Audio`]).
    #[serde(default, deserialize_with = "read::limit", skip_serializing_if = "Option::is_none")]
    pub audio_tokens_per_minute: Option<NonZeroU32>,
    #[serde(default, deserialize_with = "read::audio_seconds", skip_serializing_if = "Option::is_none")]
    pub audio_seconds_per_day: Option<NonZeroU32>,
    /// Requests that are under way at one time, and those of them that are streams: counts, not rates.
    #[serde(default, deserialize_with = "read::limit", skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<NonZeroU32>,
    #[serde(default, deserialize_with = "read::limit", skip_serializing_if = "Option::is_none")]
    pub concurrent_streams: Option<NonZeroU32>,
    /// Input tokens enqueued in batches at one time: a count, not a rate.
    #[serde(default, deserialize_with = "read::limit", skip_serializing_if = "Option::is_none")]
    pub batch_queue_tokens: Option<u64>,
}

/// A ceiling that requests are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    RequestsPerMinute,
    RequestsPerDay,
    TokensPerMinute,
    TokensPerDay,
    ConcurrentRequests,
    ConcurrentStreams,
    AudioTokensPerMinute,
    AudioSecondsPerDay,
}

impl Dimension {
    pub const COUNT: usize = 8;
    /// New ones at the end: what is written down counts on the order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::RequestsPerMinute,
        Self::RequestsPerDay,
        Self::TokensPerMinute,
        Self::TokensPerDay,
        Self::ConcurrentRequests,
        Self::ConcurrentStreams,
        Self::AudioTokensPerMinute,
        Self::AudioSecondsPerDay,
    ];
    /// Those that most limits have, which are the first.
    pub const USUAL: [Self; 4] =
        [Self::RequestsPerMinute, Self::RequestsPerDay, Self::TokensPerMinute, Self::TokensPerDay];
    /// Those that count what is under way, and have no bucket that time refills.
    pub const CONCURRENT: [Self; 2] = [Self::ConcurrentRequests, Self::ConcurrentStreams];
    /// Those that count audio alone, which most requests have none of.
    pub const AUDIO: [Self; 2] = [Self::AudioTokensPerMinute, Self::AudioSecondsPerDay];

    pub const fn index(self) -> usize {
        self as usize
    }

    #[expect(clippy::indexing_slicing, reason = "each of the COUNT has its place")]
    pub const fn of<T>(self, all: &[T; Self::COUNT]) -> &T {
        &all[self.index()]
    }

    #[expect(clippy::indexing_slicing, reason = "each of the COUNT has its place")]
    pub const fn of_mut<T>(self, all: &mut [T; Self::COUNT]) -> &mut T {
        &mut all[self.index()]
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::RequestsPerDay => "requests_per_day",
            Self::TokensPerMinute => "tokens_per_minute",
            Self::TokensPerDay => "tokens_per_day",
            Self::ConcurrentRequests => "concurrent_requests",
            Self::ConcurrentStreams => "concurrent_streams",
            Self::AudioTokensPerMinute => "audio_tokens_per_minute",
            Self::AudioSecondsPerDay => "audio_seconds_per_day",
        }
    }

    /// As `OpenAI` writes it in a refusal, or would.
    pub const fn wire_phrase(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests per min (RPM)",
            Self::RequestsPerDay => "requests per day (RPD)",
            Self::TokensPerMinute => "tokens per min (TPM)",
            Self::TokensPerDay => "tokens per day (TPD)",
            Self::ConcurrentRequests => "concurrent requests",
            Self::ConcurrentStreams => "concurrent streams",
            Self::AudioTokensPerMinute => "audio tokens per min",
            Self::AudioSecondsPerDay => "audio seconds per day",
        }
    }

    /// Counts all tokens of a request.
    pub const fn is_tokens(self) -> bool {
        matches!(self, Self::TokensPerMinute | Self::TokensPerDay)
    }

    pub const fn is_per_day(self) -> bool {
        matches!(self, Self::RequestsPerDay | Self::TokensPerDay | Self::AudioSecondsPerDay)
    }

    pub const fn is_audio(self) -> bool {
        matches!(self, Self::AudioTokensPerMinute | Self::AudioSecondsPerDay)
    }

    pub const fn is_concurrent(self) -> bool {
        matches!(self, Self::ConcurrentRequests | Self::ConcurrentStreams)
    }

    /// Whether a request, which may be a `stream`, counts while it is under way.
    pub const fn counts(self, stream: bool) -> bool {
        matches!(self, Self::ConcurrentRequests) || stream && matches!(self, Self::ConcurrentStreams)
    }
}

type Pick<T> = fn(Option<T>, Option<T>) -> Option<T>;

impl Limits {
    pub fn rate(&self, dimension: Dimension) -> Option<Rate> {
        let rate = if dimension.is_per_day() { Rate::per_day } else { Rate::per_minute };
        self.per_window(dimension).map(rate)
    }

    /// As [`Self::rate`], known sooner where it has filled a bucket to `level`.
    #[inline]
    pub fn rate_at(&self, level: Level, dimension: Dimension) -> Option<Rate> {
        let limit = self.per_window(dimension)?;
        Some(if dimension.is_per_day() { Rate::per_day_at(level, limit) } else { Rate::per_minute_at(level, limit) })
    }

    /// In the units of its bucket.
    #[inline]
    fn per_window(&self, dimension: Dimension) -> Option<NonZeroU32> {
        match dimension {
            Dimension::RequestsPerMinute => self.requests_per_minute,
            Dimension::RequestsPerDay => self.requests_per_day,
            Dimension::TokensPerMinute => self.tokens_per_minute,
            Dimension::TokensPerDay => self.tokens_per_day,
            Dimension::AudioTokensPerMinute => self.audio_tokens_per_minute,
            Dimension::AudioSecondsPerDay => self.audio_seconds_per_day.map(audio::ticks),
            Dimension::ConcurrentRequests | Dimension::ConcurrentStreams => None,
        }
    }

    /// How many may be under way; `None` too for what has a rate.
    #[inline]
    pub const fn concurrent(&self, dimension: Dimension) -> Option<NonZeroU32> {
        match dimension {
            Dimension::ConcurrentRequests => self.concurrent_requests,
            Dimension::ConcurrentStreams => self.concurrent_streams,
            _ => None,
        }
    }

    /// The figure that was set.
    pub fn ceiling(&self, dimension: Dimension) -> Option<u32> {
        match dimension {
            Dimension::AudioSecondsPerDay => self.audio_seconds_per_day.map(NonZeroU32::get),
            _ => self.per_window(dimension).or_else(|| self.concurrent(dimension)).map(NonZeroU32::get),
        }
    }

    /// There is a bucket to take from.
    pub fn has_rates(&self) -> bool {
        Dimension::ALL.into_iter().any(|dimension| self.per_window(dimension).is_some())
    }

    /// There is a bucket that takes a day to fill again.
    pub fn has_daily_rates(&self) -> bool {
        Dimension::ALL.into_iter().any(|dimension| dimension.is_per_day() && self.per_window(dimension).is_some())
    }

    /// There is something to check requests against.
    #[inline]
    pub fn are_checked(&self) -> bool {
        let checked = Self { batch_queue_tokens: None, ..*self };
        checked != Self::default()
    }

    /// Few requests have any audio, and few are limited in it.
    #[inline]
    pub const fn limit_audio(&self) -> bool {
        self.audio_tokens_per_minute.is_some() || self.audio_seconds_per_day.is_some()
    }

    /// Whether there is a limit of `dimension` for a request, which may be a `stream`.
    pub fn check(&self, dimension: Dimension, stream: bool) -> bool {
        self.per_window(dimension).is_some() || self.concurrent(dimension).is_some() && dimension.counts(stream)
    }

    /// More tokens than this never pass at once.
    pub fn most_tokens_at_once(&self) -> Option<u32> {
        let of_tokens = Dimension::ALL.into_iter().filter(|dimension| dimension.is_tokens());
        of_tokens.filter_map(|dimension| self.per_window(dimension)).map(NonZeroU32::get).min()
    }

    /// The smaller of both for each ceiling: a key can narrow its project's limits, never widen them.
    #[must_use]
    pub fn narrowed_by(&self, key: &Self) -> Self {
        fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        self.beside(key, smaller, smaller)
    }

    /// `own` where it says something, this elsewhere: what an administrator sets for a project replaces the tier's figure,
    /// whether it is larger or smaller.
    #[must_use]
    pub fn overridden_by(&self, own: &Self) -> Self {
        own.beside(self, Option::or, Option::or)
    }

    /// What is picked of each ceiling and the same of `other`.
    fn beside(&self, other: &Self, rate: Pick<NonZeroU32>, queue: Pick<u64>) -> Self {
        Self {
            requests_per_minute: rate(self.requests_per_minute, other.requests_per_minute),
            requests_per_day: rate(self.requests_per_day, other.requests_per_day),
            tokens_per_minute: rate(self.tokens_per_minute, other.tokens_per_minute),
            tokens_per_day: rate(self.tokens_per_day, other.tokens_per_day),
            audio_tokens_per_minute: rate(self.audio_tokens_per_minute, other.audio_tokens_per_minute),
            audio_seconds_per_day: rate(self.audio_seconds_per_day, other.audio_seconds_per_day),
            concurrent_requests: rate(self.concurrent_requests, other.concurrent_requests),
            concurrent_streams: rate(self.concurrent_streams, other.concurrent_streams),
            batch_queue_tokens: queue(self.batch_queue_tokens, other.batch_queue_tokens),
        }
    }
}

/// The limit that refused a request, and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitExceeded {
    /// Whose limit; a key's where it was written down before projects had limits.
    #[serde(default = "Scope::of_before")]
    pub scope: Scope,
    pub dimension: Dimension,
    pub limit: u32,
    pub used: u64,
    pub requested: u32,
    /// `None`: larger than the whole limit, so waiting does not help.
    pub wait_nanos: Option<u64>,
}

impl LimitExceeded {
    /// Of two that refuse the same request, the one to tell its caller: what passes it passes the other too. That is the
    /// longer wait, before it what never passes, and of that the smaller limit.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        let is_worse = match (self.wait_nanos, other.wait_nanos) {
            (Some(wait), Some(other_wait)) => other_wait > wait,
            (None, None) => other.limit < self.limit,
            (wait, _) => wait.is_some(),
        };
        if is_worse { other } else { self }
    }
}

/// What one request holds of the buckets of one scope.
pub type HoldNumbers = [Option<HoldNumber>; Dimension::COUNT];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_dimensions_are_the_first() {
        assert!(Dimension::USUAL.into_iter().eq(Dimension::ALL.into_iter().take(Dimension::USUAL.len())));
    }

    #[test]
    fn what_is_checked_is_what_has_a_ceiling() {
        let some = NonZeroU32::new;
        let queue = Limits { batch_queue_tokens: Some(5), ..Limits::default() };
        assert!(!queue.are_checked() && !Limits::default().are_checked());
        let limits = |n| {
            [
                Limits { requests_per_minute: n, ..queue },
                Limits { requests_per_day: n, ..queue },
                Limits { tokens_per_minute: n, ..queue },
                Limits { tokens_per_day: n, ..queue },
                Limits { concurrent_requests: n, ..queue },
                Limits { concurrent_streams: n, ..queue },
                Limits { audio_tokens_per_minute: n, ..queue },
                Limits { audio_seconds_per_day: n, ..queue },
            ]
        };
        for (limits, only) in limits(some(1)).into_iter().zip(Dimension::ALL) {
            assert!(limits.are_checked() && limits.limit_audio() == only.is_audio());
            for dimension in Dimension::ALL {
                assert_eq!(limits.ceiling(dimension).is_some(), dimension == only);
                assert_eq!(limits.check(dimension, true), dimension == only);
                let counts = dimension != Dimension::ConcurrentStreams;
                assert_eq!(limits.check(dimension, false), dimension == only && counts);
            }
        }
    }

    #[test]
    fn a_key_narrows_and_never_widens() {
        let some = NonZeroU32::new;
        let project = Limits { requests_per_minute: some(500), tokens_per_minute: some(1_000), ..Limits::default() };
        let key = Limits { requests_per_minute: some(900), requests_per_day: some(5), ..Limits::default() };
        let both = project.narrowed_by(&key);
        assert_eq!(both.requests_per_minute, some(500));
        assert_eq!(both.requests_per_day, some(5));
        assert_eq!(both.tokens_per_minute, some(1_000));
        assert_eq!(both.batch_queue_tokens, None);
    }

    #[test]
    fn no_more_tokens_pass_at_once_than_the_smallest_limit_of_tokens() {
        let some = NonZeroU32::new;
        let limits = Limits { requests_per_minute: some(1), tokens_per_minute: some(60), ..Limits::default() };
        assert_eq!(limits.most_tokens_at_once(), Some(60));
        assert_eq!(Limits { tokens_per_day: some(50), ..limits }.most_tokens_at_once(), Some(50));
        assert_eq!(Limits { tokens_per_minute: None, ..limits }.most_tokens_at_once(), None);
    }

    #[test]
    fn a_projects_own_figures_replace_the_tiers_in_both_directions() {
        let some = NonZeroU32::new;
        let tier = Limits { requests_per_minute: some(500), tokens_per_minute: some(1_000), ..Limits::default() };
        let own = Limits { requests_per_minute: some(900), tokens_per_minute: some(5), ..Limits::default() };
        let both = Limits { requests_per_day: some(7), ..tier }.overridden_by(&own);
        assert_eq!(both, Limits { requests_per_day: some(7), ..own });
    }

    #[test]
    fn the_longest_wait_is_told_and_what_never_passes_before_it() {
        let refused = |limit, wait_nanos| LimitExceeded {
            scope: Scope::Project,
            dimension: Dimension::TokensPerMinute,
            limit,
            used: 0,
            requested: 1,
            wait_nanos,
        };
        let (short, long) = (refused(1, Some(5)), refused(2, Some(6)));
        let (narrow, wide) = (refused(3, None), refused(4, None));
        for (one, other, told) in [(short, long, long), (long, narrow, narrow), (narrow, wide, narrow)] {
            assert_eq!((one.or_worse(other), other.or_worse(one)), (told, told));
        }
        let first = LimitExceeded { dimension: Dimension::RequestsPerDay, ..short };
        assert_eq!(first.or_worse(short), first, "of equals the first");
    }
}
