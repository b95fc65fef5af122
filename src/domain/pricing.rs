//! From usage to money: which price applies to which line item, and what the lines cost.

use serde::{Deserialize, Serialize};

use super::{
    money::{Money, MoneyError},
    time::UnixNanos,
    usage::{LineItem, Usage},
};

/// Prices per line item; `None` where the price list says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rates([Option<Money>; LineItem::COUNT]);

impl Rates {
    pub const fn set(&mut self, item: LineItem, price: Money) {
        *item.of_mut(&mut self.0) = Some(price);
    }

    pub const fn get(&self, item: LineItem) -> Option<Money> {
        *item.of(&self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Whether `self` has the prices of `other`, and perhaps more.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| other.is_none() || own == other)
    }

    /// The prices of both; `None` when they disagree on one.
    pub fn merged(&self, other: &Self) -> Option<Self> {
        let mut merged = *self;
        for (own, other) in merged.0.iter_mut().zip(&other.0) {
            match (*own, *other) {
                (Some(own), Some(other)) if own != other => return None,
                (own_price, other_price) => *own = own_price.or(other_price),
            }
        }
        Some(merged)
    }

    /// The price of `item`, or of the line item that its tokens are billed as where the list has no price of its own:
    /// cached and image tokens cost what their uncached or text tokens cost. Audio is never priced as text.
    fn effective(&self, item: LineItem) -> Option<Money> {
        self.get(item).or_else(|| match item {
            LineItem::InputCachedText | LineItem::InputCacheWriteText | LineItem::InputImage => {
                self.get(LineItem::InputText)
            }
            LineItem::InputCachedAudio => self.get(LineItem::InputAudio),
            LineItem::InputCachedImage => {
                self.get(LineItem::InputImage).or_else(|| self.effective(LineItem::InputCachedText))
            }
            _ => None,
        })
    }
}

/// The price variants of one model, in force from a date on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    pub from: UnixNanos,
    pub standard: Rates,
    pub batch: Rates,
    pub flex: Rates,
    pub priority: Rates,
    /// Prices of requests whose input is larger than this many tokens.
    pub long_context: Option<(u64, Rates)>,
}

/// How the upstream processed a request, from the *response* (a request may be served by another tier than it asked).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    #[default]
    Default,
    Flex,
    Priority,
    Batch,
}

impl ServiceTier {
    /// `fast` is answered as `priority`; anything unknown is billed at the standard price.
    pub fn from_wire(text: &str) -> Self {
        match text {
            "flex" => Self::Flex,
            "priority" | "fast" => Self::Priority,
            "batch" => Self::Batch,
            _ => Self::Default,
        }
    }

    /// Those that may serve a request that asks for `text`, as far as it says. `auto` leaves it to the settings of
    /// the upstream's project, which may say either.
    pub fn asked(text: &str) -> &'static [Self] {
        match (text, Self::from_wire(text)) {
            ("auto", _) => &[Self::Default, Self::Priority],
            (_, Self::Default) => &[Self::Default],
            (_, Self::Flex) => &[Self::Flex],
            (_, Self::Priority) => &[Self::Priority],
            (_, Self::Batch) => &[Self::Batch],
        }
    }

    /// By which tier a request is billed that nobody reported a tier of: of those that may serve it, the dearest.
    pub fn dearest(tiers: &[Self], usage: &Usage, prices: Option<&Prices>) -> Self {
        if let [only] = tiers {
            return *only;
        }
        let amount = |tier: &Self| cost_of(usage, prices, *tier).map_or(Money::from_pico(i64::MAX), |cost| cost.amount);
        tiers.iter().copied().rev().max_by_key(amount).unwrap_or_default()
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    pub(super) const fn is_default(&self) -> bool {
        matches!(self, Self::Default)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Batch => "batch",
        }
    }
}

