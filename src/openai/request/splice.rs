//! Asking for usage in a stream whose client did not: one insertion into the body, the rest of which is not touched.

use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::openai::{error::ApiError, json};

use super::values::boolean;

const INCLUDE_USAGE: &str = "include_usage";

/// Replace the bytes of `range` with `text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSplice {
    range: Range<usize>,
    text: &'static str,
}

/// The body to send, as slices of the original around what is inserted; nothing is copied or re-serialised.
pub fn ask_for_usage(body: &Bytes, splice: &UsageSplice) -> [Bytes; 3] {
    // A splice of another body must not panic either.
    let start = splice.range.start.min(body.len());
    let end = splice.range.end.clamp(start, body.len());
    [body.slice(..start), Bytes::from_static(splice.text.as_bytes()), body.slice(end..)]
}

/// The value of `stream_options`.
#[derive(Clone, Copy, Default)]
pub(super) enum StreamOptions<'a> {
    #[default]
    Absent,
    Null(&'a RawValue),
    Object {
        object: &'a RawValue,
        /// `include_usage` as it stands there, and whether it is true.
        include_usage: Option<(&'a RawValue, bool)>,
    },
}

impl<'a> StreamOptions<'a> {
    pub(super) fn read(raw: &'a RawValue) -> Result<Self, ApiError> {
        if json::is_null(raw) {
            return Ok(Self::Null(raw));
        }
        let (mut include_usage, mut problem) = (None, None);
        let found = |key: &str, value: &'a RawValue| {
            if key != INCLUDE_USAGE {
                problem.get_or_insert_with(|| ApiError::unknown_parameter(&format!("stream_options.{key}")));
            } else if include_usage.replace(value).is_some() {
                problem.get_or_insert_with(|| ApiError::duplicate_parameter("stream_options.include_usage"));
            }
        };
        if !json::members(raw.get().as_bytes(), |key| key.eq_ignore_ascii_case(INCLUDE_USAGE), found) {
            return Err(match json::kind(raw) {
                "an object" => ApiError::invalid_json(),
                kind => ApiError::invalid_type("stream_options", "an object", kind),
            });
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        let include_usage = match include_usage {
            Some(value) => Some((value, boolean("stream_options.include_usage", value)?.unwrap_or(false))),
            None => None,
        };
        Ok(Self::Object { object: raw, include_usage })
    }

    pub(super) const fn present(&self) -> bool {
        matches!(self, Self::Object { .. })
    }

    pub(super) const fn include_usage(&self) -> bool {
        matches!(self, Self::Object { include_usage: Some((_, true)), .. })
    }
}

impl UsageSplice {
    pub(super) fn new(body: &str, options: &StreamOptions<'_>) -> Self {
        match options {
            StreamOptions::Absent => {
                let start = body.find('{').map_or(0, |brace| brace + 1);
                Self { range: start..start, text: r#""stream_options":{"include_usage":true},"# }
            }
            StreamOptions::Object { include_usage: Some((value, _)), .. } => {
                Self { range: place(body, value), text: "true" }
            }
            StreamOptions::Object { object, .. } if !json::is_empty_container(object) => {
                let start = place(body, object).start + 1;
                Self { range: start..start, text: r#""include_usage":true,"# }
            }
            StreamOptions::Object { object: value, .. } | StreamOptions::Null(value) => {
                Self { range: place(body, value), text: r#"{"include_usage":true}"# }
            }
        }
    }
}

/// Where `value`, which was borrowed from `body`, lies in it.
fn place(body: &str, value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr().addr().saturating_sub(body.as_ptr().addr());
    start..start.saturating_add(value.get().len())
}
