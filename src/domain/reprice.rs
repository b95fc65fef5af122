//! What the books say of a request beside what today's price list says, and the adjustment that brings them together.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    catalog::Catalog,
    ids::RequestId,
    money::{Money, MoneyError, Total},
    pricing::charges,
    tariff::{Tariff, TariffKind},
    time::UnixNanos,
    usage::{LineItem, Usage},
};

/// A request as the books have it.
#[derive(Clone, Debug)]
pub struct Booked {
    pub request_id: RequestId,
    pub admitted_at: UnixNanos,
    pub settled_at: UnixNanos,
    /// By its number in the ledger.
    pub api_key: i64,
    pub usage: Usage,
    pub tariff: Arc<Tariff>,
    adjusted: [Option<Total>; LineItem::COUNT],
    /// An adjustment has given everything a price that had none.
    is_priced_since: bool,
}

/// How the books stand to the price list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// `None` when the books are right, or nobody can say.
    pub correction: Option<Correction>,
    /// Something was used that has no price in the list.
    pub is_without_price: bool,
}

/// The adjustment of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Multiplied with the tariff's rates this is what the books are wrong by.
    pub usage: Usage,
    pub tariff: Tariff,
    /// The request had something without a price, and now has none.
    pub prices_all: bool,
    pub changes: Vec<Change>,
}

/// One line item of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub line_item: LineItem,
    /// Tokens of the request.
    pub quantity: u64,
    /// What has no price counts as nothing.
    pub before: Total,
    pub after: Total,
}

impl Booked {
    pub fn new(
        request_id: RequestId,
        [admitted_at, settled_at]: [UnixNanos; 2],
        api_key: i64,
        usage: Usage,
        tariff: Arc<Tariff>,
    ) -> Self {
        let adjusted = [None; LineItem::COUNT];
        Self { request_id, admitted_at, settled_at, api_key, usage, tariff, adjusted, is_priced_since: false }
    }

    /// Takes an earlier adjustment into account.
    pub fn adjust(&mut self, tariff: &Tariff, usage: &Usage, prices_all: bool) -> Result<(), MoneyError> {
        for (place, item) in self.adjusted.iter_mut().zip(LineItem::ALL) {
            if tariff.rates.get(item).is_some() {
                let amount = tariff.amount(item, usage.get(item))?;
                *place = Some(place.unwrap_or_default().checked_add(amount)?);
            }
        }
        self.is_priced_since |= prices_all;
        Ok(())
    }

    /// What a line item costs in the books; `None` when it has no price there.
    fn amount(&self, item: LineItem) -> Result<Option<Total>, MoneyError> {
        let adjusted = self.adjusted.get(item.index()).copied().flatten();
        match (self.tariff.rates.get(item), adjusted) {
            (None, adjusted) => Ok(adjusted),
            (Some(_), adjusted) => {
                let billed = self.tariff.amount(item, self.usage.get(item))?;
                billed.checked_add(adjusted.unwrap_or_default()).map(Some)
            }
        }
    }

    /// Compares with the prices that were in force when the request was admitted, as the recorder applies them. What once
    /// had a price and has none today is left as it is: that a price is gone from the list does not make it nothing.
    pub fn judge(&self, catalog: &Catalog) -> Result<Verdict, MoneyError> {
        let named = catalog.resolve(&self.tariff.model);
        let prices = named.as_ref().and_then(|named| named.prices(self.admitted_at));
        let mut after = [Some(Total::default()); LineItem::COUNT];
        for charge in charges(&self.usage, prices.map(Arc::as_ref), self.tariff.service_tier) {
            if let Some(place) = after.get_mut(charge.line_item.index()) {
                *place = charge.amount()?.map(Total::from);
            }
        }
        let is_without_price = after.iter().any(Option::is_none);
        let mut changes = Vec::new();
        for (line_item, after) in LineItem::ALL.into_iter().zip(after) {
            match (self.amount(line_item)?, after) {
                (Some(_), None) => return Ok(Verdict { correction: None, is_without_price }),
                (before, Some(after))
                    if before != Some(after) && (before.is_some() || self.usage.get(line_item) > 0) =>
                {
                    let (before, quantity) = (before.unwrap_or_default(), self.usage.get(line_item));
                    changes.push(Change { line_item, quantity, before, after });
                }
                _ => {}
            }
        }
        let prices_all = !self.tariff.priced && !self.is_priced_since && !is_without_price;
        if changes.is_empty() && !prices_all {
            return Ok(Verdict { correction: None, is_without_price });
        }
        let prices_from = prices.map(|prices| prices.from);
        let correction = Some(self.correction(changes, prices_from, prices_all)?);
        Ok(Verdict { correction, is_without_price })
    }

