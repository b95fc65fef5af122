use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use http::{Method, Request, header::AUTHORIZATION};
use serde_json::{Value, json};

use super::*;
use crate::api::fixture::{ADMIN_KEY, AdminSide, NOW_SECONDS, read};

pub(super) async fn project(side: &AdminSide, name: &str) -> String {
    let (status, project) = side.post("", json!({ "name": name })).await;
    assert_eq!(status, 200, "{project}");
    project["id"].as_str().unwrap().to_owned()
}

/// The ids of the key, and its value.
pub(super) async fn key(side: &AdminSide, project: &str) -> (String, String) {
    let (status, account) = side.post(&format!("/{project}/service_accounts"), json!({"name": "worker"})).await;
    assert_eq!(status, 200, "{account}");
    let text = |field: &str| account["api_key"][field].as_str().unwrap().to_owned();
    (text("id"), text("value"))
}

pub(super) fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|object| object["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_project_has_openais_fields_and_a_tier() {
    let side = AdminSide::new().await;
    let asked = json!({"name": " alpha ", "tier": "tier2", "residency": "eu", "external_key_id": null});
    let (status, created) = side.post("", asked).await;
    let expected = json!({
        "id": created["id"], "object": "organization.project", "name": "alpha", "created_at": NOW_SECONDS,
        "archived_at": null, "status": "active", "external_key_id": null, "tier": "tier2",
        "automatic_tier": true,
    });
    assert_eq!((status, &created), (200, &expected));
    let id = created["id"].as_str().unwrap();
    assert!(ProjectId::parse(id).is_some());
    assert_eq!(side.get(&format!("/{id}")).await, (200, expected));
    let (_, created) = side.post("", json!({"name": "beta"})).await;
    assert_eq!(created["tier"], "tier1");
    let path = format!("/{}", created["id"].as_str().unwrap());
    let (_, fixed) = side.post(&path, json!({"automatic_tier": false})).await;
    assert_eq!((&fixed["automatic_tier"], &fixed["tier"]), (&json!(false), &json!("tier1")));
    let (_, renamed) = side.post(&path, json!({"name": "gamma", "automatic_tier": null})).await;
    assert_eq!(renamed["automatic_tier"], false);
    let (_, created) = side.post("", json!({"name": "delta", "automatic_tier": false})).await;
    assert_eq!(created["automatic_tier"], false);
}

#[tokio::test]
async fn a_service_account_comes_with_a_key_that_is_shown_once() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    let limits = json!({
        "requests_per_minute": 5, "requests_per_day": 6, "tokens_per_minute": 7, "tokens_per_day": 9, "concurrent_requests": 8,
    });
    let asked = json!({"name": "worker", "limits": limits, "expires_in_seconds": 60});
    let (status, created) = side.post(&format!("/{project}/service_accounts"), asked).await;
    let (id, value) = (&created["api_key"]["id"], created["api_key"]["value"].as_str().unwrap());
    let expected = json!({
        "object": "organization.project.service_account", "id": created["id"], "name": "worker", "role": "member",
        "created_at": NOW_SECONDS,
        "api_key": {
            "object": "organization.project.service_account.api_key", "id": id, "name": "Secret Key", "value": value,
            "created_at": NOW_SECONDS, "expires_at": NOW_SECONDS + 60, "limits": limits, "allowed_models": null,
            "budget": null,
        },
    });
    assert_eq!((status, &created), (200, &expected));
    let listed = json!({
        "object": "organization.project.api_key", "id": id, "name": "worker", "created_at": NOW_SECONDS,
        "redacted_value": format!("{}{}{}", &value[..8], "*".repeat(value.len() - 12), &value[value.len() - 4..]),
        "last_used_at": null, "expires_at": NOW_SECONDS + 60, "owner_project_access": "active", "limits": limits,
        "previous_expires_at": null, "allowed_models": null, "budget": null,
        "owner": {
            "type": "service_account",
            "service_account": {"id": created["id"], "name": "worker", "created_at": NOW_SECONDS, "role": "member"},
        },
    });
    let list = json!({"object": "list", "data": [listed], "first_id": id, "last_id": id, "has_more": false});
    assert_eq!(side.get(&format!("/{project}/api_keys")).await, (200, list));
    assert_eq!(side.get(&format!("/{project}/api_keys/{}", id.as_str().unwrap())).await, (200, listed));
    let caller = side.accounts.authenticate(value, side.clock.now()).unwrap();
    assert_eq!(caller.project().id.as_str(), project);
    side.clock.advance(60_000_000_000);
    assert!(side.accounts.authenticate(value, side.clock.now()).is_err());
}

