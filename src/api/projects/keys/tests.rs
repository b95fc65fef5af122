use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::api::fixture::{ADMIN_KEY, AdminSide, NOW_SECONDS};

const DAY: u64 = 86_400;

/// The path of a new project's keys.
async fn keys(side: &AdminSide) -> String {
    let (_, project) = side.post("", json!({"name": "alpha"})).await;
    format!("/{}/api_keys", project["id"].as_str().unwrap())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn works(side: &AdminSide, value: &Value) -> bool {
    side.accounts.authenticate(text(value), side.clock.now()).is_ok()
}

fn pass(side: &AdminSide, seconds: u64) {
    side.clock.advance(seconds * 1_000_000_000);
}

#[tokio::test]
async fn a_key_is_made_with_an_account_of_its_own_or_for_one_that_is_there() {
    let side = AdminSide::new().await;
    let path = keys(&side).await;
    let asked = json!({
        "name": "ci", "limits": {"tokens_per_minute": 9}, "allowed_models": ["gpt-4o", "gpt-4o"], "expires_in_seconds": 60,
    });
    let (status, key) = side.post(&path, asked).await;
    let owner = json!({
        "type": "service_account",
        "service_account": {
            "id": key["owner"]["service_account"]["id"], "name": "ci", "created_at": NOW_SECONDS, "role": "member",
        },
    });
    let expected = json!({
        "object": "organization.project.api_key", "id": key["id"], "name": "ci", "redacted_value": key["redacted_value"],
        "created_at": NOW_SECONDS, "last_used_at": null, "expires_at": NOW_SECONDS + 60, "previous_expires_at": null,
        "owner": owner, "owner_project_access": "active", "limits": {"tokens_per_minute": 9},
        "allowed_models": ["gpt-4o"], "budget": null, "value": key["value"],
    });
    assert_eq!((status, &key), (200, &expected));
    let (status, second) =
        side.post(&path, json!({"name": "b", "service_account_id": owner["service_account"]["id"]})).await;
    assert_eq!((status, &second["owner"]), (200, &owner));
    assert!(works(&side, &key["value"]) && works(&side, &second["value"]));
    let (status, answer) = side.post(&path, json!({"name": "b", "service_account_id": "sa_nobody"})).await;
    assert_eq!((status, text(&answer["error"]["message"])), (404, "No such Service account object: sa_nobody"));
    pass(&side, 60);
    assert!(!works(&side, &key["value"]) && works(&side, &second["value"]));
}

#[tokio::test]
async fn a_key_can_be_given_another_end_until_it_has_come() {
    let side = AdminSide::new().await;
    let path = keys(&side).await;
    let (_, key) = side.post(&path, json!({"name": "ci", "expires_in_seconds": 60})).await;
    let there = format!("{path}/{}", text(&key["id"]));
    pass(&side, 50);
    let (status, modified) = side.post(&there, json!({"expires_in_seconds": 100, "scopes": []})).await;
    assert_eq!((status, &modified["expires_at"]), (200, &json!(NOW_SECONDS + 150)));
    let (_, renamed) = side.post(&there, json!({"name": "nightly"})).await;
    assert_eq!(renamed["expires_at"], modified["expires_at"]);
    pass(&side, 50);
    assert!(works(&side, &key["value"]));
    let (_, endless) = side.post(&there, json!({"expires_in_seconds": null})).await;
    assert_eq!(endless["expires_at"], Value::Null);
    side.post(&there, json!({"expires_in_seconds": 10})).await;
    pass(&side, 10);
    for accounts in [Arc::clone(&side.accounts), side.reloaded().await] {
        assert!(accounts.authenticate(text(&key["value"]), side.clock.now()).is_err());
    }
    for more_time in [json!(60), Value::Null] {
        let (status, answer) = side.post(&there, json!({ "expires_in_seconds": more_time })).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("api_key_expired")));
    }
    assert!(!works(&side, &key["value"]));
    let (status, answer) = side.post(&there, json!({"scopes": ["api.all.read"]})).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("unsupported_parameter")));
}

