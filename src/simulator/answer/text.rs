//! What a text answer says, and the pieces a stream cuts it into. A piece is a token.

const WORDS: [&str; 20] = [
    "This",
    " answer",
    " comes",
    " from",
    " the",
    " Tollgate",
    " simulator",
    ":",
    " it",
    " costs",
    " nothing",
    ",",
    " each",
    " word",
    " is",
    " one",
    " token",
    ",",
    " always",
    ".",
];
/// The pieces of text that is not made of our words.
const PIECE_CHARACTERS: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum Text {
    /// So many words of the standing text.
    Words(u64),
    Written(String),
}

impl Text {
    pub(super) fn tokens(&self) -> u64 {
        match self {
            Self::Words(count) => *count,
            Self::Written(text) => text.chars().count().div_ceil(PIECE_CHARACTERS) as u64,
        }
    }

    /// The same, ended after `max` tokens.
    pub(super) fn cut(self, max: u64) -> Self {
        match self {
            Self::Words(count) => Self::Words(count.min(max)),
            Self::Written(text) => {
                let characters = usize::try_from(max).unwrap_or(usize::MAX).saturating_mul(PIECE_CHARACTERS);
                Self::Written(text.chars().take(characters).collect())
            }
        }
    }

    pub(super) fn each_piece(&self, mut piece: impl FnMut(&str)) {
        match self {
            Self::Words(count) => words(*count).for_each(piece),
            Self::Written(text) => {
                let mut rest = text.as_str();
                while !rest.is_empty() {
                    let end = rest.char_indices().nth(PIECE_CHARACTERS).map_or(rest.len(), |(at, _)| at);
                    let (head, tail) = rest.split_at(end);
                    piece(head);
                    rest = tail;
                }
            }
        }
    }

    /// As a JSON string.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Words(count) => {
                out.push(b'"');
                words(*count).for_each(|word| out.extend_from_slice(word.as_bytes()));
                out.push(b'"');
            }
            Self::Written(text) => write_json(text, out),
        }
    }
}

/// The standing text from its beginning; sentences after the first start with a space of their own.
pub(super) fn words(count: u64) -> impl Iterator<Item = &'static str> {
    let rest = WORDS[1..].iter().chain(&[" This"]).cycle();
    WORDS[..1].iter().chain(rest).copied().take(usize::try_from(count).unwrap_or(usize::MAX))
}

pub(super) fn write_json(text: &str, out: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}
