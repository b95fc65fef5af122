//! Base64 that is decoded only where somebody looks.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// How much is copied of text that has escapes: enough for every header, and for a cover picture before it.
const MAX_COPIED: usize = 1024 * 1024;

pub(super) struct Encoded<'a> {
    /// Without escapes, white space, prefix and padding. Of text with escapes only the beginning.
    text: Cow<'a, [u8]>,
    len: usize,
}

impl<'a> Encoded<'a> {
    /// `json` is the inside of a JSON string. A `data:` URL, escaped slashes, line breaks, the URL-safe alphabet and missing
    /// padding are all accepted: the upstream decides what it takes.
    pub(super) fn new(json: &'a [u8]) -> Self {
        let (text, characters) = match without_escapes(without_padding(json)) {
            (Cow::Borrowed(text), _) => {
                let payload = payload(text);
                (Cow::Borrowed(payload), payload.len())
            }
            (Cow::Owned(text), characters) => {
                let payload = payload(&text);
                let outside = text.len() - payload.len();
                (Cow::Owned(payload.to_vec()), characters.saturating_sub(outside))
            }
        };
        let last_group = match characters % 4 {
            2 => 1,
            3 => 2,
            _ => 0,
        };
        Self { text, len: characters / 4 * 3 + last_group }
    }

    /// How many bytes it decodes to.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// `N` bytes from `at` on; `None` past the end, past what was copied, and where the text is no base64.
    pub(super) fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = self.byte(at.checked_add(index)?)?;
        }
        Some(bytes)
    }

    pub(super) fn le_u16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    pub(super) fn le_u32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    pub(super) fn be_u32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_be_bytes)
    }

    /// A byte lies in two neighbouring characters of its group of four.
    fn byte(&self, at: usize) -> Option<u8> {
        if at >= self.len {
            return None;
        }
        let (group, place) = (at / 3, at % 3);
        let first = group * 4 + place;
        let (high, low) = (sextet(*self.text.get(first)?)?, sextet(*self.text.get(first + 1)?)?);
        Some(match place {
            0 => high << 2 | low >> 4,
            1 => high << 4 | low >> 2,
            _ => high << 6 | low,
        })
    }
}

const fn sextet(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// Without the `data:…,` in front, and the padding behind that had been escaped.
fn payload(text: &[u8]) -> &[u8] {
    if !text.starts_with(b"data:") {
        return without_padding(text);
    }
    without_padding(memchr(b',', text).and_then(|comma| text.get(comma + 1..)).unwrap_or(text))
}

fn without_padding(text: &[u8]) -> &[u8] {
    let padding = text.iter().rev().take_while(|character| **character == b'=').count();
    text.get(..text.len() - padding).unwrap_or(text)
}

/// The text, and how many characters it has without what is taken out. It is borrowed when there is nothing to take out,
/// else its beginning is copied.
fn without_escapes(json: &[u8]) -> (Cow<'_, [u8]>, usize) {
    if memchr2(b'\\', b' ', json).is_none() {
        return (Cow::Borrowed(json), json.len());
    }
    let mut clean = Vec::with_capacity(json.len().min(MAX_COPIED));
    let (mut characters, mut rest) = (0_usize, json);
    let mut copy = |text: &[u8]| {
        let room = MAX_COPIED - clean.len();
        clean.extend_from_slice(text.get(..room).unwrap_or(text));
        characters += text.len();
    };
    while let Some(at) = memchr2(b'\\', b' ', rest) {
        let (before, special) = rest.split_at(at);
        copy(before);
        let (character, length) = unescape(special);
        if let Some(character) = character.filter(|character| !character.is_ascii_whitespace()) {
            copy(&[character]);
        }
        rest = special.get(length..).unwrap_or_default();
    }
    copy(rest);
    (Cow::Owned(clean), characters)
}

/// In place of what is neither base64 nor white space, and must not vanish.
const NO_BASE64: u8 = b'!';

/// The character that `json` begins with, `None` for white space, and how much of `json` it takes.
fn unescape(json: &[u8]) -> (Option<u8>, usize) {
    match json {
        [b'\\', b'u', hex @ ..] => {
            let digits = hex.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
            let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            (Some(code.unwrap_or(NO_BASE64)), 6)
        }
        [b'\\', b'n' | b'r' | b't' | b'f', ..] => (None, 2),
        [b'\\', b'b', ..] => (Some(NO_BASE64), 2),
        [b'\\', character, ..] => (Some(*character), 2),
        _ => (None, 1),
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    fn decoded(json: &str) -> Vec<u8> {
        let encoded = Encoded::new(json.as_bytes());
        (0..encoded.len()).map(|at| encoded.byte(at).unwrap()).collect()
    }

    #[test]
    fn any_byte_is_found_without_decoding_the_others() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..=bytes.len() {
            let text = STANDARD.encode(&bytes[..length]);
            assert_eq!(decoded(&text), bytes[..length]);
            assert_eq!(decoded(text.trim_end_matches('=')), bytes[..length]);
        }
    }

    #[test]
    fn all_ways_to_write_it_mean_the_same() {
        let bytes = [0xFB, 0xFF, 0xBF, 0x3E, 0x3F];
        assert_eq!(STANDARD.encode(bytes), "+/+/Pj8=");
        for text in [
            r"+\/+\/Pj8=",
            "-_-_Pj8",
            r"data:audio\/wav;base64,+/+/Pj8=",
            r"+\/+\/\r\nPj8=",
            "+/+/ Pj8=",
            r"\u002b\u002F+/Pj8\u003d",
        ] {
            assert_eq!(decoded(text), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_base64_is_not_read() {
        for text in ["!!!!", r"\u20acAAA", "\u{e9}AA", r"\bAAA", r"\u0008AAA"] {
            assert_eq!(Encoded::new(text.as_bytes()).bytes::<1>(0), None, "{text}");
        }
        assert_eq!(Encoded::new(b"AAAA").bytes::<4>(0), None);
        assert_eq!(Encoded::new(b"AAAA").bytes::<1>(usize::MAX), None);
    }
}