#[tokio::test]
async fn what_is_modified_holds_at_once_and_the_rest_stays() {
    let side = AdminSide::new().await;
    let path = keys(&side).await;
    let asked = json!({"name": "ci", "limits": {"tokens_per_minute": 9}, "allowed_models": ["gpt-4o"]});
    let (_, key) = side.post(&path, asked).await;
    let there = format!("{path}/{}", text(&key["id"]));
    let (status, modified) = side.post(&there, json!({"name": "nightly"})).await;
    assert_eq!((status, &modified["name"], &modified["value"]), (200, &json!("nightly"), &Value::Null));
    assert_eq!((&modified["limits"], &modified["allowed_models"]), (&key["limits"], &key["allowed_models"]));
    let (_, modified) = side.post(&there, json!({"budget": {"daily_cents": 5}})).await;
    let budget = json!({"monthly_cents": null, "daily_cents": 5, "enforcement": "enforcing"});
    assert_eq!((&modified["budget"], &modified["limits"]), (&budget, &key["limits"]));
    for (budget, param, code) in [
        (json!({}), "budget.monthly_cents", "missing_required_parameter"),
        (json!({"daily_cents": 0}), "budget.daily_cents", "integer_below_min_value"),
        (json!({"daily_cents": 5, "enforcement": "soft"}), "budget.enforcement", "invalid_value"),
        (json!({"weekly_cents": 5}), "budget.weekly_cents", "unknown_parameter"),
        (json!(5), "budget", "invalid_type"),
    ] {
        let (status, refused) = side.post(&there, json!({"budget": budget})).await;
        let error = &refused["error"];
        assert_eq!((status, &error["param"], &error["code"]), (400, &json!(param), &json!(code)), "{refused}");
    }
    for (change, [monthly, daily, enforcement]) in [
        (json!({"monthly_cents": 50, "enforcement": "inactive"}), [json!(50), json!(5), json!("inactive")]),
        (json!({"daily_cents": 7}), [json!(50), json!(7), json!("inactive")]),
        (json!({"daily_cents": null, "enforcement": null}), [json!(50), Value::Null, json!("inactive")]),
        (json!({"enforcement": "enforcing"}), [json!(50), Value::Null, json!("enforcing")]),
    ] {
        let (_, modified) = side.post(&there, json!({"budget": change})).await;
        let expected = json!({"monthly_cents": monthly, "daily_cents": daily, "enforcement": enforcement});
        assert_eq!(modified["budget"], expected, "{change}");
    }
    let (_, modified) = side.post(&there, json!({"budget": {"monthly_cents": null}})).await;
    assert_eq!(modified["budget"], Value::Null);
    let (status, refused) = side.post(&there, json!({"budget": {"enforcement": "inactive"}})).await;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("budget.monthly_cents")));
    assert_eq!(side.post(&there, json!({"budget": {"daily_cents": 5}})).await.0, 200);
    let (_, modified) = side.post(&there, json!({"budget": null})).await;
    assert_eq!(modified["budget"], Value::Null);
    let (_, modified) = side.post(&there, json!({"limits": {"requests_per_day": 2}, "allowed_models": null})).await;
    assert_eq!((&modified["limits"], &modified["allowed_models"]), (&json!({"requests_per_day": 2}), &Value::Null));
    for accounts in [Arc::clone(&side.accounts), side.reloaded().await] {
        let caller = accounts.authenticate(text(&key["value"]), side.clock.now()).unwrap();
        let terms = &caller.key().terms;
        assert_eq!((caller.key().name.as_str(), terms.limits.requests_per_day.unwrap().get()), ("nightly", 2));
        assert!(terms.limits.tokens_per_minute.is_none() && caller.may_use("any", None));
    }
    let (status, answer) = side.post(&there, json!({"limits": {"rpm": 2}})).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("limits.rpm")));
}

#[tokio::test]
async fn a_key_is_refused_a_batch_queue_of_its_own_because_batches_count_for_the_project() {
    let side = AdminSide::new().await;
    let path = keys(&side).await;
    let limits = |tokens: Value| json!({"name": "ci", "limits": {"requests_per_day": 2, "batch_queue_tokens": tokens}});
    let (status, key) = side.post(&path, limits(Value::Null)).await;
    assert_eq!((status, &key["limits"]), (200, &json!({"requests_per_day": 2})));
    let there = format!("{path}/{}", text(&key["id"]));
    for path in [&path, &there] {
        let (status, answer) = side.post(path, limits(json!(9))).await;
        let error = &answer["error"];
        assert_eq!((status, text(&error["param"])), (400, "limits.batch_queue_tokens"), "{answer}");
        assert_eq!((text(&error["type"]), text(&error["code"])), ("invalid_request_error", "unsupported_value"));
        assert!(text(&error["message"]).contains("Set 'batch_1_day_max_input_tokens' of the project's rate limits"));
    }
    assert_eq!(side.get(&there).await.1["limits"], json!({"requests_per_day": 2}));
}

