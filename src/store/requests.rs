//! Single requests, read to be explained: entries of the ledger with their adjustments, and refusals, in the order of their
//! ids, which is that of their arrival.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, TypeInfo as _, ValueRef as _, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    columns::{duration_ms, request_id, usage, whole},
    refusals::{self, id},
    reports::Directory,
};
use crate::domain::{
    explanation::{Adjustment, AdmittedUnder, Explained, Finished},
    held::Held,
    ids::{KeyId, ProjectId, RequestId},
    ledger::Outcome,
    limits::WrittenLimits,
    time::UnixNanos,
    usage::{Basis, LineItem},
};

/// Which requests a page shows. An empty list is no filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The first id that is shown, and the first that is not.
    pub from: RequestId,
    pub before: RequestId,
    pub project_ids: Vec<String>,
    pub api_key_ids: Vec<String>,
    /// As requested or as billed.
    pub models: Vec<String>,
    /// How finished requests ended; empty with `finished` is all.
    pub outcomes: Vec<Outcome>,
    pub finished: bool,
    pub refused: bool,
}

impl Filter {
    pub(super) fn between(from: RequestId, before: RequestId) -> Self {
        let (project_ids, api_key_ids, models, outcomes) = Default::default();
        Self { from, before, project_ids, api_key_ids, models, outcomes, finished: true, refused: true }
    }
}

/// The request of this id; `None` when there is none, or a refusal that is a day old at `now`.
pub async fn find(store: &Store, request_id: RequestId, now: UnixNanos) -> Result<Option<Explained>, StoreError> {
    let filter = Filter::between(request_id, request_id.successor());
    Ok(matching(store, &filter, now, 1).await?.pop())
}

/// At most `limit` requests, newest first. A filter that little matches reads the whole ledger: one page at a time, so that
/// reports find the other connections free.
pub async fn page(store: &Store, filter: &Filter, now: UnixNanos, limit: usize) -> Result<Vec<Explained>, StoreError> {
    let turn = Arc::clone(&store.scan).acquire_owned().await;
    let (store, filter) = (store.clone(), filter.clone());
    // In a task of its own: when whoever asked leaves, SQLite reads on, and the turn must not end before.
    tokio::spawn(async move {
        let _turn = turn;
        matching(&store, &filter, now, limit).await
    })
    .await?
}

async fn matching(store: &Store, filter: &Filter, now: UnixNanos, limit: usize) -> Result<Vec<Explained>, StoreError> {
    let mut found = Vec::new();
    if filter.finished {
        let finished = finished(store, filter, limit).await?;
        found.extend(finished.into_iter().map(|it| Explained::Finished(Box::new(it))));
    }
    if filter.refused {
        let refused = refusals::page(store, filter, now, limit).await?;
        found.extend(refused.into_iter().map(|it| Explained::Refused(Box::new(it))));
    }
    found.sort_unstable_by_key(|it| Reverse(it.request_id()));
    found.truncate(limit);
    Ok(found)
}

/// The limit is applied to the entries alone: words are looked up for those that are shown. What a filter names comes as
/// numbers, so that each entry is compared without a look-up.
pub(super) const ENTRIES: &str =
    "SELECT e.*, k.id AS key_id, k.project_id, n.status, n.stream, r.name AS requested_model, o.name AS outcome,
            b.name AS basis, t.limit_group, t.limits
     FROM (
         SELECT * FROM entries WHERE request_id >= ?1 AND request_id < ?2
             AND (?3 IS NULL OR api_key IN (SELECT value FROM json_each(?3)))
             AND (?4 IS NULL OR tariff IN (SELECT value FROM json_each(?4)) OR ending IN (SELECT value FROM json_each(?5)))
             AND (?6 IS NULL OR ending IN (SELECT value FROM json_each(?6)))
         ORDER BY request_id DESC LIMIT ?7
     ) e
     JOIN api_keys k ON k.number = e.api_key
     JOIN endings n ON n.number = e.ending
     JOIN names r ON r.number = n.requested_model
     JOIN names o ON o.number = n.outcome
     JOIN names b ON b.number = n.basis
     LEFT JOIN terms t ON t.number = e.terms
     ORDER BY e.request_id DESC";

