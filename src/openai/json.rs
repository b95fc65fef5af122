//! Reading JSON in place: borrowed text, the members of an object, and the kind of a value from its first byte.

use std::{borrow::Cow, fmt};

use memchr::memchr2;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Deeper nesting inside one value is refused; `serde_json` draws the same line for values it keeps.
const MAX_NESTING: usize = 120;

/// A string without its escapes, borrowed when it has none.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// What kind of value `raw` is, in the words of OpenAI's error messages.
pub(super) fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ if is_integer(raw.get()) => "an integer",
        _ => "a decimal number",
    }
}

/// Written as an integer: `1.0` and `1e2` are none.
pub(super) fn is_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

pub(super) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// `[]` or `{}`, whatever white space is inside.
pub(super) fn is_empty_container(raw: &RawValue) -> bool {
    let text = raw.get();
    matches!(text.as_bytes().first(), Some(b'[' | b'{'))
        && text.bytes().skip(1).find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| matches!(byte, b']' | b'}'))
}

/// The text of a string; `None` for any other value.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

/// Shows the members of the object in `json` whose key is `wanted` to `found`. False when `json` is anything else than one
/// object.
pub(super) fn members<'a>(
    json: &'a [u8],
    wanted: impl Fn(&str) -> bool,
    found: impl FnMut(&str, &'a RawValue),
) -> bool {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = deserializer.deserialize_map(Members { wanted, found });
    read.is_ok() && deserializer.end().is_ok()
}

struct Members<W, F> {
    wanted: W,
    found: F,
}

impl<'de, W: Fn(&str) -> bool, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Members<W, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            if (self.wanted)(&key) {
                (self.found)(&key, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Skips any value without keeping it, but not one that is nested too deep: `IgnoredAny` has no such limit.
pub(super) struct Skip;

impl<'de> DeserializeSeed<'de> for Skip {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        shallow(<&RawValue>::deserialize(deserializer)?).map(drop)
    }
}

/// `raw` itself, unless it is nested too deep.
pub(super) fn shallow<E: Error>(raw: &RawValue) -> Result<&RawValue, E> {
    let json = raw.get().as_bytes();
    if matches!(json.first(), Some(b'{' | b'[')) && nests_deeper_than(json, MAX_NESTING) {
        return Err(E::custom("nested too deep"));
    }
    Ok(raw)
}

fn nests_deeper_than(json: &[u8], limit: usize) -> bool {
    let (mut rest, mut depth) = (json, 0_usize);
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => rest = after_string(after),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

/// What follows the closing quote of the string that `json` is inside of.
fn after_string(json: &[u8]) -> &[u8] {
    let mut rest = json;
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        let escaped = usize::from(rest.get(at) == Some(&b'\\'));
        rest = rest.get(at + 1 + escaped..).unwrap_or_default();
        if escaped == 0 {
            return rest;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn kinds_are_told_in_openais_words() {
        for (json, word) in [
            ("\"1\"", "a string"),
            ("-7", "an integer"),
            ("1.5", "a decimal number"),
            ("1e309", "a decimal number"),
            ("false", "a boolean"),
            ("null", "null"),
            ("[1]", "an array"),
            ("{}", "an object"),
        ] {
            assert_eq!(kind(raw(json)), word);
        }
    }

    #[test]
    fn empty_containers_may_have_white_space() {
        assert!(is_empty_container(raw("[ \n]")) && is_empty_container(raw("{\t}")));
        assert!(!is_empty_container(raw("[0]")) && !is_empty_container(raw("\"[]\"")));
    }

    #[test]
    fn brackets_in_strings_are_no_nesting() {
        assert!(!nests_deeper_than(br#"["[[[[\"[[", "\\", {"[[":"]"}]"#, 2));
        assert!(nests_deeper_than(br#"["\\",[[]]]"#, 2));
    }
}