#[tokio::test]
async fn a_rotated_key_keeps_its_id_and_opens_with_both_secrets_until_the_overlap_ends() {
    let side = AdminSide::new().await;
    let path = keys(&side).await;
    let (_, old) = side.post(&path, json!({"name": "ci"})).await;
    let there = format!("{path}/{}", text(&old["id"]));
    let (status, new) = side.post(&format!("{there}/rotate"), json!({})).await;
    assert_eq!((status, &new["id"], &new["previous_expires_at"]), (200, &old["id"], &json!(NOW_SECONDS + DAY)));
    assert_ne!(new["value"], old["value"]);
    assert_ne!(new["redacted_value"], old["redacted_value"]);
    assert_eq!(side.get(&there).await.1["value"], Value::Null);
    pass(&side, DAY - 1);
    for accounts in [Arc::clone(&side.accounts), side.reloaded().await] {
        for value in [&old["value"], &new["value"]] {
            assert_eq!(
                accounts.authenticate(text(value), side.clock.now()).unwrap().key().id.as_str(),
                text(&old["id"])
            );
        }
    }
    pass(&side, 1);
    for accounts in [Arc::clone(&side.accounts), side.reloaded().await] {
        assert!(accounts.authenticate(text(&old["value"]), side.clock.now()).is_err());
        assert!(accounts.authenticate(text(&new["value"]), side.clock.now()).is_ok());
    }
}

#[tokio::test]
async fn an_overlap_is_at_most_a_week_and_may_be_none() {
    let side = AdminSide::new().await;
    let path = keys(&side).await;
    let (_, first) = side.post(&path, json!({"name": "ci"})).await;
    let rotate = format!("{path}/{}/rotate", text(&first["id"]));
    for (wrong, code) in [
        (json!(7 * DAY + 1), "integer_above_max_value"),
        (json!(-1), "integer_below_min_value"),
        (json!("1"), "invalid_type"),
    ] {
        let (status, answer) = side.post(&rotate, json!({ "overlap_seconds": wrong })).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(code)), "{wrong}");
    }
    let (_, second) = side.post(&rotate, json!({"overlap_seconds": 7 * DAY})).await;
    let (status, third) = side.call(Method::POST, &rotate, "").await;
    assert_eq!(status, 200);
    assert!(!works(&side, &first["value"]), "two secrets at most");
    assert!(works(&side, &second["value"]) && works(&side, &third["value"]));
    let (_, fourth) = side.post(&rotate, json!({"overlap_seconds": 0})).await;
    assert_eq!(fourth["previous_expires_at"], Value::Null);
    assert!(!works(&side, &third["value"]) && works(&side, &fourth["value"]));
    let (status, _) = side.delete(rotate.trim_end_matches("/rotate")).await;
    assert!(status == 200 && !works(&side, &fourth["value"]));
    assert_eq!(side.post(&rotate, json!({})).await.0, 404);
}

#[tokio::test]
async fn the_last_use_is_shown() {
    let side = AdminSide::new().await;
    let path = keys(&side).await;
    let (_, key) = side.post(&path, json!({"name": "ci"})).await;
    let there = format!("{path}/{}", text(&key["id"]));
    pass(&side, 5);
    assert!(works(&side, &key["value"]));
    pass(&side, 5);
    assert_eq!(side.get(&there).await.1["last_used_at"], NOW_SECONDS + 5);
    side.post(&there, json!({"name": "other"})).await;
    assert_eq!(side.get(&there).await.1["last_used_at"], NOW_SECONDS + 5, "a change forgets nothing");
}

#[tokio::test]
async fn the_audit_log_tells_what_was_modified_and_no_secret() {
    let side = AdminSide::new().await;
    let path = keys(&side).await;
    let (_, key) = side.post(&path, json!({"name": "ci"})).await;
    let there = format!("{path}/{}", text(&key["id"]));
    side.post(&there, json!({"name": "nightly"})).await;
    side.post(&there, json!({"name": "nightly"})).await;
    let (_, new) = side.post(&format!("{there}/rotate"), json!({})).await;
    let (_, log) = side.as_admin(ADMIN_KEY, Method::GET, "audit_logs?event_types[]=api_key.updated", "").await;
    let rows = log["data"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "a change that changes nothing is none");
    assert_eq!(rows[1]["api_key.updated"]["changes_requested"], json!({"name": "nightly"}));
    assert_eq!(rows[0]["after"]["previous_expires_at"], NOW_SECONDS + DAY);
    for value in [&key["value"], &new["value"]] {
        let secret = text(value).rsplit_once('_').unwrap().1;
        assert!(!log.to_string().contains(&secret[..8]));
    }
}