static ADJUSTMENTS: LazyLock<String> = LazyLock::new(|| {
    let items = LineItem::ALL.map(LineItem::name).join(", ");
    format!(
        "SELECT request_id, tariff, requests, adjusted_at_ms, reason, {items} FROM adjustments
         WHERE request_id IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY number"
    )
});

async fn finished(store: &Store, filter: &Filter, limit: usize) -> Result<Vec<Finished>, StoreError> {
    let Some(numbers) = Numbers::of(store, filter).await? else { return Ok(Vec::new()) };
    // One moment for both: an entry must not be read before it is dropped, and its adjustments after.
    let mut reading = store.reader().begin().await?;
    let rows = sqlx::query(ENTRIES)
        .bind(id(filter.from))
        .bind(id(filter.before))
        .bind(numbers.keys)
        .bind(numbers.tariffs)
        .bind(numbers.requested)
        .bind(numbers.endings)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *reading)
        .await?;
    let ids: Vec<RequestId> = rows.iter().map(request_id).collect::<Result<_, _>>()?;
    let corrections = adjustments(&mut reading, &ids).await?;
    reading.commit().await?;
    // Read afterwards: it holds every tariff that the rows can name.
    let directory = store.directory().await?;
    let mut adjustments: HashMap<RequestId, Vec<Adjustment>> = HashMap::new();
    for row in corrections {
        let request_id = request_id(&row)?;
        adjustments.entry(request_id).or_default().push(adjustment(&row, &directory)?);
    }
    let finished = rows.iter().zip(ids).map(|(row, id)| {
        let adjustments = adjustments.remove(&id).unwrap_or_default();
        read(row, id, &directory, adjustments)
    });
    finished.collect()
}

async fn adjustments(connection: &mut SqliteConnection, ids: &[RequestId]) -> Result<Vec<SqliteRow>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let query = sqlx::query(AssertSqlSafe(ADJUSTMENTS.as_str())).bind(hex(ids)?);
    Ok(query.fetch_all(connection).await?)
}

/// A JSON list, for `unhex`.
pub(super) fn hex(ids: &[RequestId]) -> Result<String, sqlx::Error> {
    let digits = ids.iter().map(|id| id.text().as_str().trim_start_matches("req_").to_owned());
    json(&digits.collect::<Vec<_>>())
}

/// What a filter names, in numbers: JSON lists, `None` where nothing is filtered.
#[derive(Default)]
struct Numbers {
    keys: Option<String>,
    tariffs: Option<String>,
    /// Endings of requests for one of the models.
    requested: Option<String>,
    /// Endings with one of the outcomes.
    endings: Option<String>,
}

impl Numbers {
    /// `None` when no entry can match.
    async fn of(store: &Store, filter: &Filter) -> Result<Option<Self>, StoreError> {
        let mut numbers = Self::default();
        if !filter.project_ids.is_empty() || !filter.api_key_ids.is_empty() {
            const KEYS: &str = "SELECT number FROM api_keys
                WHERE (?1 = '[]' OR project_id IN (SELECT value FROM json_each(?1)))
                  AND (?2 = '[]' OR id IN (SELECT value FROM json_each(?2)))";
            let keys = numbered(store, KEYS, &filter.project_ids, &filter.api_key_ids).await?;
            if keys.is_empty() {
                return Ok(None);
            }
            numbers.keys = Some(json(&keys)?);
        }
        if !filter.models.is_empty() {
            const TARIFFS: &str = "SELECT t.number FROM tariffs t JOIN names m ON m.number = t.model
                WHERE ?2 = '[]' AND m.name IN (SELECT value FROM json_each(?1))";
            const ENDINGS: &str = "SELECT n.number FROM endings n JOIN names m ON m.number = n.requested_model
                WHERE ?2 = '[]' AND m.name IN (SELECT value FROM json_each(?1))";
            let tariffs = numbered(store, TARIFFS, &filter.models, &[]).await?;
            let endings = numbered(store, ENDINGS, &filter.models, &[]).await?;
            if tariffs.is_empty() && endings.is_empty() {
                return Ok(None);
            }
            (numbers.tariffs, numbers.requested) = (Some(json(&tariffs)?), Some(json(&endings)?));
        }
        if !filter.outcomes.is_empty() {
            const ENDINGS: &str = "SELECT n.number FROM endings n JOIN names o ON o.number = n.outcome
                WHERE ?2 = '[]' AND o.name IN (SELECT value FROM json_each(?1))";
            let outcomes: Vec<_> = filter.outcomes.iter().map(|outcome| outcome.name().to_owned()).collect();
            let endings = numbered(store, ENDINGS, &outcomes, &[]).await?;
            if endings.is_empty() {
                return Ok(None);
            }
            numbers.endings = Some(json(&endings)?);
        }
        Ok(Some(numbers))
    }
}

