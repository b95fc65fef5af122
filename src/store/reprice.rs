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
    let rows = rows(&mut connection, stretch, after).await?;
    judged(&rows, &*store.directory().await?, judge)
}

/// The same requests as they are now, adjusted where they are wrong. `event` is written with the first adjustment of a run,
/// and is then no longer there.
pub async fn correct(
    store: &Store,
    stretch: &Stretch,
    after: Option<RequestId>,
    judge: impl Fn(&Booked) -> Result<Verdict, MoneyError>,
    event: &mut Option<AuditEvent>,
    touched: &mut Touched,
) -> Result<Piece, StoreError> {
    let mut change = match &*event {
        Some(event) => Change::begin(store, event).await?,
        None => Change::resume(store).await?,
    };
    let rows = rows(change.connection(), stretch, after).await?;
    let piece = judged(&rows, &*store.directory().await?, judge)?;
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

/// Entries of a piece, and all adjustments of them.
struct Rows {
    entries: Vec<SqliteRow>,
    adjustments: Vec<SqliteRow>,
}

async fn rows(
    connection: &mut SqliteConnection,
    stretch: &Stretch,
    after: Option<RequestId>,
) -> Result<Rows, StoreError> {
    const WHICH: &str =
        "e.request_id > ? AND e.admitted_at_ms + e.duration_ms >= ? AND e.admitted_at_ms + e.duration_ms < ?";
    let after = after.map(|id| id.to_bytes().to_vec()).unwrap_or_default();
    let millis = |time: UnixNanos| i64::try_from(time.millis()).unwrap_or(i64::MAX);
    let (from_ms, to_ms) = (millis(stretch.from), millis(stretch.to));
    let items = |table: &str| LineItem::ALL.map(|item| format!("{table}.{}", item.name())).join(", ");
    let sql = format!(
        "SELECT e.request_id, e.api_key, e.tariff, e.admitted_at_ms, e.admitted_at_ms + e.duration_ms AS settled_at_ms, {}
         FROM entries e WHERE {WHICH} ORDER BY e.request_id LIMIT ?",
        items("e")
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after.clone()).bind(from_ms).bind(to_ms);
    let limit = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
    let entries = query.bind(limit).fetch_all(&mut *connection).await?;
    let Some(last) = entries.last() else { return Ok(Rows { entries, adjustments: Vec::new() }) };
    let last: Vec<u8> = last.try_get("request_id")?;
    // `CROSS JOIN` keeps the order of the tables: one range of entries, and of each its adjustments.
    let sql = format!(
        "SELECT a.request_id, a.tariff, a.requests, {}
         FROM entries e CROSS JOIN adjustments a ON a.request_id = e.request_id WHERE {WHICH} AND e.request_id <= ?",
        items("a")
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after).bind(from_ms).bind(to_ms).bind(last);
    let adjustments = query.fetch_all(connection).await?;
    Ok(Rows { entries, adjustments })
}

/// `directory` was read after the rows: it holds every tariff that they can name.
fn judged(
    rows: &Rows,
    directory: &Directory,
    judge: impl Fn(&Booked) -> Result<Verdict, MoneyError>,
) -> Result<Piece, StoreError> {
    let tariff = |row: &SqliteRow| {
        let number: i64 = row.try_get("tariff")?;
        directory.tariff(number).ok_or_else(|| StoreError::Unreadable(format!("tariff {number}")))
    };
    let mut requests = Vec::with_capacity(rows.entries.len());
    let mut places = HashMap::new();
    for row in &rows.entries {
        let id = request_id(row)?;
        let times = [rollups::whole(row, "admitted_at_ms")?, rollups::whole(row, "settled_at_ms")?];
        let (times, tariff) = (times.map(UnixNanos::from_millis), tariff(row)?.clone());
        places.insert(id, requests.len());
        requests.push(Booked::new(id, times, row.try_get("api_key")?, rollups::usage(row)?, tariff));
    }
    for row in &rows.adjustments {
        let id = request_id(row)?;
        let booked = places.get(&id).and_then(|at| requests.get_mut(*at));
        if let Some(booked) = booked {
            let usage = rollups::usage(row)?;
            booked.adjust(tariff(row)?, &usage, row.try_get("requests")?).map_err(|_| StoreError::Overflow(id))?;
        }
    }
    let next = requests.last().filter(|_| requests.len() >= AT_ONCE).map(|booked| booked.request_id);
    let judged = requests.into_iter().map(|booked| {
        let verdict = judge(&booked).map_err(|_| StoreError::Overflow(booked.request_id))?;
        Ok((booked, verdict))
    });
    Ok(Piece { requests: judged.collect::<Result<_, StoreError>>()?, next })
}

fn request_id(row: &SqliteRow) -> Result<RequestId, StoreError> {
    let bytes: &[u8] = row.try_get("request_id")?;
    let id = bytes.try_into().map_err(|_| StoreError::Unreadable("a request's id".to_owned()))?;
    Ok(RequestId::from_bytes(id))
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
