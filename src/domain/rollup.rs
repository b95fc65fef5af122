//! The sums of one bucket of time, per API key and tariff, and how they are kept: packed, because reports read very many
//! of them at once.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::{
    packed::{self, push},
    usage::{LineItem, Usage},
};

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

/// The layout that is written, see [`Rollup::encode`]. Readers know the one before as well, and refuse all others.
const LAYOUT: u8 = 2;
const LAYOUT_BEFORE: u8 = 1;
/// The place of each line item's bit, the most used first: those of the first six and the lowest bit fit into a byte.
const BITS: [LineItem; LineItem::COUNT] = [
    LineItem::InputText,
    LineItem::OutputText,
    LineItem::InputCachedText,
    LineItem::InputAudio,
    LineItem::OutputAudio,
    LineItem::InputCacheWriteText,
    LineItem::InputCachedAudio,
    LineItem::InputImage,
    LineItem::InputCachedImage,
    LineItem::OutputImage,
];
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

    /// A layout byte, then per cell: the key (as the difference to the one before), the tariff, a bit per line item that is
    /// not zero above one that is set unless there was one request, the requests if so, and the quantities; all
    /// packed numbers. In the layout before, requests and quantities were always there, the bits in the order of
    /// [`LineItem::ALL`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![LAYOUT];
        let mut previous = 0;
        for cell in self.cells() {
            push(&mut bytes, u64::from(cell.api_key - previous));
            previous = cell.api_key;
            push(&mut bytes, u64::from(cell.tariff));
            let used = BITS.into_iter().zip(1..).filter(|(item, _)| cell.usage.get(*item) > 0);
            let used = used.fold(0, |used, (_, bit)| used | 1_u64 << bit);
            push(&mut bytes, used | u64::from(cell.requests != 1));
            if cell.requests != 1 {
                push(&mut bytes, cell.requests);
            }
            let quantities = BITS.map(|item| cell.usage.get(item));
            quantities.into_iter().filter(|quantity| *quantity > 0).for_each(|quantity| push(&mut bytes, quantity));
        }
        bytes
    }
}

fn sum(a: u64, b: u64) -> Result<u64, RollupError> {
    a.checked_add(b).filter(|sum| *sum <= MAX_SUM).ok_or(RollupError::Overflow)
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
    /// By the place of their bits.
    items: &'static [LineItem; LineItem::COUNT],
    always_requests: bool,
}

impl<'b> Cells<'b> {
    pub fn of(bytes: &'b [u8]) -> Result<Self, RollupError> {
        match bytes.split_first() {
            Some((&LAYOUT, rest)) => Ok(Self { rest, api_key: 0, items: &BITS, always_requests: false }),
            Some((&LAYOUT_BEFORE, rest)) => Ok(Self { rest, api_key: 0, items: &LineItem::ALL, always_requests: true }),
            _ => Err(RollupError::Unreadable),
        }
    }

    /// What the next cell is of; its quantities must be read or passed over before the one after it.
    fn head(&mut self) -> Option<Head> {
        let small = |value: u64| u32::try_from(value).ok();
        self.api_key = self.api_key.checked_add(small(self.number()?)?)?;
        let tariff = small(self.number()?)?;
        let (requests, used) = if self.always_requests {
            (self.number()?, self.number()?)
        } else {
            let used = self.number()?;
            (if used & 1 == 0 { 1 } else { self.number()? }, used >> 1)
        };
        // Bits of line items that there are not.
        let known = used >> LineItem::COUNT == 0;
        known.then_some(Head { api_key: self.api_key, tariff, requests, used })
    }

    fn quantities(&mut self, head: &Head, mut each: impl FnMut(LineItem, u64) -> Option<()>) -> Option<()> {
        let mut used = head.used;
        while used != 0 {
            let item = self.items.get(used.trailing_zeros() as usize)?;
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

    fn number(&mut self) -> Option<u64> {
        packed::take(&mut self.rest)
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
mod tests;
