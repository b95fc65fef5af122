//! What a request held at its admission, as its entry keeps it, so that it can be explained.

use super::{
    ledger::{Admission, UsedBefore},
    limits::{Audio, ByScope, Dimension, Scope},
    packed::{push, take},
    usage::{LineItem, Usage},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub reserved_tokens: u64,
    pub reserved_audio: Audio,
    /// Units in use before this request; `None` where there was no limit. Entries of before projects had buckets have those
    /// of the key in the project's place.
    pub used_before: ByScope<UsedBefore>,
    /// Of text and audio alone: nothing else is estimated.
    pub estimate: Usage,
}

const ESTIMATED: [LineItem; 4] =
    [LineItem::InputText, LineItem::InputAudio, LineItem::OutputText, LineItem::OutputAudio];

/// The numbers that may be there, in the order of the bits that say so: those of most requests fit into seven.
#[derive(Clone, Copy)]
enum Number {
    Used(Scope, Dimension),
    Estimated(LineItem),
    /// Where other tokens were reserved than were estimated.
    Reserved,
    /// Where another output of audio was reserved than was estimated.
    ReservedAudioOutput,
    /// Where less of an input of audio was reserved than was estimated.
    ReservedAudioInput,
}

const NUMBERS: [Number; 23] = [
    Number::Used(Scope::Project, Dimension::RequestsPerMinute),
    Number::Used(Scope::Project, Dimension::RequestsPerDay),
    Number::Used(Scope::Project, Dimension::TokensPerMinute),
    Number::Estimated(LineItem::InputText),
    Number::Estimated(LineItem::InputAudio),
    Number::Estimated(LineItem::OutputText),
    Number::Estimated(LineItem::OutputAudio),
    Number::Reserved,
    Number::Used(Scope::Project, Dimension::TokensPerDay),
    Number::Used(Scope::Key, Dimension::RequestsPerMinute),
    Number::Used(Scope::Key, Dimension::RequestsPerDay),
    Number::Used(Scope::Key, Dimension::TokensPerMinute),
    Number::Used(Scope::Key, Dimension::TokensPerDay),
    Number::Used(Scope::Project, Dimension::ConcurrentRequests),
    Number::Used(Scope::Project, Dimension::ConcurrentStreams),
    Number::Used(Scope::Key, Dimension::ConcurrentRequests),
    Number::Used(Scope::Key, Dimension::ConcurrentStreams),
    Number::Used(Scope::Project, Dimension::AudioTokensPerMinute),
    Number::Used(Scope::Project, Dimension::AudioSecondsPerDay),
    Number::Used(Scope::Key, Dimension::AudioTokensPerMinute),
    Number::Used(Scope::Key, Dimension::AudioSecondsPerDay),
    Number::ReservedAudioOutput,
    Number::ReservedAudioInput,
];

/// How many numbers the entries of before they were packed have: reserved, used of three limits, estimated.
const OF_BEFORE: usize = 1 + 3 + ESTIMATED.len();

impl Held {
    pub fn of(admission: &Admission) -> Self {
        let hold = &admission.hold;
        let estimate =
            ESTIMATED.into_iter().fold(Usage::default(), |kept, item| kept.with(item, admission.estimate.get(item)));
        let reserved_tokens = hold.tokens.get().into();
        Self { reserved_tokens, reserved_audio: hold.audio, used_before: hold.used_before, estimate }
    }

    /// What was reserved for the answer may be a guess, because no more was reserved than was guessed. It may as well be a
    /// maximum that the request stated and that is no larger: the ledger does not tell them apart.
    pub fn may_be_guess(&self) -> bool {
        self.reserved_tokens <= self.estimate.total()
    }

    fn number(&self, number: Number) -> Option<u64> {
        match number {
            Number::Used(scope, dimension) => self.used_before[scope].get(dimension.index()).copied().flatten(),
            Number::Estimated(item) => Some(self.estimate.get(item)).filter(|quantity| *quantity > 0),
            Number::Reserved => Some(self.reserved_tokens).filter(|tokens| *tokens != self.estimate.total()),
            Number::ReservedAudioOutput => {
                Some(self.reserved_audio.output).filter(|tokens| *tokens != Audio::of(&self.estimate).output)
            }
            Number::ReservedAudioInput => {
                Some(self.reserved_audio.input).filter(|tokens| *tokens != Audio::of(&self.estimate).input)
            }
        }
    }

