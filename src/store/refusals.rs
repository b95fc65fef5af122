//! Refusals of the last day: written in batches, and deleted when they are old or too many. Not a change that anybody
//! makes, so they leave no row in the audit log; and a moment of them that is lost with the power is no harm.

use std::sync::LazyLock;

use sqlx::{FromRow, SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    accounts::{stored, time, unreadable},
    requests::Filter,
    statement::Insert,
};
use crate::domain::{
    ids::{KeyId, ProjectId, RequestId},
    refusals::{RefusedRequest, oldest_kept},
    time::UnixNanos,
};

/// Rows per transaction, so that the ledger's writer never waits long.
const AT_ONCE: usize = 1_000;

static INSERT: LazyLock<Insert> = LazyLock::new(|| {
    let head = "INSERT OR IGNORE INTO refusals (request_id, refused_at, project_id, api_key, endpoint, model, stream, \
        status, code, reason, headrooms)";
    Insert::new(head, 11, "")
});

pub async fn count(store: &Store) -> Result<u64, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM refusals").fetch_one(store.reader()).await?;
    Ok(count.unsigned_abs())
}

/// Adds `refused` to the `kept` that are there, deletes what is older than a day at `now` and the oldest past `most`.
/// Returns how many are there then.
pub async fn save(
    store: &Store,
    refused: &[RefusedRequest],
    now: UnixNanos,
    kept: u64,
    most: u64,
) -> Result<u64, StoreError> {
    let mut transaction = store.writer().begin_with("BEGIN IMMEDIATE").await?;
    let expired = sqlx::query("DELETE FROM refusals WHERE request_id < ?").bind(id(oldest_kept(now)));
    let expired = expired.execute(&mut *transaction).await?.rows_affected();
    transaction.commit().await?;
    let mut kept = kept.saturating_sub(expired);
    for piece in refused.chunks(AT_ONCE) {
        let mut transaction = store.writer().begin_with("BEGIN IMMEDIATE").await?;
        let total = kept.saturating_add(insert(&mut transaction, piece).await?);
        let excess = sqlx::query(
            "DELETE FROM refusals WHERE request_id IN (SELECT request_id FROM refusals ORDER BY request_id LIMIT ?)",
        )
        .bind(i64::try_from(total.saturating_sub(most)).unwrap_or(i64::MAX));
        let excess = excess.execute(&mut *transaction).await?.rows_affected();
        transaction.commit().await?;
        kept = total.saturating_sub(excess);
    }
    Ok(kept)
}

async fn insert(connection: &mut SqliteConnection, refused: &[RefusedRequest]) -> Result<u64, StoreError> {
    let mut inserted = 0_u64;
    for (sql, piece) in INSERT.pieces(refused) {
        let mut query = sqlx::query(sql);
        for it in piece {
            query = query
                .bind(id(it.request_id))
                .bind(stored(it.refused_at))
                .bind(it.project_id.as_str())
                .bind(it.key_id.as_str())
                .bind(&*it.endpoint)
                .bind(&*it.model)
                .bind(it.stream)
                .bind(it.status)
                .bind(it.code.as_deref())
                .bind(serde_json::to_string(&it.reason).map_err(|error| sqlx::Error::Encode(error.into()))?)
                .bind(serde_json::to_string(&it.headrooms).map_err(|error| sqlx::Error::Encode(error.into()))?);
        }
        inserted = inserted.saturating_add(query.execute(&mut *connection).await?.rows_affected());
    }
    Ok(inserted)
}

/// At most `limit` of those that are kept at `now`, newest first.
pub(super) async fn page(
    store: &Store,
    filter: &Filter,
    now: UnixNanos,
    limit: usize,
) -> Result<Vec<RefusedRequest>, StoreError> {
    let list = |values: &[String]| serde_json::to_string(values).map_err(|error| sqlx::Error::Encode(error.into()));
    let rows = sqlx::query_as(
        "SELECT * FROM refusals WHERE request_id >= ?1 AND request_id < ?2
             AND (?3 = '[]' OR project_id IN (SELECT value FROM json_each(?3)))
             AND (?4 = '[]' OR api_key IN (SELECT value FROM json_each(?4)))
             AND (?5 = '[]' OR model IN (SELECT value FROM json_each(?5)))
         ORDER BY request_id DESC LIMIT ?6",
    )
    .bind(id(filter.from.max(oldest_kept(now))))
    .bind(id(filter.before))
    .bind(list(&filter.project_ids)?)
    .bind(list(&filter.api_key_ids)?)
    .bind(list(&filter.models)?)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX));
    Ok(rows.fetch_all(store.reader()).await?)
}

pub(super) fn id(request_id: RequestId) -> Vec<u8> {
    request_id.to_bytes().to_vec()
}

impl FromRow<'_, SqliteRow> for RefusedRequest {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        use sqlx::Row as _;
        let text = |column| row.try_get::<&str, _>(column);
        let json = |_error: serde_json::Error| unreadable("refusals");
        Ok(Self {
            request_id: read_id(row.try_get("request_id")?)?,
            refused_at: time(row.try_get("refused_at")?),
            project_id: ProjectId::parse(text("project_id")?).ok_or_else(|| unreadable("refusals.project_id"))?,
            key_id: KeyId::parse(text("api_key")?).ok_or_else(|| unreadable("refusals.api_key"))?,
            endpoint: text("endpoint")?.to_owned().into(),
            model: text("model")?.into(),
            stream: row.try_get("stream")?,
            status: row.try_get("status")?,
            code: row.try_get::<Option<String>, _>("code")?.map(Into::into),
            reason: serde_json::from_str(text("reason")?).map_err(json)?,
            headrooms: serde_json::from_str(text("headrooms")?).map_err(json)?,
        })
    }
}

pub(super) fn read_id(bytes: &[u8]) -> Result<RequestId, sqlx::Error> {
    bytes.try_into().map(RequestId::from_bytes).map_err(|_| unreadable("a request id"))
}
