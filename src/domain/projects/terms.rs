//! What an administrator has agreed on with a project, beyond its tier.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::domain::{limits::Limits, spend::SpendLimits};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectTerms {
    /// By model id: limits in place of the tier's, in both directions. What is `None` in them is the tier's.
    pub rate_limits: BTreeMap<String, Limits>,
    /// `None`: every model.
    pub model_permissions: Option<ModelPermissions>,
    pub spend_limits: SpendLimits,
}

/// Which models a project may call, whatever its keys say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPermissions {
    pub mode: PermissionMode,
    pub model_ids: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PermissionMode {
    /// Only what is listed.
    AllowList,
    /// Everything but what is listed.
    DenyList,
}

/// What is to be different about a project's limits for a model. `None` stays; `Some(None)` puts the tier's figure back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimitUpdate {
    pub requests_per_minute: Option<Option<NonZeroU32>>,
    pub requests_per_day: Option<Option<NonZeroU32>>,
    pub tokens_per_minute: Option<Option<NonZeroU32>>,
    pub tokens_per_day: Option<Option<NonZeroU32>>,
    pub audio_tokens_per_minute: Option<Option<NonZeroU32>>,
    pub audio_seconds_per_day: Option<Option<NonZeroU32>>,
    pub concurrent_requests: Option<Option<NonZeroU32>>,
    pub concurrent_streams: Option<Option<NonZeroU32>>,
    pub batch_queue_tokens: Option<Option<u64>>,
}

impl PermissionMode {
    pub const ALL: [Self; 2] = [Self::AllowList, Self::DenyList];

    pub const fn name(self) -> &'static str {
        match self {
            Self::AllowList => "allow_list",
            Self::DenyList => "deny_list",
        }
    }
}

impl ModelPermissions {
    /// A model's own name stands for its snapshots too. `page` is the name of the model that `requested` belongs to, where it
    /// has a page, and `stands_for` the snapshot that is expected to answer.
    ///
    /// In doubt it is no: a snapshot that is denied is not to be had by its model's name, while one that is allowed does not
    /// open that name, behind which the upstream may put another.
    pub fn allow(&self, requested: &str, page: Option<&str>, stands_for: Option<&str>) -> bool {
        let lists = |name: Option<&str>| name.is_some_and(|name| self.model_ids.contains(name));
        let listed = lists(Some(requested)) || lists(page);
        match self.mode {
            PermissionMode::AllowList => listed,
            PermissionMode::DenyList => !listed && !lists(stands_for),
        }
    }
}

impl ProjectTerms {
    /// What is set for any of `models`, which share their buckets: of each ceiling the smallest figure.
    pub fn own_limits(&self, models: &[Arc<str>]) -> Option<Limits> {
        let own = models.iter().filter_map(|model| self.rate_limits.get(&**model)).copied();
        own.reduce(|all, own| all.narrowed_by(&own))
    }

    /// For all of `models`, which share their buckets. When their figures are all the tier's again, they have no limits of
    /// their own.
    pub fn update_rate_limit(&mut self, models: &[Arc<str>], update: &RateLimitUpdate) {
        let own = self.own_limits(models).unwrap_or_default();
        let own = Limits {
            requests_per_minute: update.requests_per_minute.unwrap_or(own.requests_per_minute),
            requests_per_day: update.requests_per_day.unwrap_or(own.requests_per_day),
            tokens_per_minute: update.tokens_per_minute.unwrap_or(own.tokens_per_minute),
            batch_queue_tokens: update.batch_queue_tokens.unwrap_or(own.batch_queue_tokens),
            tokens_per_day: update.tokens_per_day.unwrap_or(own.tokens_per_day),
            audio_tokens_per_minute: update.audio_tokens_per_minute.unwrap_or(own.audio_tokens_per_minute),
            audio_seconds_per_day: update.audio_seconds_per_day.unwrap_or(own.audio_seconds_per_day),
            concurrent_requests: update.concurrent_requests.unwrap_or(own.concurrent_requests),
            concurrent_streams: update.concurrent_streams.unwrap_or(own.concurrent_streams),
        };
        for model in models {
            if own == Limits::default() {
                self.rate_limits.remove(&**model);
            } else {
                self.rate_limits.insert(model.to_string(), own);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(mode: PermissionMode, model_ids: &[&str]) -> ModelPermissions {
        ModelPermissions { mode, model_ids: model_ids.iter().map(|id| (*id).to_owned()).collect() }
    }

    #[test]
    fn a_list_allows_or_denies_models_with_their_snapshots() {
        for (requested, page, stands_for, allowed, denied) in [
            ("gpt-4o", Some("gpt-4o"), Some("gpt-4o-2024-08-06"), true, true),
            ("gpt-4o-2024-08-06", Some("gpt-4o"), Some("gpt-4o-2024-08-06"), true, true),
            ("gpt-4o-mini", Some("gpt-4o-mini"), Some("gpt-4o-mini-2024-07-18"), false, false),
            ("gpt-audio-2025-08-28", Some("gpt-audio"), Some("gpt-audio-2025-08-28"), true, true),
            // The model's name may lead to the snapshot that is denied, and need not lead to the one that is allowed.
            ("gpt-audio", Some("gpt-audio"), Some("gpt-audio-2025-08-28"), false, true),
            ("gpt-audio-2024-01-01", Some("gpt-audio"), Some("gpt-audio-2024-01-01"), false, false),
            ("unlisted", None, None, false, false),
        ] {
            let allow =
                |mode| permissions(mode, &["gpt-4o", "gpt-audio-2025-08-28"]).allow(requested, page, stands_for);
            assert_eq!(allow(PermissionMode::AllowList), allowed, "{requested}");
            assert_eq!(allow(PermissionMode::DenyList), !denied, "{requested}");
        }
    }

    #[test]
    fn what_an_update_leaves_out_stays_and_null_puts_the_tiers_figure_back() {
        let (five, nine) = (NonZeroU32::new(5), NonZeroU32::new(9));
        let models = ["m".into()];
        let mut terms = ProjectTerms::default();
        let first = RateLimitUpdate {
            requests_per_minute: Some(five),
            batch_queue_tokens: Some(Some(7)),
            ..RateLimitUpdate::default()
        };
        terms.update_rate_limit(&models, &first);
        terms.update_rate_limit(
            &models,
            &RateLimitUpdate { tokens_per_minute: Some(nine), ..RateLimitUpdate::default() },
        );
        let expected = Limits {
            requests_per_minute: five,
            tokens_per_minute: nine,
            batch_queue_tokens: Some(7),
            ..Limits::default()
        };
        assert_eq!(terms.rate_limits["m"], expected);
        let back = RateLimitUpdate {
            requests_per_minute: Some(None),
            tokens_per_minute: Some(None),
            batch_queue_tokens: Some(None),
            ..RateLimitUpdate::default()
        };
        terms.update_rate_limit(&models, &back);
        assert_eq!(terms, ProjectTerms::default());
    }
}
