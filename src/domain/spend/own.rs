//! The spend limits that somebody has: at most one for each interval.

use serde::{Deserialize, Serialize};

use super::{Interval, SpendLimit};

/// In each place is a limit of that interval, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct SpendLimits {
    month: Option<SpendLimit>,
    day: Option<SpendLimit>,
}

/// One of somebody's spend limits is another from now on, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpendLimitChange {
    Set(SpendLimit),
    Delete(Interval),
}

/// One alone is written as it was when there could be no other.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    One(SpendLimit),
    All(Vec<SpendLimit>),
}

impl SpendLimitChange {
    pub const fn interval(self) -> Interval {
        match self {
            Self::Set(limit) => limit.interval,
            Self::Delete(interval) => interval,
        }
    }
}

impl SpendLimits {
    pub const fn of(&self, interval: Interval) -> Option<SpendLimit> {
        match interval {
            Interval::Month => self.month,
            Interval::Day => self.day,
        }
    }

    /// The month's first.
    pub fn iter(&self) -> impl Iterator<Item = SpendLimit> + use<> {
        self.month.into_iter().chain(self.day)
    }

    pub const fn is_empty(&self) -> bool {
        self.month.is_none() && self.day.is_none()
    }

    /// The limit of the other interval stays.
    #[must_use]
    pub const fn after(self, change: SpendLimitChange) -> Self {
        let (interval, limit) = match change {
            SpendLimitChange::Set(limit) => (limit.interval, Some(limit)),
            SpendLimitChange::Delete(interval) => (interval, None),
        };
        match interval {
            Interval::Month => Self { month: limit, ..self },
            Interval::Day => Self { day: limit, ..self },
        }
    }

    const fn with(self, limit: SpendLimit) -> Self {
        self.after(SpendLimitChange::Set(limit))
    }
}

impl From<Option<SpendLimit>> for SpendLimits {
    fn from(limit: Option<SpendLimit>) -> Self {
        limit.map_or_else(Self::default, |limit| Self::default().with(limit))
    }
}

impl From<Stored> for SpendLimits {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::One(limit) => Some(limit).into(),
            Stored::All(limits) => limits.into_iter().fold(Self::default(), Self::with),
        }
    }
}

impl From<SpendLimits> for Stored {
    fn from(limits: SpendLimits) -> Self {
        match (limits.month, limits.day) {
            (Some(one), None) | (None, Some(one)) => Self::One(one),
            _ => Self::All(limits.iter().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::domain::spend::Enforcement;

    fn limit(threshold_cents: u64, interval: Interval) -> SpendLimit {
        let threshold_cents = NonZeroU64::new(threshold_cents).unwrap();
        SpendLimit { threshold_cents, interval, enforcement: Enforcement::Enforcing }
    }

    #[test]
    fn each_interval_has_its_own_and_leaves_the_other() {
        let (month, day, other) = (limit(500, Interval::Month), limit(50, Interval::Day), limit(60, Interval::Day));
        let both = SpendLimits::default().with(day).with(month);
        assert_eq!(both.iter().collect::<Vec<_>>(), [month, day]);
        assert_eq!(both.with(other).iter().collect::<Vec<_>>(), [month, other]);
        let without_month = both.after(SpendLimitChange::Delete(Interval::Month));
        assert_eq!((without_month, both.of(Interval::Month)), (Some(day).into(), Some(month)));
        assert!(without_month.after(SpendLimitChange::Delete(Interval::Day)).is_empty() && !both.is_empty());
    }

    #[test]
    fn what_was_stored_is_read_and_one_alone_is_stored_as_ever() {
        let (month, day) = (limit(500, Interval::Month), limit(50, Interval::Day));
        let both = SpendLimits::default().with(month).with(day);
        for limits in [both, Some(month).into(), Some(day).into(), SpendLimits::default()] {
            let stored = serde_json::to_string(&limits).unwrap();
            assert_eq!(serde_json::from_str::<SpendLimits>(&stored).unwrap(), limits, "{stored}");
        }
        let alone = r#"{"threshold_cents":50,"interval":"day","enforcement":"enforcing"}"#;
        assert_eq!(serde_json::to_string(&SpendLimits::from(Some(day))).unwrap(), alone);
        // Of before there were limits of a day.
        let monthly: SpendLimits =
            serde_json::from_str(r#"{"threshold_cents":500,"enforcement":"enforcing"}"#).unwrap();
        assert_eq!(monthly, Some(month).into());
        assert!(serde_json::from_str::<SpendLimits>(r#"{"threshold":5}"#).is_err());
    }
}
