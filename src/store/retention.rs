//! Drops entries that are older than they are to be kept, with their adjustments. Sums, and what they refer to, stay.

use sqlx::SqliteConnection;

use super::{Store, StoreError, accounts::unreadable};
use crate::domain::{ids::RequestId, time::UnixNanos};

/// Entries that one transaction looks at, so that the ledger and administrators never wait long for the writer.
const AT_ONCE: i64 = 500;

/// A walk over the ledger that drops what was settled before the horizon, piece by piece.
#[derive(Debug)]
pub struct Dropping {
    horizon_ms: i64,
    /// The smallest id that the journal may bring again, in bytes; `None` when there is none.
    in_journal_from: Option<Vec<u8>>,
    /// Up to which request it has been.
    reached: Vec<u8>,
}

/// What one piece dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub entries: u64,
    pub adjustments: u64,
}

/// Entries that were settled before it may be gone; the first moment of all when nothing was ever dropped.
pub(super) async fn horizon(connection: &mut SqliteConnection) -> Result<UnixNanos, StoreError> {
    let ms: i64 = sqlx::query_scalar("SELECT horizon_ms FROM retention").fetch_one(connection).await?;
    Ok(UnixNanos::from_millis(u64::try_from(ms).unwrap_or(0)))
}

impl Store {
    /// When the newest of the requests in the ledger arrived; `None` when there is none.
    pub async fn newest_arrival(&self) -> Result<Option<UnixNanos>, StoreError> {
        let newest = "SELECT admitted_at_ms FROM entries ORDER BY request_id DESC LIMIT 1";
        let newest: Option<i64> = sqlx::query_scalar(newest).fetch_optional(self.reader()).await?;
        let time = |ms: i64| u64::try_from(ms).map(UnixNanos::from_millis);
        Ok(newest.map(time).transpose().map_err(|_| unreadable("entries.admitted_at_ms"))?)
    }

    /// Entries that were settled before then may be missing: they were dropped because of their age.
    pub async fn dropped_before(&self) -> Result<UnixNanos, StoreError> {
        horizon(&mut *self.reader().acquire().await?).await
    }

    /// Moves the horizon to `before`, or leaves it where it is when that is earlier. `in_journal_from` is as
    /// [`super::Progress::first_id`] says: dropped requests that come again are known by their ids for as long as they can.
    pub async fn begin_dropping(
        &self,
        before: UnixNanos,
        in_journal_from: Option<RequestId>,
    ) -> Result<Dropping, StoreError> {
        let horizon_ms = i64::try_from(before.millis()).unwrap_or(i64::MAX);
        let in_journal_from = in_journal_from.map(|id| id.to_bytes().to_vec());
        let mut transaction = self.writer().begin_with("BEGIN IMMEDIATE").await?;
        let moved = sqlx::query("UPDATE retention SET horizon_ms = ?1 WHERE horizon_ms < ?1").bind(horizon_ms);
        moved.execute(&mut *transaction).await?;
        // There are no more of them than the journal had room for.
        let gone = sqlx::query("DELETE FROM dropped WHERE ?1 IS NULL OR request_id < ?1").bind(&in_journal_from);
        gone.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Dropping { horizon_ms, in_journal_from, reached: Vec::new() })
    }
}

impl Dropping {
    /// Drops from the next few hundred entries; `None` when there are none left that could be old enough.
    ///
    /// They are walked in the order of their ids, which begin with the time of arrival. What has been dropped is not walked
    /// again, so each walk is as long as what it drops, and the few that ran across the horizon.
    pub async fn step(&mut self, store: &Store) -> Result<Option<Dropped>, StoreError> {
        let next: (Option<Vec<u8>>, Option<i64>) = sqlx::query_as(
            "SELECT max(request_id), min(admitted_at_ms) FROM (
                 SELECT request_id, admitted_at_ms FROM entries WHERE request_id > ? ORDER BY request_id LIMIT ?
             )",
        )
        .bind(&self.reached)
        .bind(AT_ONCE)
        .fetch_one(store.reader())
        .await?;
        let (Some(end), Some(earliest_ms)) = next else { return Ok(None) };
        if earliest_ms >= self.horizon_ms {
            return Ok(None);
        }
        let dropped = self.drop_until(store, &end).await?;
        self.reached = end;
        Ok(Some(dropped))
    }

    /// What is old enough among the entries after the last piece, up to `end`.
    async fn drop_until(&self, store: &Store, end: &[u8]) -> Result<Dropped, StoreError> {
        const STATEMENTS: [&str; 3] = [
            "INSERT OR IGNORE INTO dropped SELECT request_id FROM entries
             WHERE request_id > ?1 AND request_id <= ?2 AND admitted_at_ms + duration_ms < ?3 AND request_id >= ?4",
            "DELETE FROM adjustments WHERE request_id > ?1 AND request_id <= ?2 AND settled_at_ms < ?3",
            "DELETE FROM entries WHERE request_id > ?1 AND request_id <= ?2 AND admitted_at_ms + duration_ms < ?3",
        ];
        let mut transaction = store.writer().begin_with("BEGIN IMMEDIATE").await?;
        let mut changed = [0; STATEMENTS.len()];
        for (statement, count) in STATEMENTS.into_iter().zip(&mut changed) {
            let query = sqlx::query(statement).bind(&self.reached).bind(end).bind(self.horizon_ms);
            let query = query.bind(&self.in_journal_from);
            *count = query.execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        let [_, adjustments, entries] = changed;
        Ok(Dropped { entries, adjustments })
    }
}
