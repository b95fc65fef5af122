use proptest::prelude::*;

use super::*;
use crate::domain::{
    catalog::Model,
    pricing::{Prices, Rates, ServiceTier},
};

const ITEMS: [LineItem; 3] = [LineItem::InputText, LineItem::InputAudio, LineItem::OutputText];

fn rates(prices: [Option<i64>; 3]) -> Rates {
    let mut rates = Rates::default();
    let priced = ITEMS.into_iter().zip(prices).filter_map(|(item, price)| Some((item, price?)));
    priced.for_each(|(item, price)| rates.set(item, Money::from_pico(price)));
    rates
}

fn used(quantities: [u64; 3]) -> Usage {
    ITEMS.into_iter().zip(quantities).fold(Usage::default(), |usage, (item, quantity)| usage.with(item, quantity))
}

/// A catalog of one model, `m`, at these prices from second 0 and second 100 on.
fn catalog(prices: [[Option<i64>; 3]; 2]) -> Catalog {
    let prices = [0, 100].into_iter().zip(prices).map(|(from, prices)| {
        Arc::new(Prices { from: UnixNanos::from_seconds(from), standard: rates(prices), ..Prices::default() })
    });
    let model = Model { id: "m".into(), prices: prices.collect(), ..Model::default() };
    Catalog::new(vec![model], vec![]).unwrap()
}

/// Billed at these prices: only what was used and has one is in its tariff.
fn booked(quantities: [u64; 3], prices: [Option<i64>; 3], admitted_s: u64) -> Booked {
    let usage = used(quantities);
    let known = rates(prices);
    let mut billed = Rates::default();
    usage
        .items()
        .filter_map(|(item, _)| Some((item, known.get(item)?)))
        .for_each(|(item, price)| billed.set(item, price));
    let tariff = Tariff {
        endpoint: "chat.completions".into(),
        model: "m".into(),
        service_tier: ServiceTier::Default,
        prices_from: Some(UnixNanos::from_seconds(7)),
        priced: usage.items().all(|(item, _)| billed.get(item).is_some()),
        rates: billed,
        kind: TariffKind::Request,
    };
    let at = UnixNanos::from_seconds(admitted_s);
    Booked::new(RequestId::new(5, 5), [at, at], 1, usage, Arc::new(tariff))
}

fn apply(booked: &mut Booked, correction: &Correction) {
    booked.adjust(&correction.tariff, &correction.usage, correction.prices_all).unwrap();
}

#[test]
fn a_dearer_price_is_a_difference_for_each_token() {
    let mut request = booked([10, 0, 4], [Some(3), None, Some(5)], 50);
    let catalog = catalog([[Some(7), None, Some(5)], [Some(99), None, Some(99)]]);
    let verdict = request.judge(&catalog).unwrap();
    let correction = verdict.correction.unwrap();
    assert_eq!((correction.usage, correction.tariff.rates), (used([10, 0, 0]), rates([Some(4), None, None])));
    assert_eq!((correction.tariff.kind, correction.prices_all), (TariffKind::Adjustment, false));
    assert_eq!(correction.tariff.prices_from, Some(UnixNanos::from_seconds(0)));
    let change = Change {
        line_item: LineItem::InputText,
        quantity: 10,
        before: Total::from_pico(30),
        after: Total::from_pico(70),
    };
    assert_eq!((correction.changes.as_slice(), change.difference()), ([change].as_slice(), Ok(Total::from_pico(40))));
    apply(&mut request, &correction);
    assert_eq!(request.judge(&catalog).unwrap(), Verdict::default());
}

#[test]
fn the_prices_of_the_day_of_the_admission_count() {
    let catalog = catalog([[Some(3), None, None], [Some(1), None, None]]);
    assert_eq!(booked([10, 0, 0], [Some(3), None, None], 99).judge(&catalog).unwrap(), Verdict::default());
    let correction = booked([10, 0, 0], [Some(3), None, None], 100).judge(&catalog).unwrap().correction.unwrap();
    assert_eq!(correction.tariff.rates, rates([Some(-2), None, None]));
}

