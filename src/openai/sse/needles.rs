//! Finding members of JSON text by their quoted key, without parsing. A key cannot be found inside a string: its quotes
//! would be escaped there.

use std::sync::LazyLock;

use memchr::{memchr2, memmem::Finder};

/// Searchers for the keys that matter, built once.
pub(super) struct Needles {
    pub(super) usage: Key,
    pub(super) error: Key,
    pub(super) model: Key,
    pub(super) choices: Key,
    pub(super) finish_reason: Key,
    pub(super) delta: Key,
    pub(super) data: Key,
    pub(super) tool_calls: Key,
    /// Members of a delta that hold what the model said: one at a time, the most frequent first.
    pub(super) said: [Key; 6],
}

pub(super) static NEEDLES: LazyLock<Needles> = LazyLock::new(|| Needles {
    usage: Key::new("\"usage\""),
    error: Key::new("\"error\""),
    model: Key::new("\"model\""),
    choices: Key::new("\"choices\""),
    finish_reason: Key::new("\"finish_reason\""),
    delta: Key::new("\"delta\""),
    data: Key::new("\"data\""),
    tool_calls: Key::new("\"tool_calls\""),
    said: [
        Key::new("\"content\""),
        Key::new("\"transcript\""),
        Key::new("\"reasoning_content\""),
        Key::new("\"reasoning\""),
        Key::new("\"arguments\""),
        Key::new("\"refusal\""),
    ],
});

pub(super) struct Key(Finder<'static>);

impl Key {
    fn new(quoted: &'static str) -> Self {
        Self(Finder::new(quoted))
    }

    /// What follows `"key":`, for each place where it stands.
    pub(super) fn values<'a>(&'a self, json: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let places = self.0.find_iter(json);
        places.filter_map(|at| value_of(json.get(at + self.0.needle().len()..)?))
    }

    /// What follows the first `"key":` whose value begins with `first`.
    pub(super) fn value<'a>(&'a self, json: &'a [u8], first: u8) -> Option<&'a [u8]> {
        self.values(json).find(|value| value.first() == Some(&first))
    }

    /// The first string under this key that is not empty, still with its escapes.
    pub(super) fn string<'a>(&'a self, json: &'a [u8]) -> Option<&'a [u8]> {
        let strings = self.values(json).filter_map(|value| value.strip_prefix(b"\""));
        strings.map(|inside| split_at_quote(inside).0).find(|text| !text.is_empty())
    }
}

fn value_of(after_key: &[u8]) -> Option<&[u8]> {
    after_key.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start)
}

/// The string that `json` is inside of, and what follows its closing quote, if that is there.
pub(super) fn split_at_quote(json: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut from = 0;
    while let Some(found) = memchr2(b'"', b'\\', json.get(from..).unwrap_or_default()) {
        let at = from + found;
        if json.get(at) == Some(&b'"') {
            let (text, rest) = json.split_at(at);
            return (text, rest.get(1..));
        }
        from = at + 2;
    }
    (json, None)
}
