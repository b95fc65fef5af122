//! Limits as they are written: a number, or `"-"` for none; per scope, or of a key alone as earlier versions wrote them.

use std::{fmt, marker::PhantomData, num::NonZeroU32};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, Unexpected, Visitor, value::U64Deserializer},
};

use super::{ByScope, Limits, MAX_AUDIO_SECONDS};

/// A number, `"-"` or nothing.
pub fn limit<'de, D: Deserializer<'de>, T: Deserialize<'de>>(reader: D) -> Result<Option<T>, D::Error> {
    reader.deserialize_any(Limit(PhantomData))
}

/// As [`limit`], but no more than a bucket of them can hold.
pub(super) fn audio_seconds<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<NonZeroU32>, D::Error> {
    let seconds: Option<NonZeroU32> = limit(reader)?;
    match seconds.map(NonZeroU32::get) {
        Some(large) if large > MAX_AUDIO_SECONDS => {
            let most = format!("at most {MAX_AUDIO_SECONDS} seconds");
            Err(D::Error::invalid_value(Unexpected::Unsigned(large.into()), &most.as_str()))
        }
        _ => Ok(seconds),
    }
}

struct Limit<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Limit<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or \"-\" for no limit")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let number: U64Deserializer<E> = number.into_deserializer();
        T::deserialize(number).map(Some)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(IntoDeserializer::<E>::into_deserializer(number)).map(Some)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == "-" { Ok(None) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Limits in the journal and the ledger.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenLimits {
    project: Option<Limits>,
    key: Option<Limits>,
    // What a key was held to before its project had buckets: its project's limits, narrowed by its own.
    requests_per_minute: Option<NonZeroU32>,
    requests_per_day: Option<NonZeroU32>,
    tokens_per_minute: Option<NonZeroU32>,
    batch_queue_tokens: Option<u64>,
}

impl From<WrittenLimits> for ByScope<Limits> {
    fn from(written: WrittenLimits) -> Self {
        let of_before = Limits {
            requests_per_minute: written.requests_per_minute,
            requests_per_day: written.requests_per_day,
            tokens_per_minute: written.tokens_per_minute,
            batch_queue_tokens: written.batch_queue_tokens,
            ..Limits::default()
        };
        Self { project: written.project.unwrap_or_default(), key: written.key.unwrap_or(of_before) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Limits, String> {
        serde_json::from_str(text).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn a_dash_is_no_limit_and_other_words_are_refused() {
        let text = r#"{"requests_per_minute": 5, "tokens_per_day": "-", "tokens_per_minute": null, "batch_queue_tokens": "-"}"#;
        assert_eq!(read(text).unwrap(), Limits { requests_per_minute: NonZeroU32::new(5), ..Limits::default() });
        for wrong in [r#""none""#, "0", "-1", "1.5", "4294967296", "[]"] {
            let error = read(&format!(r#"{{"tokens_per_day": {wrong}}}"#)).unwrap_err();
            assert!(error.contains("expected"), "{wrong}: {error}");
        }
    }

    #[test]
    fn more_seconds_of_audio_than_a_bucket_holds_are_refused() {
        let text = |seconds| format!(r#"{{"audio_seconds_per_day": {seconds}}}"#);
        let seconds = read(&text(MAX_AUDIO_SECONDS)).unwrap().audio_seconds_per_day;
        assert_eq!(seconds.map(NonZeroU32::get), Some(MAX_AUDIO_SECONDS));
        for large in [MAX_AUDIO_SECONDS + 1, u32::MAX] {
            let error = read(&text(large)).unwrap_err();
            assert!(error.contains("expected at most 214748364 seconds"), "{error}");
        }
    }

    #[test]
    fn limits_are_read_as_this_version_and_as_earlier_ones_wrote_them() {
        let written = |text: &str| ByScope::from(serde_json::from_str::<WrittenLimits>(text).unwrap());
        let limits = Limits { requests_per_day: NonZeroU32::new(9), ..Limits::default() };
        let before = written(&serde_json::to_string(&limits).unwrap());
        assert_eq!(before, ByScope { project: Limits::default(), key: limits });
        let scopes = ByScope { project: limits, key: Limits { tokens_per_day: NonZeroU32::new(7), ..limits } };
        assert_eq!(written(&serde_json::to_string(&scopes).unwrap()), scopes);
        assert_eq!(written("{}"), ByScope::default());
    }
}
