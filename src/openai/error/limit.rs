//! Refusals for a limit that is hit.

use std::borrow::Cow;

use super::{ApiError, Retry, Text};
use crate::{domain::limits::LimitExceeded, openai::headers::go_duration};

impl ApiError {
    /// A 429 in `OpenAI`'s words (protocol facts d.3). The project takes the place of the organization; `shared_limit` is the
    /// limit group of a model that has no limits of its own.
    pub fn limit_exceeded(exceeded: &LimitExceeded, model: &str, shared_limit: Option<&str>, project: &str) -> Self {
        const MORE: &str = "Visit https://platform.openai.com/account/rate-limits to learn more.";
        let model = &*shared_limit.map_or(Cow::Borrowed(model), |limit| format!("{model} (for limit {limit})").into());
        if exceeded.dimension.is_concurrent() {
            return Self::too_many_at_once(exceeded, model, project);
        }
        let LimitExceeded { scope: _, dimension, limit, used, requested, wait_nanos } = *exceeded;
        let phrase = dimension.wire_phrase();
        let (message, retry) = if let Some(nanos) = wait_nanos {
            let wait = go_duration(nanos);
            let message = format!(
                "Rate limit reached for {model} in organization {project} on {phrase}: Limit {limit}, Used {used}, \
                 Requested {requested}. Please try again in {wait}. {MORE}"
            );
            (message, if dimension.is_per_day() { Retry::NotByItself { nanos } } else { Retry::After { nanos } })
        } else {
            let message = format!(
                "Request too large for {model} in organization {project} on {phrase}: Limit {limit}, Requested {requested}. \
                 The input or output tokens must be reduced in order to run successfully. {MORE}"
            );
            (message, Retry::No)
        };
        let kind = if dimension.is_tokens() || dimension.is_audio() { "tokens" } else { "requests" };
        Self::new(429, kind, message, None, Text::from("rate_limit_exceeded")).with_retry(retry)
    }

    /// `OpenAI` has no such limit: our words, in the form of its own.
    fn too_many_at_once(exceeded: &LimitExceeded, model: &str, project: &str) -> Self {
        let LimitExceeded { dimension, limit, used, requested, wait_nanos, .. } = *exceeded;
        let nanos = wait_nanos.unwrap_or_default();
        let message = format!(
            "Rate limit reached for {model} in organization {project} on {}: Limit {limit}, Used {used}, Requested \
             {requested}. Please try again in {}, or when one of them has ended.",
            dimension.wire_phrase(),
            go_duration(nanos),
        );
        let code = Text::from("rate_limit_exceeded");
        Self::new(429, "requests", message, None, code).with_retry(Retry::After { nanos })
    }

    /// What `OpenAI` adds when the tier that was too small is the free one (protocol facts d.3).
    #[must_use]
    pub fn with_free_tier_hint(mut self) -> Self {
        const HINT: &str = " You can increase your rate limit by adding a payment method to your account at \
            https://platform.openai.com/account/billing.";
        self.message.to_mut().push_str(HINT);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::{Dimension, Scope};

    #[test]
    fn a_hit_limit_is_told_in_openais_words() {
        // Quoted in public: errors_quoted.jsonl, requests (RPD).
        let day = LimitExceeded {
            scope: Scope::Project,
            dimension: Dimension::RequestsPerDay,
            limit: 10_000,
            used: 10_000,
            requested: 1,
            wait_nanos: Some(8_640_000_000),
        };
        let error = ApiError::limit_exceeded(&day, "gpt-4o-mini", None, "org-redacted");
        assert_eq!(
            error.message,
            "Rate limit reached for gpt-4o-mini in organization org-redacted on requests per day (RPD): Limit 10000, Used \
             10000, Requested 1. Please try again in 8.64s. Visit https://platform.openai.com/account/rate-limits to learn \
             more."
        );
        assert_eq!((error.status, error.kind.as_ref()), (429, "requests"));
        assert_eq!(error.retry, Retry::NotByItself { nanos: 8_640_000_000 });
        let of_tokens = LimitExceeded { dimension: Dimension::TokensPerDay, ..day };
        let error = ApiError::limit_exceeded(&of_tokens, "m", None, "org");
        assert!(
            error
                .message
                .starts_with("Rate limit reached for m in organization org on tokens per day (TPD): Limit 10000,")
        );
        assert_eq!((error.retry, error.kind.as_ref()), (Retry::NotByItself { nanos: 8_640_000_000 }, "tokens"));
        let large = LimitExceeded {
            scope: Scope::Project,
            dimension: Dimension::TokensPerMinute,
            limit: 30_000,
            used: 0,
            requested: 250_011,
            wait_nanos: None,
        };
        let error = ApiError::limit_exceeded(&large, "gpt-4o", None, "org-redacted");
        assert!(error.message.starts_with(
            "Request too large for gpt-4o in organization org-redacted on tokens per min (TPM): Limit 30000, Requested 250011."
        ));
        assert_eq!((error.retry, error.kind.as_ref()), (Retry::No, "tokens"));
    }

    #[test]
    fn a_limit_that_models_share_is_named_in_every_kind_of_refusal() {
        let wait = LimitExceeded {
            scope: Scope::Project,
            dimension: Dimension::TokensPerMinute,
            limit: 40_000,
            used: 39_000,
            requested: 2_000,
            wait_nanos: Some(1_500_000_000),
        };
        let too_large = LimitExceeded { wait_nanos: None, ..wait };
        let too_many = LimitExceeded { dimension: Dimension::ConcurrentRequests, ..wait };
        for (exceeded, words) in
            [(wait, "Rate limit reached"), (too_large, "Request too large"), (too_many, "Rate limit reached")]
        {
            let error = ApiError::limit_exceeded(&exceeded, "gpt-realtime", Some("gpt-4o-realtime"), "org-redacted");
            let expected =
                format!("{words} for gpt-realtime (for limit gpt-4o-realtime) in organization org-redacted on ");
            assert!(error.message.starts_with(&expected), "{}", error.message);
        }
    }

    #[test]
    fn too_many_at_once_is_told_in_openais_form() {
        let streams = LimitExceeded {
            scope: Scope::Key,
            dimension: Dimension::ConcurrentStreams,
            limit: 2,
            used: 2,
            requested: 1,
            wait_nanos: Some(1_000_000_000),
        };
        let error = ApiError::limit_exceeded(&streams, "gpt-4o", None, "proj_a");
        assert_eq!(
            error.message,
            "Rate limit reached for gpt-4o in organization proj_a on concurrent streams: Limit 2, Used 2, Requested 1. \
             Please try again in 1s, or when one of them has ended."
        );
        assert_eq!(
            (error.status, error.kind.as_ref(), error.code.as_deref()),
            (429, "requests", Some("rate_limit_exceeded"))
        );
        assert_eq!(error.retry, Retry::After { nanos: 1_000_000_000 });
    }
}