    fn correction(
        &self,
        changes: Vec<Change>,
        prices_from: Option<UnixNanos>,
        prices_all: bool,
    ) -> Result<Correction, MoneyError> {
        let mut tariff = Tariff {
            prices_from,
            rates: super::pricing::Rates::default(),
            priced: true,
            kind: TariffKind::Adjustment,
            ..Tariff::clone(&self.tariff)
        };
        let mut usage = Usage::default();
        for change in &changes {
            let (quantity, rate) = shared_out(change.difference()?, change.quantity);
            tariff
                .rates
                .set(change.line_item, Money::from_pico(i64::try_from(rate).map_err(|_| MoneyError::Overflow)?));
            usage.set(change.line_item, quantity);
        }
        Ok(Correction { usage, tariff, prices_all, changes })
    }
}

/// A quantity and a rate whose product is `difference`: a difference for each token where that comes out even, so that
/// many requests share a tariff.
fn shared_out(difference: Total, quantity: u64) -> (u64, i128) {
    let whole = (1, difference.pico());
    let tokens = i128::from(quantity);
    let each = difference.pico().checked_div(tokens).zip(difference.pico().checked_rem(tokens));
    each.filter(|(_, rest)| *rest == 0).map_or(whole, |(rate, _)| (quantity, rate))
}

impl Change {
    pub fn difference(&self) -> Result<Total, MoneyError> {
        let difference = self.after.pico().checked_sub(self.before.pico()).ok_or(MoneyError::Overflow)?;
        Ok(Total::from_pico(difference))
    }
}

/// What the corrections of many requests come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repriced {
    /// Requests that were looked at.
    pub requests: u64,
    /// Those of them that the books have wrong.
    pub corrected: u64,
    /// By model and line item: what those have used of it, and what that costs.
    pub lines: BTreeMap<(Arc<str>, LineItem), Change>,
    /// By model, requests that used something without a price in the list. They keep the prices they have, if any.
    pub without_price: BTreeMap<Arc<str>, u64>,
    pub difference: Total,
    /// Requests that were settled before then may be gone from the ledger: of those nothing is said.
    pub dropped_before: Option<UnixNanos>,
}

impl Repriced {
    /// Nothing can be said of the whole time.
    pub const fn is_too_late(&self) -> bool {
        self.dropped_before.is_some() && self.requests == 0
    }

    pub fn add(&mut self, booked: &Booked, verdict: &Verdict) -> Result<(), MoneyError> {
        let model = &booked.tariff.model;
        self.requests = self.requests.saturating_add(1);
        if verdict.is_without_price {
            let requests = self.without_price.entry(Arc::clone(model)).or_default();
            *requests = requests.saturating_add(1);
        }
        let Some(correction) = &verdict.correction else { return Ok(()) };
        self.corrected = self.corrected.saturating_add(1);
        for change in &correction.changes {
            let nothing = Change { quantity: 0, before: Total::default(), after: Total::default(), ..*change };
            let sum = self.lines.entry((Arc::clone(model), change.line_item)).or_insert(nothing);
            sum.quantity = sum.quantity.checked_add(change.quantity).ok_or(MoneyError::Overflow)?;
            sum.before = sum.before.checked_add(change.before)?;
            sum.after = sum.after.checked_add(change.after)?;
            self.difference = self.difference.checked_add(change.difference()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