    /// A number whose bits say which numbers are there, and those, packed.
    pub fn pack(&self) -> Vec<u8> {
        let there = NUMBERS.map(|number| self.number(number));
        let bits = there.iter().zip(0..).fold(0, |bits, (number, bit)| bits | u64::from(number.is_some()) << bit);
        let mut bytes = Vec::with_capacity(16);
        push(&mut bytes, bits);
        there.into_iter().flatten().for_each(|number| push(&mut bytes, number));
        bytes
    }

    /// `None` for what is not whole, and for numbers that a later version added.
    pub fn unpack(mut bytes: &[u8]) -> Option<Self> {
        let bits = take(&mut bytes)?;
        let (mut used_before, mut estimate) = (ByScope::<UsedBefore>::default(), Usage::default());
        let (mut reserved, mut audio_input, mut audio_output) = (None, None, None);
        for (number, bit) in NUMBERS.into_iter().zip(0..) {
            if bits >> bit & 1 == 0 {
                continue;
            }
            let value = take(&mut bytes)?;
            match number {
                Number::Used(scope, dimension) => {
                    *used_before[scope].get_mut(dimension.index())? = Some(value);
                }
                Number::Estimated(item) => estimate.set(item, value),
                Number::Reserved => reserved = Some(value),
                Number::ReservedAudioOutput => audio_output = Some(value),
                Number::ReservedAudioInput => audio_input = Some(value),
            }
        }
        let reserved_tokens = reserved.unwrap_or_else(|| estimate.total());
        let of_estimate = Audio::of(&estimate);
        let reserved_audio = Audio {
            input: audio_input.unwrap_or(of_estimate.input),
            output: audio_output.unwrap_or(of_estimate.output),
        };
        let held = Self { reserved_tokens, reserved_audio, used_before, estimate };
        let is_known = bits >> NUMBERS.len() == 0;
        (is_known && bytes.is_empty()).then_some(held)
    }

    /// The numbers one after the other, `None` for what there was not: reserved, used, estimated.
    pub fn from_numbers(numbers: [Option<u64>; OF_BEFORE]) -> Option<Self> {
        let [reserved, per_minute, per_day, tokens, estimated @ ..] = numbers;
        let estimated = ESTIMATED.into_iter().zip(estimated);
        let estimate = estimated.fold(Usage::default(), |estimate, (item, n)| estimate.with(item, n.unwrap_or(0)));
        let mut used_before = ByScope::<UsedBefore>::default();
        for (place, used) in used_before.project.iter_mut().zip([per_minute, per_day, tokens]) {
            *place = used;
        }
        Some(Self { reserved_tokens: reserved?, reserved_audio: Audio::of(&estimate), used_before, estimate })
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
            project in prop::array::uniform8(prop::option::of(any::<u64>())),
            key in prop::array::uniform8(prop::option::of(any::<u64>())),
            audio_input in prop::option::of(any::<u64>()),
            audio_output in prop::option::of(any::<u64>()),
            estimated in prop::array::uniform4(0..1_u64 << 40),
        ) {
            let estimate = ESTIMATED.into_iter().zip(estimated).fold(Usage::default(), |usage, (item, n)| usage.with(item, n));
            let of_estimate = Audio::of(&estimate);
            let reserved_audio = Audio {
                input: audio_input.unwrap_or(of_estimate.input),
                output: audio_output.unwrap_or(of_estimate.output),
            };
            let held = Held { reserved_tokens: reserved.unwrap_or(estimate.total()), reserved_audio, used_before: ByScope { project, key }, estimate };
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
        let project = [Some(12), None, Some(80_020), None, None, None, None, None];
        let held = Held {
            reserved_tokens: 1_456,
            reserved_audio: Audio::NONE,
            used_before: ByScope { project, key: [None; Dimension::COUNT] },
            estimate,
        };
        assert_eq!(held.pack().len(), 1 + 1 + 3 + 2 + 2);
    }

    #[test]
    fn what_was_packed_before_keys_and_projects_were_told_apart_is_read_as_it_was() {
        // Bits for a minute's requests, a minute's tokens and an estimate of text.
        let mut bytes = Vec::new();
        for number in [0b1101, 12, 80, 1_200] {
            push(&mut bytes, number);
        }
        let held = Held::unpack(&bytes).unwrap();
        assert_eq!(held.used_before.project, [Some(12), None, Some(80), None, None, None, None, None]);
        assert_eq!((held.used_before.key, held.reserved_tokens), ([None; Dimension::COUNT], 1_200));
        assert_eq!(held.pack(), bytes);
        let numbers = [Some(1_200), Some(12), None, Some(80), Some(1_200), None, None, None];
        assert_eq!(Held::from_numbers(numbers), Some(held));
    }
}
