//! The columns that every format has, in order, and what an entry has in each.

use std::{borrow::Cow, sync::LazyLock};

use crate::domain::{
    export::ExportedEntry,
    money::{MoneyError, Total},
    time::UnixNanos,
    usage::LineItem,
};

pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Whether an entry may have nothing in it.
    pub(super) optional: bool,
    field: Field,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// To the millisecond, UTC.
    Time,
    Whole,
    /// US dollars.
    Money,
    Flag,
}

/// What an entry has in a column of the kind of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Time(Option<UnixNanos>),
    Whole(i64),
    Money(Option<Total>),
    Flag(bool),
}

#[derive(Clone, Copy)]
enum Field {
    RequestId,
    SettledAt,
    AdmittedAt,
    DurationMs,
    ProjectId,
    ProjectName,
    ApiKeyId,
    ApiKeyName,
    Endpoint,
    Model,
    RequestedModel,
    ServiceTier,
    Outcome,
    Basis,
    Status,
    Stream,
    Quantity(LineItem),
    Amount(LineItem),
    PricesFrom,
    Adjustment,
    Cost,
    Priced,
}

pub(super) static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let column = |name: &str, kind, field| Column { name: name.to_owned(), kind, optional: false, field };
    let optional = |name: &str, kind, field| Column { optional: true, ..column(name, kind, field) };
    let mut columns = vec![
        column("request_id", Kind::Text, Field::RequestId),
        column("settled_at", Kind::Time, Field::SettledAt),
        column("admitted_at", Kind::Time, Field::AdmittedAt),
        column("duration_ms", Kind::Whole, Field::DurationMs),
        column("project_id", Kind::Text, Field::ProjectId),
        column("project_name", Kind::Text, Field::ProjectName),
        column("api_key_id", Kind::Text, Field::ApiKeyId),
        column("api_key_name", Kind::Text, Field::ApiKeyName),
        column("endpoint", Kind::Text, Field::Endpoint),
        column("model", Kind::Text, Field::Model),
        column("requested_model", Kind::Text, Field::RequestedModel),
        column("service_tier", Kind::Text, Field::ServiceTier),
        column("outcome", Kind::Text, Field::Outcome),
        column("basis", Kind::Text, Field::Basis),
        column("status", Kind::Whole, Field::Status),
        column("stream", Kind::Flag, Field::Stream),
    ];
    columns.extend(LineItem::ALL.map(|item| column(item.name(), Kind::Whole, Field::Quantity(item))));
    columns.extend(LineItem::ALL.map(|item| {
        let name = format!("{}_usd", item.name());
        optional(&name, Kind::Money, Field::Amount(item))
    }));
    columns.extend([
        optional("prices_from", Kind::Time, Field::PricesFrom),
        column("adjustment_usd", Kind::Money, Field::Adjustment),
        optional("cost_usd", Kind::Money, Field::Cost),
        column("priced", Kind::Flag, Field::Priced),
    ]);
    columns
});

impl Column {
    pub(super) fn value<'e>(&self, entry: &'e ExportedEntry) -> Result<Value<'e>, MoneyError> {
        let text = |text: &'e str| Value::Text(Cow::Borrowed(text));
        let tariff = &entry.tariff;
        Ok(match self.field {
            Field::RequestId => Value::Text(Cow::Owned(entry.request_id.to_string())),
            Field::SettledAt => Value::Time(Some(entry.settled_at)),
            Field::AdmittedAt => Value::Time(Some(entry.admitted_at)),
            Field::DurationMs => Value::Whole(entry.duration_ms()),
            Field::ProjectId => text(&entry.project_id),
            Field::ProjectName => text(&entry.project_name),
            Field::ApiKeyId => text(&entry.api_key_id),
            Field::ApiKeyName => text(&entry.api_key_name),
            Field::Endpoint => text(&tariff.endpoint),
            Field::Model => text(&tariff.model),
            Field::RequestedModel => text(&entry.requested_model),
            Field::ServiceTier => text(tariff.service_tier.name()),
            Field::Outcome => text(&entry.outcome),
            Field::Basis => text(&entry.basis),
            Field::Status => Value::Whole(entry.status.into()),
            Field::Stream => Value::Flag(entry.stream),
            // The ledger holds no larger quantity.
            Field::Quantity(item) => Value::Whole(i64::try_from(entry.usage.get(item)).unwrap_or(i64::MAX)),
            Field::Amount(item) => Value::Money(entry.amount(item)?),
            Field::PricesFrom => Value::Time(tariff.prices_from),
            Field::Adjustment => Value::Money(Some(entry.adjustment())),
            Field::Cost => Value::Money(entry.cost()?),
            Field::Priced => Value::Flag(entry.is_priced()),
        })
    }
}

/// `2026-11-01T00:00:00.000Z`.
pub(super) fn rfc3339(time: UnixNanos) -> String {
    let ms = i64::try_from(time.millis()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::export::samples::{exported, unpriced};

    #[test]
    fn every_column_has_a_name_of_its_own_and_holds_its_kind() {
        let mut names: Vec<&str> = COLUMNS.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names.len(), 20 + 2 * LineItem::COUNT);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COLUMNS.len());
        for entry in [exported(1), unpriced(2)] {
            for column in COLUMNS.iter() {
                let (kind, nothing) = match column.value(&entry).unwrap() {
                    Value::Text(_) => (Kind::Text, false),
                    Value::Time(time) => (Kind::Time, time.is_none()),
                    Value::Whole(_) => (Kind::Whole, false),
                    Value::Money(money) => (Kind::Money, money.is_none()),
                    Value::Flag(_) => (Kind::Flag, false),
                };
                assert_eq!(kind, column.kind, "{}", column.name);
                assert!(column.optional || !nothing, "{}", column.name);
            }
        }
    }

    #[test]
    fn times_have_milliseconds_even_where_they_are_nothing() {
        assert_eq!(rfc3339(UnixNanos::from_seconds(1_790_000_000)), "2026-09-21T14:13:20.000Z");
        assert_eq!(rfc3339(UnixNanos(1_790_000_000_009_999_999)), "2026-09-21T14:13:20.009Z");
    }
}
