use serde_json::{Value, json};

use crate::{
    api::{
        fixture::AdminSide,
        projects::tests::{key, project},
    },
    domain::ids::ProjectId,
};

async fn side() -> (AdminSide, String, String) {
    let side = AdminSide::new().await.with_models(&["m-a", "m-b"]);
    let project = project(&side, "alpha").await;
    let path = format!("/{project}/model_permissions");
    (side, project, path)
}

#[tokio::test]
async fn they_are_set_replaced_shown_and_taken_away() {
    let (side, project, path) = side().await;
    let none = json!({"error": {
        "message": format!("No such Model permissions object: {project}"), "type": "invalid_request_error",
        "param": "id", "code": null,
    }});
    assert_eq!(side.get(&path).await, (404, none.clone()));
    assert_eq!(side.delete(&path).await, (404, none.clone()));
    for (mode, ids) in [("allow_list", json!(["m-a", "m-b-1"])), ("deny_list", json!([]))] {
        let expected = json!({"object": "project.model_permissions", "mode": mode, "model_ids": ids});
        assert_eq!(side.post(&path, json!({"mode": mode, "model_ids": ids})).await, (200, expected.clone()));
        assert_eq!(side.get(&path).await, (200, expected));
    }
    let deleted = json!({"object": "project.model_permissions.deleted", "deleted": true});
    assert_eq!(side.delete(&path).await, (200, deleted));
    assert_eq!(side.get(&path).await, (404, none));
}

#[tokio::test]
async fn a_model_that_is_not_in_the_catalog_is_refused() {
    let (side, _, path) = side().await;
    let (status, error) = side.post(&path, json!({"mode": "deny_list", "model_ids": ["m-a", "m-x"]})).await;
    let expected = json!({
        "message": "The model 'm-x' does not exist", "type": "invalid_request_error", "param": "model_ids",
        "code": "model_not_found",
    });
    assert_eq!((status, &error["error"]), (400, &expected));
    assert_eq!(side.get(&path).await.0, 404);
}

#[tokio::test]
async fn keys_are_held_to_them_at_once_and_after_a_restart() {
    let (side, project, path) = side().await;
    let (id, value) = key(&side, &project).await;
    side.post(&format!("/{project}/api_keys/{id}"), json!({"allowed_models": ["m-a"]})).await;
    let may = |accounts: &crate::accounts::Accounts| {
        let caller = accounts.authenticate(&value, side.clock.now()).unwrap();
        ["m-a", "m-a-1", "m-b"].map(|name| caller.may_use(name, side.catalog.resolve(name).as_ref()))
    };
    assert_eq!(may(&side.accounts), [true, true, false]);
    for (permissions, expected) in [
        (json!({"mode": "deny_list", "model_ids": ["m-a"]}), [false, false, false]),
        (json!({"mode": "deny_list", "model_ids": ["m-a-1"]}), [false, false, false]),
        (json!({"mode": "allow_list", "model_ids": ["m-a-1"]}), [false, true, false]),
        // The key's own terms still hold.
        (json!({"mode": "allow_list", "model_ids": ["m-a", "m-b"]}), [true, true, false]),
        (json!({"mode": "allow_list", "model_ids": ["m-b"]}), [false, false, false]),
    ] {
        assert_eq!(side.post(&path, permissions.clone()).await.0, 200);
        assert_eq!(may(&side.accounts), expected, "{permissions}");
        assert_eq!(may(&*side.reloaded().await), expected, "{permissions}");
    }
    side.delete(&path).await;
    assert_eq!(may(&*side.reloaded().await), [true, true, false]);
}

#[tokio::test]
async fn changes_are_in_the_audit_log() {
    let (side, project, path) = side().await;
    side.post(&path, json!({"mode": "deny_list", "model_ids": ["m-a"]})).await;
    let row = side.last_audit().await;
    let facts = json!({"mode": "deny_list", "model_ids": ["m-a"]});
    assert_eq!((&row["type"], &row["object_id"]), (&json!("model_permissions.updated"), &json!(project)));
    assert_eq!((&row["before"], &row["after"]), (&Value::Null, &facts));
    side.delete(&path).await;
    let row = side.last_audit().await;
    assert_eq!(
        (&row["type"], &row["before"], &row["after"]),
        (&json!("model_permissions.deleted"), &facts, &Value::Null)
    );
}

#[tokio::test]
async fn an_archived_project_keeps_the_permissions_it_had() {
    let (side, project, path) = side().await;
    side.post(&path, json!({"mode": "deny_list", "model_ids": ["m-a"]})).await;
    side.post(&format!("/{project}/archive"), json!({})).await;
    assert_eq!(side.get(&path).await.0, 200);
    for (status, error) in
        [side.delete(&path).await, side.post(&path, json!({"mode": "deny_list", "model_ids": []})).await]
    {
        assert_eq!((status, &error["error"]["code"]), (400, &json!("project_archived")));
    }
    let project = side.accounts.project(&ProjectId::parse(&project).unwrap()).unwrap();
    assert!(project.terms.model_permissions.is_some());
}
