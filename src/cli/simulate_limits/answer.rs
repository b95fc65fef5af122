//! What a machine reads of a replay.

use serde::Serialize;

use super::SimulateLimitsArgs;
use crate::{
    app::Replayed,
    cli::dates::shown,
    domain::{
        time::UnixNanos,
        what_if::{FoundKey, RefusedBy},
    },
};

#[derive(Serialize)]
struct Answer<'a> {
    admitted_from: String,
    admitted_before: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits_file: Option<String>,
    requests: u64,
    refused: u64,
    keys: usize,
    keys_refused: usize,
    /// A row for each key, limit group and limit, and for each key and limit group with models that the tier does not have.
    refusals: Vec<Refusal<'a>>,
}

#[derive(Serialize)]
struct Refusal<'a> {
    project_id: &'a str,
    project_name: &'a str,
    api_key_id: &'a str,
    api_key_name: &'a str,
    limit_group: &'a str,
    /// `limit`, or `model_not_allowed` where the tier does not have the model; there is no limit then.
    reason: &'static str,
    /// `project` or `key`: whose limit it is.
    scope: Option<&'static str>,
    limit_name: Option<&'static str>,
    limit: Option<u32>,
    /// Of the key on this limit group.
    requests: u64,
    refused: u64,
    too_large: u64,
    first_at_ms: u64,
    last_at_ms: u64,
    /// `null` where no waiting helps, and where it takes until something ends that is under way.
    longest_wait_ms: Option<u64>,
}

pub(super) fn json(args: &SimulateLimitsArgs, replayed: &Replayed) -> Result<String, serde_json::Error> {
    let found = &replayed.found;
    let answer = Answer {
        admitted_from: shown(args.from),
        admitted_before: shown(args.to),
        tier: args.tier.as_deref(),
        limits_file: args.limits.as_ref().map(|path| path.display().to_string()),
        requests: found.requests,
        refused: found.refused,
        keys: found.all_keys(),
        keys_refused: found.refused_keys(),
        refusals: refusals(replayed),
    };
    Ok(serde_json::to_string_pretty(&answer)? + "\n")
}

fn refusals(replayed: &Replayed) -> Vec<Refusal<'_>> {
    let rows = replayed.found.keys.iter().flat_map(|((key_id, limit_group), found)| {
        let FoundKey { project_id, requests, hits } = found;
        let names = replayed.names.get(key_id);
        hits.iter().map(move |hit| {
            let limit = match hit.by {
                RefusedBy::Model => None,
                RefusedBy::Limit { scope, dimension, limit } => Some((scope.name(), dimension.name(), limit)),
            };
            Refusal {
                project_id: project_id.as_str(),
                project_name: names.map_or("", |names| names.project.as_str()),
                api_key_id: key_id.as_str(),
                api_key_name: names.map_or("", |names| names.key.as_str()),
                limit_group,
                reason: hit.by.reason(),
                scope: limit.map(|(scope, ..)| scope),
                limit_name: limit.map(|(_, name, _)| name),
                limit: limit.map(|(.., limit)| limit),
                requests: *requests,
                refused: hit.refused,
                too_large: hit.too_large,
                first_at_ms: hit.first.millis(),
                last_at_ms: hit.last.millis(),
                longest_wait_ms: hit.longest_wait_nanos.map(whole_ms),
            }
        })
    });
    rows.collect()
}

/// No wait is told shorter than it is.
pub(super) const fn whole_ms(nanos: u64) -> u64 {
    nanos.div_ceil(UnixNanos::from_millis(1).0)
}
