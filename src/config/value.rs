//! What a setting's value can be, read from text: the same for a line of the file and an environment variable.

use std::{fmt::Display, path::PathBuf};

use super::types::Secret;
use crate::domain::webhooks::SigningKey;

/// How a value is written in the TOML file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    Switch,
    /// Text that is never shown, and may also be given as a file's path under `<name>_file`.
    Secret,
}

pub(super) trait Value: Sized {
    const KIND: Kind;
    fn parse(text: &str) -> Result<Self, String>;
    /// For people; a secret shows only whether it is set.
    fn show(&self) -> String;
}

impl Kind {
    /// As it is called in a message about a wrong type.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Text | Self::Secret => "a string",
            Self::Number => "a whole number",
            Self::Switch => "true or false",
        }
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Switch;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("expected true or false, found {text:?}"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

fn whole_number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("expected a whole number, found {text:?}"))
}

impl Value for u64 {
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<Self, String> {
        whole_number(text)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for usize {
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<Self, String> {
        whole_number(text)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("expected a path, found nothing".to_owned()) } else { Ok(text.into()) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// An empty text is "not set", because compose files pass variables on that way.
impl Value for Option<PathBuf> {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "not set".to_owned(), Value::show)
    }
}

impl Value for Option<Secret> {
    const KIND: Kind = Kind::Secret;

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be printable ASCII without spaces".to_owned());
        }
        Ok(Some(text).filter(|text| !text.is_empty()).map(Secret::new))
    }

    fn show(&self) -> String {
        if self.is_some() { "set" } else { "not set" }.to_owned()
    }
}

/// What a value must be beyond its type.
pub(super) trait Check<T> {
    fn check(&self, value: &T) -> Result<(), String>;

    /// Better words for a text that could not be read at all.
    fn misread(&self, _text: &str) -> Option<String> {
        None
    }
}

impl<T, F: Fn(&T) -> Result<(), String>> Check<T> for F {
    fn check(&self, value: &T) -> Result<(), String> {
        self(value)
    }
}

/// Both bounds are allowed.
pub(super) struct Between<T> {
    low: T,
    high: T,
}

pub(super) const fn between<T>(low: T, high: T) -> Between<T> {
    Between { low, high }
}

impl<T: Display> Between<T> {
    fn outside(&self, value: impl Display) -> String {
        format!("must be at least {} and at most {}, is {value}", self.low, self.high)
    }
}

impl<T: PartialOrd + Display> Check<T> for Between<T> {
    fn check(&self, value: &T) -> Result<(), String> {
        if (&self.low..=&self.high).contains(&value) { Ok(()) } else { Err(self.outside(value)) }
    }

    /// A number that its type cannot hold is outside, too: a negative one, say.
    fn misread(&self, text: &str) -> Option<String> {
        text.parse::<i128>().ok().map(|number| self.outside(number))
    }
}

const SECRET_MIN_LENGTH: usize = 32;

/// Words that samples use where a secret belongs; a long one would pass the check of length.
const PLACEHOLDERS: [&str; 8] =
    ["changeme", "change-me", "change_me", "replaceme", "replace-me", "replace_me", "placeholder", "your-"];

pub(super) fn hard_to_guess(secret: Option<&Secret>) -> Result<(), String> {
    let Some(secret) = secret else { return Ok(()) };
    let text = secret.reveal().to_ascii_lowercase();
    if PLACEHOLDERS.iter().any(|word| text.starts_with(word)) {
        return Err("is a placeholder: make a secret of your own, for example with `openssl rand -hex 32`".to_owned());
    }
    if text.len() < SECRET_MIN_LENGTH {
        return Err(format!("must have at least {SECRET_MIN_LENGTH} characters, has {}", text.len()));
    }
    let first = text.as_bytes().first();
    if text.bytes().all(|byte| Some(&byte) == first) {
        return Err("is one character over and over".to_owned());
    }
    Ok(())
}

/// What a webhook is signed with.
pub(super) fn signing(secret: Option<&Secret>) -> Result<(), String> {
    if secret.is_none_or(|secret| SigningKey::parse(secret.reveal()).is_some()) {
        return Ok(());
    }
    Err("must be whsec_ and base64 of 24 to 64 bytes: make one with `echo \"whsec_$(openssl rand -base64 32)\"`"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_are_refused_without_showing_them() {
        let refused = |text: &str| hard_to_guess(Some(&Secret::new(text))).unwrap_err();
        assert!(refused("changeme-changeme-changeme-changeme").contains("placeholder"));
        assert!(refused("short").contains("at least 32 characters, has 5"));
        assert!(refused(&"a".repeat(40)).contains("over and over"));
        assert!(!refused("hunter2").contains("hunter2"));
        assert_eq!(hard_to_guess(Some(&Secret::new("0123456789abcdef0123456789abcdef"))), Ok(()));
        assert_eq!(hard_to_guess(None), Ok(()));
    }

    #[test]
    fn bounds_are_inclusive() {
        let bounds = between(1, 3);
        assert_eq!((bounds.check(&1), bounds.check(&3)), (Ok(()), Ok(())));
        assert_eq!(bounds.check(&4), Err("must be at least 1 and at most 3, is 4".to_owned()));
        assert_eq!(bounds.misread("-5").unwrap(), "must be at least 1 and at most 3, is -5");
        assert_eq!(bounds.misread("five"), None);
    }
}
