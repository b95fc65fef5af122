//! A TOML file under reading: its problems get its name and line.

use std::ops::Range;

use jiff::{civil::Date, tz::TimeZone};
use serde::de::DeserializeOwned;
use toml::Spanned;

use super::problem::{Problems, line_at};
use crate::domain::time::UnixNanos;

pub(super) struct Page<'a> {
    /// The file's path, as messages show it.
    pub file: &'a str,
    pub text: &'a str,
    pub problems: &'a mut Problems,
}

impl Page<'_> {
    /// `None` when the text does not have the shape of a `T`, which is then noted.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        match toml::from_str(self.text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(error.span().unwrap_or_default(), error.message().replace('\n', " "));
                None
            }
        }
    }

    pub(super) fn problem(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.problems.add(format!("{}:{}", self.file, line_at(self.text, span.start)), message);
    }

    /// `YYYY-MM-DD`, and its first moment in UTC.
    pub(super) fn date(&mut self, text: Spanned<String>) -> (String, UnixNanos) {
        let start = first_moment(text.get_ref());
        if start.is_none() {
            self.problem(text.span(), format!("{:?} is no date: expected \"YYYY-MM-DD\"", text.get_ref()));
        }
        (text.into_inner(), start.unwrap_or_default())
    }
}

/// Midnight UTC of a `YYYY-MM-DD`, from 1970 on.
pub fn first_moment(date: &str) -> Option<UnixNanos> {
    let shape = date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let date: Date = date.parse().ok().filter(|_| shape)?;
    let midnight = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    u64::try_from(midnight.as_second()).ok().map(UnixNanos::from_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_starts_at_midnight_utc() {
        assert_eq!(first_moment("1970-01-02"), Some(UnixNanos::from_seconds(86_400)));
        assert_eq!(first_moment("2024-12-17"), Some(UnixNanos::from_seconds(1_734_393_600)));
        for text in ["", "2024-13-01", "2023-02-29", "2024-1-1", "20241217", "2024-12-17T00:00", "1969-12-31"] {
            assert_eq!(first_moment(text), None, "{text}");
        }
    }
}
