//! Days as the clocks of a place count them.

use jiff::{
    Timestamp, ToSpan,
    civil::Date,
    tz::{TimeZone, TimeZoneDatabase},
};
use serde::{Serialize, Serializer};

use super::Width;

/// A time zone of the IANA database, whose rules are part of the program: the same on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// By its IANA name such as `Europe/Berlin`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        TimeZoneDatabase::bundled().get(name).ok().map(Self)
    }

    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// When the day began that holds `time_s`. Outside the calendar days are those of UTC.
    pub(super) fn day_start_s(&self, time_s: u64) -> u64 {
        // Where clocks were put back across midnight, a day begins at its first midnight.
        let start_s =
            [1, 0, -1].into_iter().find_map(|days| self.edge_s(time_s, days).filter(|edge_s| *edge_s <= time_s));
        start_s.unwrap_or_else(|| Width::Day.floor(time_s))
    }

    /// When the day ends that holds `time_s`, exclusive.
    pub(super) fn day_end_s(&self, time_s: u64) -> u64 {
        let end_s = (0..=2).find_map(|days| self.edge_s(time_s, days).filter(|edge_s| *edge_s > time_s));
        end_s.unwrap_or_else(|| Width::Day.floor(time_s).saturating_add(Width::Day.seconds()))
    }

    /// The start of the day that is `days` after the date of `time_s`. A date that never was (Samoa's 30 December 2011)
    /// starts with the next. In whole minutes, as usage is kept; Liberia's clocks were half a minute off until 1972.
    fn edge_s(&self, time_s: u64, days: i64) -> Option<u64> {
        let time = Timestamp::from_second(i64::try_from(time_s).ok()?).ok()?;
        let date: Date = self.0.to_datetime(time).date().checked_add(days.days()).ok()?;
        let start = date.to_zoned(self.0.clone()).ok()?;
        u64::try_from(start.timestamp().as_second()).ok().map(|edge_s| Width::Minute.floor(edge_s))
    }
}

/// As its name.
impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hours of the days that begin at midnight of `date` and after.
    fn hours(zone: &str, date: Date) -> Vec<u64> {
        let start = date.to_zoned(TimeZoneDatabase::bundled().get(zone).unwrap()).unwrap().timestamp();
        let start_s = u64::try_from(start.as_second()).unwrap();
        let zone = Zone::named(zone).unwrap();
        assert_eq!(zone.day_start_s(start_s), start_s);
        let ends = std::iter::successors(Some(start_s), |start_s| Some(zone.day_end_s(*start_s)));
        let edges: Vec<u64> = ends.take(4).collect();
        for day in edges.windows(2) {
            assert_eq!([zone.day_start_s(day[0]), zone.day_start_s(day[1] - 1)], [day[0]; 2]);
            assert_eq!([zone.day_end_s(day[0]), zone.day_end_s(day[1] - 1)], [day[1]; 2]);
        }
        edges.windows(2).map(|day| (day[1] - day[0]) / 3_600).collect()
    }

    #[test]
    fn days_on_which_clocks_change_have_23_or_25_hours() {
        for (zone, date, expected) in [
            ("Europe/Berlin", Date::constant(2026, 3, 28), [24, 23, 24]),
            ("Europe/Berlin", Date::constant(2026, 10, 24), [24, 25, 24]),
            ("America/New_York", Date::constant(2026, 3, 7), [24, 23, 24]),
            ("America/New_York", Date::constant(2026, 10, 31), [24, 25, 24]),
            // Clocks go back from one to midnight, which comes twice.
            ("America/Havana", Date::constant(2024, 11, 2), [24, 25, 24]),
            // Clocks go on from midnight to one.
            ("America/Havana", Date::constant(2024, 3, 9), [24, 23, 24]),
            ("Asia/Kolkata", Date::constant(2026, 3, 28), [24, 24, 24]),
            // The 30th was left out.
            ("Pacific/Apia", Date::constant(2011, 12, 28), [24, 24, 24]),
        ] {
            assert_eq!(hours(zone, date), expected, "{zone} {date}");
        }
    }

    #[test]
    fn days_begin_at_midnight_of_their_place() {
        // 2026-03-28 12:00 UTC
        let noon_s = 1_774_699_200;
        let start_s = |zone: &str| Zone::named(zone).unwrap().day_start_s(noon_s);
        assert_eq!(start_s("UTC"), noon_s - 12 * 3_600);
        assert_eq!(start_s("Europe/Berlin"), noon_s - 13 * 3_600);
        assert_eq!(start_s("America/New_York"), noon_s - 8 * 3_600);
        assert_eq!(start_s("Asia/Kolkata"), noon_s - 17 * 3_600 - 1_800);
        assert_eq!(start_s("Asia/Kathmandu"), noon_s - 17 * 3_600 - 2_700);
        // Already the 29th there.
        assert_eq!(start_s("Pacific/Kiritimati"), noon_s - 2 * 3_600);
    }

    #[test]
    fn a_minute_that_comes_twice_around_midnight_belongs_to_one_day() {
        // In 2010 St John's put its clocks back from 00:01 on 7 November to 23:01 on the 6th.
        let zone = Zone::named("America/St_Johns").unwrap();
        let midnight_s = 1_289_097_000;
        assert_eq!(zone.day_start_s(midnight_s), midnight_s);
        for time_s in [midnight_s, midnight_s + 59, midnight_s + 60, midnight_s + 3_659, midnight_s + 3_660] {
            assert_eq!((zone.day_start_s(time_s), zone.day_end_s(time_s)), (midnight_s, midnight_s + 25 * 3_600));
        }
    }

    #[test]
    fn edges_are_whole_minutes_and_beyond_the_calendar_days_are_those_of_utc() {
        // Until 1972 Liberia was 44 minutes and 30 seconds behind.
        assert_eq!(Zone::named("Africa/Monrovia").unwrap().day_end_s(0), 44 * 60);
        let zone = Zone::named("Europe/Berlin").unwrap();
        for time_s in [u64::MAX, super::super::LATEST_TIME_S] {
            assert_eq!(zone.day_start_s(time_s), Width::Day.floor(time_s));
            assert!(zone.day_end_s(time_s) >= time_s);
        }
        assert_eq!(zone.day_start_s(5), 0);
    }

    #[test]
    fn zones_are_found_by_name_in_any_case_and_others_are_not() {
        assert_eq!(Zone::named("europe/berlin").unwrap().name(), "Europe/Berlin");
        assert_eq!(Zone::named("utc").unwrap().name(), "UTC");
        for name in ["", "Mars/Phobos", "Europe", "+01:00", "CEST", "Europe/Berlin ", "../../etc/passwd"] {
            assert_eq!(Zone::named(name), None, "{name}");
        }
    }
}
