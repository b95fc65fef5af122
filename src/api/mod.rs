//! HTTP in. Every route is on this page, grouped by who calls.

mod admin_keys;
mod audit;
pub mod auth;
mod body;
mod chat;
mod dry_run;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod headers;
mod health;
mod models;
mod openapi;
mod projects;
pub(crate) mod reports;
mod requests;
mod routes;
mod urls;

use std::sync::Arc;

use axum::{Router, extract::FromRef};
use tower_http::catch_panic::CatchPanicLayer;

pub use self::routes::Operation;
use self::routes::{Routes, get, post};
use crate::{
    accounts::{Accounts, AdminKeys},
    app::{App, AppState},
    clock::Clock,
    domain::{catalog::Catalog, report::Kind},
    store::Store,
};

/// What teams use: `/v1/*` and `/health`, nothing else.
pub fn calls(app: &Arc<App>) -> Router {
    finish(calls_listener(), app)
}

/// What administrators use.
pub fn administration(app: &Arc<App>) -> Router {
    finish(admin_listener(), app)
}

/// Both on one address.
pub fn everything(app: &Arc<App>) -> Router {
    finish(call_routes().merge(admin_routes()).merge(health_route()), app)
}

/// Everything that [`calls`] serves.
pub fn calls_operations() -> Vec<Operation> {
    calls_listener().into_operations()
}

/// Everything that [`administration`] serves.
pub fn admin_operations() -> Vec<Operation> {
    admin_listener().into_operations()
}

fn calls_listener() -> Routes<AppState> {
    call_routes().merge(health_route())
}

fn admin_listener() -> Routes<AppState> {
    admin_routes().merge(health_route())
}

fn call_routes() -> Routes<AppState> {
    Routes::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::retrieve))
}

fn admin_routes() -> Routes<AppState> {
    Routes::new()
        .merge(management_routes())
        .merge(report_routes())
        .merge(request_routes())
        .route("/v1/organization/openapi.json", get(openapi::retrieve))
        .route("/metrics", get(health::metrics))
}

fn request_routes() -> Routes<AppState> {
    Routes::new()
        .route("/v1/organization/requests", get(requests::list))
        .route("/v1/organization/requests/{request_id}", get(requests::retrieve))
}

fn report_routes() -> Routes<AppState> {
    Routes::new()
        .route("/v1/organization/usage/completions", reports::of(Kind::Completions))
        .route("/v1/organization/usage/embeddings", reports::of(Kind::Embeddings))
        .route("/v1/organization/usage/moderations", reports::of(Kind::Moderations))
        .route("/v1/organization/usage/images", reports::of(Kind::Images))
        .route("/v1/organization/usage/audio_speeches", reports::of(Kind::AudioSpeeches))
        .route("/v1/organization/usage/audio_transcriptions", reports::of(Kind::AudioTranscriptions))
        .route("/v1/organization/usage/vector_stores", reports::of(Kind::VectorStores))
        .route("/v1/organization/usage/code_interpreter_sessions", reports::of(Kind::CodeInterpreterSessions))
        .route("/v1/organization/usage/file_search_calls", reports::of(Kind::FileSearchCalls))
        .route("/v1/organization/usage/web_search_calls", reports::of(Kind::WebSearchCalls))
        .route("/v1/organization/costs", reports::of(Kind::Costs))
}

/// Generic, so that tests need no whole app.
fn management_routes<S>() -> Routes<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Accounts>: FromRef<S>,
    Arc<AdminKeys>: FromRef<S>,
    Arc<Catalog>: FromRef<S>,
    Arc<Store>: FromRef<S>,
    Clock: FromRef<S>,
{
    Routes::new()
        .route("/v1/organization/audit_logs", get(audit::list))
        .route("/v1/organization/admin_api_keys", get(admin_keys::list).post(admin_keys::create))
        .route("/v1/organization/admin_api_keys/{key_id}", get(admin_keys::retrieve).delete(admin_keys::delete))
        .route("/v1/organization/projects", get(projects::list).post(projects::create))
        .route("/v1/organization/projects/{project_id}", get(projects::retrieve).post(projects::modify))
        .route("/v1/organization/projects/{project_id}/archive", post(projects::archive))
        .merge(service_account_routes())
        .merge(key_routes())
        .merge(terms_routes())
}

fn service_account_routes<S>() -> Routes<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Accounts>: FromRef<S>,
    Arc<AdminKeys>: FromRef<S>,
    Clock: FromRef<S>,
{
    use projects::service_accounts::{create, create_key, delete, list, modify, retrieve};
    Routes::new()
        .route("/v1/organization/projects/{project_id}/service_accounts", get(list).post(create))
        .route(
            "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}",
            get(retrieve).post(modify).delete(delete),
        )
        .route(
            "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys",
            post(create_key),
        )
}

fn key_routes<S>() -> Routes<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Accounts>: FromRef<S>,
    Arc<AdminKeys>: FromRef<S>,
    Clock: FromRef<S>,
{
    use projects::keys::{create, list, modify, retrieve, revoke, rotate};
    Routes::new()
        .route("/v1/organization/projects/{project_id}/api_keys", get(list).post(create))
        .route("/v1/organization/projects/{project_id}/api_keys/{key_id}", get(retrieve).post(modify).delete(revoke))
        .route("/v1/organization/projects/{project_id}/api_keys/{key_id}/rotate", post(rotate))
}

fn terms_routes<S>() -> Routes<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Accounts>: FromRef<S>,
    Arc<AdminKeys>: FromRef<S>,
    Arc<Catalog>: FromRef<S>,
    Clock: FromRef<S>,
{
    use projects::{
        model_permissions, rate_limits,
        spend_limit::{delete, delete_common, retrieve, retrieve_common, update, update_common},
    };
    Routes::new()
        .route("/v1/organization/projects/{project_id}/rate_limits", get(rate_limits::list))
        .route("/v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}", post(rate_limits::modify))
        .route(
            "/v1/organization/projects/{project_id}/model_permissions",
            get(model_permissions::retrieve).post(model_permissions::update).delete(model_permissions::delete),
        )
        .route("/v1/organization/projects/{project_id}/spend_limit", get(retrieve).post(update).delete(delete))
        .route("/v1/organization/spend_limit", get(retrieve_common).post(update_common).delete(delete_common))
}

fn health_route() -> Routes<AppState> {
    Routes::new().route("/health", get(health::health))
}

/// What is the same for all routes: unknown URLs and methods in `OpenAI`'s words, a request id, and no panic gets out.
fn finish(routes: Routes<AppState>, app: &Arc<App>) -> Router {
    let state = AppState(Arc::clone(app));
    routes
        .into_router()
        .fallback(error::unknown_url)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(headers::NameRequests(Arc::clone(app)))
        .with_state(state)
}
