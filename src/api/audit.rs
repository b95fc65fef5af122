//! `GET /v1/organization/audit_logs`: what administrators have changed, newest first.

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};

use super::auth::Admin;
use crate::{
    domain::audit::AuditRow,
    openai::{
        error::ApiError,
        management::audit::{AuditPage, AuditQuery},
    },
    store::{
        Store, StoreError,
        audit::{self, Filter, Position},
    },
};

pub(super) async fn list(
    _: Admin,
    State(store): State<Arc<Store>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = AuditQuery::parse(&query.unwrap_or_default())?;
    let position = position(&store, &query).await.map_err(|error| failed(&error))?;
    let position = position.ok_or_else(|| query.no_such_cursor())?;
    let limit = query.limit;
    let filter = Filter {
        effective_from_s: query.effective_from_s,
        effective_until_s: query.effective_until_s,
        project_ids: query.project_ids,
        event_types: query.event_types,
        actor_ids: query.actor_ids,
        resource_ids: query.resource_ids,
    };
    let rows = audit::page(&store, &filter, position, limit.saturating_add(1)).await;
    let mut rows = rows.map_err(|error| failed(&error))?;
    let has_more = rows.len() > limit;
    // The row too many is the farthest from where the page starts.
    match position {
        Position::Before(_) if has_more => drop(rows.remove(0)),
        _ => rows.truncate(limit),
    }
    Ok(Json(AuditPage::new(&rows, has_more)).into_response())
}

/// `None` when the cursor names no row.
async fn position(store: &Store, query: &AuditQuery) -> Result<Option<Position>, StoreError> {
    let (id, position): (_, fn(u64) -> Position) = match (&query.after, &query.before) {
        (Some(after), _) => (after, Position::After),
        (None, Some(before)) => (before, Position::Before),
        (None, None) => return Ok(Some(Position::Newest)),
    };
    let Some(number) = AuditRow::number_of(id) else { return Ok(None) };
    let row = audit::row(store, number).await?;
    Ok(row.filter(|row| row.id() == *id).map(|row| position(row.number)))
}

fn failed(error: &StoreError) -> ApiError {
    tracing::error!(%error, "the audit log could not be read");
    ApiError::internal()
}

#[cfg(test)]
mod tests;
