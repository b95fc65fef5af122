//! Refusals of the last day: written in batches, and deleted when they are old or too many. Not a change that anybody
//! makes, so they leave no row in the audit log; and a moment of them that is lost with the power is no harm.

use std::sync::LazyLock;

use sqlx::{FromRow, SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    accounts::{stored, time, unreadable},
    requests::{Filter, hex},
    statement::Insert,
};
use crate::domain::{
    ids::{KeyId, ProjectId, RequestId},
    refusals::{Kept, RefusedRequest, oldest_kept},
    time::UnixNanos,
};

/// Rows per transaction, so that the ledger's writer never waits long.
const AT_ONCE: usize = 1_000;

static INSERT: LazyLock<Insert> = LazyLock::new(|| {
    let head = "INSERT OR IGNORE INTO refusals (request_id, refused_at, project_id, api_key, endpoint, model, stream, \
        status, code, reason, headrooms)";
    Insert::new(head, 11, "")
});

/// All that are there.
pub async fn kept(store: &Store) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    let rows = sqlx::query_as::<_, (Vec<u8>, String)>("SELECT request_id, api_key FROM refusals");
    for (id, key) in rows.fetch_all(store.reader()).await? {
        kept.add(&KeyId::parse(&key).ok_or_else(|| unreadable("refusals.api_key"))?, read_id(&id)?);
    }
    Ok(kept)
}

/// Adds `refused` to the `kept` that are there, and deletes what is older than a day at `now` and what is more than `most`.
/// After an error `kept` is no longer what is there.
pub async fn save(
    store: &Store,
    refused: &[RefusedRequest],
    now: UnixNanos,
    kept: &mut Kept,
    most: usize,
) -> Result<(), StoreError> {
    let oldest = oldest_kept(now);
    while delete_before(store, oldest).await? == AT_ONCE as u64 {}
    kept.forget_before(oldest);
    for piece in refused.chunks(AT_ONCE) {
        let mut transaction = store.writer().begin_with("BEGIN IMMEDIATE").await?;
        insert(&mut transaction, piece).await?;
        transaction.commit().await?;
        for it in piece {
            kept.add(&it.key_id, it.request_id);
        }
    }
    for piece in kept.shed(most).chunks(AT_ONCE) {
        const DELETE: &str = "DELETE FROM refusals WHERE request_id IN (SELECT unhex(value) FROM json_each(?))";
        sqlx::query(DELETE).bind(hex(piece)?).execute(store.writer()).await?;
    }
    Ok(())
}

async fn delete_before(store: &Store, oldest: RequestId) -> Result<u64, StoreError> {
    const DELETE: &str =
        "DELETE FROM refusals WHERE request_id IN (SELECT request_id FROM refusals WHERE request_id < ? LIMIT ?)";
    let query = sqlx::query(DELETE).bind(id(oldest)).bind(i64::try_from(AT_ONCE).unwrap_or(i64::MAX));
    Ok(query.execute(store.writer()).await?.rows_affected())
}

async fn insert(connection: &mut SqliteConnection, refused: &[RefusedRequest]) -> Result<(), StoreError> {
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
        query.execute(&mut *connection).await?;
    }
    Ok(())
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
