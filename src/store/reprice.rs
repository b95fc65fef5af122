//! Corrects what the ledger's requests cost: their entries are read piece by piece, and each piece that is wrong is adjusted
//! in a transaction of its own, so that a gateway on the same database never waits long.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    change::Change,
    columns::{request_id, usage, whole},
    names::Names,
    reports::Directory,
    rollups::{self, Rollups},
};
use crate::domain::{
    audit::AuditEvent,
    ids::RequestId,
    money::MoneyError,
    reprice::{Booked, Correction, Verdict},
    rollup::Cell,
    time::UnixNanos,
    usage::LineItem,
};

/// Entries that are read, and adjusted, at a time.
const AT_ONCE: usize = 500;
/// Buckets that are put in order at a time.
const BUCKETS_AT_ONCE: usize = 200;
/// After each transaction, so that others who wait to write have their turn.
const PAUSE: Duration = Duration::from_millis(20);

/// The requests to look at, by when they were settled, and what their adjustments will say.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub from: UnixNanos,
    /// The first moment that is not looked at.
    pub to: UnixNanos,
    pub reason: String,
    pub adjusted_at: UnixNanos,
}

/// Some of the requests, each with what is to be said of it.
pub struct Piece {
    pub requests: Vec<(Booked, Verdict)>,
    /// Where the next one begins; `None` when there is none.
    pub next: Option<RequestId>,
}

/// Buckets that were added to, by width and start.
pub type Touched = BTreeSet<(i64, i64)>;

impl Piece {
    pub fn is_right(&self) -> bool {
        self.requests.iter().all(|(_, verdict)| verdict.correction.is_none())
    }

    fn corrections(&self) -> impl Iterator<Item = (&Booked, &Correction)> {
        self.requests.iter().filter_map(|(booked, verdict)| Some((booked, verdict.correction.as_ref()?)))
    }
}

/// The requests after `after`; nothing is written.
pub async fn read(
    store: &Store,
    stretch: &Stretch,
    after: Option<RequestId>,
    judge: impl Fn(&Booked) -> Result<Verdict, MoneyError>,
) -> Result<Piece, StoreError> {
    let mut connection = store.reader().acquire().await?;
    let ids = ids(&mut connection, stretch, after).await?;
    let rows = rows(&mut connection, &ids).await?;
    let requests = judged(&rows, &*store.directory().await?, judge)?;
    // By what was found: entries may be dropped for their age before they are read.
    let next = ids.last().copied().filter(|_| ids.len() >= AT_ONCE);
    Ok(Piece { requests, next })
}

/// The requests of `found` as they are now, adjusted where they are wrong, and no others: to look for more could take long,
/// and a gateway waits. `event` is written with the first adjustment of a run, and is then no longer there.
pub async fn correct(
    store: &Store,
    stretch: &Stretch,
    found: &Piece,
    judge: impl Fn(&Booked) -> Result<Verdict, MoneyError>,
    event: &mut Option<AuditEvent>,
    touched: &mut Touched,
) -> Result<Piece, StoreError> {
    let mut change = match &*event {
        Some(event) => Change::begin(store, event).await?,
        None => Change::resume(store).await?,
    };
    let ids: Vec<_> = found.requests.iter().map(|(booked, _)| booked.request_id).collect();
    let rows = rows(change.connection(), &ids).await?;
    let piece = Piece { requests: judged(&rows, &*store.directory().await?, judge)?, next: found.next };
    if piece.is_right() {
        // Somebody else was faster. Without an adjustment nothing is to be said of one.
        return Ok(piece);
    }
    let mut names = store.take_names();
    let mut rollups = Rollups::default();
    for (booked, correction) in piece.corrections() {
        let cell = insert(change.connection(), &mut names, stretch, booked, correction).await?;
        rollups.add(booked.settled_at.seconds(), &cell)?;
    }
    rollups.write(change.connection()).await?;
    change.commit().await?;
    store.remember(names);
    *event = None;
    touched.extend(rollups.buckets());
    tokio::time::sleep(PAUSE).await;
    Ok(piece)
}

/// Writes what a run has come to into the audit log.
pub async fn conclude(store: &Store, event: &AuditEvent) -> Result<(), StoreError> {
    Change::begin(store, event).await?.commit().await
}

