//! The text of an id.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use serde::Serialize;

/// As long as the ids of projects and keys are at the most, and 24 bytes in all.
const MAX_SHORT: usize = 22;

/// The usual ones lie in the value itself: among very many ids, to look at one behind a pointer is to wait for the memory,
/// and to copy one is to count who has it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// Filled up with zeros, which no id has.
    Short {
        length: u8,
        bytes: [u8; MAX_SHORT],
    },
    Long(Arc<str>),
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Short { length, bytes } => {
                let text = bytes.get(..usize::from(*length)).and_then(|text| std::str::from_utf8(text).ok());
                text.unwrap_or_default()
            }
            Self::Long(text) => text,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; MAX_SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short { length, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }
}

impl Hash for Text {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Short { bytes, .. } => state.write(bytes),
            Self::Long(text) => text.hash(state),
        }
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn short_and_long_texts_are_told_apart_sorted_and_printed_as_text() {
        let (end, over) = ("x".repeat(MAX_SHORT), "x".repeat(MAX_SHORT + 1));
        let mut all = ["key_b", &over, "key_a", "", "key_", &end, "z", "key_aa"];
        let mut texts = all.map(Text::from);
        let hashing = foldhash::fast::RandomState::default();
        for (text, one) in all.iter().zip(&texts) {
            assert_eq!((one.as_str(), format!("{one:?}")), (*text, format!("{text:?}")));
            assert_eq!(serde_json::to_string(one).unwrap(), format!("{text:?}"));
            for (other_text, other) in all.iter().zip(&texts) {
                assert_eq!(one == other, text == other_text);
                assert_eq!(hashing.hash_one(one) == hashing.hash_one(other), text == other_text);
            }
        }
        all.sort_unstable();
        texts.sort_unstable();
        assert_eq!(texts.each_ref().map(Text::as_str), all);
    }

    #[test]
    fn what_is_generated_is_short() {
        use crate::domain::ids::{KeyId, ProjectId};
        let mut random = |bytes: &mut [u8]| bytes.fill(7);
        let (key, project) = (KeyId::generate(&mut random), ProjectId::generate(&mut random));
        assert!(matches!((key.0, project.0), (Text::Short { .. }, Text::Short { .. })));
        assert_eq!(size_of::<Text>(), 24);
    }
}
