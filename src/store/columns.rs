//! Columns that entries and adjustments share, read from a row.

use sqlx::{Row as _, sqlite::SqliteRow};

use super::{StoreError, refusals::read_id};
use crate::domain::{
    ids::RequestId,
    usage::{LineItem, Usage},
};

/// A number that is never negative.
pub(super) fn whole(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| StoreError::Unreadable(value.to_string()))
}

/// A clock that was set back can have made it negative; no time passed then.
pub(super) fn duration_ms(row: &SqliteRow) -> Result<u64, StoreError> {
    let value: i64 = row.try_get("duration_ms")?;
    Ok(u64::try_from(value).unwrap_or(0))
}

pub(super) fn usage(row: &SqliteRow) -> Result<Usage, StoreError> {
    LineItem::ALL.into_iter().try_fold(Usage::default(), |usage, item| Ok(usage.with(item, whole(row, item.name())?)))
}

pub(super) fn request_id(row: &SqliteRow) -> Result<RequestId, StoreError> {
    Ok(read_id(row.try_get("request_id")?)?)
}
