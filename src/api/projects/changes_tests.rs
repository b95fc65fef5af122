use std::sync::Arc;

use http::Method;
use serde_json::json;

use super::tests::{ids, key, project};
use crate::api::fixture::{AdminSide, NOW_SECONDS};

#[tokio::test]
async fn a_modified_project_holds_at_once_and_after_a_restart() {
    let side = AdminSide::new().await;
    let id = project(&side, "alpha").await;
    let (_, value) = key(&side, &id).await;
    let (status, modified) = side.post(&format!("/{id}"), json!({"name": "beta", "tier": "tier2"})).await;
    assert_eq!((status, &modified["name"], &modified["tier"]), (200, &json!("beta"), &json!("tier2")));
    assert_eq!(side.post(&format!("/{id}"), json!({"name": null})).await, (200, modified.clone()));
    for accounts in [Arc::clone(&side.accounts), side.reloaded().await] {
        let caller = accounts.authenticate(&value, side.clock.now()).unwrap();
        assert_eq!((caller.project().name.as_str(), caller.project().tier.as_str()), ("beta", "tier2"));
    }
    assert_eq!(side.get(&format!("/{id}")).await, (200, modified));
}

#[tokio::test]
async fn an_archived_project_refuses_its_keys_and_every_change() {
    let side = AdminSide::new().await;
    let id = project(&side, "alpha").await;
    let (_, account) = side.post(&format!("/{id}/service_accounts"), json!({"name": "worker"})).await;
    let (value, key) = (account["api_key"]["value"].as_str().unwrap(), account["api_key"]["id"].as_str().unwrap());
    let (status, archived) = side.post(&format!("/{id}/archive"), json!({})).await;
    assert_eq!((status, &archived["status"], &archived["archived_at"]), (200, &json!("archived"), &json!(NOW_SECONDS)));
    for accounts in [Arc::clone(&side.accounts), side.reloaded().await] {
        assert!(accounts.authenticate(value, side.clock.now()).is_err());
    }
    let account = account["id"].as_str().unwrap();
    for (method, path) in [
        (Method::POST, String::new()),
        (Method::POST, "/archive".to_owned()),
        (Method::POST, "/service_accounts".to_owned()),
        (Method::POST, format!("/service_accounts/{account}")),
        (Method::DELETE, format!("/service_accounts/{account}")),
        (Method::POST, format!("/service_accounts/{account}/api_keys")),
        (Method::POST, "/api_keys".to_owned()),
        (Method::POST, format!("/api_keys/{key}")),
        (Method::POST, format!("/api_keys/{key}/rotate")),
        (Method::DELETE, format!("/api_keys/{key}")),
    ] {
        let body = if path.ends_with("/rotate") { json!({}) } else { json!({"name": "other"}) }.to_string();
        let (status, refused) = side.call(method.clone(), &format!("/{id}{path}"), body).await;
        assert_eq!((status, &refused["error"]["code"]), (400, &json!("project_archived")), "{method} {path}");
    }
    let (_, shown) = side.get(&format!("/{id}/api_keys/{key}")).await;
    assert_eq!(shown["owner_project_access"], "inactive");
    for (access, length) in [("active", 0), ("inactive", 1), ("any", 1)] {
        let (_, keys) = side.get(&format!("/{id}/api_keys?owner_project_access={access}")).await;
        assert_eq!(ids(&keys).len(), length, "{access}");
    }
}
