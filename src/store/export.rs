//! Entries for an export, from the database file, whether or not a gateway is running on it. Nothing is written.
//!
//! They are read in pieces, each in a short transaction of its own: a long one would keep the gateway from bringing its
//! write-ahead log into the database, and a slow reader of an export must not fill its disk. An entry never changes, so the
//! pieces are of one ledger all the same; of adjustments, those count that were there at the beginning.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{Arc, LazyLock},
};

use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    accounts::unreadable,
    check_schema,
    columns::{request_id, usage},
    retention, spend, tariffs,
};
use crate::domain::{
    export::{Adjusted, ExportedEntry},
    ids::RequestId,
    tariff::Tariff,
    time::UnixNanos,
    usage::LineItem,
};

/// Entries that are looked at in one transaction.
const AT_ONCE: i64 = 2_000;
/// Callers choose some of the words of tariffs, so what is remembered is bounded.
const MAX_REMEMBERED: usize = 20_000;

static ENTRIES: LazyLock<String> = LazyLock::new(|| {
    let items = LineItem::ALL.map(|item| format!("e.{}", item.name())).join(", ");
    format!(
        "SELECT e.request_id, e.admitted_at_ms, e.duration_ms, e.tariff, {items}, k.id AS api_key_id, k.name AS api_key_name,
             p.id AS project_id, p.name AS project_name, r.name AS requested_model, o.name AS outcome, b.name AS basis,
             n.status, n.stream
         FROM entries e
         JOIN api_keys k ON k.number = e.api_key
         JOIN projects p ON p.id = k.project_id
         JOIN endings n ON n.number = e.ending
         JOIN names r ON r.number = n.requested_model
         JOIN names o ON o.number = n.outcome
         JOIN names b ON b.number = n.basis
         WHERE e.request_id > ?1 AND e.request_id <= ?2
             AND e.admitted_at_ms + e.duration_ms >= ?3 AND e.admitted_at_ms + e.duration_ms < ?4
         ORDER BY e.request_id"
    )
});

static ADJUSTMENTS: LazyLock<String> = LazyLock::new(|| {
    let items = LineItem::ALL.map(LineItem::name).join(", ");
    format!(
        "SELECT request_id, requests, tariff, {items} FROM adjustments
         WHERE request_id > ?1 AND request_id <= ?2 AND number <= ?3
             AND settled_at_ms >= ?4 AND settled_at_ms < ?5"
    )
});

/// Which entries: those settled at `from` or later, and before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub from: UnixNanos,
    pub until: UnixNanos,
}

/// A walk over the ledger in the order of request ids.
pub struct Export {
    connection: SqliteConnection,
    from_ms: i64,
    until_ms: i64,
    /// Up to which request it has been.
    reached: Vec<u8>,
    last_adjustment: i64,
    tariffs: HashMap<i64, Arc<Tariff>>,
    /// Of the piece that was read last.
    read: VecDeque<ExportedEntry>,
}

impl Export {
    pub async fn open(path: &Path, settled: Settled) -> Result<Self, StoreError> {
        let mut connection = Store::connect_to_read(path).await?;
        check_schema(&mut connection).await?;
        let last_adjustment = spend::last_number(&mut connection).await?;
        let stored = |time: UnixNanos| i64::try_from(time.millis()).unwrap_or(i64::MAX);
        Ok(Self {
            connection,
            from_ms: stored(settled.from),
            until_ms: stored(settled.until),
            reached: Vec::new(),
            last_adjustment,
            tariffs: HashMap::new(),
            read: VecDeque::new(),
        })
    }

    /// `None` at the end of the ledger.
    pub async fn next(&mut self) -> Result<Option<ExportedEntry>, StoreError> {
        while self.read.is_empty() {
            if !self.read_piece().await? {
                return Ok(None);
            }
        }
        Ok(self.read.pop_front())
    }

    /// Entries that ended before then may be missing: they were dropped, now or earlier, because of their age.
    pub async fn dropped_before(&mut self) -> Result<UnixNanos, StoreError> {
        retention::horizon(&mut self.connection).await
    }

