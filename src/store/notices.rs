//! What the audit log knows of marks that limits on money have passed.

use super::{Store, StoreError, accounts::stored, change::Change};
use crate::domain::{
    audit::{AuditEvent, AuditRow, EventType},
    spend::Told,
    time::UnixNanos,
};

/// The marks that were told of since.
pub async fn told(store: &Store, since: UnixNanos) -> Result<Vec<Told>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT object_id, after FROM audit_log WHERE type = ? AND effective_at >= ? AND after IS NOT NULL",
    )
    .bind(EventType::SpendLimitMarkPassed.name())
    .bind(stored(since))
    .fetch_all(store.reader())
    .await?;
    let read = |(object_id, after): (String, String)| match serde_json::from_str(&after) {
        Ok(facts) => Ok(Told { object_id, facts }),
        Err(_) => Err(StoreError::Unreadable(after)),
    };
    rows.into_iter().map(read).collect()
}

/// Writes a row for each of these events, all or none, and returns them in order.
pub async fn tell(store: &Store, events: &[AuditEvent]) -> Result<Vec<AuditRow>, StoreError> {
    let mut change = Change::resume(store).await?;
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        rows.push(change.also(event).await?);
    }
    change.commit().await?;
    Ok(rows)
}

/// Whether an administrator has changed a key, a project or the organization's limit since, and so perhaps what it may spend.
pub async fn changed_since(store: &Store, object_id: &str, since: UnixNanos) -> Result<bool, StoreError> {
    let changed = "SELECT EXISTS (SELECT 1 FROM audit_log WHERE object_id = ? AND effective_at >= ? AND type <> ?)";
    let changed = sqlx::query_scalar(changed)
        .bind(object_id)
        .bind(stored(since))
        .bind(EventType::SpendLimitMarkPassed.name())
        .fetch_one(store.reader())
        .await?;
    Ok(changed)
}
