//! Reads sums of rollup rows for the reports.

#[cfg(test)]
pub(crate) mod seed;
#[cfg(test)]
mod tests;

use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Store, StoreError};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    pricing::ServiceTier,
    report::{Line, Row, Selection},
    usage::LineItem,
};

const ROWS: &str = include_str!("reports/rows.sql");

const PICO_PER_MICRO: i128 = 1_000_000;

/// One statement for all pieces, so that they are of one moment.
pub async fn rows(store: &Store, selection: &Selection) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query(ROWS)
        .bind(pieces(selection)?)
        .bind(integer(selection.bucket_width.seconds())?)
        .bind(selection.by_api_key)
        .bind(selection.by_model)
        .bind(selection.by_service_tier)
        .bind(list(selection.endpoints.as_deref())?)
        .bind(list(selection.project_ids.as_deref())?)
        .bind(list(selection.api_key_ids.as_deref())?)
        .bind(list(selection.models.as_deref())?)
        .bind(selection.batch)
        .fetch_all(store.reader())
        .await?;
    Ok(rows.iter().map(row).collect::<Result<_, _>>()?)
}

fn pieces(selection: &Selection) -> Result<String, sqlx::Error> {
    let pieces = selection.pieces.iter();
    let pieces: Vec<_> = pieces.map(|piece| (piece.width.seconds(), piece.range.start_s, piece.range.end_s)).collect();
    json(&pieces)
}

fn list(names: Option<&[String]>) -> Result<Option<String>, sqlx::Error> {
    names.map(json).transpose()
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn integer(value: u64) -> Result<i64, sqlx::Error> {
    i64::try_from(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn row(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let text = |column| row.try_get::<Option<&str>, _>(column);
    let mut lines = Vec::new();
    for line_item in LineItem::ALL {
        let line = line(row, line_item)?;
        if line.quantity != 0 || line.amount != Total::default() {
            lines.push(line);
        }
    }
    Ok(Row {
        bucket_start_s: count(row, "bucket_start_s")?,
        project_id: text("project_id")?.map(|id| parsed(id, ProjectId::parse)).transpose()?,
        api_key_id: text("api_key_id")?.map(|id| parsed(id, KeyId::parse)).transpose()?,
        model: text("model_name")?.map(Into::into),
        service_tier: text("service_tier_name")?.map(ServiceTier::from_wire),
        requests: count(row, "requests")?,
        unpriced_requests: count(row, "unpriced_requests")?,
        lines,
    })
}

fn line(row: &SqliteRow, line_item: LineItem) -> Result<Line, sqlx::Error> {
    let name = line_item.name();
    let whole: i64 = row.try_get(format!("{name}_micro").as_str())?;
    let rest: i64 = row.try_get(format!("{name}_pico").as_str())?;
    // The product of an i64 and a million cannot leave i128.
    let amount = Total::from_pico(i128::from(whole) * PICO_PER_MICRO + i128::from(rest));
    Ok(Line { line_item, quantity: count(row, name)?, amount })
}

fn count(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn parsed<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, sqlx::Error> {
    parse(text).ok_or_else(|| sqlx::Error::Decode(format!("{text:?} is not an id").into()))
}
