//! By what a request was billed. Many requests share a tariff, so the ledger writes each once and multiplies later: an
//! amount is always quantity x price, in whole pico-dollars, and sums of quantities are as good as sums of amounts.

use std::sync::Arc;

use super::{
    ledger::Settlement,
    money::{Money, MoneyError, Total},
    pricing::{Charge, Rates, ServiceTier},
    time::UnixNanos,
    usage::{LineItem, Usage},
};

/// What, how, and at which prices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tariff {
    /// `chat.completions`.
    pub endpoint: Arc<str>,
    /// The dated model that answered.
    pub model: Arc<str>,
    pub service_tier: ServiceTier,
    /// When these prices came into force; `None` without prices.
    pub prices_from: Option<UnixNanos>,
    /// At least of the line items that were used.
    pub rates: Rates,
    /// False when something was used that has no price: `rates` does not hold it.
    pub priced: bool,
    pub kind: TariffKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TariffKind {
    #[default]
    Request,
    /// Of an adjustment: the rates are what the new prices differ by, and the quantities have been counted before.
    Adjustment,
}

impl Tariff {
    pub fn of(endpoint: &Arc<str>, prices_from: Option<UnixNanos>, settlement: &Settlement) -> Self {
        let mut rates = Rates::default();
        let priced = settlement.charges.iter().filter_map(|charge| Some((charge.line_item, charge.price?)));
        priced.for_each(|(item, price)| rates.set(item, price));
        Self {
            endpoint: Arc::clone(endpoint),
            model: Arc::clone(&settlement.billed_model),
            service_tier: settlement.service_tier,
            prices_from,
            priced: settlement.usage.items().all(|(item, _)| rates.get(item).is_some()),
            rates,
            kind: TariffKind::Request,
        }
    }

    /// What `quantity` of a line item costs; nothing where there is no price.
    pub fn amount(&self, item: LineItem, quantity: u64) -> Result<Total, MoneyError> {
        let price = self.rates.get(item).unwrap_or(Money::ZERO);
        let product = i128::from(price.pico()).checked_mul(i128::from(quantity)).ok_or(MoneyError::Overflow)?;
        Ok(Total::from_pico(product))
    }

    /// The lines of what was used, each at its price.
    pub fn charges(&self, usage: &Usage) -> Vec<Charge> {
        let price = |item| self.rates.get(item);
        usage.items().map(|(line_item, quantity)| Charge { line_item, quantity, price: price(line_item) }).collect()
    }

    /// `None` when nothing of it has a price: then the cost is not known, which is not nothing.
    pub fn cost(&self, usage: &Usage) -> Result<Option<Money>, MoneyError> {
        if !self.priced && self.rates.is_empty() {
            return Ok(None);
        }
        let mut cost = Money::ZERO;
        for (item, quantity) in usage.items() {
            let price = self.rates.get(item).unwrap_or(Money::ZERO);
            cost = cost.checked_add(price.checked_times(quantity)?)?;
        }
        Ok(Some(cost))
    }
}