    /// False at the end of the ledger. Every entry is looked at: none says in its id when it was settled, and one that was
    /// found open at a start was settled any time after its arrival.
    async fn read_piece(&mut self) -> Result<bool, StoreError> {
        let mut reading = self.connection.begin().await?;
        let end: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT max(request_id) FROM (SELECT request_id FROM entries WHERE request_id > ? ORDER BY request_id LIMIT ?)",
        )
        .bind(&self.reached)
        .bind(AT_ONCE)
        .fetch_one(&mut *reading)
        .await?;
        let Some(end) = end else { return Ok(false) };
        let entries =
            sqlx::query(ENTRIES.as_str()).bind(&self.reached).bind(&end).bind(self.from_ms).bind(self.until_ms);
        let entries = entries.fetch_all(&mut *reading).await?;
        if !entries.is_empty() {
            let adjustments =
                sqlx::query(ADJUSTMENTS.as_str()).bind(&self.reached).bind(&end).bind(self.last_adjustment);
            let adjustments = adjustments.bind(self.from_ms).bind(self.until_ms).fetch_all(&mut *reading).await?;
            if self.tariffs.len() > MAX_REMEMBERED {
                self.tariffs.clear();
            }
            learn(&mut self.tariffs, &mut reading, entries.iter().chain(&adjustments)).await?;
            let adjusted = adjusted(&self.tariffs, &adjustments)?;
            for row in &entries {
                self.read.push_back(read(&self.tariffs, &adjusted, row)?);
            }
        }
        // A dropped transaction would end some time later.
        reading.rollback().await?;
        self.reached = end;
        Ok(true)
    }
}

type Tariffs = HashMap<i64, Arc<Tariff>>;

/// Makes sure that the tariffs of all rows are known.
async fn learn<'r>(
    tariffs: &mut Tariffs,
    connection: &mut SqliteConnection,
    rows: impl Iterator<Item = &'r SqliteRow>,
) -> Result<(), StoreError> {
    for row in rows {
        let number: i64 = row.try_get("tariff")?;
        if let std::collections::hash_map::Entry::Vacant(place) = tariffs.entry(number) {
            place.insert(Arc::new(tariffs::by_number(connection, number).await?));
        }
    }
    Ok(())
}

fn tariff<'t>(tariffs: &'t Tariffs, row: &SqliteRow) -> Result<&'t Arc<Tariff>, StoreError> {
    let number: i64 = row.try_get("tariff")?;
    tariffs.get(&number).ok_or_else(|| StoreError::Unreadable(number.to_string()))
}

/// What the adjustments of each request come to.
fn adjusted(tariffs: &Tariffs, rows: &[SqliteRow]) -> Result<HashMap<RequestId, Adjusted>, StoreError> {
    let mut all: HashMap<RequestId, Adjusted> = HashMap::new();
    for row in rows {
        let (tariff, usage) = (tariff(tariffs, row)?, usage(row)?);
        let one = all.entry(request_id(row)?).or_default();
        for (item, quantity) in usage.items() {
            let amount = tariff.amount(item, quantity).and_then(|amount| one.amount.checked_add(amount));
            one.amount = amount.map_err(|_| StoreError::SumOverflow)?;
        }
        one.priced_since |= row.try_get::<i64, _>("requests")? > 0;
    }
    Ok(all)
}

fn read(
    tariffs: &Tariffs,
    adjusted: &HashMap<RequestId, Adjusted>,
    row: &SqliteRow,
) -> Result<ExportedEntry, StoreError> {
    let request_id = request_id(row)?;
    let (admitted_at_ms, duration_ms): (i64, i64) = (row.try_get("admitted_at_ms")?, row.try_get("duration_ms")?);
    let time =
        |ms: i64| u64::try_from(ms).map(UnixNanos::from_millis).map_err(|_| unreadable("entries.admitted_at_ms"));
    Ok(ExportedEntry {
        request_id,
        admitted_at: time(admitted_at_ms)?,
        settled_at: time(admitted_at_ms.saturating_add(duration_ms))?,
        project_id: row.try_get("project_id")?,
        project_name: row.try_get("project_name")?,
        api_key_id: row.try_get("api_key_id")?,
        api_key_name: row.try_get("api_key_name")?,
        tariff: Arc::clone(tariff(tariffs, row)?),
        requested_model: row.try_get("requested_model")?,
        outcome: row.try_get("outcome")?,
        basis: row.try_get("basis")?,
        status: row.try_get("status")?,
        stream: row.try_get("stream")?,
        usage: usage(row)?,
        adjusted: adjusted.get(&request_id).copied(),
    })
}
