//! Public ids. Each kind has its own type, so that they do not mix.

mod text;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use self::text::Text;
use super::time::UnixNanos;

const MAX_ID_LENGTH: usize = 64;

/// A source of random bytes. Passed in, so that `domain` stays pure.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// `length` characters of base62, evenly distributed (bytes past the last multiple of 62 are drawn again).
pub fn random_base62(length: usize, random: Random<'_>) -> String {
    let mut text = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while text.len() < length {
        random(&mut bytes);
        let usable = bytes.iter().filter(|byte| **byte < 248);
        for byte in usable.take(length - text.len()) {
            text.push(char::from(base62_letter(*byte)));
        }
    }
    text
}

/// Of the last digit of `value`: `0` to `9`, `A` to `Z`, `a` to `z`.
const fn base62_letter(value: u8) -> u8 {
    match value % 62 {
        digit @ 0..=9 => b'0' + digit,
        digit @ 10..=35 => b'A' + (digit - 10),
        digit => b'a' + (digit - 36),
    }
}

/// The last four bits of `value` as hex, in small letters.
pub(crate) const fn hex_letter(value: u8) -> u8 {
    match value & 15 {
        digit @ 0..=9 => b'0' + digit,
        digit => b'a' + (digit - 10),
    }
}

/// `value` as exactly `length` base62 characters, most significant first; higher digits are cut off.
pub(crate) fn fixed_base62(mut value: u32, length: usize) -> String {
    let mut digits = vec![b'0'; length];
    for digit in digits.iter_mut().rev() {
        *digit = base62_letter((value % 62) as u8);
        value /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $random_length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Text);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            pub fn generate(random: Random<'_>) -> Self {
                Self(Text::from(&*format!("{}{}", $prefix, random_base62($random_length, random))))
            }

            /// Accepts the prefix followed by ASCII letters, digits, `_` or `-`.
            pub fn parse(text: &str) -> Option<Self> {
                let rest = text.strip_prefix($prefix)?;
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                (!rest.is_empty() && text.len() <= MAX_ID_LENGTH && rest.bytes().all(plain))
                    .then(|| Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::parse(&text)
                    .ok_or_else(|| serde::de::Error::custom(concat!("not an id that starts with ", $prefix)))
            }
        }
    };
}

text_id!(
    /// `proj_` and 16 random characters.
    ProjectId, "proj_", 16
);
text_id!(
    /// `key_` and 12 random characters: the public name of an API key.
    KeyId, "key_", 12
);
text_id!(
    /// `sa_` and 16 random characters.
    ServiceAccountId, "sa_", 16
);
text_id!(
    /// `batch_` and 24 random characters.
    BatchId, "batch_", 24
);
text_id!(
    /// `key_` and 16 random characters: the public name of an admin key.
    AdminKeyId, "key_", 16
);

impl AdminKeyId {
    /// The key of the settings.
    pub fn configured() -> Self {
        Self("key_configured".into())
    }
}

/// Identifies one request everywhere: header, journal, ledger, log. `req_` and 32 hex digits, as `OpenAI`'s.
///
/// The first 48 bits are the Unix milliseconds of its arrival, so ids sort by time and ledger inserts stay sequential.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u128);

impl RequestId {
    const RANDOM_BITS: u32 = 80;

    pub fn new(arrived_ms: u64, random: u128) -> Self {
        Self((u128::from(arrived_ms) << Self::RANDOM_BITS) | (random & ((1 << Self::RANDOM_BITS) - 1)))
    }

    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("req_")?;
        let valid = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        valid.then(|| u128::from_str_radix(hex, 16).ok().map(Self))?
    }

    /// Unix milliseconds.
    pub const fn arrived_ms(self) -> u64 {
        let [first, second, third, fourth, fifth, sixth, ..] = self.to_bytes();
        u64::from_be_bytes([0, 0, first, second, third, fourth, fifth, sixth])
    }

    /// Not later than any id of a request that arrived in this millisecond or after it.
    pub fn earliest(arrived_ms: u64) -> Self {
        Self::new(arrived_ms, 0)
    }

    /// To the millisecond.
    pub fn arrived_at(self) -> UnixNanos {
        UnixNanos::from_millis(u64::try_from(self.0 >> Self::RANDOM_BITS).unwrap_or(u64::MAX))
    }

    /// The id that sorts right behind this one.
    #[must_use]
    pub const fn successor(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// The text of a [`RequestId`], made without the formatting machinery: it is needed several times for each request.
#[derive(Clone, Copy)]
pub struct RequestIdText([u8; 36]);

impl RequestIdText {
    pub fn as_str(&self) -> &str {
        // Made of ASCII below, so this cannot fail.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl RequestId {
    pub fn text(self) -> RequestIdText {
        let mut text = *b"req_00000000000000000000000000000000";
        let digits = self.to_bytes().into_iter().flat_map(|byte| [byte >> 4, byte]);
        for (place, digit) in text.iter_mut().skip(4).zip(digits) {
            *place = hex_letter(digit);
        }
        RequestIdText(text)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a request id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> impl FnMut(&mut [u8]) {
        let mut next = 0_u8;
        move |bytes| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(7);
            }
        }
    }

    #[test]
    fn ids_keep_their_kind_and_survive_a_round_trip() {
        let id = ProjectId::generate(&mut counting());
        assert_eq!(id.as_str().len(), "proj_".len() + 16);
        assert_eq!(ProjectId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(KeyId::parse(id.as_str()), None);
        assert_eq!(serde_json::from_str::<ProjectId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn ids_with_path_characters_are_refused() {
        for text in ["proj_", "proj_a/b", "proj_..", "proj_a%2f", "key_a b", ""] {
            assert_eq!(ProjectId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn request_ids_sort_by_arrival() {
        let early = RequestId::new(1_000, u128::MAX);
        let late = RequestId::new(1_001, 0);
        assert!(early < late);
        assert_eq!((early.arrived_ms(), late.arrived_ms()), (1_000, 1_001));
        assert_eq!(RequestId::parse(&late.to_string()), Some(late));
        assert_eq!(late.to_string().len(), 36);
        assert_eq!((early.arrived_at().millis(), late.arrived_at().millis()), (1_000, 1_001));
        assert_eq!(RequestId::parse("req_ABCDEF00112233445566778899001122"), None);
    }

    #[test]
    fn base62_draws_again_past_the_last_multiple() {
        let mut calls = 0;
        let text = random_base62(4, &mut |bytes| {
            calls += 1;
            bytes.fill(if calls == 1 { 255 } else { 61 });
        });
        assert_eq!((text.as_str(), calls), ("zzzz", 2));
        assert_eq!(fixed_base62(62 * 62 + 1, 6), "000101");
    }
}