#[tokio::test]
async fn the_answer_with_a_key_may_not_be_cached() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    let request = Request::post(format!("/v1/organization/projects/{project}/service_accounts"))
        .header(AUTHORIZATION, format!("Bearer {ADMIN_KEY}"))
        .body(Body::from(r#"{"name":"worker"}"#))
        .unwrap();
    assert_eq!(side.send(request).await.headers()[CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn a_revoked_key_is_gone_from_the_api_and_refused() {
    let side = AdminSide::new().await;
    let (alpha, beta) = (project(&side, "alpha").await, project(&side, "beta").await);
    let (id, value) = key(&side, &alpha).await;
    let there = format!("/{alpha}/api_keys/{id}");
    let elsewhere = format!("/{beta}/api_keys/{id}");
    assert_eq!(side.get(&elsewhere).await.0, 404);
    assert_eq!(side.delete(&elsewhere).await.0, 404);
    assert!(side.accounts.authenticate(&value, side.clock.now()).is_ok());
    let deleted = json!({"object": "organization.project.api_key.deleted", "id": id, "deleted": true});
    assert_eq!(side.delete(&there).await, (200, deleted));
    assert!(side.accounts.authenticate(&value, side.clock.now()).is_err());
    let (status, again) = side.delete(&there).await;
    let expected = json!({"error": {
        "message": format!("No such API key object: {id}"), "type": "invalid_request_error", "param": "id", "code": null,
    }});
    assert_eq!((status, again), (404, expected));
    assert_eq!(side.get(&there).await.0, 404);
    let empty = json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false});
    assert_eq!(side.get(&format!("/{alpha}/api_keys")).await, (200, empty));
}

#[tokio::test]
async fn lists_come_in_pages_that_miss_and_repeat_nothing() {
    let side = AdminSide::new().await;
    let mut made = Vec::new();
    for number in 0..7 {
        made.push(project(&side, &format!("p{number}")).await);
        side.clock.advance(1);
    }
    let (_, first) = side.get("?limit=3").await;
    assert_eq!((ids(&first), &first["has_more"]), (made[..3].to_vec(), &json!(true)));
    assert_eq!((&first["first_id"], &first["last_id"]), (&json!(made[0]), &json!(made[2])));
    let (_, second) = side.get(&format!("?limit=4&after={}", made[2])).await;
    assert_eq!((ids(&second), &second["has_more"]), (made[3..].to_vec(), &json!(false)));
    let (_, all) = side.get("").await;
    assert_eq!(ids(&all), made);
}

#[tokio::test]
async fn paging_goes_on_after_a_key_that_was_revoked_meanwhile() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(key(&side, &project).await.0);
        side.clock.advance(1);
    }
    side.delete(&format!("/{project}/api_keys/{}", made[0])).await;
    let (status, rest) = side.get(&format!("/{project}/api_keys?after={}", made[0])).await;
    assert_eq!((status, ids(&rest)), (200, made[1..].to_vec()));
}

#[tokio::test]
async fn archived_projects_are_listed_on_demand() {
    let side = AdminSide::new().await;
    let (archived, open) = (project(&side, "old").await, project(&side, "new").await);
    side.clock.advance(5_000_000_000);
    assert_eq!(side.post(&format!("/{archived}/archive"), json!({})).await.0, 200);
    assert_eq!(ids(&side.get("").await.1), [open.as_str()]);
    let (_, all) = side.get("?include_archived=true").await;
    assert_eq!(ids(&all).len(), 2);
    let (_, shown) = side.get(&format!("/{archived}")).await;
    assert_eq!((&shown["status"], &shown["archived_at"]), (&json!("archived"), &json!(NOW_SECONDS + 5)));
    let (status, refused) = side.post(&format!("/{archived}/service_accounts"), json!({"name": "a"})).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("project_archived")));
}