/// Puts the buckets in order that were added to: reports read each in one part again.
pub async fn tidy(store: &Store, touched: &Touched) -> Result<(), StoreError> {
    let buckets: Vec<_> = touched.iter().copied().collect();
    for piece in buckets.chunks(BUCKETS_AT_ONCE) {
        let mut change = Change::resume(store).await?;
        for bucket in piece {
            rollups::make_whole(change.connection(), *bucket).await?;
        }
        change.commit().await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The next requests of a stretch.
async fn ids(
    connection: &mut SqliteConnection,
    stretch: &Stretch,
    after: Option<RequestId>,
) -> Result<Vec<RequestId>, StoreError> {
    let millis = |time: UnixNanos| i64::try_from(time.millis()).unwrap_or(i64::MAX);
    let rows = sqlx::query(
        "SELECT request_id FROM entries
         WHERE request_id > ? AND admitted_at_ms + duration_ms >= ? AND admitted_at_ms + duration_ms < ?
         ORDER BY request_id LIMIT ?",
    )
    .bind(after.map(|id| id.to_bytes().to_vec()).unwrap_or_default())
    .bind(millis(stretch.from))
    .bind(millis(stretch.to))
    .bind(i64::try_from(AT_ONCE).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter().map(request_id).collect()
}

/// Entries of a piece, and all adjustments of them.
struct Rows {
    entries: Vec<SqliteRow>,
    adjustments: Vec<SqliteRow>,
}

async fn rows(connection: &mut SqliteConnection, ids: &[RequestId]) -> Result<Rows, StoreError> {
    // `CROSS JOIN` keeps the order of the tables, and each id is looked up. The first four letters of an id are no digits.
    const WANTED: &str = "json_each(?) wanted CROSS JOIN";
    const IS_WANTED: &str = "request_id = unhex(substr(wanted.value, 5))";
    let ids = serde_json::to_string(ids).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let items = |table: &str| LineItem::ALL.map(|item| format!("{table}.{}", item.name())).join(", ");
    let entries = format!(
        "SELECT e.request_id, e.api_key, e.tariff, e.admitted_at_ms, e.admitted_at_ms + e.duration_ms AS settled_at_ms, {}
         FROM {WANTED} entries e ON e.{IS_WANTED}",
        items("e")
    );
    let adjustments = format!(
        "SELECT a.request_id, a.tariff, a.requests, {} FROM {WANTED} adjustments a ON a.{IS_WANTED}",
        items("a")
    );
    let entries = sqlx::query(sqlx::AssertSqlSafe(entries)).bind(&ids).fetch_all(&mut *connection).await?;
    let adjustments = sqlx::query(sqlx::AssertSqlSafe(adjustments)).bind(&ids).fetch_all(connection).await?;
    Ok(Rows { entries, adjustments })
}

/// `directory` was read after the rows: it holds every tariff that they can name.
fn judged(
    rows: &Rows,
    directory: &Directory,
    judge: impl Fn(&Booked) -> Result<Verdict, MoneyError>,
) -> Result<Vec<(Booked, Verdict)>, StoreError> {
    let tariff = |row: &SqliteRow| {
        let number: i64 = row.try_get("tariff")?;
        directory.tariff(number).ok_or_else(|| StoreError::Unreadable(format!("tariff {number}")))
    };
    let mut requests = Vec::with_capacity(rows.entries.len());
    let mut places = HashMap::new();
    for row in &rows.entries {
        let id = request_id(row)?;
        let times = [whole(row, "admitted_at_ms")?, whole(row, "settled_at_ms")?];
        let (times, tariff) = (times.map(UnixNanos::from_millis), tariff(row)?.clone());
        places.insert(id, requests.len());
        requests.push(Booked::new(id, times, row.try_get("api_key")?, usage(row)?, tariff));
    }
    for row in &rows.adjustments {
        let id = request_id(row)?;
        let booked = places.get(&id).and_then(|at| requests.get_mut(*at));
        if let Some(booked) = booked {
            let usage = usage(row)?;
            booked.adjust(tariff(row)?, &usage, row.try_get("requests")?).map_err(|_| StoreError::Overflow(id))?;
        }
    }
    let judged = requests.into_iter().map(|booked| {
        let verdict = judge(&booked).map_err(|_| StoreError::Overflow(booked.request_id))?;
        Ok((booked, verdict))
    });
    judged.collect()
}

/// One adjustment, and what it adds to the sums.
async fn insert(
    connection: &mut SqliteConnection,
    names: &mut Names,
    stretch: &Stretch,
    booked: &Booked,
    correction: &Correction,
) -> Result<Cell, StoreError> {
    let stored = |number: u64| i64::try_from(number).map_err(|_| StoreError::Overflow(booked.request_id));
    let small = |number: i64| u32::try_from(number).map_err(|_| StoreError::Overflow(booked.request_id));
    let tariff = names.tariff(connection, &correction.tariff).await?;
    let sql = format!(
        "INSERT INTO adjustments (request_id, api_key, tariff, requests, settled_at_ms, adjusted_at_ms, reason, {})
         VALUES (?, ?, ?, ?, ?, ?, ?{})",
        LineItem::ALL.map(LineItem::name).join(", "),
        ", ?".repeat(LineItem::COUNT)
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(booked.request_id.to_bytes().to_vec())
        .bind(booked.api_key)
        .bind(tariff)
        .bind(correction.prices_all)
        .bind(stored(booked.settled_at.millis())?)
        .bind(stored(stretch.adjusted_at.millis())?)
        .bind(&stretch.reason);
    let mut quantities = LineItem::ALL.into_iter().map(|item| stored(correction.usage.get(item)));
    quantities.try_fold(query, |query, quantity| quantity.map(|n| query.bind(n)))?.execute(connection).await?;
    let requests = u64::from(correction.prices_all);
    Ok(Cell { api_key: small(booked.api_key)?, tariff: small(tariff)?, requests, usage: correction.usage })
}
