//! Whether a call would be admitted now, and what it would hold and cost: [`Proxy::dry_run`].

use super::{
    Call, Estimate, NoRoom, Proxy, Refused, Terms, bounds, check_endpoint, no_room_for, refused, unknown_model,
};
use crate::domain::{
    dry_run::{Forecast, estimated_cost, worst_case},
    keys::Caller,
    limits::{Headrooms, LimitExceeded},
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
    /// How far a soft limit on money is used, as an answer would tell; a refusal tells nothing.
    pub budget_percent: Option<u64>,
}

impl Proxy {
    /// Goes the way of [`Self::forward`] up to where something would be taken. Nothing is sent, held, written down or counted.
    /// A journal that takes no more is not noticed.
    pub fn dry_run(&self, caller: &Caller, call: &Call) -> DryRun {
        let now = self.clock.now();
        let Some(terms) = self.terms(caller, &call.model) else {
            let refused = unknown_model(&call.model);
            return DryRun {
                forecast: None,
                headrooms: refused.headrooms,
                refused: Some(refused),
                budget_percent: None,
            };
        };
        let estimate = self.estimate(call, &terms);
        let would = terms.buckets.would_reserve(&terms.limits, estimate.asked(call.stream), now);
        let prices = terms.named.as_ref().and_then(|named| named.prices(now)).map(AsRef::as_ref);
        let (_, charges) = estimate.bill(call.service_tiers, prices);
        let amount = self.money_held(call, &terms, &estimate, &charges, prices);
        let money = self.recorder.spending.would_hold(&self.payer(caller), amount, now);
        let passed = self.would_pass(caller, call, &terms, &estimate, (money.refused, would.refused), now);
        let refused = passed.err();
        let forecast = Forecast {
            limit_group: terms.limit_group.to_string(),
            estimate: estimate.usage,
            reserved_tokens: estimate.tokens,
            limits: would.limits,
            spend_limits: money.limits,
            cost: estimated_cost(&estimate.usage, call.service_tiers, prices),
            worst_case: worst_case(&estimate.usage, &bounds(call, &terms), prices),
        };
        let headrooms = refused.as_ref().map_or(would.headrooms, |refused| refused.headrooms);
        let budget_percent = match refused {
            None => self.recorder.spending.soft_percent(&self.payer(caller), now),
            Some(_) => None,
        };
        DryRun { forecast: Some(forecast), refused, headrooms, budget_percent }
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
        let no_room = match exceeded {
            Some(exceeded) => Some(no_room_for(exceeded, reached)),
            None => reached.map(NoRoom::Money),
        };
        no_room.map_or(Ok(()), |no_room| Err(refused(caller, call, terms, estimate, no_room, now)))
    }
}