#[tokio::test]
async fn each_mistake_in_a_request_is_named() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    let accounts = format!("/{project}/service_accounts");
    let (keys, there) = (format!("/{project}/api_keys"), format!("/{project}"));
    let long = "x".repeat(200);
    for (path, body, param, code) in [
        ("", json!({}), "name", "missing_required_parameter"),
        ("", json!({"name": " "}), "name", "empty_string"),
        ("", json!({"name": 1}), "name", "invalid_type"),
        ("", json!({"name": long}), "name", "string_above_max_length"),
        ("", json!({"name": "a\nb"}), "name", "invalid_value"),
        ("", json!({"name": "a", "tier": "gold"}), "tier", "invalid_value"),
        ("", json!({"name": "a", "tier": 1}), "tier", "invalid_type"),
        ("", json!({"name": "a", "automatic_tier": "no"}), "automatic_tier", "invalid_type"),
        ("", json!({"name": "a", "teir": "free"}), "teir", "unknown_parameter"),
        (&there, json!({"teir": "free"}), "teir", "unknown_parameter"),
        (&accounts, json!({"name": "a", "limit": {"requests_per_day": 1}}), "limit", "unknown_parameter"),
        (&keys, json!({"name": "a", "models": ["m"]}), "models", "unknown_parameter"),
        (&accounts, json!({"limits": {}}), "name", "missing_required_parameter"),
        (&accounts, json!({"name": "a", "limits": []}), "limits", "invalid_type"),
        (&accounts, json!({"name": "a", "limits": {"rpm": 1}}), "limits.rpm", "unknown_parameter"),
        (
            &accounts,
            json!({"name": "a", "limits": {"requests_per_day": 0}}),
            "limits.requests_per_day",
            "integer_below_min_value",
        ),
        (
            &accounts,
            json!({"name": "a", "limits": {"tokens_per_minute": 1u64 << 32}}),
            "limits.tokens_per_minute",
            "integer_above_max_value",
        ),
        (
            &accounts,
            json!({"name": "a", "limits": {"tokens_per_minute": 1.5}}),
            "limits.tokens_per_minute",
            "invalid_type",
        ),
        (&accounts, json!({"name": "a", "expires_in_seconds": -1}), "expires_in_seconds", "integer_below_min_value"),
        (
            &accounts,
            json!({"name": "a", "create_service_account_only": "yes"}),
            "create_service_account_only",
            "invalid_type",
        ),
        (&accounts, json!({"name": "a", "allowed_models": []}), "allowed_models", "empty_array"),
        (&accounts, json!({"name": "a", "allowed_models": "gpt-4o"}), "allowed_models", "invalid_type"),
        (&accounts, json!({"name": "a", "allowed_models": ["a", ""]}), "allowed_models[1]", "empty_string"),
        (&accounts, json!({"name": "a", "scopes": ["api.model.read"]}), "scopes", "unsupported_parameter"),
        (&keys, json!({}), "name", "missing_required_parameter"),
        (&keys, json!({"name": "a", "service_account_id": 5}), "service_account_id", "invalid_type"),
        (&there, json!({"tier": "gold"}), "tier", "invalid_value"),
        (&there, json!({"name": ""}), "name", "empty_string"),
    ] {
        let (status, answer) = side.post(path, body.clone()).await;
        let error = &answer["error"];
        assert_eq!((status, &error["param"], &error["code"]), (400, &json!(param), &json!(code)), "{body}: {answer}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    assert_eq!(side.accounts.projects().len(), 1);
    assert!(side.accounts.keys_of(&ProjectId::parse(&project).unwrap()).is_empty());
}

#[tokio::test]
async fn each_mistake_in_a_query_is_named() {
    let side = AdminSide::new().await;
    for (query, param) in [
        ("?limit=0", json!("limit")),
        ("?limit=101", json!("limit")),
        ("?limit=x", json!("limit")),
        ("?after=proj_nobody", json!("after")),
        ("?include_archived=1", json!("include_archived")),
        ("?limit=1&limit=2", Value::Null),
    ] {
        let (status, answer) = side.get(query).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &param), "{query}: {answer}");
    }
    assert_eq!(side.get("?unknown=1&limit=100").await.0, 200);
}

