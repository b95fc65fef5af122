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
        let start_s = [1, 0, -1].into_iter().find_map(|days| self.edge_s(time_s, days).filter(|edge_s| *edge_s <= time_s));
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
