//! Points in time as they are typed.

use crate::domain::time::UnixNanos;

/// `2026-11-01`, which is its beginning in UTC, or `2026-11-01T09:30:00+01:00`.
pub(super) fn moment(text: &str) -> Result<UnixNanos, String> {
    const PLAIN_DATE: usize = "2026-11-01".len();
    let timestamp = if text.len() == PLAIN_DATE {
        let date = text.parse::<jiff::civil::Date>();
        date.and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC)).map(|zoned| zoned.timestamp())
    } else {
        text.parse::<jiff::Timestamp>()
    };
    let wanted = || "expected a date such as 2026-11-01, or a time such as 2026-11-01T09:30:00Z".to_owned();
    let nanos = timestamp.map_err(|_| wanted())?.as_nanosecond();
    u64::try_from(nanos).map(UnixNanos).map_err(|_| "expected a time from 1970 to 2554".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_their_first_moment_in_utc_and_times_are_in_any_zone() {
        const NOVEMBER_2026_S: u64 = 1_793_491_200;
        assert_eq!(moment("2026-11-01"), Ok(UnixNanos::from_seconds(NOVEMBER_2026_S)));
        assert_eq!(moment("2026-11-01T01:00:00+01:00"), Ok(UnixNanos::from_seconds(NOVEMBER_2026_S)));
        assert_eq!(moment("2026-11-01T00:00:00.25Z"), Ok(UnixNanos(NOVEMBER_2026_S * 1_000_000_000 + 250_000_000)));
        for text in ["", "yesterday", "2026-13-01", "2026-11-01T00:00:00", "20261101", "1969-12-31", "2026-11-1x"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
