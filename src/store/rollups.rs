//! Sums per minute, hour and day: added up here first, so that a batch touches each row once.

use std::{collections::BTreeMap, sync::LazyLock};

use sqlx::SqliteConnection;

use super::{StoreError, ledger::Row, statement::Insert};
use crate::domain::usage::LineItem;

/// Seconds in a minute, an hour and a day.
const WIDTHS: [u64; 3] = [60, 3_600, 86_400];

const KEY_COLUMNS: [&str; 6] = ["width_s", "bucket_start_s", "api_key", "endpoint", "model", "service_tier"];
const SUM_COLUMNS: usize = 2 + 2 * LineItem::COUNT;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key([i64; KEY_COLUMNS.len()]);

/// In the order of the columns: requests, unpriced requests, quantities, amounts.
#[derive(Clone, Copy)]
struct Sums([i64; SUM_COLUMNS]);

pub(super) struct Rollups(Vec<(Key, Sums)>);

static UPSERT: LazyLock<Insert> = LazyLock::new(|| {
    let mut sums = vec!["requests".to_owned(), "unpriced_requests".to_owned()];
    sums.extend(LineItem::ALL.map(|item| item.name().to_owned()));
    sums.extend(LineItem::ALL.map(|item| format!("{}_pico", item.name())));
    let head = format!("INSERT INTO rollups ({}, {})", KEY_COLUMNS.join(", "), sums.join(", "));
    // A sum that does not fit becomes a float in SQLite, and the table refuses it.
    let added: Vec<_> = sums.iter().map(|column| format!("{column} = {column} + excluded.{column}")).collect();
    Insert::new(&head, KEY_COLUMNS.len() + SUM_COLUMNS, &format!("ON CONFLICT DO UPDATE SET {}", added.join(", ")))
});

impl Rollups {
    pub(super) fn of(rows: &[Row<'_>]) -> Result<Self, StoreError> {
        let mut rollups = BTreeMap::new();
        for row in rows {
            let seconds = row.entry.settlement.settled_at.seconds();
            for width in WIDTHS {
                let overflow = |_| StoreError::Overflow(row.entry.settlement.request_id);
                let start = i64::try_from(seconds - seconds % width).map_err(overflow)?;
                let width = i64::try_from(width).map_err(overflow)?;
                let key = Key([width, start, row.api_key, row.endpoint, row.model, row.service_tier]);
                let sums = rollups.entry(key).or_insert(Sums([0; SUM_COLUMNS]));
                sums.add(row).ok_or(StoreError::SumOverflow)?;
            }
        }
        Ok(Self(rollups.into_iter().collect()))
    }

    pub(super) async fn write(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        for (sql, piece) in UPSERT.pieces(&self.0) {
            let values = piece.iter().flat_map(|(key, sums)| key.0.iter().chain(&sums.0));
            let query = values.fold(sqlx::query(sql), |query, value| query.bind(*value));
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }
}

impl Sums {
    fn add(&mut self, row: &Row<'_>) -> Option<()> {
        let counts = [1, i64::from(!row.priced)];
        let values = counts.iter().chain(&row.quantities).chain(&row.amounts);
        for (sum, value) in self.0.iter_mut().zip(values) {
            *sum = sum.checked_add(*value)?;
        }
        Some(())
    }
}
