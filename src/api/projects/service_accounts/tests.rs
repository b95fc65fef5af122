use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::fixture::{AdminSide, NOW_SECONDS};

/// The path of a new project's service accounts.
async fn accounts(side: &AdminSide) -> String {
    let (_, project) = side.post("", json!({"name": "alpha"})).await;
    format!("/{}/service_accounts", project["id"].as_str().unwrap())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn accounts_are_listed_and_shown_in_openais_shape() {
    let side = AdminSide::new().await;
    let path = accounts(&side).await;
    let (_, first) = side.post(&path, json!({"name": "first"})).await;
    side.clock.advance(1);
    let (_, second) = side.post(&path, json!({"name": "second"})).await;
    let shown = json!({
        "object": "organization.project.service_account", "id": first["id"], "name": "first", "role": "member",
        "created_at": NOW_SECONDS,
    });
    assert_eq!(side.get(&format!("{path}/{}", text(&first["id"]))).await, (200, shown.clone()));
    let (status, list) = side.get(&format!("{path}?limit=1")).await;
    let expected = json!({
        "object": "list", "data": [shown], "first_id": first["id"], "last_id": first["id"], "has_more": true,
    });
    assert_eq!((status, list), (200, expected));
    let (_, rest) = side.get(&format!("{path}?after={}", text(&first["id"]))).await;
    assert_eq!((&rest["first_id"], &rest["has_more"]), (&second["id"], &json!(false)));
}

#[tokio::test]
async fn an_account_can_be_made_alone_and_given_keys_later() {
    let side = AdminSide::new().await;
    let path = accounts(&side).await;
    let (status, account) = side.post(&path, json!({"name": "bare", "create_service_account_only": true})).await;
    assert_eq!((status, &account["api_key"], &account["role"]), (200, &Value::Null, &json!("none")));
    let keys = format!("{path}/{}/api_keys", text(&account["id"]));
    let (status, key) = side.post(&keys, json!({})).await;
    let expected = json!({
        "object": "organization.project.service_account.api_key", "id": key["id"], "name": "Secret Key",
        "value": key["value"], "created_at": NOW_SECONDS, "expires_at": null, "limits": {}, "allowed_models": null,
        "budget": null,
    });
    assert_eq!((status, &key), (200, &expected));
    let narrow = json!({"name": "ci", "limits": {"requests_per_minute": 3}, "expires_in_seconds": 9});
    let (_, second) = side.post(&keys, narrow).await;
    assert_eq!((&second["name"], &second["limits"]["requests_per_minute"]), (&json!("ci"), &json!(3)));
    for accounts in [Arc::clone(&side.accounts), side.reloaded().await] {
        let caller = accounts.authenticate(text(&second["value"]), side.clock.now()).unwrap();
        assert_eq!(caller.key().service_account.id.as_str(), text(&account["id"]));
        assert!(accounts.authenticate(text(&key["value"]), side.clock.now()).is_ok());
    }
    let (status, _) = side.post(&keys.replace("sa_", "sa_x"), json!({})).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn name_and_role_change_and_the_keys_show_it() {
    let side = AdminSide::new().await;
    let path = accounts(&side).await;
    let (_, account) = side.post(&path, json!({"name": "worker"})).await;
    let there = format!("{path}/{}", text(&account["id"]));
    let (status, modified) = side.post(&there, json!({"name": "robot", "role": "owner"})).await;
    assert_eq!((status, &modified["name"], &modified["role"]), (200, &json!("robot"), &json!("owner")));
    assert_eq!(side.get(&there).await, (200, modified));
    let keys = path.replace("service_accounts", "api_keys");
    let (_, key) = side.get(&format!("{keys}/{}", text(&account["api_key"]["id"]))).await;
    let owner = &key["owner"]["service_account"];
    assert_eq!((&owner["name"], &owner["role"], &key["name"]), (&json!("robot"), &json!("owner"), &json!("worker")));
    assert_eq!(side.reloaded().await.service_accounts_of(&project_id(&path))[0].name, "robot");
    for role in [json!("none"), json!("king"), json!(1)] {
        let (status, answer) = side.post(&there, json!({ "role": role })).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("role")), "{role}");
    }
}

#[tokio::test]
async fn a_deleted_account_takes_its_keys_with_it() {
    let side = AdminSide::new().await;
    let path = accounts(&side).await;
    let (_, account) = side.post(&path, json!({"name": "worker"})).await;
    let (_, other) = side.post(&path, json!({"name": "other"})).await;
    let there = format!("{path}/{}", text(&account["id"]));
    let (_, second) = side.post(&format!("{there}/api_keys"), json!({})).await;
    let deleted = json!({
        "object": "organization.project.service_account.deleted", "id": account["id"], "deleted": true,
    });
    assert_eq!(side.delete(&there).await, (200, deleted));
    for accounts in [Arc::clone(&side.accounts), side.reloaded().await] {
        let works = |value: &Value| accounts.authenticate(text(value), side.clock.now()).is_ok();
        assert!(!works(&account["api_key"]["value"]) && !works(&second["value"]));
        assert!(works(&other["api_key"]["value"]));
    }
    for (status, answer) in [side.get(&there).await, side.delete(&there).await, side.post(&there, json!({})).await] {
        let message = format!("No such Service account object: {}", text(&account["id"]));
        assert_eq!((status, &answer["error"]["message"]), (404, &json!(message)));
    }
    let (_, list) = side.get(&path).await;
    assert_eq!((&list["first_id"], &list["last_id"]), (&other["id"], &other["id"]));
    let (_, log) = side.as_admin(crate::api::fixture::ADMIN_KEY, http::Method::GET, "audit_logs?limit=3", "").await;
    let types: Vec<_> = log["data"].as_array().unwrap().iter().map(|row| text(&row["type"])).collect();
    assert_eq!(types, ["api_key.deleted", "api_key.deleted", "service_account.deleted"]);
}

fn project_id(path: &str) -> crate::domain::ids::ProjectId {
    crate::domain::ids::ProjectId::parse(path.split('/').nth(1).unwrap()).unwrap()
}
