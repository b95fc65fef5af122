//! What would become of a request if it were sent now.

use std::num::NonZeroU32;

use super::{
    explanation::LimitUse,
    money::Money,
    pricing::{Prices, ServiceTier, charges, cost},
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

/// The price of a usage at the standard tier; `None` where a part of it has none, or it is no amount of money.
pub fn estimated_cost(usage: &Usage, prices: Option<&Prices>) -> Option<Money> {
    let cost = cost(&charges(usage, prices, ServiceTier::Default)).ok()?;
    cost.priced.then_some(cost.amount)
}

/// What the input of `estimate` costs with `max_output` tokens of output, all of them of the dearest kind that was asked for,
/// at the standard tier.
pub fn worst_case(
    estimate: &Usage,
    max_output: Option<u64>,
    wants_audio: bool,
    prices: Option<&Prices>,
) -> Result<Money, NoWorstCase> {
    let prices = prices.ok_or(NoWorstCase::Unpriced)?;
    let max_output = max_output.ok_or(NoWorstCase::Unbounded)?;
    let input = estimate.with(LineItem::OutputText, 0).with(LineItem::OutputAudio, 0);
    let with_all = |kind: LineItem| -> Result<Money, NoWorstCase> {
        let usage = input.with(kind, max_output);
        let cost = cost(&charges(&usage, Some(prices), ServiceTier::Default)).map_err(|_| NoWorstCase::TooLarge)?;
        if cost.priced { Ok(cost.amount) } else { Err(NoWorstCase::Unpriced) }
    };
    let text = with_all(LineItem::OutputText)?;
    if wants_audio { Ok(text.max(with_all(LineItem::OutputAudio)?)) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::pricing::Rates;

    fn prices(prices: &[(LineItem, i64)]) -> Prices {
        let mut standard = Rates::default();
        for (item, pico) in prices {
            standard.set(*item, Money::from_pico(*pico));
        }
        Prices { standard, ..Prices::default() }
    }

    fn estimate() -> Usage {
        Usage::default().with(LineItem::InputText, 10).with(LineItem::OutputText, 256).with(LineItem::OutputAudio, 200)
    }

    #[test]
    fn the_worst_case_is_all_output_of_the_dearest_kind_that_was_asked_for() {
        let list = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 3), (LineItem::OutputAudio, 5)]);
        let worst = |wants_audio| worst_case(&estimate(), Some(1_000), wants_audio, Some(&list)).map(Money::pico);
        assert_eq!((worst(false), worst(true)), (Ok(70 + 3_000), Ok(70 + 5_000)));
        let dear_text = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 9), (LineItem::OutputAudio, 5)]);
        assert_eq!(worst_case(&estimate(), Some(10), true, Some(&dear_text)).map(Money::pico), Ok(70 + 90));
        assert_eq!(estimated_cost(&estimate(), Some(&list)).map(Money::pico), Some(70 + 3 * 256 + 5 * 200));
    }

    #[test]
    fn a_long_request_is_forecast_at_the_prices_of_long_requests() {
        let mut list = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 3)]);
        list.long_context = Some((9, prices(&[(LineItem::InputText, 14), (LineItem::OutputText, 6)]).standard));
        assert_eq!(worst_case(&estimate(), Some(100), false, Some(&list)).map(Money::pico), Ok(140 + 600));
    }

    #[test]
    fn without_a_price_or_a_bound_there_is_no_worst_case() {
        let list = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, i64::MAX)]);
        let worst = |max_output, wants_audio, prices| worst_case(&estimate(), max_output, wants_audio, prices);
        assert_eq!(worst(Some(1), false, None), Err(NoWorstCase::Unpriced));
        assert_eq!(worst(None, false, Some(&list)), Err(NoWorstCase::Unbounded));
        assert_eq!(worst(Some(2), false, Some(&list)), Err(NoWorstCase::TooLarge));
        let text_only = prices(&[(LineItem::InputText, 7), (LineItem::OutputText, 3)]);
        assert_eq!(worst(Some(2), true, Some(&text_only)), Err(NoWorstCase::Unpriced), "audio is never priced as text");
        assert_eq!(estimated_cost(&estimate(), Some(&text_only)), None);
        assert_eq!(estimated_cost(&estimate(), Some(&list)), None);
    }
}
