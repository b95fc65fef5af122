//! Sums per minute, hour and day, of hours and days also coarser ones. Each batch adds one part to the buckets that it
//! touches; parts are made into one when there are many, and when time has moved on from their bucket. So a batch writes
//! little, and a report reads little.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use futures_util::TryStreamExt as _;
use sqlx::{SqliteConnection, SqliteExecutor, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    columns::{usage, whole},
    ledger::Row,
};
use crate::domain::{
    rollup::{Cell, Cells, Detail, Rollup, RollupError},
    usage::LineItem,
};

/// Seconds in a minute, an hour and a day.
const WIDTHS: [u64; 3] = [60, 3_600, 86_400];
/// So many parts of one level become one of the next: each sum is written again once a level, not once a batch.
const MAX_PARTS: i64 = 16;

/// The sums of some entries, per width and start of a bucket.
#[derive(Default)]
pub(super) struct Rollups(BTreeMap<(i64, i64), Rollup>);

impl From<RollupError> for StoreError {
    fn from(error: RollupError) -> Self {
        match error {
            RollupError::Overflow => Self::SumOverflow,
            RollupError::Unreadable => Self::Unreadable("the cells of a rollup".to_owned()),
        }
    }
}

impl Rollups {
    pub(super) fn of(rows: &[Row<'_>]) -> Result<Self, StoreError> {
        let mut rollups = Self::default();
        for row in rows {
            let settlement = &row.entry.settlement;
            let number = |number: i64| u32::try_from(number).map_err(|_| StoreError::Overflow(settlement.request_id));
            let (api_key, tariff) = (number(row.api_key)?, number(row.tariff)?);
            let cell = Cell { api_key, tariff, requests: 1, usage: settlement.usage };
            rollups.add(settlement.settled_at.seconds(), &cell)?;
        }
        Ok(rollups)
    }

    pub(super) fn add(&mut self, settled_s: u64, cell: &Cell) -> Result<(), StoreError> {
        for width_s in WIDTHS {
            let stored = |value: u64| i64::try_from(value).map_err(|_| StoreError::SumOverflow);
            let bucket = (stored(width_s)?, stored(settled_s - settled_s % width_s)?);
            self.0.entry(bucket).or_default().add(cell)?;
        }
        Ok(())
    }

    /// The buckets that are added to, by width and start.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.0.keys().copied()
    }

    pub(super) async fn write(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let projects = Projects::of(connection, self.0.values()).await?;
        for ((width_s, start_s), rollup) in &self.0 {
            for detail in details(*width_s) {
                let bucket = Bucket { detail, width_s: *width_s, start_s: *start_s };
                let seen = projects.seen_with(rollup, detail)?;
                bucket.add(connection, &seen).await?;
            }
        }
        Ok(())
    }
}

fn details(width_s: i64) -> impl Iterator<Item = Detail> {
    Detail::ALL.into_iter().filter(move |detail| detail.is_kept(width_s.cast_unsigned()))
}

/// The first key of each key's project, by numbers. Keys are never taken away, so it stays the first.
struct Projects(HashMap<u32, u32>);

impl Projects {
    async fn of(connection: &mut SqliteConnection, rollups: impl Iterator<Item = &Rollup>) -> Result<Self, StoreError> {
        let keys: BTreeSet<u32> = rollups.flat_map(|rollup| rollup.cells().map(|cell| cell.api_key)).collect();
        let keys = serde_json::to_string(&keys).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let found: Vec<(u32, u32)> = sqlx::query_as(
            "SELECT k.number, (SELECT min(number) FROM api_keys WHERE project_id = k.project_id)
             FROM json_each(?) wanted JOIN api_keys k ON k.number = wanted.value",
        )
        .bind(keys)
        .fetch_all(connection)
        .await?;
        Ok(Self(found.into_iter().collect()))
    }

