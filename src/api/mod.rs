//! HTTP in. Every route is on this page, grouped by who calls.

pub mod auth;
mod body;
mod chat;
pub mod error;
mod headers;
mod health;
mod models;
mod projects;
mod reports;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{delete, get, post},
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;

/// What teams use: `/v1/*` and `/health`, nothing else.
pub fn calls(app: &Arc<App>) -> Router {
    finish(call_routes().route("/health", get(health::health)), app)
}

/// What administrators use.
pub fn administration(app: &Arc<App>) -> Router {
    finish(admin_routes().route("/health", get(health::health)), app)
}

/// Both on one address.
pub fn everything(app: &Arc<App>) -> Router {
    finish(call_routes().merge(admin_routes()).route("/health", get(health::health)), app)
}

fn call_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::get))
}

fn admin_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/organization/projects", post(projects::create).get(projects::list))
        .route("/v1/organization/projects/{project_id}", get(projects::get))
        .route("/v1/organization/projects/{project_id}/service_accounts", post(projects::create_service_account))
        .route("/v1/organization/projects/{project_id}/api_keys", get(projects::list_keys))
        .route(
            "/v1/organization/projects/{project_id}/api_keys/{key_id}",
            delete(projects::delete_key).get(projects::get_key),
        )
        .route("/v1/organization/usage/completions", get(reports::usage_completions))
        .route("/v1/organization/costs", get(reports::costs))
        .route("/metrics", get(health::metrics))
}

/// What is the same for all routes: unknown URLs and methods in `OpenAI`'s words, a request id, and no panic gets out.
fn finish(routes: Router<Arc<App>>, app: &Arc<App>) -> Router {
    routes
        .fallback(error::unknown_url)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(app), headers::name_request))
        .with_state(Arc::clone(app))
}
