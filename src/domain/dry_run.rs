//! What would become of a request if it were sent now.

use std::num::NonZeroU32;

use super::{
    explanation::LimitUse,
    money::{Money, MoneyError, Total},
    pricing::{Charge, Cost, Prices, ServiceTier, cost, cost_of},
    spend::SpendLimitUse,
    usage::{LineItem, Usage},
};

/// What a request for a known model would hold of its limits, and what it may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Models of one group share their limits.
    pub limit_group: String,
    pub estimate: Usage,
    /// Asked of each limit of tokens.
    pub reserved_tokens: NonZeroU32,
    /// Those that would be checked, in the order of checking, each as if it alone decided.
    pub limits: Vec<LimitUse>,
    /// Those on money, in the order of checking too.
    pub spend_limits: Vec<SpendLimitUse>,
    /// Of the estimate; `None` where a part of it has no price.
    pub cost: Option<Money>,
    pub worst_case: Result<Money, NoWorstCase>,
}

/// Why nobody can say what a request costs at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWorstCase {
    /// Something that it may use has no price.
    Unpriced,
    /// Neither the request nor the model's page bounds the output.
    Unbounded,
    /// More than an amount of money can be.
    TooLarge,
}

impl NoWorstCase {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unpriced => "unpriced",
            Self::Unbounded => "unbounded",
            Self::TooLarge => "too_large",
        }
    }
}

/// What bounds the cost of a request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of all choices together. `None` where nobody bounds it.
    pub max_output: Option<u64>,
    pub wants_audio: bool,
    /// Those that may serve it (see [`ServiceTier::asked`]).
    pub service_tiers: &'static [ServiceTier],
}

/// The price of a usage at the dearest of `service_tiers`; `None` where a part of it has none, or it is no amount of money.
pub fn estimated_cost(usage: &Usage, service_tiers: &[ServiceTier], prices: Option<&Prices>) -> Option<Money> {
    let mut dearest = None;
    for tier in service_tiers {
        let cost = cost_of(usage, prices, *tier).ok().filter(|cost| cost.priced)?;
        dearest = dearest.max(Some(cost.amount));
    }
    dearest
}

/// What the input of `estimate` costs with the most output, all of it of the dearest kind and at the dearest service tier
/// that was asked for.
pub fn worst_case(estimate: &Usage, bounds: &Bounds, prices: Option<&Prices>) -> Result<Money, NoWorstCase> {
    let prices = prices.ok_or(NoWorstCase::Unpriced)?;
    let max_output = bounds.max_output.ok_or(NoWorstCase::Unbounded)?;
    let mut worst = Money::ZERO;
    for cost in with_all_output(estimate, max_output, bounds, Some(prices)) {
        let cost = cost.map_err(|_| NoWorstCase::TooLarge)?;
        if !cost.priced {
            return Err(NoWorstCase::Unpriced);
        }
        worst = worst.max(cost.amount);
    }
    Ok(worst)
}

/// Held for a request until it is settled: what its estimate costs, which are `charges` at the dearest service tier that was
/// asked for, or what all the output costs at the worst, if `all_output` is to be held and bounded. What has no price counts as
/// nothing, as it does when it is settled.
pub fn money_held(
    estimate: &Usage,
    charges: &[Charge],
    bounds: &Bounds,
    all_output: bool,
    prices: Option<&Prices>,
) -> Total {
    // An amount that does not fit is more than anybody may spend.
    let amount = |cost: Result<Cost, MoneyError>| cost.map_or(Money::from_pico(i64::MAX), |cost| cost.amount);
    let held = match bounds.max_output.filter(|_| all_output) {
        None => amount(cost(charges)),
        Some(max_output) => with_all_output(estimate, max_output, bounds, prices).map(amount).max().unwrap_or_default(),
    };
    held.into()
}

