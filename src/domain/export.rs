//! An entry as it leaves the books: with the words its numbers stand for, and with what it costs after its adjustments.

use std::sync::Arc;

use super::{
    ids::RequestId,
    money::{MoneyError, Total},
    tariff::Tariff,
    time::UnixNanos,
    usage::{LineItem, Usage},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedEntry {
    pub request_id: RequestId,
    pub admitted_at: UnixNanos,
    pub settled_at: UnixNanos,
    pub project_id: String,
    pub project_name: String,
    pub api_key_id: String,
    pub api_key_name: String,
    /// By which it was billed when it ended.
    pub tariff: Arc<Tariff>,
    /// As the caller wrote it.
    pub requested_model: String,
    pub outcome: String,
    pub basis: String,
    pub status: u16,
    pub stream: bool,
    pub usage: Usage,
    /// All adjustments together; `None` when there are none.
    pub adjusted: Option<Adjusted>,
}

/// What adjustments did to an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adjusted {
    pub amount: Total,
    /// It had no price before.
    pub priced_since: bool,
}

impl ExportedEntry {
    /// Milliseconds from the admission to the settlement; below zero when the clock was set back between two starts.
    pub fn duration_ms(&self) -> i64 {
        let ms = |time: UnixNanos| i64::try_from(time.millis()).unwrap_or(i64::MAX);
        ms(self.settled_at).saturating_sub(ms(self.admitted_at))
    }

    /// What a line item was billed before adjustments; `None` when it was used and had no price.
    pub fn amount(&self, item: LineItem) -> Result<Option<Total>, MoneyError> {
        let quantity = self.usage.get(item);
        if quantity > 0 && self.tariff.rates.get(item).is_none() {
            return Ok(None);
        }
        self.tariff.amount(item, quantity).map(Some)
    }

    pub fn adjustment(&self) -> Total {
        self.adjusted.map(|adjusted| adjusted.amount).unwrap_or_default()
    }

    /// With adjustments; `None` when nothing of it has a price: unpriced, not free.
    pub fn cost(&self) -> Result<Option<Total>, MoneyError> {
        match (self.tariff.cost(&self.usage)?, self.adjusted) {
            (None, None) => Ok(None),
            (billed, _) => Total::from(billed.unwrap_or_default()).checked_add(self.adjustment()).map(Some),
        }
    }

    /// Whether all that it used has a price by now.
    pub fn is_priced(&self) -> bool {
        self.tariff.priced || self.adjusted.is_some_and(|adjusted| adjusted.priced_since)
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::domain::{
        money::Money,
        pricing::{Rates, ServiceTier},
        tariff::TariffKind,
    };

    /// Text at 5 pico-dollars and sound at 20,000,000, and nothing that needs care.
    pub(crate) fn exported(number: u64) -> ExportedEntry {
        let mut rates = Rates::default();
        rates.set(LineItem::InputText, Money::from_pico(5));
        rates.set(LineItem::OutputAudio, Money::from_pico(20_000_000));
        ExportedEntry {
            request_id: RequestId::new(1_790_000_000_000 + number, u128::from(number)),
            admitted_at: UnixNanos::from_millis(1_790_000_000_000 + number),
            settled_at: UnixNanos::from_millis(1_790_000_000_900 + number),
            project_id: "proj_a".to_owned(),
            project_name: "Search".to_owned(),
            api_key_id: "key_a".to_owned(),
            api_key_name: "worker".to_owned(),
            tariff: Arc::new(Tariff {
                endpoint: "chat.completions".into(),
                model: "m-1-2026-01-01".into(),
                service_tier: ServiceTier::Default,
                prices_from: Some(UnixNanos::from_seconds(1_767_225_600)),
                rates,
                priced: true,
                kind: TariffKind::Request,
            }),
            requested_model: "m-1".to_owned(),
            outcome: "completed".to_owned(),
            basis: "reported".to_owned(),
            status: 200,
            stream: false,
            usage: Usage::default().with(LineItem::InputText, 3).with(LineItem::OutputAudio, 7),
            adjusted: None,
        }
    }

    /// The same without any price.
    pub(crate) fn unpriced(number: u64) -> ExportedEntry {
        let entry = exported(number);
        let tariff =
            Tariff { prices_from: None, rates: Rates::default(), priced: false, ..Tariff::clone(&entry.tariff) };
        ExportedEntry { tariff: Arc::new(tariff), ..entry }
    }
}

#[cfg(test)]
mod tests {
    use super::{samples::*, *};

    #[test]
    fn a_cost_is_the_sum_of_its_lines_and_its_adjustments() {
        let adjusted = Adjusted { amount: Total::from_pico(-15), priced_since: false };
        let entry = ExportedEntry { adjusted: Some(adjusted), ..exported(1) };
        let lines = LineItem::ALL.map(|item| entry.amount(item).unwrap().unwrap().pico());
        assert_eq!(lines.iter().sum::<i128>(), 140_000_015);
        assert_eq!(entry.cost(), Ok(Some(Total::from_pico(140_000_000))));
        assert!(entry.is_priced());
    }

    #[test]
    fn what_has_no_price_costs_an_unknown_amount_until_an_adjustment_says_how_much() {
        let entry = unpriced(1);
        assert_eq!((entry.cost(), entry.is_priced()), (Ok(None), false));
        assert_eq!(entry.amount(LineItem::InputText), Ok(None));
        assert_eq!(entry.amount(LineItem::InputImage), Ok(Some(Total::default())), "nothing of it was used");
        let adjusted = Some(Adjusted { amount: Total::from_pico(6), priced_since: true });
        let entry = ExportedEntry { adjusted, ..entry };
        assert_eq!((entry.cost(), entry.is_priced()), (Ok(Some(Total::from_pico(6))), true));
    }
}
