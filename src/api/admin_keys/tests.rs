use http::Method;
use serde_json::{Value, json};

use crate::api::fixture::{ADMIN_KEY, AdminSide, NOW_SECONDS};

const PATH: &str = "admin_api_keys";

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn get(side: &AdminSide, path: &str) -> (u16, Value) {
    side.as_admin(ADMIN_KEY, Method::GET, path, "").await
}

async fn create(side: &AdminSide, body: Value) -> (u16, Value) {
    side.as_admin(ADMIN_KEY, Method::POST, PATH, body.to_string()).await
}

#[tokio::test]
async fn a_key_has_openais_fields_and_its_value_is_shown_once() {
    let side = AdminSide::new().await;
    let (status, created) = create(&side, json!({"name": "robot", "expires_in_seconds": 60})).await;
    let (id, value) = (text(&created["id"]), text(&created["value"]));
    let mut expected = json!({
        "object": "organization.admin_api_key", "id": id, "name": "robot", "value": value, "configured": false,
        "redacted_value": format!("sk-admin{}{}", "*".repeat(45), &value[53..]), "created_at": NOW_SECONDS,
        "expires_at": NOW_SECONDS + 60, "last_used_at": null,
        "owner": {
            "type": "user", "object": "organization.user", "id": "user-administrators", "name": "Administrators",
            "created_at": NOW_SECONDS, "role": "owner",
        },
    });
    assert_eq!((status, &created), (200, &expected));
    expected.as_object_mut().unwrap().remove("value");
    assert_eq!(get(&side, &format!("{PATH}/{id}")).await, (200, expected));
    side.clock.advance(5_000_000_000);
    assert_eq!(side.as_admin(value, Method::GET, PATH, "").await.0, 200);
    assert_eq!(get(&side, &format!("{PATH}/{id}")).await.1["last_used_at"], NOW_SECONDS + 5);
    side.clock.advance(55_000_000_000);
    assert_eq!(side.as_admin(value, Method::GET, PATH, "").await.0, 401);
}

#[tokio::test]
async fn the_configured_key_is_listed_and_stays() {
    let side = AdminSide::new().await;
    side.clock.advance(1);
    let (_, made) = create(&side, json!({"name": "robot"})).await;
    let (status, list) = get(&side, PATH).await;
    assert_eq!((status, list["data"].as_array().unwrap().len()), (200, 2));
    assert_eq!((&list["data"][0]["configured"], &list["data"][0]["name"]), (&json!(true), &json!("from the settings")));
    assert_eq!((&list["first_id"], &list["last_id"]), (&json!("key_configured"), &made["id"]));
    assert!(!list.to_string().contains(ADMIN_KEY) && !list.to_string().contains(text(&made["value"])));
    let (_, reversed) = get(&side, &format!("{PATH}?order=desc&limit=1")).await;
    assert_eq!((&reversed["first_id"], &reversed["has_more"]), (&made["id"], &json!(true)));
    let (_, rest) = get(&side, &format!("{PATH}?after=key_configured")).await;
    assert_eq!((&rest["first_id"], &rest["has_more"]), (&made["id"], &json!(false)));
    assert_eq!(get(&side, &format!("{PATH}?order=up")).await.1["error"]["param"], "order");
    let (status, refused) = side.as_admin(ADMIN_KEY, Method::DELETE, &format!("{PATH}/key_configured"), "").await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("configured_admin_key")));
}

#[tokio::test]
async fn a_deleted_key_is_refused_from_the_next_request_and_the_log_knows_who_did_it() {
    let side = AdminSide::new().await;
    let (_, first) = create(&side, json!({"name": "first"})).await;
    let (_, second) = create(&side, json!({"name": "second"})).await;
    let path = format!("{PATH}/{}", text(&second["id"]));
    let deleted = json!({"object": "organization.admin_api_key.deleted", "id": second["id"], "deleted": true});
    assert_eq!(side.as_admin(text(&first["value"]), Method::DELETE, &path, "").await, (200, deleted));
    assert_eq!(side.as_admin(text(&second["value"]), Method::GET, PATH, "").await.0, 401);
    let message = format!("No such admin API key object: {}", text(&second["id"]));
    for method in [Method::GET, Method::DELETE] {
        let (status, answer) = side.as_admin(ADMIN_KEY, method, &path, "").await;
        assert_eq!((status, &answer["error"]["message"]), (404, &json!(message)));
    }
    let (_, log) = get(&side, "audit_logs?limit=1").await;
    let row = &log["data"][0];
    assert_eq!((&row["type"], &row["actor"]["api_key"]["id"]), (&json!("api_key.deleted"), &first["id"]));
    assert_eq!((&row["object_id"], &row["project"]), (&second["id"], &Value::Null));
    assert!(!log.to_string().contains(&text(&second["value"])[9..20]));
}

#[tokio::test]
async fn each_mistake_is_named() {
    let side = AdminSide::new().await;
    for (body, param, code) in [
        (json!({}), "name", "missing_required_parameter"),
        (json!({"name": "a", "expires_in_seconds": 0}), "expires_in_seconds", "integer_below_min_value"),
        (json!({"name": "a", "expires_in_seconds": 31_536_001}), "expires_in_seconds", "integer_above_max_value"),
    ] {
        let (status, answer) = create(&side, body).await;
        assert_eq!((status, &answer["error"]["param"], &answer["error"]["code"]), (400, &json!(param), &json!(code)));
    }
    let (_, list) = get(&side, PATH).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_routes_demand_an_admin_key() {
    let side = AdminSide::new().await;
    for path in [PATH, "admin_api_keys/key_configured", "audit_logs"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let (status, answer) = side.as_admin("sk-admin-wrong", method.clone(), path, "{}").await;
            assert!(status == 401 || status == 405, "{method} {path}: {answer}");
        }
        assert_eq!(side.as_admin("sk-admin-wrong", Method::GET, path, "").await.0, 401);
    }
}
