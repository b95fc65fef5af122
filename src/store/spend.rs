//! What the ledger says was spent: in a month, and day by day.

use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    reports::{self, Directory},
    rollups,
};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    report::{LATEST_TIME_S, Piece, Range, Selection, Width},
    rollup::Detail,
    spend::Month,
    time::UnixNanos,
    usage::LineItem,
};

/// An adjustment, as spend limits count it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjusted {
    /// The later the adjustment, the higher.
    pub number: i64,
    pub project: ProjectId,
    pub key: KeyId,
    pub amount: Total,
    /// When the request was settled.
    pub settled_at: UnixNanos,
}

/// Adjustments in memory at a time.
const ADJUSTED_AT_ONCE: i64 = 1_000;

/// The number of the last adjustment; 0 before the first.
pub async fn last_adjustment(store: &Store) -> Result<i64, StoreError> {
    let last = sqlx::query_scalar("SELECT coalesce(max(number), 0) FROM adjustments").fetch_one(store.reader());
    Ok(last.await?)
}

/// The adjustments after the one of this number, in order; not all of them when there are many.
pub async fn adjusted_after(store: &Store, number: i64) -> Result<Vec<Adjusted>, StoreError> {
    let items = LineItem::ALL.map(|item| format!("a.{}", item.name())).join(", ");
    let sql = format!(
        "SELECT a.number, k.project_id, k.id, a.tariff, a.settled_at_ms, {items}
         FROM adjustments a JOIN api_keys k ON k.number = a.api_key
         WHERE a.number > ? ORDER BY a.number LIMIT ?"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(number).bind(ADJUSTED_AT_ONCE);
    let rows = query.fetch_all(store.reader()).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    // Read afterwards: it holds every tariff that the rows can name.
    let directory = store.directory().await?;
    rows.iter().map(|row| adjusted(row, &directory)).collect()
}

fn adjusted(row: &SqliteRow, directory: &Directory) -> Result<Adjusted, StoreError> {
    let project: String = row.try_get("project_id")?;
    let project = ProjectId::parse(&project).ok_or(StoreError::Unreadable(project))?;
    let key: String = row.try_get("id")?;
    let key = KeyId::parse(&key).ok_or(StoreError::Unreadable(key))?;
    let tariff: i64 = row.try_get("tariff")?;
    let tariff = directory.tariff(tariff).ok_or_else(|| StoreError::Unreadable(format!("tariff {tariff}")))?;
    let mut amount = Total::default();
    for (item, quantity) in rollups::usage(row)?.items() {
        let line = tariff.amount(item, quantity).and_then(|line| amount.checked_add(line));
        amount = line.map_err(|_| StoreError::SumOverflow)?;
    }
    let settled_at = UnixNanos::from_millis(rollups::whole(row, "settled_at_ms")?);
    Ok(Adjusted { number: row.try_get("number")?, project, key, amount, settled_at })
}

/// Amounts by project, several of one among them. Requests count in the month of their settlement.
pub async fn spent(store: &Store, month: Month) -> Result<Vec<(ProjectId, Total)>, StoreError> {
    let rows = reports::rows(store, &by_day(Range { start_s: month.start_s, end_s: month.end_s })).await?.into_iter();
    let amounts = rows.filter_map(|row| row.project_id.map(|project| (project, row.lines)));
    Ok(amounts.flat_map(|(project, lines)| lines.into_iter().map(move |line| (project.clone(), line.amount))).collect())
}

/// All that was ever spent: the start of a day, a project and the amount, once for each day and project.
pub async fn spent_by_day(store: &Store) -> Result<Vec<(UnixNanos, ProjectId, Total)>, StoreError> {
    let rows = reports::rows(store, &by_day(Range { start_s: 0, end_s: LATEST_TIME_S })).await?;
    let mut spent = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(project) = row.project_id else { continue };
        let mut amount = Total::default();
        for line in row.lines {
            amount = amount.checked_add(line.amount).map_err(|_| StoreError::SumOverflow)?;
        }
        spent.push((UnixNanos::from_seconds(row.bucket_start_s), project, amount));
    }
    Ok(spent)
}

/// What keys spent in a range of whole days, several amounts of one key among them.
pub async fn spent_by_key(store: &Store, range: Range) -> Result<Vec<(KeyId, Total)>, StoreError> {
    // One bucket for all of it.
    let selection = Selection { bucket_starts: vec![range.start_s], callers: Detail::Keys, ..by_day(range) };
    let rows = reports::rows(store, &selection).await?.into_iter();
    let amounts = rows.filter_map(|row| row.api_key_id.map(|key| (key, row.lines)));
    Ok(amounts.flat_map(|(key, lines)| lines.into_iter().map(move |line| (key.clone(), line.amount))).collect())
}

/// Projects, a row for each day that is in `range`.
fn by_day(range: Range) -> Selection {
    Selection {
        pieces: vec![Piece { width: Width::Day, range }],
        bucket_width: Width::Day,
        bucket_starts: Vec::new(),
        callers: Detail::Projects,
        by_model: false,
        by_service_tier: false,
        endpoints: None,
        project_ids: None,
        api_key_ids: None,
        models: None,
        batch: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::reports::seed::{Settled, seed};

    #[tokio::test]
    async fn a_months_spending_is_that_of_its_days_and_no_other() {
        const MARCH_2026: u64 = 1_772_323_200;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tollgate.db");
        let store = Store::open(&path).await.unwrap();
        let month = Month::of(UnixNanos::from_seconds(MARCH_2026 + 1_000_000));
        let entry = |at_s, project_id, api_key_id, pico: &'static [(LineItem, i64, i64)]| Settled {
            at_s,
            project_id,
            api_key_id,
            lines: pico,
            ..Settled::default()
        };
        let (one, two) = (&[(LineItem::InputText, 1, 1)], &[(LineItem::InputText, 1, 2), (LineItem::OutputText, 1, 3)]);
        seed(
            &path,
            &[
                entry(MARCH_2026 - 1, "proj_a", "key_a", one),
                entry(MARCH_2026, "proj_a", "key_a", two),
                entry(month.end_s - 1, "proj_a", "key_b", one),
                entry(month.end_s - 1, "proj_b", "key_c", two),
                entry(month.end_s, "proj_b", "key_c", one),
            ],
        )
        .await;
        let spent = spent(&store, month).await.unwrap();
        let of = |id: &str| {
            let amounts = spent.iter().filter(|(project, _)| project.as_str() == id);
            amounts.map(|(_, amount)| amount.pico()).sum::<i128>()
        };
        assert_eq!((of("proj_a"), of("proj_b")), (6, 5));
        let range = Range { start_s: MARCH_2026, end_s: month.end_s };
        let by_key = spent_by_key(&store, range).await.unwrap();
        let of = |id: &str| {
            let amounts = by_key.iter().filter(|(key, _)| key.as_str() == id);
            amounts.map(|(_, amount)| amount.pico()).sum::<i128>()
        };
        assert_eq!((of("key_a"), of("key_b"), of("key_c")), (5, 1, 5));
        let by_day = spent_by_day(&store).await.unwrap();
        let days = |id: &str| {
            let days = by_day.iter().filter(|(_, project, _)| project.as_str() == id);
            days.map(|(at, _, amount)| (at.seconds(), amount.pico())).collect::<Vec<_>>()
        };
        let last = month.end_s - 86_400;
        assert_eq!(days("proj_a"), [(MARCH_2026 - 86_400, 1), (MARCH_2026, 5), (last, 1)]);
        assert_eq!(days("proj_b"), [(last, 5), (month.end_s, 1)]);
    }
}