    fn seen_with<'r>(&self, rollup: &'r Rollup, detail: Detail) -> Result<Cow<'r, Rollup>, StoreError> {
        Ok(match detail {
            Detail::Keys => Cow::Borrowed(rollup),
            Detail::Projects => Cow::Owned(rollup.coarser(|key| self.0.get(&key).copied())?),
            Detail::Together => Cow::Owned(rollup.coarser(|_| Some(0))?),
        })
    }
}

/// One part is all that buckets should have which nothing more is added to.
pub(super) async fn make_whole(
    connection: &mut SqliteConnection,
    (width_s, start_s): (i64, i64),
) -> Result<(), StoreError> {
    for detail in details(width_s) {
        Bucket { detail, width_s, start_s }.make_whole(connection).await?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Bucket {
    detail: Detail,
    width_s: i64,
    start_s: i64,
}

impl Bucket {
    /// As one more part, after making room for it.
    async fn add(self, connection: &mut SqliteConnection, rollup: &Rollup) -> Result<(), StoreError> {
        match self.parts(connection, 0).await? {
            0 => {
                if let Some(before) = self.latest_before(connection).await? {
                    before.make_whole(connection).await?;
                }
            }
            parts if parts >= MAX_PARTS => self.promote(connection, 0).await?,
            _ => {}
        }
        self.insert(connection, 0, rollup).await
    }

    async fn parts(self, connection: &mut SqliteConnection, level: i64) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM rollups WHERE detail = ? AND width_s = ? AND bucket_start_s = ? AND level = ?";
        let query =
            sqlx::query_scalar(sql).bind(self.detail.number()).bind(self.width_s).bind(self.start_s).bind(level);
        Ok(query.fetch_one(connection).await?)
    }

    async fn latest_before(self, connection: &mut SqliteConnection) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT max(bucket_start_s) FROM rollups WHERE detail = ? AND width_s = ? AND bucket_start_s < ?";
        let query = sqlx::query_scalar(sql).bind(self.detail.number()).bind(self.width_s).bind(self.start_s);
        let start_s: Option<i64> = query.fetch_one(connection).await?;
        Ok(start_s.map(|start_s| Self { start_s, ..self }))
    }

    async fn insert(self, connection: &mut SqliteConnection, level: i64, rollup: &Rollup) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO rollups (detail, width_s, bucket_start_s, level, part, cells)
             SELECT ?1, ?2, ?3, ?4, 1 + coalesce(max(part), 0), ?5
             FROM rollups WHERE detail = ?1 AND width_s = ?2 AND bucket_start_s = ?3 AND level = ?4",
        )
        .bind(self.detail.number())
        .bind(self.width_s)
        .bind(self.start_s)
        .bind(level)
        .bind(rollup.encode())
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn read(self, connection: &mut SqliteConnection, levels: [i64; 2]) -> Result<Rollup, StoreError> {
        let parts: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT cells FROM rollups WHERE detail = ? AND width_s = ? AND bucket_start_s = ? AND level BETWEEN ? AND ?",
        )
        .bind(self.detail.number())
        .bind(self.width_s)
        .bind(self.start_s)
        .bind(levels[0])
        .bind(levels[1])
        .fetch_all(connection)
        .await?;
        let mut whole = Rollup::default();
        for part in &parts {
            Cells::of(part)?.try_for_each(|cell| whole.add(&cell?))?;
        }
        Ok(whole)
    }

    /// All parts of `levels` become one of the level after `levels`.
    async fn gather(self, connection: &mut SqliteConnection, levels: [i64; 2]) -> Result<(), StoreError> {
        let whole = self.read(connection, levels).await?;
        sqlx::query(
            "DELETE FROM rollups WHERE detail = ? AND width_s = ? AND bucket_start_s = ? AND level BETWEEN ? AND ?",
        )
        .bind(self.detail.number())
        .bind(self.width_s)
        .bind(self.start_s)
        .bind(levels[0])
        .bind(levels[1])
        .execute(&mut *connection)
        .await?;
        self.insert(connection, levels[1] + 1, &whole).await
    }

    /// Makes room on `level`, and where that fills the next, on that.
    async fn promote(self, connection: &mut SqliteConnection, level: i64) -> Result<(), StoreError> {
        let mut full = level;
        while self.parts(connection, full + 1).await? >= MAX_PARTS {
            full += 1;
        }
        for level in (level..=full).rev() {
            self.gather(connection, [level, level]).await?;
        }
        Ok(())
    }

    /// Of a bucket that time has moved on from: one part is all that it should have.
    async fn make_whole(self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let sql = "SELECT count(*), max(level) FROM rollups WHERE detail = ? AND width_s = ? AND bucket_start_s = ?";
        let query = sqlx::query_as(sql).bind(self.detail.number()).bind(self.width_s).bind(self.start_s);
        let (parts, highest): (i64, Option<i64>) = query.fetch_one(&mut *connection).await?;
        match highest {
            Some(highest) if parts > 1 => self.gather(connection, [0, highest]).await,
            _ => Ok(()),
        }
    }
}