impl Prices {
    /// The price of one token. Price lists have no long-context prices for single service tiers, and a long request is
    /// never cheaper for that: over the threshold flex and batch pay the long-context price without their discount, which
    /// may be too much, and priority pays that price or its own, whichever is dearer.
    pub fn price(&self, item: LineItem, tier: ServiceTier, input_tokens: u64) -> Option<Money> {
        let usual = self.usual_price(item, tier);
        match &self.long_context {
            Some((threshold_tokens, rates)) if input_tokens > *threshold_tokens => {
                let long = rates.effective(item).or(self.standard.effective(item));
                if tier == ServiceTier::Priority { long.max(usual) } else { long }
            }
            _ => usual,
        }
    }

    fn usual_price(&self, item: LineItem, tier: ServiceTier) -> Option<Money> {
        let variant = match tier {
            ServiceTier::Flex => &self.flex,
            ServiceTier::Priority => &self.priority,
            ServiceTier::Batch => &self.batch,
            ServiceTier::Default => &self.standard,
        };
        let standard = self.standard.effective(item);
        let stand_in = match tier {
            // A discounted tier never makes cached tokens dearer than they are without the discount.
            ServiceTier::Flex | ServiceTier::Batch => variant.effective(item).into_iter().chain(standard).min(),
            ServiceTier::Priority | ServiceTier::Default => variant.effective(item).or(standard),
        };
        variant.get(item).or(stand_in)
    }

    pub fn is_empty(&self) -> bool {
        self.standard.is_empty()
    }
}

/// One priced line: `quantity` x `price` = `amount`. Without a price there is no amount; it is never zero by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    pub line_item: LineItem,
    pub quantity: u64,
    /// Price of one token.
    pub price: Option<Money>,
}

impl Charge {
    pub fn amount(&self) -> Result<Option<Money>, MoneyError> {
        self.price.map(|price| price.checked_times(self.quantity)).transpose()
    }
}

/// Prices every line of `usage`; without `prices` every line stays unpriced.
pub fn charges(usage: &Usage, prices: Option<&Prices>, tier: ServiceTier) -> Vec<Charge> {
    lines(usage, prices, tier).collect()
}

fn lines(usage: &Usage, prices: Option<&Prices>, tier: ServiceTier) -> impl Iterator<Item = Charge> {
    let input_tokens = usage.input_total();
    let price = move |item| prices.and_then(|prices| prices.price(item, tier, input_tokens));
    usage.items().map(move |(line_item, quantity)| Charge { line_item, quantity, price: price(line_item) })
}

/// What a request cost. `priced` is false when any line had no price: then `amount` covers only the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub amount: Money,
    pub priced: bool,
}

pub fn cost(charges: &[Charge]) -> Result<Cost, MoneyError> {
    sum(charges.iter().copied())
}

/// The [`cost`] of the [`charges`] of `usage`.
pub fn cost_of(usage: &Usage, prices: Option<&Prices>, tier: ServiceTier) -> Result<Cost, MoneyError> {
    sum(lines(usage, prices, tier))
}

