//! The organization's usage and costs. Only admins get here.

use std::fmt::Display;

use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header::CONTENT_TYPE};
use tokio::task::spawn_blocking;

use super::{
    auth::Admin,
    routes::{Handlers, get},
};
use crate::{
    app::{App, AppState},
    domain::{catalog::Catalog, report::Kind, time::UnixNanos},
    openai::{error::ApiError, report},
    store::{self, Store},
};

/// `GET /v1/organization/usage/{kind}` and `GET /v1/organization/costs`
pub(super) fn of(kind: Kind) -> Handlers<AppState> {
    get(move |_: Admin, State(AppState(app)): State<AppState>, RawQuery(query): RawQuery| async move {
        answer(kind, &app, query).await
    })
}

async fn answer(kind: Kind, app: &App, query: Option<String>) -> Result<Response, ApiError> {
    let query = query.unwrap_or_default();
    let body = page(kind, &app.store, &app.catalog, &query, app.clock.now()).await?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

/// One page of a report, as its bytes.
pub(crate) async fn page(
    kind: Kind,
    store: &Store,
    catalog: &Catalog,
    query: &str,
    now: UnixNanos,
) -> Result<Vec<u8>, ApiError> {
    let (report, page) = report::read(kind, query, now)?;
    let rows = match report.selection(&page, catalog) {
        Some(selection) => store::reports::rows(store, &selection).await.map_err(|error| failed(&error))?,
        None => Vec::new(),
    };
    // A large report takes tens of milliseconds, which are not to be taken from requests.
    let printed = spawn_blocking(move || {
        let buckets = report.fold(&page, rows).map_err(|error| failed(&error))?;
        report::print(&report, &page, &buckets).map_err(|error| failed(&error))
    });
    printed.await.map_err(|error| failed(&error))?
}

/// The caller learns that it was not their fault, the log learns why.
fn failed(error: &dyn Display) -> ApiError {
    tracing::error!(%error, "a report could not be made");
    let message = "The gateway could not read its ledger. Please retry later, or contact the gateway's administrator if \
        you keep seeing this error.";
    ApiError::new(500, "server_error", message, None, Some("report_failed".into()))
}

#[cfg(test)]
mod tests;
