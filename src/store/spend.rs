//! What the ledger says was spent in a month.

use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    reports::{self, Directory},
    rollups,
};
use crate::domain::{
    ids::ProjectId,
    money::Total,
    report::{Piece, Range, Selection, Width},
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
    pub amount: Total,
    /// When the request was settled.
    pub settled_at: UnixNanos,
}

/// What was spent in some months at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Several of one project and month among them.
    pub amounts: Vec<(Month, ProjectId, Total)>,
    /// The number of the last adjustment that the amounts hold; 0 before the first.
    pub last_adjustment: i64,
}

/// Adjustments in memory at a time.
const ADJUSTED_AT_ONCE: i64 = 1_000;

/// The number of the last adjustment, even if it was dropped since; 0 before the first.
pub(super) async fn last_number(connection: impl SqliteExecutor<'_>) -> Result<i64, StoreError> {
    let last = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'adjustments'";
    Ok(sqlx::query_scalar(last).fetch_one(connection).await?)
}

/// The adjustments after the one of this number, in order; not all of them when there are many.
pub async fn adjusted_after(store: &Store, number: i64) -> Result<Vec<Adjusted>, StoreError> {
    let items = LineItem::ALL.map(|item| format!("a.{}", item.name())).join(", ");
    let sql = format!(
        "SELECT a.number, k.project_id, a.tariff, a.settled_at_ms, {items}
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
    let tariff: i64 = row.try_get("tariff")?;
    let tariff = directory.tariff(tariff).ok_or_else(|| StoreError::Unreadable(format!("tariff {tariff}")))?;
    let mut amount = Total::default();
    for (item, quantity) in rollups::usage(row)?.items() {
        let line = tariff.amount(item, quantity).and_then(|line| amount.checked_add(line));
        amount = line.map_err(|_| StoreError::SumOverflow)?;
    }
    let settled_at = UnixNanos::from_millis(rollups::whole(row, "settled_at_ms")?);
    Ok(Adjusted { number: row.try_get("number")?, project, amount, settled_at })
}

/// Requests count in the month of their settlement.
pub async fn spent(store: &Store, months: impl Iterator<Item = Month>) -> Result<Spent, StoreError> {
    // One transaction, or an adjustment that is written meanwhile could be in the sums and not in the number.
    let mut reading = store.reader().begin().await?;
    let last_adjustment = last_number(&mut *reading).await?;
    let mut read = Vec::new();
    for month in months {
        let selection = selection(month);
        read.push((month, reports::parts(&mut *reading, &selection).await?, selection));
    }
    // A dropped transaction would end some time later.
    reading.rollback().await?;
    let mut amounts = Vec::new();
    for (month, parts, selection) in read {
        for row in reports::summed(store, &selection, parts).await? {
            let Some(project) = row.project_id else { continue };
            amounts.extend(row.lines.into_iter().map(|line| (month, project.clone(), line.amount)));
        }
    }
    Ok(Spent { amounts, last_adjustment })
}

fn selection(month: Month) -> Selection {
    let range = Range { start_s: month.start_s, end_s: month.end_s };
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
        let spent = spent(&store, [month].into_iter()).await.unwrap();
        let of = |id: &str| {
            let amounts = spent.amounts.iter().filter(|(_, project, _)| project.as_str() == id);
            amounts.map(|(_, _, amount)| amount.pico()).sum::<i128>()
        };
        assert_eq!((of("proj_a"), of("proj_b")), (6, 5));
    }
}
