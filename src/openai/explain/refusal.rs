//! Why a request was refused, and when it would have passed.

use serde::Serialize;

use super::details::unit;
use crate::{
    domain::{bucket::Headroom, limits::Headrooms, refusals::RefusedRequest},
    openai::{headers::retry_after, report::Amount},
};

#[derive(Debug, Serialize)]
pub(super) struct RefusalObject<'a> {
    reason: &'static str,
    code: Option<&'a str>,
    refused_at_ms: u64,
    limit: Option<HitLimitObject<'a>>,
    spend_limit: Option<SpendLimitObject>,
    headrooms: HeadroomsObject,
}

#[derive(Debug, Serialize)]
struct HitLimitObject<'a> {
    scope: &'static str,
    name: &'static str,
    limit_group: &'a str,
    unit: &'static str,
    limit: u32,
    used: u64,
    requested: u32,
    /// As `retry-after-ms` told it. `null`: larger than the whole limit, so that no waiting helps.
    wait_ms: Option<u64>,
    admissible_at_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct SpendLimitObject {
    of: &'static str,
    interval: &'static str,
    threshold: Amount,
    /// In the interval, when it was refused.
    spent: Amount,
    /// What requests under way were expected to cost then.
    held: Amount,
    requested: Amount,
    admissible_at_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct HeadroomsObject {
    requests: Option<HeadroomObject>,
    tokens: Option<HeadroomObject>,
    audio_tokens: Option<HeadroomObject>,
    audio_seconds: Option<HeadroomObject>,
}

#[derive(Debug, Serialize)]
struct HeadroomObject {
    limit: u32,
    remaining: u32,
    reset_ms: u64,
}

impl<'a> RefusalObject<'a> {
    pub(super) fn new(it: &'a RefusedRequest) -> Self {
        // A millisecond that has begun is not over: as the wait, it is rounded up.
        let admissible_at_ms = it.admissible_at().map(|at| at.0.div_ceil(1_000_000));
        let limit = it.over_limit().map(|over| HitLimitObject {
            scope: over.exceeded.scope.name(),
            name: over.exceeded.dimension.name(),
            limit_group: &over.limit_group,
            unit: unit(over.exceeded.dimension),
            limit: over.exceeded.limit,
            used: over.exceeded.used,
            requested: over.exceeded.requested,
            wait_ms: over.exceeded.wait_nanos.map(|nanos| retry_after(nanos).1),
            admissible_at_ms,
        });
        let spend_limit = it.spend_limit().map(|reached| SpendLimitObject {
            of: reached.spender.name(),
            interval: reached.interval.name(),
            threshold: Amount::of(reached.threshold()),
            spent: Amount::of(reached.spent),
            held: Amount::of(reached.held),
            requested: Amount::of(reached.requested),
            admissible_at_ms,
        });
        Self {
            reason: it.reason.name(),
            code: it.code.as_deref(),
            refused_at_ms: it.refused_at.millis(),
            limit,
            spend_limit,
            headrooms: HeadroomsObject::new(&it.headrooms),
        }
    }
}

impl HeadroomsObject {
    fn new(headrooms: &Headrooms) -> Self {
        let object = |headroom: Option<Headroom>| {
            headroom.map(|Headroom { limit, remaining, reset_nanos }| HeadroomObject {
                limit,
                remaining,
                reset_ms: reset_nanos / 1_000_000,
            })
        };
        Self {
            requests: object(headrooms.requests),
            tokens: object(headrooms.tokens),
            audio_tokens: object(headrooms.audio_tokens),
            audio_seconds: object(headrooms.audio_seconds),
        }
    }
}
