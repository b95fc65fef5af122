//! What a request held at its admission, as its entry keeps it, so that it can be explained.

use super::{
    ledger::Admission,
    limits::Dimension,
    packed::{push, take},
    usage::{LineItem, Usage},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub reserved_tokens: u64,
    /// Units in use before this request; `None` where there was no limit.
    pub used_before: [Option<u64>; Dimension::COUNT],
    /// Of [`ESTIMATED`] alone: nothing else is estimated.
    pub estimate: Usage,
}

const ESTIMATED: [LineItem; 4] =
    [LineItem::InputText, LineItem::InputAudio, LineItem::OutputText, LineItem::OutputAudio];
/// The first bit of the first byte that says which numbers are there; those before are of the limits in their order.
const FIRST_ESTIMATED: usize = Dimension::COUNT;
/// Set when other tokens were reserved than were estimated.
const RESERVED: u8 = 0x80;

impl Held {
    pub fn of(admission: &Admission) -> Self {
        let hold = &admission.hold;
        let estimate =
            ESTIMATED.into_iter().fold(Usage::default(), |kept, item| kept.with(item, admission.estimate.get(item)));
        let used_before = Dimension::ALL.map(|dimension| hold.in_use(dimension));
        Self { reserved_tokens: hold.tokens.get().into(), used_before, estimate }
    }

    /// A byte that says which numbers are there, and the numbers, packed.
    pub fn pack(&self) -> Vec<u8> {
        let mut present = 0;
        let mut bytes = vec![0];
        let used = self.used_before.into_iter().zip(0..);
        let estimated =
            ESTIMATED.map(|item| Some(self.estimate.get(item)).filter(|n| *n > 0)).into_iter().zip(FIRST_ESTIMATED..);
        for (number, bit) in used.chain(estimated) {
            if let Some(number) = number {
                present |= 1_u8 << bit;
                push(&mut bytes, number);
            }
        }
        if self.reserved_tokens != self.estimate.total() {
            present |= RESERVED;
            push(&mut bytes, self.reserved_tokens);
        }
        if let Some(first) = bytes.first_mut() {
            *first = present;
        }
        bytes
    }

    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let (present, mut rest) = bytes.split_first()?;
        let mut number = |bit: usize| {
            if present >> bit & 1 == 0 { Some(None) } else { take(&mut rest).map(Some) }
        };
        let used_before = [number(0)?, number(1)?, number(2)?];
        let mut estimate = Usage::default();
        for (item, bit) in ESTIMATED.into_iter().zip(FIRST_ESTIMATED..) {
            estimate.set(item, number(bit)?.unwrap_or(0));
        }
        let reserved_tokens = if present & RESERVED == 0 { estimate.total() } else { take(&mut rest)? };
        rest.is_empty().then_some(Self { reserved_tokens, used_before, estimate })
    }

    /// The numbers one after the other, `None` for what there was not: reserved, used, estimated.
    pub fn from_numbers(numbers: [Option<u64>; 1 + Dimension::COUNT + ESTIMATED.len()]) -> Option<Self> {
        let [reserved, per_minute, per_day, tokens, estimated @ ..] = numbers;
        let estimated = ESTIMATED.into_iter().zip(estimated);
        let estimate = estimated.fold(Usage::default(), |estimate, (item, n)| estimate.with(item, n.unwrap_or(0)));
        Some(Self { reserved_tokens: reserved?, used_before: [per_minute, per_day, tokens], estimate })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(
            reserved in prop::option::of(any::<u64>()),
            used in prop::array::uniform3(prop::option::of(any::<u64>())),
            estimated in prop::array::uniform4(0..1_u64 << 40),
        ) {
            let estimate = ESTIMATED.into_iter().zip(estimated).fold(Usage::default(), |usage, (item, n)| usage.with(item, n));
            let held = Held { reserved_tokens: reserved.unwrap_or(estimate.total()), used_before: used, estimate };
            let bytes = held.pack();
            prop_assert_eq!(Held::unpack(&bytes), Some(held));
            prop_assert_eq!(Held::unpack(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Held::unpack(&bytes);
        }
    }

    #[test]
    fn a_usual_one_takes_a_dozen_bytes() {
        let estimate = Usage::default().with(LineItem::InputText, 1_200).with(LineItem::OutputText, 256);
        let held = Held { reserved_tokens: 1_456, used_before: [Some(12), None, Some(80_020)], estimate };
        assert_eq!(held.pack().len(), 1 + 1 + 3 + 2 + 2);
    }
}
