//! Requests that were refused before anything was sent, as they can be explained for a day. They are no entries: nothing
//! was consumed, and nothing is owed.

mod kept;

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    bucket::DAY_NANOS,
    ids::{KeyId, ProjectId, RequestId},
    limits::{Headrooms, LimitExceeded},
    spend::SpendLimitReached,
    time::UnixNanos,
    usage::Usage,
};

pub use self::kept::Kept;

/// How long a refusal can be explained.
pub const KEPT_NANOS: u64 = DAY_NANOS;

/// Never its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRequest {
    pub request_id: RequestId,
    pub refused_at: UnixNanos,
    pub project_id: ProjectId,
    pub key_id: KeyId,
    /// `chat.completions`.
    pub endpoint: Cow<'static, str>,
    /// As the caller wrote it; a very long name is cut.
    pub model: Arc<str>,
    pub stream: bool,
    /// HTTP status and error code of our answer.
    pub status: u16,
    pub code: Option<Cow<'static, str>>,
    pub reason: Reason,
    /// As the headers of the answer told them.
    pub headrooms: Headrooms,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A limit of the project or the key on the model. In a box as the next, so that the other reasons stay small.
    Limit(Box<OverLimit>),
    SpendLimit(Box<SpendLimitReached>),
    UnknownModel,
    ModelNotAllowed,
    /// The model answers elsewhere.
    WrongEndpoint,
    UnpricedModel,
    /// It could not be journaled.
    NotRecorded,
}

/// The limit that was hit, its state, and what the request would have needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverLimit {
    pub limit_group: Arc<str>,
    pub exceeded: LimitExceeded,
    pub estimate: Usage,
}

impl Reason {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Limit(_) => "limit",
            Self::SpendLimit(_) => "spend_limit",
            Self::UnknownModel => "unknown_model",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::WrongEndpoint => "wrong_endpoint",
            Self::UnpricedModel => "unpriced_model",
            Self::NotRecorded => "not_recorded",
        }
    }
}

impl RefusedRequest {
    /// The limit that refused it; `None` when it was refused for another reason.
    pub const fn over_limit(&self) -> Option<&OverLimit> {
        match &self.reason {
            Reason::Limit(over) => Some(over),
            _ => None,
        }
    }

    /// The spend limit that refused it.
    pub const fn spend_limit(&self) -> Option<&SpendLimitReached> {
        match &self.reason {
            Reason::SpendLimit(reached) => Some(reached),
            _ => None,
        }
    }

    /// When the same request would have been admitted, had nothing else been sent; `None` for never, or nobody knows when.
    pub fn admissible_at(&self) -> Option<UnixNanos> {
        match &self.reason {
            // Room is there again when another request ends, and nobody knows when.
            Reason::Limit(over) if over.exceeded.dimension.is_concurrent() => None,
            Reason::Limit(over) => over.exceeded.wait_nanos.map(|wait_nanos| self.refused_at.plus_nanos(wait_nanos)),
            Reason::SpendLimit(reached) => Some(UnixNanos::from_seconds(reached.ends_s)),
            _ => None,
        }
    }
}

/// Ids before this one are of refusals that are no longer kept.
pub fn oldest_kept(now: UnixNanos) -> RequestId {
    RequestId::earliest(UnixNanos(now.since(UnixNanos(KEPT_NANOS))).millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        limits::{Dimension, Scope},
        money::Total,
        spend::{Interval, Spender},
    };

    #[test]
    fn reasons_are_kept_under_the_names_they_are_shown_with() {
        let exceeded = LimitExceeded {
            scope: Scope::Project,
            dimension: Dimension::RequestsPerMinute,
            limit: 3,
            used: 3,
            requested: 1,
            wait_nanos: Some(20_000_000_000),
        };
        let over = OverLimit { limit_group: "m".into(), exceeded, estimate: Usage::default() };
        let reached = SpendLimitReached {
            spender: Spender::Organization,
            threshold_cents: std::num::NonZeroU64::MAX,
            interval: Interval::Month,
            spent: Total::from_pico(i128::MAX),
            held: Total::default(),
            requested: Total::from_pico(1),
            ends_s: 1_790_812_800,
        };
        for reason in [
            Reason::Limit(Box::new(over)),
            Reason::SpendLimit(Box::new(reached)),
            Reason::UnknownModel,
            Reason::ModelNotAllowed,
            Reason::WrongEndpoint,
            Reason::UnpricedModel,
            Reason::NotRecorded,
        ] {
            let text = serde_json::to_string(&reason).unwrap();
            assert!(text.contains(&format!("\"{}\"", reason.name())), "{text}");
            assert_eq!(serde_json::from_str::<Reason>(&text).unwrap(), reason);
        }
    }

    #[test]
    fn a_refusal_of_before_projects_had_buckets_was_by_the_keys_limit() {
        let text = r#"{"limit":{"limit_group":"m","exceeded":{"dimension":"tokens_per_minute","limit":3,"used":3,"requested":1,
            "wait_nanos":null},"estimate":{}}}"#;
        let Reason::Limit(over) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
        assert_eq!(over.exceeded.scope, Scope::Key);
    }

    #[test]
    fn a_refusal_of_before_money_was_held_was_by_the_limit_of_a_month() {
        let text =
            r#"{"spend_limit":{"spender":"project","threshold_cents":1,"spent":10000000000,"month_end_s":1790812800}}"#;
        let Reason::SpendLimit(reached) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
        assert_eq!(
            (reached.interval, reached.ends_s, reached.held),
            (Interval::Month, 1_790_812_800, Total::default())
        );
    }

    #[test]
    fn a_day_old_is_the_oldest_that_is_kept() {
        let now = UnixNanos::from_seconds(1_790_000_000);
        let oldest = oldest_kept(now);
        assert!(RequestId::new(now.millis() - 86_400_000, 0) >= oldest);
        assert!(RequestId::new(now.millis() - 86_400_001, u128::MAX) < oldest);
        assert_eq!(oldest_kept(UnixNanos(5)), RequestId::earliest(0));
    }
}