/// What the input of `estimate` costs with `max_output` tokens of output, for each kind of them and each service tier that
/// was asked for.
fn with_all_output(
    estimate: &Usage,
    max_output: u64,
    bounds: &Bounds,
    prices: Option<&Prices>,
) -> impl Iterator<Item = Result<Cost, MoneyError>> {
    let input = estimate.with(LineItem::OutputText, 0).with(LineItem::OutputAudio, 0);
    let kinds = [Some(LineItem::OutputText), bounds.wants_audio.then_some(LineItem::OutputAudio)];
    let tiers = bounds.service_tiers;
    kinds.into_iter().flatten().flat_map(move |kind| {
        let usage = input.with(kind, max_output);
        tiers.iter().map(move |tier| cost_of(&usage, prices, *tier))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::pricing::Rates;
    use crate::domain::pricing::charges;

    fn prices(prices: &[(LineItem, i64)]) -> Prices {
        let mut standard = Rates::default();
        for (item, pico) in prices {
            standard.set(*item, Money::from_pico(*pico));
        }
        Prices { standard, ..Prices::default() }
    }

    fn bounds(max_output: Option<u64>, wants_audio: bool) -> Bounds {
        Bounds { max_output, wants_audio, service_tiers: ServiceTier::asked("default") }
    }

    fn held_money(bounds: &Bounds, all_output: bool, prices: Option<&Prices>) -> Total {
        let tier = ServiceTier::dearest(bounds.service_tiers, &estimate(), prices);
        money_held(&estimate(), &charges(&estimate(), prices, tier), bounds, all_output, prices)
    }

    fn estimate() -> Usage {
        Usage::default().with(LineItem::InputText, 10).with(LineItem::OutputText, 256).with(LineItem::OutputAudio, 200)
    }

    #[test]
    fn the_worst_case_is_all_output_of_the_dearest_kind_that_was_asked_for() {
        let list = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 3), (LineItem::OutputAudio, 5)]);
        let worst =
            |wants_audio| worst_case(&estimate(), &bounds(Some(1_000), wants_audio), Some(&list)).map(Money::pico);
        assert_eq!((worst(false), worst(true)), (Ok(70 + 3_000), Ok(70 + 5_000)));
        let dear_text = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 9), (LineItem::OutputAudio, 5)]);
        assert_eq!(worst_case(&estimate(), &bounds(Some(10), true), Some(&dear_text)).map(Money::pico), Ok(70 + 90));
        assert_eq!(
            estimated_cost(&estimate(), &[ServiceTier::Default], Some(&list)).map(Money::pico),
            Some(70 + 3 * 256 + 5 * 200)
        );
    }

    #[test]
    fn money_is_held_for_the_guess_or_for_all_that_may_be_answered() {
        let list = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 3), (LineItem::OutputAudio, 5)]);
        let held = |max_output: Option<u64>, wants_audio, prices| {
            let all_output = max_output.is_some();
            held_money(&bounds(max_output, wants_audio), all_output, prices).pico()
        };
        assert_eq!(held(None, true, Some(&list)), 70 + 3 * 256 + 5 * 200);
        assert_eq!(held_money(&bounds(Some(9), true), false, Some(&list)).pico(), held(None, true, Some(&list)));
        assert_eq!(held_money(&bounds(None, true), true, Some(&list)).pico(), held(None, true, Some(&list)));
        let all = Some(1_000);
        assert_eq!((held(all, false, Some(&list)), held(all, true, Some(&list))), (70 + 3_000, 70 + 5_000));
        // What has no price holds nothing, and the rest what it costs.
        let text_only = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 3)]);
        assert_eq!((held(all, true, Some(&text_only)), held(all, true, None)), (70 + 3_000, 0));
        assert_eq!(held(Some(u64::MAX), false, Some(&list)), i128::from(i64::MAX));
    }

    #[test]
    fn the_service_tier_that_is_asked_for_sets_the_price_and_auto_the_dearest_it_may_mean() {
        let mut list = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 3)]);
        list.flex = prices(&[(LineItem::InputText, 4), (LineItem::OutputText, 2)]).standard;
        list.priority = prices(&[(LineItem::InputText, 14), (LineItem::OutputText, 6)]).standard;
        for (tier, input, output) in
            [("default", 7, 3), ("scale", 7, 3), ("flex", 4, 2), ("priority", 14, 6), ("fast", 14, 6), ("auto", 14, 6)]
        {
            let service_tiers = ServiceTier::asked(tier);
            let bounds = Bounds { service_tiers, ..bounds(Some(1_000), false) };
            let held = |all_output| held_money(&bounds, all_output, Some(&list)).pico();
            let text = i128::from(10 * input);
            assert_eq!(
                (held(false), held(true)),
                (text + 256 * i128::from(output), text + 1_000 * i128::from(output)),
                "{tier}"
            );
            let worst = worst_case(&estimate(), &bounds, Some(&list)).map(Money::pico);
            assert_eq!(worst, Ok(10 * input + 1_000 * output), "{tier}");
            let estimated = estimated_cost(&estimate().with(LineItem::OutputAudio, 0), service_tiers, Some(&list));
            assert_eq!(estimated.map(Money::pico), Some(10 * input + 256 * output), "{tier}");
        }
    }

    #[test]
    fn a_long_request_is_forecast_at_the_prices_of_long_requests() {
        let mut list = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 3)]);
        list.long_context = Some((9, prices(&[(LineItem::InputText, 14), (LineItem::OutputText, 6)]).standard));
        assert_eq!(worst_case(&estimate(), &bounds(Some(100), false), Some(&list)).map(Money::pico), Ok(140 + 600));
    }

    #[test]
    fn without_a_price_or_a_bound_there_is_no_worst_case() {
        let list = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, i64::MAX)]);
        let worst = |max_output, wants_audio, prices| worst_case(&estimate(), &bounds(max_output, wants_audio), prices);
        assert_eq!(worst(Some(1), false, None), Err(NoWorstCase::Unpriced));
        assert_eq!(worst(None, false, Some(&list)), Err(NoWorstCase::Unbounded));
        assert_eq!(worst(Some(2), false, Some(&list)), Err(NoWorstCase::TooLarge));
        let text_only = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 3)]);
        assert_eq!(worst(Some(2), true, Some(&text_only)), Err(NoWorstCase::Unpriced), "audio is never priced as text");
        assert_eq!(estimated_cost(&estimate(), &[ServiceTier::Default], Some(&text_only)), None);
        assert_eq!(estimated_cost(&estimate(), &[ServiceTier::Default], Some(&list)), None);
    }
}
