//! Whether a call would be admitted now, and what it would hold and cost: [`Proxy::dry_run`].

use super::{
    Call, Estimate, Proxy, Refused, Terms, amount, asked, check_endpoint, over_limit, over_spend_limit, size,
    unknown_model,
};
use crate::domain::{
    dry_run::{Forecast, estimated_cost, worst_case},
    keys::Caller,
    limits::{Headrooms, LimitExceeded},
    pricing::{ServiceTier, charges},
    spend::SpendLimitReached,
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
        let prices = terms.named.as_ref().and_then(|named| named.prices(now)).map(AsRef::as_ref);
        let charges = charges(&estimate.usage, prices, ServiceTier::Default);
        let money = self.recorder.spending.would_hold(&self.payer(caller), amount(&charges), now);
        let passed = self.would_pass(caller, call, &terms, &estimate, (money.refused, would.refused), now);
        let refused = passed.err();
        let size = size(call, &terms);
        let forecast = Forecast {
            limit_group: terms.limit_group.to_string(),
            estimate: estimate.usage,
            reserved_tokens: estimate.tokens,
            limits: would.limits,
            spend_limits: money.limits,
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
        (reached, exceeded): (Option<SpendLimitReached>, Option<LimitExceeded>),
        now: UnixNanos,
    ) -> Result<(), Refused> {
        self.check_permission(caller, &call.model, terms)?;
        check_endpoint(call, terms)?;
        self.prices(&call.model, terms, now)?;
        reached.map_or(Ok(()), |reached| Err(over_spend_limit(terms, reached, now)))?;
        exceeded.map_or(Ok(()), |exceeded| Err(over_limit(caller, call, terms, estimate, exceeded, now)))
    }
}
