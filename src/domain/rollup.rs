//! The sums of one bucket of time, per API key and tariff, and how they are kept: packed, because reports read very many
//! of them at once.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::usage::{LineItem, Usage};

/// What one key did at one tariff within one bucket. Keys and tariffs go by their numbers in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub api_key: u32,
    pub tariff: u32,
    pub requests: u64,
    pub usage: Usage,
}

/// How far the cells of a rollup tell apart who made the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    Keys,
    /// In the place of a key stands the first key of its project.
    Projects,
    /// In the place of a key stands 0.
    Together,
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

impl Detail {
    pub const ALL: [Self; 3] = [Self::Keys, Self::Projects, Self::Together];

    /// The number in SQL.
    pub const fn number(self) -> i64 {
        self as i64
    }

    /// Whether rollups of this detail are kept for buckets of `width_s` seconds. In an hour or a minute there are about as
    /// many projects as keys, so that sums of projects would save nothing.
    pub const fn is_kept(self, width_s: u64) -> bool {
        match self {
            Self::Keys => true,
            Self::Projects => width_s >= 86_400,
            Self::Together => width_s >= 3_600,
        }
    }
}

impl Rollup {
    /// The same sums with fewer told apart: `place` says what stands in the place of a key.
    pub fn coarser(&self, place: impl Fn(u32) -> Option<u32>) -> Result<Self, RollupError> {
        let mut coarser = Self::default();
        for cell in self.cells() {
            let api_key = place(cell.api_key).ok_or(RollupError::Unreadable)?;
            coarser.add(&Cell { api_key, ..cell })?;
        }
        Ok(coarser)
    }

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

/// Requests and quantities, by whatever they are told apart by.
pub type Totals<P> = HashMap<P, (u64, Usage), foldhash::fast::RandomState>;

/// Where a cell counts.
pub enum Place<P> {
    Of(P),
    /// It is not asked for.
    Nowhere,
    /// There is no such key or tariff.
    Unknown,
}

/// All of a cell but its quantities; `used` has a bit for each of those.
struct Head {
    api_key: u32,
    tariff: u32,
    requests: u64,
    used: u64,
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

    /// What the next cell is of; its quantities must be read or passed over before the one after it.
    fn head(&mut self) -> Option<Head> {
        let small = |value: u64| u32::try_from(value).ok();
        self.api_key = self.api_key.checked_add(small(self.number()?)?)?;
        let tariff = small(self.number()?)?;
        let (requests, used) = (self.number()?, self.number()?);
        // Bits of line items that there are not.
        let known = used >> LineItem::COUNT == 0;
        known.then_some(Head { api_key: self.api_key, tariff, requests, used })
    }

    fn quantities(&mut self, head: &Head, mut each: impl FnMut(LineItem, u64) -> Option<()>) -> Option<()> {
        let mut used = head.used;
        while used != 0 {
            let item = LineItem::ALL.get(used.trailing_zeros() as usize)?;
            each(*item, self.number()?)?;
            used &= used - 1;
        }
        Some(())
    }

    fn read(&mut self) -> Option<Cell> {
        let head = self.head()?;
        let mut usage = Usage::default();
        self.quantities(&head, |item, quantity| {
            usage.set(item, quantity);
            Some(())
        })?;
        Some(Cell { api_key: head.api_key, tariff: head.tariff, requests: head.requests, usage })
    }

    /// Adds each cell to the total that `place` says, or to none. Faster than making cells of them first.
    pub fn add_up<P>(
        mut self,
        totals: &mut Totals<P>,
        mut place: impl FnMut(u32, u32) -> Place<P>,
    ) -> Result<(), RollupError>
    where
        P: Eq + Hash,
    {
        while !self.rest.is_empty() {
            let head = self.head().ok_or(RollupError::Unreadable)?;
            let read = match place(head.api_key, head.tariff) {
                Place::Unknown => None,
                Place::Nowhere => self.quantities(&head, |_, _| Some(())),
                Place::Of(place) => {
                    let (requests, usage) = totals.entry(place).or_default();
                    *requests = sum(*requests, head.requests)?;
                    let mut fits = true;
                    let read = self.quantities(&head, |item, quantity| {
                        let sum = sum(usage.get(item), quantity);
                        fits &= sum.is_ok();
                        usage.set(item, sum.unwrap_or(0));
                        Some(())
                    });
                    if !fits {
                        return Err(RollupError::Overflow);
                    }
                    read
                }
            };
            read.ok_or(RollupError::Unreadable)?;
        }
        Ok(())
    }

    #[inline]
    fn number(&mut self) -> Option<u64> {
        // Most are small.
        match *self.rest {
            [low @ 0..0x80, ref rest @ ..] => {
                self.rest = rest;
                Some(low.into())
            }
            [low, high @ 0..0x80, ref rest @ ..] => {
                self.rest = rest;
                Some(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Option<u64> {
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
    fn cells_add_up_where_they_belong() {
        let cell = |api_key, tariff, text| Cell {
            api_key,
            tariff,
            requests: 1,
            usage: Usage::default().with(LineItem::InputText, text).with(LineItem::OutputAudio, 300),
        };
        let mut rollup = Rollup::default();
        [cell(1, 1, 5), cell(1, 2, 7), cell(2, 1, 200), cell(3, 9, 1)]
            .iter()
            .for_each(|cell| rollup.add(cell).unwrap());
        let bytes = rollup.encode();
        let mut sums = Totals::default();
        let place = |key, tariff| match (key, tariff) {
            (3, _) => Place::Nowhere,
            (_, tariff) => Place::Of(tariff),
        };
        Cells::of(&bytes).unwrap().add_up(&mut sums, place).unwrap();
        let usage = |text, audio| Usage::default().with(LineItem::InputText, text).with(LineItem::OutputAudio, audio);
        assert_eq!(
            sums.into_iter().collect::<BTreeMap<_, _>>(),
            [(1, (2, usage(205, 600))), (2, (1, usage(7, 300)))].into()
        );
        let unknown = |_, _| Place::<u32>::Unknown;
        assert_eq!(Cells::of(&bytes).unwrap().add_up(&mut Totals::default(), unknown), Err(RollupError::Unreadable));
    }

    #[test]
    fn a_coarser_rollup_has_the_same_sums() {
        let usage = Usage::default().with(LineItem::InputText, 5);
        let mut rollup = Rollup::default();
        for (api_key, tariff) in [(1, 1), (2, 1), (3, 1), (3, 2)] {
            rollup.add(&Cell { api_key, tariff, requests: 1, usage }).unwrap();
        }
        let coarser = rollup.coarser(|key| Some(if key == 3 { 3 } else { 1 })).unwrap();
        let found: Vec<_> = coarser.cells().map(|cell| (cell.api_key, cell.tariff, cell.requests)).collect();
        assert_eq!(found, [(1, 1, 2), (3, 1, 1), (3, 2, 1)]);
        assert!(rollup.coarser(|_| None).is_err());
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
