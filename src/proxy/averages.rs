//! What the models have been answering a key.
//!
//! Kept in memory alone: after a restart it begins anew, with the first guess.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
};

use crate::domain::usage::{LineItem, Usage};

/// Until a key and model have answered once: tokens of text, and of audio (10 seconds) when audio is asked for.
const FIRST_GUESS_TEXT: u64 = 256;
const FIRST_GUESS_AUDIO: u64 = 200;

/// Running average of a choice of an answer, in 1/16 tokens; zero is "never answered".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Average {
    text: u32,
    audio: u32,
}

const SCALE: u64 = 16;
const WEIGHT: u32 = 8;

impl Average {
    /// With one more answer, of so many choices.
    #[must_use]
    pub fn after(self, usage: &Usage, choices: NonZeroU32) -> Self {
        let choices = u64::from(choices.get());
        let of_one = |item| usage.get(item).saturating_add(choices / 2) / choices;
        let audio = match usage.get(LineItem::OutputAudio) {
            0 => self.audio,
            _ => learn(self.audio, of_one(LineItem::OutputAudio)),
        };
        Self { text: learn(self.text, of_one(LineItem::OutputText)), audio }
    }

    pub fn text(self) -> u64 {
        learned(self.text).unwrap_or(FIRST_GUESS_TEXT)
    }

    pub fn audio(self) -> u64 {
        learned(self.audio).unwrap_or(FIRST_GUESS_AUDIO)
    }
}

fn learn(average: u32, tokens: u64) -> u32 {
    let sample = u32::try_from(tokens.saturating_mul(SCALE)).unwrap_or(u32::MAX).max(1);
    match average {
        0 => sample,
        old => (old - old / WEIGHT).saturating_add(sample / WEIGHT).max(1),
    }
}

fn learned(average: u32) -> Option<u64> {
    (average > 0).then(|| u64::from(average).div_ceil(SCALE))
}

/// How many models of one limit group a key is remembered for beside the last one: names without a page are anybody's.
const OTHERS: usize = 7;

/// The averages of one key by model. Of most keys it is one in each limit group, which takes no room of its own.
#[derive(Debug, Default)]
pub struct Averages(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    last: OfModel,
    /// The one used last comes first.
    others: Option<Box<[OfModel; OTHERS]>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OfModel {
    /// In the place of its name: two that have the same share a guess, and nothing else.
    hash: u64,
    average: Average,
}

impl Averages {
    pub fn of(&self, model: &str) -> Average {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.find(hash(model)).unwrap_or_default()
    }

    /// From an answer of so many choices. The model that was not answered for longest may go for it.
    pub fn learn(&self, model: &str, usage: &Usage, choices: NonZeroU32) {
        let hash = hash(model);
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let average = recent.find(hash).unwrap_or_default().after(usage, choices);
        recent.put(OfModel { hash, average });
    }
}

impl Recent {
    fn find(&self, hash: u64) -> Option<Average> {
        let all = std::iter::once(&self.last).chain(self.others.as_deref().into_iter().flatten());
        all.into_iter().find(|it| it.hash == hash).map(|it| it.average)
    }

    fn put(&mut self, newest: OfModel) {
        let pushed = std::mem::replace(&mut self.last, newest);
        if pushed.hash == newest.hash || pushed == OfModel::default() {
            return;
        }
        let others = self.others.get_or_insert_default();
        let end = others.iter().position(|it| it.hash == newest.hash).unwrap_or(OTHERS - 1);
        if let Some(places) = others.get_mut(..=end) {
            places.rotate_right(1);
        }
        if let Some(first) = others.first_mut() {
            *first = pushed;
        }
    }
}

fn hash(model: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    model.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(averages: &Averages, model: &str, tokens: u64) {
        averages.learn(model, &Usage::default().with(LineItem::OutputText, tokens), NonZeroU32::MIN);
    }

    #[test]
    fn each_model_has_an_average_of_its_own() {
        let averages = Averages::default();
        learn(&averages, "terse", 8);
        assert_eq!(averages.of("wordy").text(), FIRST_GUESS_TEXT, "what another model says teaches nothing");
        learn(&averages, "wordy", 4_000);
        learn(&averages, "spoken", 20);
        for _ in 0..3 {
            learn(&averages, "terse", 8);
            learn(&averages, "wordy", 4_000);
        }
        let text = |model| averages.of(model).text();
        assert_eq!((text("terse"), text("wordy"), text("spoken")), (8, 4_000, 20));
    }

    #[test]
    fn what_was_answered_last_stays_and_names_without_number_take_no_more_room() {
        let averages = Averages::default();
        for n in 0..1_000 {
            learn(&averages, &format!("made-up-{n}"), 5);
            learn(&averages, "used", 77);
        }
        assert_eq!(averages.of("used").text(), 77);
        let remembered = |n: &u32| averages.of(&format!("made-up-{n}")) != Average::default();
        assert_eq!((0..1_000).filter(remembered).collect::<Vec<_>>(), (993..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn an_average_is_never_more_than_it_can_say() {
        let huge = Usage::default().with(LineItem::OutputText, u64::MAX);
        let average = (0..50).fold(Average::default(), |average, _| average.after(&huge, NonZeroU32::MIN));
        assert_eq!(average.text(), u64::from(u32::MAX).div_ceil(SCALE));
    }

    #[test]
    fn one_model_takes_no_room_of_its_own() {
        let averages = Averages::default();
        (0..10).for_each(|_| learn(&averages, "only", 9));
        assert!(averages.0.lock().unwrap().others.is_none());
        assert!(size_of::<Averages>() <= 32);
    }
}