async fn numbered(
    store: &Store,
    sql: &'static str,
    first: &[String],
    second: &[String],
) -> Result<Vec<i64>, StoreError> {
    let query = sqlx::query_scalar(sql).bind(json(first)?).bind(json(second)?);
    Ok(query.fetch_all(store.reader()).await?)
}

fn json<T: serde::Serialize + ?Sized>(values: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(values).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn read(
    row: &SqliteRow,
    request_id: RequestId,
    directory: &Directory,
    adjustments: Vec<Adjustment>,
) -> Result<Finished, StoreError> {
    let text = |column| row.try_get::<&str, _>(column);
    let unknown = |column: &str| StoreError::Unreadable(column.to_owned());
    let (outcome, basis) = (text("outcome")?, text("basis")?);
    Ok(Finished {
        request_id,
        project_id: ProjectId::parse(text("project_id")?).ok_or_else(|| unknown("a project id"))?,
        key_id: KeyId::parse(text("key_id")?).ok_or_else(|| unknown("a key id"))?,
        requested_model: text("requested_model")?.to_owned(),
        stream: row.try_get("stream")?,
        outcome: Outcome::ALL.into_iter().find(|it| it.name() == outcome).ok_or_else(|| unknown(outcome))?,
        status: row.try_get("status")?,
        admitted_at_ms: whole(row, "admitted_at_ms")?,
        duration_ms: duration_ms(row)?,
        basis: Basis::ALL.into_iter().find(|it| it.name() == basis).ok_or_else(|| unknown(basis))?,
        usage: usage(row)?,
        tariff: directory.tariff(row.try_get("tariff")?).cloned().ok_or_else(|| unknown("a tariff"))?,
        admitted_under: admitted_under(row)?,
        adjustments,
    })
}

/// `None` for entries of before it was written down.
fn admitted_under(row: &SqliteRow) -> Result<Option<AdmittedUnder>, StoreError> {
    let terms: (Option<String>, Option<String>) = (row.try_get("limit_group")?, row.try_get("limits")?);
    let (Some(limit_group), Some(limits)) = terms else { return Ok(None) };
    Ok(Some(AdmittedUnder {
        limit_group,
        limits: serde_json::from_str::<WrittenLimits>(&limits).map_err(|_| StoreError::Unreadable(limits))?.into(),
        held: held(row)?,
    }))
}

/// JSON where an earlier version wrote it.
pub(super) fn held(row: &SqliteRow) -> Result<Held, StoreError> {
    let unreadable = || StoreError::Unreadable("what a request held".to_owned());
    let bytes: &[u8] = row.try_get_unchecked("held")?;
    let is_json = row.try_get_raw("held")?.type_info().name() == "TEXT";
    let read =
        if is_json { serde_json::from_slice(bytes).ok().and_then(Held::from_numbers) } else { Held::unpack(bytes) };
    read.ok_or_else(unreadable)
}

fn adjustment(row: &SqliteRow, directory: &Directory) -> Result<Adjustment, StoreError> {
    let unknown = || StoreError::Unreadable("the tariff of an adjustment".to_owned());
    Ok(Adjustment {
        reason: row.try_get("reason")?,
        adjusted_at_ms: whole(row, "adjusted_at_ms")?,
        usage: usage(row)?,
        tariff: directory.tariff(row.try_get("tariff")?).cloned().ok_or_else(unknown)?,
        gives_price: row.try_get("requests")?,
    })
}
