//! The sums of one bucket of time, per API key and tariff, and how they are kept: packed, because reports read very many
//! of them at once.

use std::collections::BTreeMap;

use super::usage::{LineItem, Usage};

/// What one key did at one tariff within one bucket. Keys and tariffs go by their numbers in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub api_key: u32,
    pub tariff: u32,
    pub requests: u64,
    pub usage: Usage,
}

/// Cells of one bucket; no two of the same key and tariff.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollup(BTreeMap<(u32, u32), (u64, Usage)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RollupError {
    #[error("a sum does not fit the ledger")]
    Overflow,
    #[error("the sums of a bucket cannot be read")]
    Unreadable,
}

/// The layout below. A reader of another one refuses.
const LAYOUT: u8 = 1;
/// Sums stay within 63 bits, so that every reader of SQL and JSON can hold them.
const MAX_SUM: u64 = i64::MAX as u64;

impl Rollup {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, cell: &Cell) -> Result<(), RollupError> {
        let (requests, usage) = self.0.entry((cell.api_key, cell.tariff)).or_default();
        *requests = sum(*requests, cell.requests)?;
        for (item, quantity) in cell.usage.items() {
            usage.set(item, sum(usage.get(item), quantity)?);
        }
        Ok(())
    }

    pub fn cells(&self) -> impl Iterator<Item = Cell> + '_ {
        self.0.iter().map(|((api_key, tariff), (requests, usage))| Cell {
            api_key: *api_key,
            tariff: *tariff,
            requests: *requests,
            usage: *usage,
        })
    }

    /// A layout byte, then per cell: the key (as the difference to the one before), the tariff, the requests, a bit per
    /// line item that is not zero, and their quantities; all as base-128 numbers, low digits first.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![LAYOUT];
        let mut previous = 0;
        for cell in self.cells() {
            push(&mut bytes, u64::from(cell.api_key - previous));
            previous = cell.api_key;
            push(&mut bytes, u64::from(cell.tariff));
            push(&mut bytes, cell.requests);
            let used = cell.usage.items().fold(0, |used, (item, _)| used | (1_u64 << item.index()));
            push(&mut bytes, used);
            cell.usage.items().for_each(|(_, quantity)| push(&mut bytes, quantity));
        }
        bytes
    }
}

fn sum(a: u64, b: u64) -> Result<u64, RollupError> {
    a.checked_add(b).filter(|sum| *sum <= MAX_SUM).ok_or(RollupError::Overflow)
}

fn push(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}

/// The cells of [`Rollup::encode`]'s bytes, one after the other; ends after the first that cannot be read.
pub struct Cells<'b> {
    rest: &'b [u8],
    api_key: u32,
}

impl<'b> Cells<'b> {
    pub fn of(bytes: &'b [u8]) -> Result<Self, RollupError> {
        match bytes.split_first() {
            Some((&LAYOUT, rest)) => Ok(Self { rest, api_key: 0 }),
            _ => Err(RollupError::Unreadable),
        }
    }

    fn read(&mut self) -> Option<Cell> {
        let small = |value: u64| u32::try_from(value).ok();
        self.api_key = self.api_key.checked_add(small(self.number()?)?)?;
        let tariff = small(self.number()?)?;
        let requests = self.number()?;
        let mut used = self.number()?;
        let mut usage = Usage::default();
        while used != 0 {
            let item = LineItem::ALL.get(used.trailing_zeros() as usize)?;
            usage.set(*item, self.number()?);
            used &= used - 1;
        }
        Some(Cell { api_key: self.api_key, tariff, requests, usage })
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let digit = u64::from(byte & 0x7f);
            if shift == 63 && digit > 1 {
                return None;
            }
            value |= digit << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl Iterator for Cells<'_> {
    type Item = Result<Cell, RollupError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let cell = self.read().ok_or(RollupError::Unreadable);
        if cell.is_err() {
            self.rest = &[];
        }
        Some(cell)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_cell() -> impl Strategy<Value = Cell> {
        let quantity = prop_oneof![3 => Just(0), 3 => 0..3_000_u64, 1 => 0..=MAX_SUM / 64];
        let usage = prop::collection::vec(quantity, LineItem::COUNT);
        (0..2_000_u32, 0..300_u32, 0..1_000_000_u64, usage).prop_map(|(api_key, tariff, requests, quantities)| {
            let usage =
                LineItem::ALL.into_iter().zip(quantities).fold(Usage::default(), |u, (item, n)| u.with(item, n));
            Cell { api_key, tariff, requests, usage }
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(cells in prop::collection::vec(any_cell(), 0..40)) {
            let mut rollup = Rollup::default();
            for cell in &cells {
                rollup.add(cell).unwrap();
            }
            let bytes = rollup.encode();
            let read: Vec<_> = Cells::of(&bytes).unwrap().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read, rollup.cells().collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(cells) = Cells::of(&bytes) {
                let _ = cells.collect::<Result<Vec<_>, _>>();
            }
        }
    }

    #[test]
    fn a_sum_past_63_bits_is_refused() {
        let usage = Usage::default().with(LineItem::InputText, MAX_SUM);
        let cell = Cell { api_key: 1, tariff: 1, requests: 1, usage };
        let mut rollup = Rollup::default();
        rollup.add(&cell).unwrap();
        assert_eq!(rollup.add(&cell), Err(RollupError::Overflow));
    }

    #[test]
    fn a_small_cell_takes_few_bytes() {
        let usage = Usage::default().with(LineItem::InputText, 120).with(LineItem::OutputText, 90);
        let mut rollup = Rollup::default();
        rollup.add(&Cell { api_key: 7, tariff: 3, requests: 1, usage }).unwrap();
        assert_eq!(rollup.encode().len(), 1 + 7);
    }

    #[test]
    fn another_layout_is_refused() {
        assert!(Cells::of(&[]).is_err());
        assert!(Cells::of(&[2, 1, 1, 1, 0]).is_err());
        assert_eq!(Cells::of(&[LAYOUT, 1]).unwrap().next(), Some(Err(RollupError::Unreadable)));
    }
}