// === from the entries ===

impl Store {
    /// Makes the sums that an earlier version did not write: all of them from the entries, or the coarse ones from the
    /// fine ones.
    pub(super) async fn sum_up_if_new(&self) -> Result<(), StoreError> {
        let mut transaction = self.writer().begin_with("BEGIN IMMEDIATE").await?;
        if !is_summed_up(&mut *transaction).await? {
            let any_fine = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM rollups)").fetch_one(&mut *transaction);
            if any_fine.await? {
                add_coarse(&mut transaction).await?;
            } else {
                let mut rollups = Rollups::default();
                add_entries(&mut rollups, &mut transaction).await?;
                rollups.write(&mut transaction).await?;
            }
            sqlx::query("UPDATE summed_up SET is_done = 1").execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// False between the migration and the end of [`Store::sum_up_if_new`]: nobody may add to sums that are still to be made.
pub(super) async fn is_summed_up(database: impl SqliteExecutor<'_>) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("SELECT is_done FROM summed_up").fetch_one(database).await?)
}

/// Bucket by bucket: all cells of a large ledger at once would not fit into memory.
async fn add_coarse(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    for width_s in WIDTHS.map(u64::cast_signed) {
        let coarse: Vec<_> = details(width_s).filter(|detail| *detail != Detail::Keys).collect();
        if coarse.is_empty() {
            continue;
        }
        let sql = "SELECT DISTINCT bucket_start_s FROM rollups WHERE detail = ? AND width_s = ?";
        let buckets = sqlx::query_scalar(sql).bind(Detail::Keys.number()).bind(width_s);
        for start_s in buckets.fetch_all(&mut *connection).await? {
            let fine = Bucket { detail: Detail::Keys, width_s, start_s };
            let rollup = fine.read(connection, [0, i64::MAX]).await?;
            let projects = Projects::of(connection, std::iter::once(&rollup)).await?;
            for detail in coarse.iter().copied() {
                let seen = projects.seen_with(&rollup, detail)?;
                Bucket { detail, ..fine }.insert(connection, 0, &seen).await?;
            }
        }
    }
    Ok(())
}

/// Adds entries and adjustments, one by one: all of them would not fit into memory.
async fn add_entries(rollups: &mut Rollups, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let items = LineItem::ALL.map(LineItem::name).join(", ");
    let sql = format!(
        "SELECT (admitted_at_ms + duration_ms) / 1000 AS settled_s, 1 AS requests, api_key, tariff, {items} FROM entries
         UNION ALL SELECT settled_at_ms / 1000, requests, api_key, tariff, {items} FROM adjustments"
    );
    let mut rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let (settled_s, cell) = read(&row)?;
        rollups.add(settled_s, &cell)?;
    }
    Ok(())
}

fn read(row: &SqliteRow) -> Result<(u64, Cell), StoreError> {
    let small = |column| u32::try_from(whole(row, column)?).map_err(|_| StoreError::SumOverflow);
    let (api_key, tariff, requests) = (small("api_key")?, small("tariff")?, whole(row, "requests")?);
    Ok((whole(row, "settled_s")?, Cell { api_key, tariff, requests, usage: usage(row)? }))
}