fn sum(charges: impl Iterator<Item = Charge>) -> Result<Cost, MoneyError> {
    let mut cost = Cost { amount: Money::ZERO, priced: true };
    for charge in charges {
        match charge.amount()? {
            Some(amount) => cost.amount = cost.amount.checked_add(amount)?,
            None => cost.priced = false,
        }
    }
    Ok(cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mini_audio() -> Prices {
        let mut standard = Rates::default();
        for (item, dollars) in [
            (LineItem::InputText, "0.15"),
            (LineItem::OutputText, "0.60"),
            (LineItem::InputAudio, "10"),
            (LineItem::OutputAudio, "20"),
        ] {
            standard.set(item, Money::per_million(dollars).unwrap());
        }
        Prices { standard, ..Prices::default() }
    }

    #[test]
    fn the_recorded_beep_costs_what_openai_charges() {
        // Recording chat-audio-out_nonstream_mini-preview_opus: 22 text in, 6 text out, 12 audio out.
        let usage = Usage::default()
            .with(LineItem::InputText, 22)
            .with(LineItem::OutputText, 6)
            .with(LineItem::OutputAudio, 12);
        let cost = cost(&charges(&usage, Some(&mini_audio()), ServiceTier::Default)).unwrap();
        assert_eq!((cost.amount.to_string().as_str(), cost.priced), ("0.0002469", true));
    }

    #[test]
    fn audio_is_never_priced_as_text() {
        let mut text_only = Prices::default();
        text_only.standard.set(LineItem::InputText, Money::from_pico(5));
        let usage = Usage::default().with(LineItem::InputAudio, 100).with(LineItem::InputText, 2);
        let cost = cost(&charges(&usage, Some(&text_only), ServiceTier::Default)).unwrap();
        assert_eq!(cost, Cost { amount: Money::from_pico(10), priced: false });
    }

    #[test]
    fn cached_tokens_without_a_cached_price_cost_the_full_price() {
        let prices = mini_audio();
        let price = |item| prices.price(item, ServiceTier::Default, 0);
        assert_eq!(price(LineItem::InputCachedText), price(LineItem::InputText));
        assert_eq!(price(LineItem::InputCachedAudio), price(LineItem::InputAudio));
        assert_eq!(price(LineItem::OutputImage), None);
    }

    #[test]
    fn variants_and_long_context_have_their_own_prices() {
        let mut prices = mini_audio();
        prices.flex.set(LineItem::InputText, Money::from_pico(7));
        let mut long = Rates::default();
        long.set(LineItem::InputText, Money::from_pico(300_000));
        prices.long_context = Some((272_000, long));
        let price = |tier, input| prices.price(LineItem::InputText, tier, input).unwrap().pico();
        assert_eq!(price(ServiceTier::Flex, 1), 7);
        assert_eq!(price(ServiceTier::Priority, 1), 150_000);
        assert_eq!(price(ServiceTier::Default, 272_000), 150_000);
        assert_eq!(price(ServiceTier::Default, 272_001), 300_000);
    }

    #[test]
    fn no_service_tier_makes_a_long_request_cheaper() {
        let mut prices = mini_audio();
        let rates = |pico| {
            let mut rates = Rates::default();
            rates.set(LineItem::InputText, Money::from_pico(pico));
            rates
        };
        (prices.flex, prices.batch, prices.priority) = (rates(75_000), rates(75_000), rates(310_000));
        prices.long_context = Some((1_000, rates(300_000)));
        let price = |tier, item, input| prices.price(item, tier, input).map(Money::pico);
        for (tier, short, long) in [
            (ServiceTier::Default, 150_000, 300_000),
            (ServiceTier::Flex, 75_000, 300_000),
            (ServiceTier::Batch, 75_000, 300_000),
            (ServiceTier::Priority, 310_000, 310_000),
        ] {
            assert_eq!(price(tier, LineItem::InputText, 1_000), Some(short), "{tier:?}");
            assert_eq!(price(tier, LineItem::InputText, 1_001), Some(long), "{tier:?}");
            assert_eq!(price(tier, LineItem::OutputText, 1_001), Some(600_000), "{tier:?}");
        }
        prices.priority = rates(290_000);
        assert_eq!(prices.price(LineItem::InputText, ServiceTier::Priority, 1_001).map(Money::pico), Some(300_000));
    }

    #[test]
    fn a_discount_never_makes_cached_tokens_dearer() {
        let mut prices = mini_audio();
        prices.standard.set(LineItem::InputCachedText, Money::from_pico(40_000));
        prices.batch.set(LineItem::InputText, Money::from_pico(75_000));
        let price = |item| prices.price(item, ServiceTier::Batch, 1).unwrap().pico();
        assert_eq!((price(LineItem::InputText), price(LineItem::InputCachedText)), (75_000, 40_000));
        assert_eq!(price(LineItem::OutputText), 600_000);
    }

    #[test]
    fn no_price_list_means_unpriced_not_free() {
        let usage = Usage::default().with(LineItem::InputText, 3);
        let lines = charges(&usage, None, ServiceTier::Default);
        assert_eq!(lines[0].price, None);
        assert!(!cost(&lines).unwrap().priced);
    }
}
