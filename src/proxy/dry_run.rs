//! Whether a call would be admitted now, and what it would hold and cost: [`Proxy::dry_run`].

use super::{Call, Estimate, Proxy, Refused, Terms, asked, check_endpoint, over_limit, size, unknown_model};
use crate::domain::{
    dry_run::{Forecast, estimated_cost, worst_case},
    keys::Caller,
    limits::{Headrooms, LimitExceeded},
    pricing::{ServiceTier, charges},
    time::UnixNanos,
};

/// What would become of a call if it were sent now.
#[derive(Debug)]
pub struct DryRun {
    /// `None`: nothing is known of the model.
    pub forecast: Option<Forecast>,
    /// What the caller would be told instead of an answer.
    pub refused: Option<Refused>,
    /// What is left of the limits as they are.
    pub headrooms: Headrooms,
}

impl Proxy {
    /// Goes the way of [`Self::forward`] up to where something would be taken. Nothing is sent, held, written down or counted.
    /// A journal that takes no more is not noticed.
    pub fn dry_run(&self, caller: &Caller, call: &Call) -> DryRun {
        let now = self.clock.now();
        let Some(terms) = self.terms(caller, &call.model) else {
            let refused = unknown_model(&call.model);
            return DryRun { forecast: None, headrooms: refused.headrooms, refused: Some(refused) };
        };
        let estimate = self.estimate(call, &terms);
        let would = terms.buckets.would_reserve(&terms.limits, asked(&estimate, call), now);
        let passed = self.would_pass(caller, call, &terms, &estimate, would.refused, now);
        let refused = passed.err();
        let prices = terms.named.as_ref().and_then(|named| named.prices(now)).map(AsRef::as_ref);
        let size = size(call, &terms);
        let forecast = Forecast {
            limit_group: terms.limit_group.to_string(),
            estimate: estimate.usage,
            reserved_tokens: estimate.tokens,
            limits: would.limits,
            cost: estimated_cost(&estimate.usage, prices),
            worst_case: worst_case(&estimate.usage, size.max_output(), size.wants_audio, prices),
        };
        let headrooms = refused.as_ref().map_or(would.headrooms, |refused| refused.headrooms);
        DryRun { forecast: Some(forecast), refused, headrooms }
    }

    fn would_pass(
        &self,
        caller: &Caller,
        call: &Call,
        terms: &Terms<'_>,
        estimate: &Estimate,
        exceeded: Option<LimitExceeded>,
        now: UnixNanos,
    ) -> Result<(), Refused> {
        self.check_permission(caller, &call.model, terms)?;
        check_endpoint(call, terms)?;
        let prices = self.prices(&call.model, terms, now)?;
        let charges = charges(&estimate.usage, prices.as_deref(), ServiceTier::Default);
        self.check_spending(caller, terms, &charges, now)?;
        exceeded.map_or(Ok(()), |exceeded| Err(over_limit(caller, call, terms, estimate, exceeded, now)))
    }
}
