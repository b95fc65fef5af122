//! What the ledger says was spent: in a month, and day by day.

use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{
    Store, StoreError, columns,
    reports::{self, Directory},
};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    report::{Line, Piece, Range, Selection, Width},
    rollup::Detail,
    spend::Interval,
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

/// What was spent, as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Several of one project and month among them.
    pub by_project: Vec<(Interval, Range, ProjectId, Total)>,
    pub by_key: Vec<(Interval, Range, KeyId, Total)>,
    /// The start of a day, a project and the amount, once for each day and project.
    pub by_day: Vec<(UnixNanos, ProjectId, Total)>,
    /// The number of the last adjustment that the amounts hold; 0 before the first.
    pub last_adjustment: i64,
    /// The minute in which the last request was settled; the one around the given time and later ones do not count.
    pub last_settled: Option<UnixNanos>,
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
    for (item, quantity) in columns::usage(row)?.items() {
        let line = tariff.amount(item, quantity).and_then(|line| amount.checked_add(line));
        amount = line.map_err(|_| StoreError::SumOverflow)?;
    }
    let settled_at = UnixNanos::from_millis(columns::whole(row, "settled_at_ms")?);
    Ok(Adjusted { number: row.try_get("number")?, project, key, amount, settled_at })
}

/// What projects and keys spent in the months and days around `now` and around the last settlement, and projects in each of
/// `days`. Requests count when they are settled.
pub async fn spent(store: &Store, now: UnixNanos, days: Option<Range>) -> Result<Spent, StoreError> {
    let days = days.map(projects);
    // One transaction, or an adjustment that is written meanwhile could be in the sums and not in the number.
    let mut reading = store.reader().begin().await?;
    let last_adjustment = last_number(&mut *reading).await?;
    let last_settled = last_settled(&mut *reading, now).await?;
    let spans: Vec<_> = Interval::ALL
        .into_iter()
        .flat_map(|interval| ranges(interval, now, last_settled).into_iter().map(move |range| (interval, range)))
        .map(|(interval, range)| (interval, range, [projects(range), keys(range)]))
        .collect();
    let (mut of_spans, mut of_days) = (Vec::new(), None);
    for (_, _, [projects, keys]) in &spans {
        let projects = reports::parts(&mut *reading, projects).await?;
        of_spans.push((projects, reports::parts(&mut *reading, keys).await?));
    }
    if let Some(selection) = &days {
        of_days = Some(reports::parts(&mut *reading, selection).await?);
    }
    // A dropped transaction would end some time later.
    reading.rollback().await?;
    let mut spent = Spent { last_adjustment, last_settled, ..Spent::default() };
    for ((interval, range, [projects, keys]), parts) in spans.into_iter().zip(of_spans) {
        for row in reports::summed(store, &projects, parts.0).await? {
            let Some(project) = row.project_id else { continue };
            spent.by_project.push((interval, range, project, sum(&row.lines)?));
        }
        for row in reports::summed(store, &keys, parts.1).await? {
            let Some(key) = row.api_key_id else { continue };
            spent.by_key.push((interval, range, key, sum(&row.lines)?));
        }
    }
    if let Some((selection, parts)) = days.zip(of_days) {
        for row in reports::summed(store, &selection, parts).await? {
            let Some(project) = row.project_id else { continue };
            spent.by_day.push((UnixNanos::from_seconds(row.bucket_start_s), project, sum(&row.lines)?));
        }
    }
    Ok(spent)
}

/// Before the minute of `now`: in that one a start settles what was interrupted by the end of the run before.
async fn last_settled(connection: impl SqliteExecutor<'_>, now: UnixNanos) -> Result<Option<UnixNanos>, StoreError> {
    let minute = i64::try_from(now.seconds() - now.seconds() % 60).unwrap_or(i64::MAX);
    let last = "SELECT max(bucket_start_s) FROM rollups WHERE detail = 0 AND width_s = 60 AND bucket_start_s < ?";
    let last: Option<i64> = sqlx::query_scalar(last).bind(minute).fetch_one(connection).await?;
    Ok(last.and_then(|seconds| u64::try_from(seconds).ok()).map(UnixNanos::from_seconds))
}

