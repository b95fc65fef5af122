//! A TOML file under reading: its problems get its name and line.

use std::ops::Range;

use jiff::{civil::Date, tz::TimeZone};
use serde::de::DeserializeOwned;
use toml::{Spanned, de::DeTable};

use super::problem::{Problems, line_at};
use crate::domain::time::UnixNanos;

pub(super) struct Page<'a> {
    /// The file's path, as messages show it.
    pub file: &'a str,
    pub text: &'a str,
    pub problems: &'a mut Problems,
}

impl Page<'_> {
    /// `None` when the text does not have the shape of a `T`, which is then noted. Reading ends at the first line that is
    /// wrong, so it begins again without that line until nothing else is found.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut error = match toml::from_str(self.text) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let mut text = self.text.to_owned();
        loop {
            let at = error.span().unwrap_or_default();
            self.problem(at.clone(), error.message().replace('\n', " "));
            if is_missing(&error) {
                return None;
            }
            text = without_line(&text, at.start)?;
            // What is missing now may be what was taken out.
            error = toml::from_str::<T>(&text).err().filter(|error| !is_missing(error))?;
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

fn is_missing(error: &toml::de::Error) -> bool {
    error.message().starts_with("missing field")
}

/// `text` with spaces in place of the line at `offset`, or of the table that begins there, if the rest is still TOML.
fn without_line(text: &str, offset: usize) -> Option<String> {
    let (before, after) = text.split_at_checked(offset)?;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    // Without its head a table's keys would belong to the table before.
    let next = if text.get(start..)?.starts_with('[') { "\n[" } else { "\n" };
    let end = after.find(next).map_or(text.len(), |length| offset + length);
    let wrong = text.get(start..end)?;
    if wrong.trim().is_empty() {
        return None;
    }
    let blank: String = wrong.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    let rest = [text.get(..start)?, &blank, text.get(end..)?].concat();
    DeTable::parse(&rest).is_ok().then_some(rest)
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
