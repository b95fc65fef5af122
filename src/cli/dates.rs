//! Points in time as they are typed.

use jiff::Timestamp;

use crate::{config::first_moment, domain::time::UnixNanos};

/// `2026-09-01` (its first moment in UTC), or a time of RFC 3339 with its offset, from 1970 on.
pub(super) fn instant(text: &str) -> Result<UnixNanos, String> {
    let time = || text.parse::<Timestamp>().ok().and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    let instant = first_moment(text).or_else(|| time().map(UnixNanos));
    instant.ok_or_else(|| "expected a date (2026-09-01) or a time (2026-09-01T12:00:00Z)".to_owned())
}

/// `2026-09-01T12:00:00Z`
pub(super) fn shown(time: UnixNanos) -> String {
    let timestamp = i64::try_from(time.seconds()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(|| time.seconds().to_string(), |timestamp| timestamp.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_in_utc_and_nothing_else_is() {
        assert_eq!(instant("1970-01-02"), Ok(UnixNanos::from_seconds(86_400)));
        assert_eq!(instant("1970-01-02T00:00:01Z"), Ok(UnixNanos::from_seconds(86_401)));
        assert_eq!(instant("1970-01-02T01:00:00+01:00"), Ok(UnixNanos::from_seconds(86_400)));
        for text in
            ["", "yesterday", "1970-01-02T00:00:01", "1969-12-31", "1969-12-31T00:00:00Z", "86400", "2026-02-30"]
        {
            assert!(instant(text).is_err(), "{text}");
        }
        assert_eq!(shown(UnixNanos::from_seconds(86_401)), "1970-01-02T00:00:01Z");
    }
}