/// That which matters least first.
fn ranges(interval: Interval, now: UnixNanos, last_settled: Option<UnixNanos>) -> Vec<Range> {
    let last = last_settled.map(|at| interval.around(at));
    let last = last.filter(|last| interval.near(now).all(|near| near != *last));
    last.into_iter().chain(interval.near(now)).collect()
}

fn sum(lines: &[Line]) -> Result<Total, StoreError> {
    let sum = lines.iter().try_fold(Total::default(), |sum, line| sum.checked_add(line.amount));
    sum.map_err(|_| StoreError::SumOverflow)
}

/// Keys in a range of whole days: one bucket for all of it.
fn keys(range: Range) -> Selection {
    Selection { bucket_starts: vec![range.start_s], callers: Detail::Keys, ..projects(range) }
}

/// Projects, a row for each day that is in `range`.
fn projects(range: Range) -> Selection {
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
    use crate::domain::report::LATEST_TIME_S;
    use crate::store::reports::seed::{Settled, seed};

    #[tokio::test]
    async fn a_months_spending_is_that_of_its_days_and_no_other() {
        const MARCH_2026: u64 = 1_772_323_200;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tollgate.db");
        let store = Store::open(&path).await.unwrap();
        let month = Interval::Month.around(UnixNanos::from_seconds(MARCH_2026 + 1_000_000));
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
        let all = Range { start_s: 0, end_s: LATEST_TIME_S };
        let now = UnixNanos::from_seconds(month.end_s - 1);
        let spent = spent(&store, now, Some(all)).await.unwrap();
        let of = |id: &str, interval: Interval| {
            let range = interval.around(now);
            let amounts = spent.by_project.iter().filter(|(_, of, project, _)| *of == range && project.as_str() == id);
            amounts.map(|(_, _, _, amount)| amount.pico()).sum::<i128>()
        };
        let of_projects = |interval| ["proj_a", "proj_b"].map(|project| of(project, interval));
        assert_eq!((of_projects(Interval::Month), of_projects(Interval::Day)), ([6, 5], [1, 5]));
        let of = |id: &str, interval: Interval| {
            let range = interval.around(now);
            let amounts = spent.by_key.iter().filter(|(_, of, key, _)| *of == range && key.as_str() == id);
            amounts.map(|(_, _, _, amount)| amount.pico()).sum::<i128>()
        };
        let of_keys = |interval| ["key_a", "key_b", "key_c"].map(|key| of(key, interval));
        assert_eq!((of_keys(Interval::Month), of_keys(Interval::Day)), ([5, 1, 5], [0, 1, 5]));
        // Those of this minute may be what this start has settled.
        assert_eq!(spent.last_settled, Some(UnixNanos::from_seconds(MARCH_2026)));
        // Long after the last settlement its own month and day are there still.
        let later = super::spent(&store, now.plus_nanos(400 * 86_400_000_000_000), None).await.unwrap();
        let last = later.last_settled.unwrap();
        assert_eq!(last.seconds(), month.end_s);
        for interval in Interval::ALL {
            let of = later.by_key.iter().filter(|(of, ..)| *of == interval);
            let of: Vec<_> = of.map(|(_, range, key, amount)| (*range, key.as_str(), amount.pico())).collect();
            assert_eq!(of, [(interval.around(last), "key_c", 1)]);
        }
        let days = |id: &str| {
            let days = spent.by_day.iter().filter(|(_, project, _)| project.as_str() == id);
            days.map(|(at, _, amount)| (at.seconds(), amount.pico())).collect::<Vec<_>>()
        };
        let last = month.end_s - 86_400;
        assert_eq!(days("proj_a"), [(MARCH_2026 - 86_400, 1), (MARCH_2026, 5), (last, 1)]);
        assert_eq!(days("proj_b"), [(last, 5), (month.end_s, 1)]);
    }
}
