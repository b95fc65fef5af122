//! What an answer consumed, as disjoint quantities: no token is in two line items, so sums never count twice.

use serde::{Deserialize, Serialize};

/// A kind of priced quantity. Reasoning and rejected prediction tokens are billed as output text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineItem {
    InputText,
    InputCachedText,
    InputCacheWriteText,
    InputAudio,
    InputCachedAudio,
    InputImage,
    InputCachedImage,
    OutputText,
    OutputAudio,
    OutputImage,
}

impl LineItem {
    pub const COUNT: usize = 10;

    pub const ALL: [Self; Self::COUNT] = [
        Self::InputText,
        Self::InputCachedText,
        Self::InputCacheWriteText,
        Self::InputAudio,
        Self::InputCachedAudio,
        Self::InputImage,
        Self::InputCachedImage,
        Self::OutputText,
        Self::OutputAudio,
        Self::OutputImage,
    ];

    pub const fn index(self) -> usize {
        self as usize
    }

    #[expect(clippy::indexing_slicing, reason = "each of the COUNT has its place")]
    pub const fn of<T>(self, all: &[T; Self::COUNT]) -> &T {
        &all[self.index()]
    }

    #[expect(clippy::indexing_slicing, reason = "each of the COUNT has its place")]
    pub const fn of_mut<T>(self, all: &mut [T; Self::COUNT]) -> &mut T {
        &mut all[self.index()]
    }

    /// The word in SQL columns, journal records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InputText => "input_text",
            Self::InputCachedText => "input_cached_text",
            Self::InputCacheWriteText => "input_cache_write_text",
            Self::InputAudio => "input_audio",
            Self::InputCachedAudio => "input_cached_audio",
            Self::InputImage => "input_image",
            Self::InputCachedImage => "input_cached_image",
            Self::OutputText => "output_text",
            Self::OutputAudio => "output_audio",
            Self::OutputImage => "output_image",
        }
    }

    pub const fn is_input(self) -> bool {
        !matches!(self, Self::OutputText | Self::OutputAudio | Self::OutputImage)
    }
}

/// How well a usage is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The upstream said so.
    Reported,
    /// Computed by us from what was sent and delivered.
    Estimated,
}

impl Basis {
    pub const ALL: [Self; 2] = [Self::Reported, Self::Estimated];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
        }
    }
}

/// Tokens of one request per line item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage([u64; LineItem::COUNT]);

impl Usage {
    pub const fn get(&self, item: LineItem) -> u64 {
        *item.of(&self.0)
    }

    pub const fn set(&mut self, item: LineItem, quantity: u64) {
        *item.of_mut(&mut self.0) = quantity;
    }

    #[must_use]
    pub const fn with(mut self, item: LineItem, quantity: u64) -> Self {
        self.set(item, quantity);
        self
    }

    /// `None` when a sum does not fit.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let mut sum = *self;
        for (own, other) in sum.0.iter_mut().zip(&other.0) {
            *own = own.checked_add(*other)?;
        }
        Some(sum)
    }

    /// The line items that are not zero, in a fixed order.
    pub fn items(&self) -> impl Iterator<Item = (LineItem, u64)> + '_ {
        LineItem::ALL.into_iter().map(|item| (item, self.get(item))).filter(|(_, quantity)| *quantity > 0)
    }

    /// Saturates: a total past `u64` is not a count of tokens any more.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, quantity| sum.saturating_add(*quantity))
    }

    pub fn input_total(&self) -> u64 {
        let inputs = self.items().filter(|(item, _)| item.is_input());
        inputs.fold(0, |sum, (_, quantity)| sum.saturating_add(quantity))
    }

    pub fn output_total(&self) -> u64 {
        self.total() - self.input_total()
    }
}

/// As a map without zeros, `{"input_text":22}`, as the journal keeps it.
impl Serialize for Usage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.items())
    }
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = std::collections::BTreeMap::<LineItem, u64>::deserialize(deserializer)?;
        Ok(items.into_iter().fold(Self::default(), |usage, (item, quantity)| usage.with(item, quantity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_sums_of_disjoint_items() {
        let usage = Usage::default()
            .with(LineItem::InputText, 22)
            .with(LineItem::OutputText, 6)
            .with(LineItem::OutputAudio, 12);
        assert_eq!((usage.input_total(), usage.output_total(), usage.total()), (22, 18, 40));
        assert_eq!(usage.items().count(), 3);
    }

    #[test]
    fn every_line_item_has_its_own_place_and_name() {
        for (index, item) in LineItem::ALL.into_iter().enumerate() {
            assert_eq!(item.index(), index);
            assert_eq!(serde_json::to_value(item).unwrap(), item.name());
        }
    }

    #[test]
    fn usage_survives_the_journal_format() {
        let usage = Usage::default().with(LineItem::InputAudio, 17).with(LineItem::OutputText, 3);
        let text = serde_json::to_string(&usage).unwrap();
        assert_eq!(text, r#"{"input_audio":17,"output_text":3}"#);
        assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage);
    }
}
