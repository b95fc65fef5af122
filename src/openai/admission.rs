//! The answer to a dry run, an object of our own: whether a request would be admitted now, what it would hold of each limit, of
//! money too, and what it may cost. Amounts are exact numbers, as the costs report prints them.

use serde::Serialize;

use super::{
    error::ApiError,
    explain::{EstimateObject, unit},
    headers::retry_after,
    report::Amount,
};
use crate::domain::{
    dry_run::{Forecast, NoWorstCase},
    explanation::LimitUse,
    money::Money,
    refusals::Reason,
    spend::SpendLimitUse,
};

#[derive(Debug, Serialize)]
pub struct AdmissionObject<'a> {
    object: &'static str,
    /// As the caller wrote it.
    model: &'a str,
    admitted: bool,
    /// `null` where nothing is known of the model.
    estimate: Option<EstimateObject>,
    limits: Vec<LimitObject<'a>>,
    spend_limits: Vec<SpendLimitObject>,
    estimated_cost: Option<Amount>,
    worst_case_cost: Option<Amount>,
    /// Why there is no worst case.
    worst_case_unknown: Option<&'static str>,
    refusal: Option<RefusalObject<'a>>,
}

#[derive(Debug, Serialize)]
struct LimitObject<'a> {
    scope: &'static str,
    name: &'static str,
    limit_group: &'a str,
    unit: &'static str,
    limit: u32,
    used_before: Option<u64>,
    would_reserve: u64,
    /// `null`: there is no room.
    left_after: Option<u64>,
}

/// One that is inactive refuses nothing.
#[derive(Debug, Serialize)]
struct SpendLimitObject {
    of: &'static str,
    interval: &'static str,
    enforcement: &'static str,
    threshold: Amount,
    /// In the interval.
    spent: Amount,
    /// What requests under way are expected to cost.
    held: Amount,
    would_reserve: Amount,
    /// `null`: there is no room.
    left_after: Option<Amount>,
}

/// What the caller would be told.
#[derive(Debug, Serialize)]
struct RefusalObject<'a> {
    reason: &'static str,
    /// Of the limit that refuses, if it is one; of a spend limit, whose it is and its interval.
    scope: Option<&'static str>,
    name: Option<&'static str>,
    status: u16,
    error: &'a ApiError,
    retry_after_ms: Option<u64>,
    /// As the header `x-should-retry`, which says `false` or nothing.
    should_retry: Option<bool>,
}

impl<'a> AdmissionObject<'a> {
    pub fn new(model: &'a str, forecast: Option<&'a Forecast>, refused: Option<(&'a ApiError, &Reason)>) -> Self {
        const UNKNOWN_MODEL: &str = "unknown_model";
        let amount = |money: Money| Amount::of(money.into());
        let worst_case = forecast.map(|forecast| forecast.worst_case);
        Self {
            object: "tollgate.admission",
            model,
            admitted: refused.is_none(),
            estimate: forecast.map(|it| EstimateObject::reserving(&it.estimate, it.reserved_tokens.get().into())),
            limits: forecast.map(limits).unwrap_or_default(),
            spend_limits: forecast.map(spend_limits).unwrap_or_default(),
            estimated_cost: forecast.and_then(|forecast| forecast.cost).map(amount),
            worst_case_cost: worst_case.and_then(Result::ok).map(amount),
            worst_case_unknown: worst_case.map_or(Some(UNKNOWN_MODEL), |it| it.err().map(NoWorstCase::name)),
            refusal: refused.map(|(error, reason)| RefusalObject::new(error, reason)),
        }
    }
}

fn limits(forecast: &Forecast) -> Vec<LimitObject<'_>> {
    let object = |it: &LimitUse| LimitObject {
        scope: it.scope.name(),
        name: it.dimension.name(),
        limit_group: &forecast.limit_group,
        unit: unit(it.dimension),
        limit: it.limit,
        used_before: it.used_before.map(|units| it.dimension.shown(units)),
        would_reserve: it.dimension.shown(it.reserved),
        left_after: it.left_after(),
    };
    forecast.limits.iter().map(object).collect()
}

fn spend_limits(forecast: &Forecast) -> Vec<SpendLimitObject> {
    let object = |it: &SpendLimitUse| SpendLimitObject {
        of: it.spender.name(),
        interval: it.limit.interval.name(),
        enforcement: it.limit.enforcement.name(),
        threshold: Amount::of(it.threshold()),
        spent: Amount::of(it.spent),
        held: Amount::of(it.held),
        would_reserve: Amount::of(it.requested),
        left_after: it.left_after().map(Amount::of),
    };
    forecast.spend_limits.iter().map(object).collect()
}

impl<'a> RefusalObject<'a> {
    fn new(error: &'a ApiError, reason: &Reason) -> Self {
        let (scope, name) = match reason {
            Reason::Limit(over) => (Some(over.exceeded.scope.name()), Some(over.exceeded.dimension.name())),
            Reason::SpendLimit(reached) => (Some(reached.spender.name()), Some(reached.interval.name())),
            _ => (None, None),
        };
        Self {
            reason: reason.name(),
            scope,
            name,
            status: error.status,
            error,
            retry_after_ms: error.retry.wait_nanos().map(|nanos| retry_after(nanos).1),
            should_retry: error.retry.is_advised_against().then_some(false),
        }
    }
}

#[cfg(test)]
mod tests;
