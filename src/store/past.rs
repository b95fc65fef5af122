//! Entries as limits saw them, for a replay: in pieces, each in a short transaction of its own, and in the order of request
//! ids. Nothing is written.

use std::{collections::VecDeque, sync::LazyLock};

use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    columns::{duration_ms, request_id, usage, whole},
    refusals::read_id,
    requests::held,
    retention,
};
use crate::domain::{
    ids::{KeyId, ProjectId, RequestId},
    time::UnixNanos,
    usage::LineItem,
    what_if::Booked,
};

/// Entries that are looked at in one transaction.
const AT_ONCE: i64 = 2_000;
/// A request is admitted when all of it has arrived, and its id says when the first of it did.
const LONGEST_ARRIVAL_MS: u64 = 86_400_000;

static ENTRIES: LazyLock<String> = LazyLock::new(|| {
    let items = LineItem::ALL.map(|item| format!("e.{}", item.name())).join(", ");
    format!(
        "SELECT e.request_id, e.admitted_at_ms, e.duration_ms, {items}, e.held, k.id AS key_id, k.project_id, n.status, n.stream,
             r.name AS requested_model
         FROM entries e
         JOIN api_keys k ON k.number = e.api_key
         JOIN endings n ON n.number = e.ending
         JOIN names r ON r.number = n.requested_model
         WHERE e.request_id > ?1 AND e.request_id <= ?2 AND e.admitted_at_ms >= ?3 AND e.admitted_at_ms < ?4
             AND (?5 IS NULL OR k.project_id = ?5)
         ORDER BY e.request_id"
    )
});

/// Which entries: those admitted at `from` or later and before `until`, of one project or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub from: UnixNanos,
    pub until: UnixNanos,
    pub project_id: Option<ProjectId>,
}

/// A walk over these entries.
pub struct Past<'s> {
    store: &'s Store,
    admitted: Admitted,
    /// Up to which request it has been.
    reached: RequestId,
    read: VecDeque<Booked>,
}

impl<'s> Past<'s> {
    pub fn of(store: &'s Store, admitted: Admitted) -> Self {
        let reached = RequestId::earliest(admitted.from.millis().saturating_sub(LONGEST_ARRIVAL_MS));
        Self { store, admitted, reached, read: VecDeque::new() }
    }

    /// `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Booked>, StoreError> {
        while self.read.is_empty() {
            if !self.read_piece().await? {
                return Ok(None);
            }
        }
        Ok(self.read.pop_front())
    }

    /// Entries that ended before then may be missing: they were dropped because of their age.
    pub async fn dropped_before(&self) -> Result<UnixNanos, StoreError> {
        let mut connection = self.store.reader().acquire().await?;
        retention::horizon(&mut connection).await
    }

    /// False at the end.
    async fn read_piece(&mut self) -> Result<bool, StoreError> {
        let bytes = |id: RequestId| id.to_bytes().to_vec();
        let stored = |time: UnixNanos| i64::try_from(time.0.div_ceil(1_000_000)).unwrap_or(i64::MAX);
        let mut reading = self.store.reader().begin().await?;
        // Nobody is admitted before he arrives.
        let end: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT max(request_id) FROM (
                 SELECT request_id FROM entries WHERE request_id > ? AND request_id < ? ORDER BY request_id LIMIT ?
             )",
        )
        .bind(bytes(self.reached))
        .bind(bytes(RequestId::earliest(self.admitted.until.0.div_ceil(1_000_000))))
        .bind(AT_ONCE)
        .fetch_one(&mut *reading)
        .await?;
        let Some(end) = end else { return Ok(false) };
        let entries = sqlx::query(ENTRIES.as_str())
            .bind(bytes(self.reached))
            .bind(&end)
            .bind(stored(self.admitted.from))
            .bind(stored(self.admitted.until))
            .bind(self.admitted.project_id.as_ref().map(ProjectId::as_str));
        for row in entries.fetch_all(&mut *reading).await? {
            self.read.push_back(read(&row)?);
        }
        // A dropped transaction would end some time later.
        reading.rollback().await?;
        self.reached = read_id(&end)?;
        Ok(true)
    }
}

fn read(row: &SqliteRow) -> Result<Booked, StoreError> {
    let text = |column| row.try_get::<&str, _>(column);
    let unknown = |text: &str| StoreError::Unreadable(text.to_owned());
    let (key_id, project_id) = (text("key_id")?, text("project_id")?);
    let admitted_at_ms = whole(row, "admitted_at_ms")?;
    let settled_at_ms = admitted_at_ms.saturating_add(duration_ms(row)?);
    let is_from_before = sqlx::ValueRef::is_null(&row.try_get_raw("held")?);
    Ok(Booked {
        request_id: request_id(row)?,
        admitted_at: UnixNanos::from_millis(admitted_at_ms),
        settled_at: UnixNanos::from_millis(settled_at_ms),
        project_id: ProjectId::parse(project_id).ok_or_else(|| unknown(project_id))?,
        key_id: KeyId::parse(key_id).ok_or_else(|| unknown(key_id))?,
        requested_model: text("requested_model")?.to_owned(),
        stream: row.try_get("stream")?,
        status: row.try_get("status")?,
        usage: usage(row)?,
        held: if is_from_before { None } else { Some(held(row)?) },
    })
}
