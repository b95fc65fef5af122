//! The ceilings of a key on a model, and the answer when one is hit.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::bucket::{Headroom, Rate};

/// Ceilings per time for one API key and model. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Input tokens enqueued in batches at one time: a count, not a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_queue_tokens: Option<u64>,
}

/// A ceiling that requests are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    RequestsPerMinute,
    RequestsPerDay,
    TokensPerMinute,
}

impl Dimension {
    pub const COUNT: usize = 3;
    pub const ALL: [Self; Self::COUNT] = [Self::RequestsPerMinute, Self::RequestsPerDay, Self::TokensPerMinute];

    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::RequestsPerDay => "requests_per_day",
            Self::TokensPerMinute => "tokens_per_minute",
        }
    }

    /// As `OpenAI` writes it in a refusal.
    pub const fn wire_phrase(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests per min (RPM)",
            Self::RequestsPerDay => "requests per day (RPD)",
            Self::TokensPerMinute => "tokens per min (TPM)",
        }
    }

    /// Counts tokens, not requests.
    pub const fn is_tokens(self) -> bool {
        matches!(self, Self::TokensPerMinute)
    }
}

impl Limits {
    pub fn rate(&self, dimension: Dimension) -> Option<Rate> {
        match dimension {
            Dimension::RequestsPerMinute => self.requests_per_minute.map(Rate::per_minute),
            Dimension::RequestsPerDay => self.requests_per_day.map(Rate::per_day),
            Dimension::TokensPerMinute => self.tokens_per_minute.map(Rate::per_minute),
        }
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
        Self {
            requests_per_minute: smaller(self.requests_per_minute, key.requests_per_minute),
            requests_per_day: smaller(self.requests_per_day, key.requests_per_day),
            tokens_per_minute: smaller(self.tokens_per_minute, key.tokens_per_minute),
            batch_queue_tokens: smaller(self.batch_queue_tokens, key.batch_queue_tokens),
        }
    }
}

impl Limits {
    /// `own` where it says something, this elsewhere: what an administrator sets for a project replaces the tier's figure,
    /// whether it is larger or smaller.
    #[must_use]
    pub fn overridden_by(&self, own: &Self) -> Self {
        Self {
            requests_per_minute: own.requests_per_minute.or(self.requests_per_minute),
            requests_per_day: own.requests_per_day.or(self.requests_per_day),
            tokens_per_minute: own.tokens_per_minute.or(self.tokens_per_minute),
            batch_queue_tokens: own.batch_queue_tokens.or(self.batch_queue_tokens),
        }
    }
}

/// The limit that refused a request, and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitExceeded {
    pub dimension: Dimension,
    pub limit: u32,
    pub used: u64,
    pub requested: u32,
    /// `None`: larger than the whole limit, so waiting does not help.
    pub wait_nanos: Option<u64>,
}

/// What is left after a request: the values behind the six `x-ratelimit-*` headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headrooms {
    /// The day bucket where the model has one, else the minute bucket (as recorded from `OpenAI`).
    pub requests: Option<Headroom>,
    pub tokens: Option<Headroom>,
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_projects_own_figures_replace_the_tiers_in_both_directions() {
        let some = NonZeroU32::new;
        let tier = Limits { requests_per_minute: some(500), tokens_per_minute: some(1_000), ..Limits::default() };
        let own = Limits { requests_per_minute: some(900), tokens_per_minute: some(5), ..Limits::default() };
        let both = Limits { requests_per_day: some(7), ..tier }.overridden_by(&own);
        assert_eq!(both, Limits { requests_per_day: some(7), ..own });
    }
}
