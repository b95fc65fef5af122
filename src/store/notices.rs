//! What the audit log knows of marks that limits on money have passed.

use super::{Store, StoreError, accounts::stored, change::Change};
use crate::domain::{
    audit::{Actor, AuditEvent, AuditRow, EventType},
    spend::{Spender, Told},
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

/// Whether an administrator has changed limits of `spender` since. What the gateway itself does, as a promotion, does not count.
pub async fn changed_since(
    store: &Store,
    spender: Spender,
    object_id: &str,
    since: UnixNanos,
) -> Result<bool, StoreError> {
    let is_change = match spender {
        Spender::Key => changes(EventType::ApiKeyUpdated, "budget"),
        Spender::Tier => changes(EventType::ProjectUpdated, "tier"),
        Spender::Project | Spender::Organization => {
            let [updated, deleted] = [EventType::SpendLimitUpdated, EventType::SpendLimitDeleted];
            format!("type IN ('{updated}', '{deleted}')")
        }
    };
    let changed = format!(
        "SELECT EXISTS (SELECT 1 FROM audit_log WHERE object_id = ? AND effective_at >= ? AND actor <> ? AND {is_change})"
    );
    let changed = sqlx::query_scalar(sqlx::AssertSqlSafe(changed))
        .bind(object_id)
        .bind(stored(since))
        .bind(Actor::Gateway.id())
        .fetch_one(store.reader())
        .await?;
    Ok(changed)
}

/// Rows that have another value for `field` than before.
fn changes(event_type: EventType, field: &str) -> String {
    format!("type = '{event_type}' AND before -> '$.{field}' IS NOT after -> '$.{field}'")
}
