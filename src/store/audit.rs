//! The audit log: added to by `change::Change`, read in pages, and checked from its first row.

use std::path::Path;

use sqlx::{Connection as _, FromRow, SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    accounts::{stored, time},
};
use crate::domain::audit::{AuditEvent, AuditHash, AuditRow, Broken, Chain};

/// Rows in memory at a time while the log is checked.
const CHECKED_AT_ONCE: i64 = 1_000;

/// Which rows a page shows. An empty list is no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub effective_from_s: Option<u64>,
    /// The first second that is not shown.
    pub effective_until_s: Option<u64>,
    pub project_ids: Vec<String>,
    pub event_types: Vec<String>,
    pub actor_ids: Vec<String>,
    pub resource_ids: Vec<String>,
}

/// Which way from which row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// From the newest row on.
    Newest,
    /// Rows that are older than this one.
    After(u64),
    /// Rows that are newer, those next to it.
    Before(u64),
}

/// What checking the log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// As far as it is right.
    pub chain: Chain,
    pub broken: Option<Broken>,
    /// Whether a row has the expected hash; none was expected: true.
    pub expected_found: bool,
}

pub(super) async fn append(connection: &mut SqliteConnection, event: &AuditEvent) -> Result<AuditRow, StoreError> {
    let last: Option<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT number, hash FROM audit_log ORDER BY number DESC LIMIT 1")
            .fetch_optional(&mut *connection)
            .await?;
    let (number, previous) = match last {
        None => (0, Chain::START.head),
        Some((number, bytes)) => (number, hash(&bytes)?),
    };
    let text = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
    let mut row = AuditRow {
        number: u64::try_from(number).unwrap_or(0).saturating_add(1),
        event_type: event.event_type.name().to_owned(),
        actor: event.by.actor.id().to_owned(),
        effective_at: event.by.at,
        object_id: event.object_id.clone(),
        project_id: event.project.as_ref().map(|(id, _)| id.to_string()),
        project_name: event.project.as_ref().map(|(_, name)| name.clone()),
        before: text(&event.before),
        after: text(&event.after),
        hash: previous,
    };
    row.hash = row.seal(&previous);
    sqlx::query(
        "INSERT INTO audit_log (number, type, actor, effective_at, object_id, project_id, project_name, before, after, \
         hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(i64::try_from(row.number).unwrap_or(i64::MAX))
    .bind(&row.event_type)
    .bind(&row.actor)
    .bind(stored(row.effective_at))
    .bind(&row.object_id)
    .bind(&row.project_id)
    .bind(&row.project_name)
    .bind(&row.before)
    .bind(&row.after)
    .bind(row.hash.as_bytes().as_slice())
    .execute(connection)
    .await?;
    Ok(row)
}

/// At most `limit` rows, newest first.
pub async fn page(store: &Store, filter: &Filter, from: Position, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
    const FILTERS: &str = "WHERE number > ?1 AND number < ?2 AND effective_at >= ?3 AND effective_at < ?4 \
        AND (?5 = '[]' OR project_id IN (SELECT value FROM json_each(?5))) \
        AND (?6 = '[]' OR type IN (SELECT value FROM json_each(?6))) \
        AND (?7 = '[]' OR actor IN (SELECT value FROM json_each(?7))) \
        AND (?8 = '[]' OR object_id IN (SELECT value FROM json_each(?8)))";
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (newer_than, older_than, order) = match from {
        Position::Newest => (0, i64::MAX, "DESC"),
        Position::After(number) => (0, whole(number), "DESC"),
        Position::Before(number) => (whole(number), i64::MAX, "ASC"),
    };
    let nanos = |seconds: Option<u64>, open: i64| seconds.map_or(open, |s| whole(s.saturating_mul(1_000_000_000)));
    let list = |values: &[String]| serde_json::to_string(values).map_err(|error| sqlx::Error::Encode(error.into()));
    let sql = format!("SELECT * FROM audit_log {FILTERS} ORDER BY number {order} LIMIT ?9");
    let mut rows: Vec<AuditRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(newer_than)
        .bind(older_than)
        .bind(nanos(filter.effective_from_s, i64::MIN))
        .bind(nanos(filter.effective_until_s, i64::MAX))
        .bind(list(&filter.project_ids)?)
        .bind(list(&filter.event_types)?)
        .bind(list(&filter.actor_ids)?)
        .bind(list(&filter.resource_ids)?)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(store.reader())
        .await?;
    if matches!(from, Position::Before(_)) {
        rows.reverse();
    }
    Ok(rows)
}

/// The row of this number.
pub async fn row(store: &Store, number: u64) -> Result<Option<AuditRow>, StoreError> {
    let Ok(number) = i64::try_from(number) else { return Ok(None) };
    let row = sqlx::query_as("SELECT * FROM audit_log WHERE number = ?").bind(number);
    Ok(row.fetch_optional(store.reader()).await?)
}

/// Checks the log in the database file, as of one moment, whether or not a gateway is running on it. Nothing is written.
pub async fn verify(path: &Path, expected: Option<AuditHash>) -> Result<Verified, StoreError> {
    let mut connection = Store::connect_to_read(path).await?;
    let mut reading = connection.begin().await?;
    let table: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'audit_log')")
        .fetch_one(&mut *reading)
        .await?;
    if !table {
        return Err(StoreError::NoAuditLog);
    }
    let mut found = Verified { chain: Chain::START, broken: None, expected_found: expected.is_none() };
    let mut last = i64::MIN;
    while found.broken.is_none() {
        let rows: Vec<SqliteRow> = sqlx::query("SELECT * FROM audit_log WHERE number > ? ORDER BY number LIMIT ?")
            .bind(last)
            .bind(CHECKED_AT_ONCE)
            .fetch_all(&mut *reading)
            .await?;
        let Some(end) = rows.last() else { break };
        last = sqlx::Row::try_get(end, "number")?;
        for row in &rows {
            if let Err(broken) = follow(&mut found.chain, row) {
                found.broken = Some(broken);
                break;
            }
            found.expected_found |= expected == Some(found.chain.head);
        }
    }
    drop(reading);
    connection.close().await?;
    Ok(found)
}

/// A row that cannot even be read was not written here.
fn follow(chain: &mut Chain, row: &SqliteRow) -> Result<(), Broken> {
    use crate::domain::audit::BrokenBy;
    match AuditRow::from_row(row) {
        Ok(row) => chain.follow(&row),
        Err(_unreadable) => Err(Broken { number: chain.next_number(), by: BrokenBy::Altered }),
    }
}

impl FromRow<'_, SqliteRow> for AuditRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        use sqlx::Row as _;
        let number: i64 = row.try_get("number")?;
        let effective_at: i64 = row.try_get("effective_at")?;
        Ok(Self {
            number: u64::try_from(number).map_err(|_| super::accounts::unreadable("audit_log.number"))?,
            event_type: row.try_get("type")?,
            actor: row.try_get("actor")?,
            effective_at: time(effective_at),
            object_id: row.try_get("object_id")?,
            project_id: row.try_get("project_id")?,
            project_name: row.try_get("project_name")?,
            before: row.try_get("before")?,
            after: row.try_get("after")?,
            hash: hash(row.try_get("hash")?)?,
        })
    }
}

fn hash(bytes: &[u8]) -> Result<AuditHash, sqlx::Error> {
    bytes.try_into().map(AuditHash::from_bytes).map_err(|_| super::accounts::unreadable("audit_log.hash"))
}
