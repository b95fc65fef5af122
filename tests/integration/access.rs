//! Who may do what: every route, with every kind of credential, at both addresses.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tollgate::api::{self, Operation};

use crate::{
    support::{Actor, Gateway, Reply, address},
    walk::{Things, body, call, in_order},
};

/// The status for: no key, a project's API key, an admin key, a revoked API key, a revoked admin key.
type Statuses = [u16; 5];
pub type Row = (&'static str, &'static str, Statuses);

const TEAMS: Statuses = [401, 200, 401, 401, 401];
const ADMINS: Statuses = [401, 403, 200, 401, 401];
const ANYBODY: Statuses = [200, 200, 200, 200, 200];

const UNAUTHENTICATED: &str = "requests_unauthenticated_total";

/// What the address for calls serves.
pub const CALLS: &[Row] = &[
    ("POST", "/v1/chat/completions", TEAMS),
    ("GET", "/v1/models", TEAMS),
    ("GET", "/v1/models/{id}", TEAMS),
    ("GET", "/health", ANYBODY),
];

/// What the address for administrators serves. A route without a row here or above fails the first test.
pub const ADMINISTRATION: &[Row] = &[
    ("GET", "/v1/organization/audit_logs", ADMINS),
    ("GET", "/v1/organization/admin_api_keys", ADMINS),
    ("POST", "/v1/organization/admin_api_keys", ADMINS),
    ("GET", "/v1/organization/admin_api_keys/{key_id}", ADMINS),
    ("DELETE", "/v1/organization/admin_api_keys/{key_id}", ADMINS),
    ("GET", "/v1/organization/projects", ADMINS),
    ("POST", "/v1/organization/projects", ADMINS),
    ("GET", "/v1/organization/projects/{project_id}", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/archive", ADMINS),
    ("GET", "/v1/organization/projects/{project_id}/service_accounts", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/service_accounts", ADMINS),
    ("GET", "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}", ADMINS),
    ("DELETE", "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys", ADMINS),
    ("GET", "/v1/organization/projects/{project_id}/api_keys", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/api_keys", ADMINS),
    ("GET", "/v1/organization/projects/{project_id}/api_keys/{key_id}", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/api_keys/{key_id}", ADMINS),
    ("DELETE", "/v1/organization/projects/{project_id}/api_keys/{key_id}", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/api_keys/{key_id}/rotate", ADMINS),
    ("GET", "/v1/organization/projects/{project_id}/rate_limits", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}", ADMINS),
    ("GET", "/v1/organization/projects/{project_id}/model_permissions", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/model_permissions", ADMINS),
    ("DELETE", "/v1/organization/projects/{project_id}/model_permissions", ADMINS),
    ("GET", "/v1/organization/projects/{project_id}/spend_limit", ADMINS),
    ("POST", "/v1/organization/projects/{project_id}/spend_limit", ADMINS),
    ("DELETE", "/v1/organization/projects/{project_id}/spend_limit", ADMINS),
    ("GET", "/v1/organization/spend_limit", ADMINS),
    ("POST", "/v1/organization/spend_limit", ADMINS),
    ("DELETE", "/v1/organization/spend_limit", ADMINS),
    ("GET", "/v1/organization/usage/completions", ADMINS),
    ("GET", "/v1/organization/usage/embeddings", ADMINS),
    ("GET", "/v1/organization/usage/moderations", ADMINS),
    ("GET", "/v1/organization/usage/images", ADMINS),
    ("GET", "/v1/organization/usage/audio_speeches", ADMINS),
    ("GET", "/v1/organization/usage/audio_transcriptions", ADMINS),
    ("GET", "/v1/organization/usage/vector_stores", ADMINS),
    ("GET", "/v1/organization/usage/code_interpreter_sessions", ADMINS),
    ("GET", "/v1/organization/usage/file_search_calls", ADMINS),
    ("GET", "/v1/organization/usage/web_search_calls", ADMINS),
    ("GET", "/v1/organization/costs", ADMINS),
    ("GET", "/v1/organization/requests", ADMINS),
    ("GET", "/v1/organization/requests/{request_id}", ADMINS),
    ("GET", "/v1/organization/openapi.json", ADMINS),
    ("GET", "/metrics", ANYBODY),
    ("GET", "/health", ANYBODY),
];

/// Which scheme of the API's own document lets somebody in at a row; `None`: anybody may.
pub fn security(row: &Row) -> Option<&'static str> {
    match row.2 {
        TEAMS => Some("apiKey"),
        ADMINS => Some("adminKey"),
        _ => None,
    }
}

#[test]
fn every_route_has_a_row_and_every_row_a_route() {
    for (served, rows) in [(api::calls_operations(), CALLS), (api::admin_operations(), ADMINISTRATION)] {
        let served: BTreeSet<_> = served.iter().map(|Operation { method, path }| (method.as_str(), *path)).collect();
        let listed: BTreeSet<_> = rows.iter().map(|(method, path, _)| (*method, *path)).collect();
        let missing: Vec<_> = served.difference(&listed).collect();
        assert!(missing.is_empty(), "routes without a row in this file: {missing:?}");
        let beyond: Vec<_> = listed.difference(&served).collect();
        assert!(beyond.is_empty(), "rows without a route: {beyond:?}");
        assert_eq!(rows.len(), listed.len(), "two rows about one route");
    }
}

/// The same order as in [`Statuses`].
async fn credentials(gateway: &Gateway, things: &Things) -> [Option<String>; 5] {
    let admin = gateway.admin();
    let revoked = gateway.key_of(&things.team.project_id, json!({})).await;
    let path = format!("/v1/organization/projects/{}/api_keys/{}", revoked.project_id, revoked.key_id);
    assert_eq!(admin.delete(&path).await.status, 200);
    let revoked_admin = admin.post("/v1/organization/admin_api_keys", &json!({"name": "gone"})).await.json();
    let path = format!("/v1/organization/admin_api_keys/{}", revoked_admin["id"].as_str().unwrap());
    assert_eq!(admin.delete(&path).await.status, 200);
    let revoked_admin = revoked_admin["value"].as_str().unwrap().to_owned();
    [None, things.team.key.clone(), admin.key.clone(), revoked.key, Some(revoked_admin)]
}

/// All that a request can change.
async fn state(gateway: &Gateway) -> (String, u64, usize) {
    let changes = gateway.admin().get("/v1/organization/audit_logs?limit=100").await.text();
    (changes, gateway.metric("upstream_calls_total").await, gateway.ledger().await.len())
}

async fn start(one_address: bool) -> Gateway {
    if !one_address {
        return Gateway::start().await;
    }
    Gateway::start_with(|settings| {
        // A port that was free a moment ago: the same address twice needs a number.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        settings.listen = address(&free);
        settings.admin_listen = address(&free);
    })
    .await
}

fn assert_refused(reply: &Reply, status: u16, code: &Value, what: &str) {
    assert_eq!(reply.status.as_u16(), status, "{what}: {}", reply.text());
    let error = reply.error();
    let fields: BTreeSet<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["code", "message", "param", "type"]), "{what}");
    assert_eq!((&error["type"], &error["code"]), (&json!("invalid_request_error"), code), "{what}");
}

fn query(method: &str, path: &str) -> String {
    if method == "POST" { path.to_owned() } else { format!("{path}?start_time=1") }
}

#[tokio::test]
async fn each_route_answers_each_credential_as_its_row_says() {
    for one_address in [false, true] {
        let gateway = start(one_address).await;
        let things = Things::new(&gateway).await;
        let credentials = credentials(&gateway, &things).await;
        let rows = CALLS.iter().map(|row| (&gateway.calls_url, row));
        let rows = rows.chain(ADMINISTRATION.iter().map(|row| (&gateway.admin_url, row)));
        let rows = in_order(rows.collect(), |(_, row)| (row.0.to_owned(), row.1.to_owned()));
        let actor =
            |url: &str, key: &Option<String>| Actor { url: url.to_owned(), key: key.clone(), ..gateway.admin() };
        let (before, counted) = (state(&gateway).await, gateway.metric(UNAUTHENTICATED).await);
        let mut unauthenticated = 0;
        for (url, row @ (method, template, statuses)) in &rows {
            let path = query(method, &things.path(template));
            let refused = credentials.iter().zip(statuses).filter(|(_, status)| **status != 200);
            for (number, (key, status)) in refused.enumerate() {
                let what = format!("{method} {template}, credential {number}");
                let wrong_key = *status == 401 && (key.is_some() || security(row) == Some("adminKey"));
                let code = if wrong_key { json!("invalid_api_key") } else { Value::Null };
                let reply = call(&actor(url, key), method, &path, &body_of(method, template)).await;
                assert_refused(&reply, *status, &code, &what);
                unauthenticated += u64::from(*status == 401);
                if *method == "GET" {
                    let reply = call(&actor(url, key), "HEAD", &path, &Value::Null).await;
                    assert_eq!((reply.status.as_u16(), reply.body.len()), (*status, 0), "HEAD: {what}");
                    unauthenticated += u64::from(*status == 401);
                }
            }
        }
        assert_eq!(state(&gateway).await, before, "a refused request changed something");
        assert_eq!(gateway.metric(UNAUTHENTICATED).await - counted, unauthenticated);
        for (url, (method, template, statuses)) in &rows {
            let path = query(method, &things.path(template));
            for (key, _) in credentials.iter().zip(statuses).filter(|(_, status)| **status == 200) {
                let reply = call(&actor(url, key), method, &path, &body_of(method, template)).await;
                assert_eq!(reply.status, 200, "{method} {template}: {}", reply.text());
            }
        }
        assert_ne!(state(&gateway).await, before);
    }
}

fn body_of(method: &str, template: &str) -> Value {
    if method == "POST" { body(template) } else { Value::Null }
}

#[tokio::test]
async fn neither_address_knows_the_routes_of_the_other() {
    let gateway = Gateway::start().await;
    let things = Things::new(&gateway).await;
    let credentials = credentials(&gateway, &things).await;
    let before = state(&gateway).await;
    for (url, own, others) in [(&gateway.calls_url, CALLS, ADMINISTRATION), (&gateway.admin_url, ADMINISTRATION, CALLS)]
    {
        for (method, template, _) in others.iter().filter(|row| !own.iter().any(|own| own.1 == row.1)) {
            let path = things.path(template);
            for key in &credentials {
                let actor = Actor { url: url.clone(), key: key.clone(), ..gateway.admin() };
                let reply = call(&actor, method, &path, &body_of(method, template)).await;
                assert_refused(&reply, 404, &Value::Null, &format!("{method} {template} at {url}"));
                assert_eq!(reply.error()["message"], format!("Invalid URL ({method} {path})"));
            }
        }
    }
    assert_eq!(state(&gateway).await, before);
}