#[test]
fn a_difference_that_does_not_share_out_is_kept_whole() {
    let mut request = booked([10, 0, 0], [Some(3), None, None], 50);
    // An adjustment of a migration: any amount, and on a line item that need not have been used.
    let tariff = Tariff { rates: rates([Some(-1), Some(8), None]), ..Tariff::clone(&request.tariff) };
    request.adjust(&tariff, &used([1, 1, 0]), false).unwrap();
    let catalog = catalog([[Some(3), None, None], [None; 3]]);
    let correction = request.judge(&catalog).unwrap().correction.unwrap();
    assert_eq!((correction.usage, correction.tariff.rates), (used([1, 1, 0]), rates([Some(1), Some(-8), None])));
    apply(&mut request, &correction);
    assert_eq!(request.judge(&catalog).unwrap(), Verdict::default());
}

#[test]
fn what_had_no_price_gets_one_once() {
    let mut request = booked([10, 2, 0], [None, Some(6), None], 50);
    let half = catalog([[Some(3), None, None], [None; 3]]);
    // The audio has a price in the books and none in the list.
    assert_eq!(request.judge(&half).unwrap(), Verdict { correction: None, is_without_price: true });
    let free = catalog([[Some(0), Some(6), None], [None; 3]]);
    let correction = request.judge(&free).unwrap().correction.unwrap();
    assert!(correction.prices_all);
    assert_eq!((correction.usage, correction.tariff.rates), (used([10, 0, 0]), rates([Some(0), None, None])));
    apply(&mut request, &correction);
    assert_eq!(request.judge(&free).unwrap(), Verdict::default());
    let dearer = request.judge(&catalog([[Some(1), Some(6), None], [None; 3]])).unwrap().correction.unwrap();
    assert!(!dearer.prices_all);
}

#[test]
fn a_model_that_has_no_price_any_more_keeps_what_it_had() {
    let empty = Catalog::default();
    let left = Verdict { correction: None, is_without_price: true };
    assert_eq!(booked([10, 0, 0], [Some(3), None, None], 50).judge(&empty).unwrap(), left);
    assert_eq!(booked([10, 0, 0], [None; 3], 50).judge(&empty).unwrap(), left);
    assert_eq!(booked([0; 3], [None; 3], 50).judge(&empty).unwrap(), Verdict::default());
}

#[test]
fn an_amount_past_the_range_is_an_error_and_no_price() {
    let catalog = catalog([[Some(i64::MAX), None, None], [None; 3]]);
    assert_eq!(booked([2, 0, 0], [Some(3), None, None], 50).judge(&catalog), Err(MoneyError::Overflow));
}

fn any_prices() -> impl Strategy<Value = [Option<i64>; 3]> {
    prop::array::uniform3(prop_oneof![1 => Just(None), 4 => (0..1_000_000_i64).prop_map(Some)])
}

proptest! {
    /// Whatever the prices were, are and become: afterwards the books say what the list says, and a second look finds nothing.
    #[test]
    fn after_repricing_the_books_cost_what_the_list_charges(
        quantities in prop::array::uniform3(prop_oneof![Just(0), 1..5_000_u64]),
        billed in any_prices(),
        lists in prop::collection::vec(any_prices(), 1..5),
    ) {
        let mut request = booked(quantities, billed, 50);
        let mut sums = Repriced::default();
        for list in lists {
            let catalog = catalog([list, [None; 3]]);
            let cost_before = request.total();
            let verdict = request.judge(&catalog).unwrap();
            sums.add(&request, &verdict).unwrap();
            if let Some(correction) = &verdict.correction {
                prop_assert_eq!(correction.tariff.priced, true);
                apply(&mut request, correction);
            }
            let again = request.judge(&catalog).unwrap();
            prop_assert_eq!(&again.correction, &None);
            let differences = verdict.correction.iter().flat_map(|correction| &correction.changes);
            let difference: i128 = differences.map(|change| change.difference().unwrap().pico()).sum();
            prop_assert_eq!(request.total() - cost_before, difference);
            if !verdict.is_without_price {
                let lines = charges(&request.usage, Some(&Prices { standard: rates(list), ..Prices::default() }), ServiceTier::Default);
                let charged = crate::domain::pricing::cost(&lines).unwrap();
                prop_assert_eq!((request.total(), true), (charged.amount.pico().into(), charged.priced));
                prop_assert!(request.tariff.priced || request.is_priced_since);
            }
        }
        let by_line: i128 = sums.lines.values().map(|line| line.difference().unwrap().pico()).sum();
        prop_assert_eq!(sums.difference.pico(), by_line);
    }
}

impl Booked {
    fn total(&self) -> i128 {
        LineItem::ALL.into_iter().map(|item| self.amount(item).unwrap().unwrap_or_default().pico()).sum()
    }
}