#[tokio::test]
async fn bodies_that_are_not_json_or_too_large_are_refused() {
    let side = AdminSide::new().await;
    for body in ["", "{", "[]", "null", "\"name\"", "{\"name\": \"\\ud800\"}"] {
        let (status, answer) = side.call(Method::POST, "", body).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &Value::Null));
        assert!(answer["error"]["message"].as_str().unwrap().starts_with("We could not parse the JSON body"));
    }
    let large = format!("{{\"name\":\"a\",\"padding\":\"{}\"}}", "x".repeat(64 * 1024));
    assert_eq!(side.call(Method::POST, "", large.clone()).await.0, 413);
    let (head, tail) = large.split_at(1_000);
    let parts = Unsized(vec![tail.to_owned().into(), head.to_owned().into()]);
    assert_eq!(side.call(Method::POST, "", Body::new(parts)).await.0, 413);
    let request = Request::post("/v1/organization/projects")
        .header(AUTHORIZATION, format!("Bearer {ADMIN_KEY}"))
        .header("content-encoding", "gzip")
        .body(Body::from("x"))
        .unwrap();
    assert_eq!(read(side.send(request).await).await.0, 415);
    assert!(side.accounts.projects().is_empty());
}

#[tokio::test]
async fn every_route_demands_the_admin_key_whatever_the_method() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    let (key, value) = key(&side, &project).await;
    let paths = [
        String::new(),
        format!("/{project}"),
        "/proj_nobody".to_owned(),
        format!("/{project}/archive"),
        format!("/{project}/service_accounts"),
        format!("/{project}/service_accounts/sa_nobody"),
        format!("/{project}/service_accounts/sa_nobody/api_keys"),
        format!("/{project}/api_keys"),
        format!("/{project}/api_keys/{key}"),
        format!("/{project}/api_keys/{key}/rotate"),
        "/x/api_keys/y".to_owned(),
    ];
    let wrong = format!("{ADMIN_KEY}x");
    let mut demanded = 0;
    for path in &paths {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            for (credential, expected) in [(None, 401), (Some(&wrong), 401), (Some(&value), 403)] {
                let mut request = Request::builder().method(&method).uri(format!("/v1/organization/projects{path}"));
                if let Some(credential) = credential {
                    request = request.header(AUTHORIZATION, format!("Bearer {credential}"));
                }
                let (status, answer) = read(side.send(request.body(Body::from("{}")).unwrap()).await).await;
                // A method that is not there is told to anyone; it does nothing.
                if status != 405 {
                    assert_eq!(status, expected, "{method} {path}: {answer}");
                    assert!(!answer.to_string().contains(&project));
                    demanded += 1;
                }
            }
        }
    }
    assert_eq!(demanded, 3 * 22, "the pairs of route and method, three credentials each");
    assert_eq!(side.get(&format!("/{project}/api_keys/{key}")).await.0, 200, "nothing was revoked");
    let (status, answer) = side.call(Method::PUT, "", "{}").await;
    assert_eq!((status, &answer["error"]["code"]), (405, &json!("method_not_supported")));
}

#[tokio::test]
async fn paths_that_name_nothing_are_404_in_openais_words() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    for (path, message) in [
        ("/proj_nobody".to_owned(), "No such Project object: proj_nobody".to_owned()),
        ("/proj_a%2Fb".to_owned(), "No such Project object: proj_a/b".to_owned()),
        (format!("/{}", "p".repeat(5_000)), format!("No such Project object: {}", "p".repeat(64))),
        (format!("/{project}/api_keys/key_x"), "No such API key object: key_x".to_owned()),
        ("/%FF".to_owned(), "Invalid URL (GET /v1/organization/projects/%FF)".to_owned()),
    ] {
        let (status, answer) = side.get(&path).await;
        assert_eq!((status, answer["error"]["message"].as_str()), (404, Some(message.as_str())));
    }
}

#[tokio::test]
async fn a_database_that_fails_is_a_500_without_its_words() {
    let side = AdminSide::new().await;
    side.store.writer().close().await;
    let (status, answer) = side.post("", json!({"name": "a"})).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!((status, &answer["error"]["type"]), (500, &json!("server_error")));
    assert!(
        message.contains("x-request-id") && !message.contains("database") && !message.contains("pool"),
        "{message}"
    );
}

#[tokio::test]
async fn no_answer_but_the_first_holds_the_key() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    let (id, value) = key(&side, &project).await;
    let secret = value.rsplit_once('_').unwrap().1;
    for path in ["", &format!("/{project}"), &format!("/{project}/api_keys"), &format!("/{project}/api_keys/{id}")] {
        let text = side.get(path).await.1.to_string();
        assert!(!text.contains(&secret[..8]) && !text.contains("hash"), "{text}");
    }
}

/// A body without a stated length, last part first.
struct Unsized(Vec<bytes::Bytes>);

impl http_body::Body for Unsized {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(|part| Ok(http_body::Frame::data(part))))
    }
}
