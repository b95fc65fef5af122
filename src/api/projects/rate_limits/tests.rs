use serde_json::{Value, json};

use crate::api::{
    fixture::AdminSide,
    projects::tests::{ids, project},
};

async fn side() -> (AdminSide, String) {
    let side = AdminSide::new().await.with_models(&["m-a", "m-b", "m-c"]);
    let project = project(&side, "alpha").await;
    (side, project)
}

fn limit(model: &str, more: &Value) -> Value {
    let mut limit = json!({"object": "project.rate_limit", "id": format!("rl-{model}"), "model": model});
    more.as_object().unwrap().iter().for_each(|(name, value)| limit[name] = value.clone());
    limit
}

#[tokio::test]
async fn there_is_one_for_each_model_with_the_tiers_figures() {
    let (side, project) = side().await;
    let first = json!({
        "max_requests_per_1_minute": 10, "max_requests_per_1_day": 100, "max_tokens_per_1_minute": 1_000,
        "batch_1_day_max_input_tokens": 10_000,
    });
    let rest = json!({"max_requests_per_1_minute": 500, "max_tokens_per_1_minute": u32::MAX});
    let expected = json!({
        "object": "list", "data": [limit("m-a", &first), limit("m-b", &rest), limit("m-c", &rest)],
        "first_id": "rl-m-a", "last_id": "rl-m-c", "has_more": false,
    });
    assert_eq!(side.get(&format!("/{project}/rate_limits")).await, (200, expected));
}

#[tokio::test]
async fn the_list_is_paged_both_ways() {
    let (side, project) = side().await;
    let page = async |query: &str| {
        let (status, list) = side.get(&format!("/{project}/rate_limits?{query}")).await;
        assert_eq!(status, 200, "{list}");
        (ids(&list).join(" "), list["has_more"].as_bool().unwrap())
    };
    assert_eq!(page("limit=2").await, ("rl-m-a rl-m-b".to_owned(), true));
    assert_eq!(page("limit=2&after=rl-m-b").await, ("rl-m-c".to_owned(), false));
    assert_eq!(page("limit=1&before=rl-m-c").await, ("rl-m-b".to_owned(), true));
    assert_eq!(page("before=rl-m-c").await, ("rl-m-a rl-m-b".to_owned(), false));
    for (query, param) in [
        ("before=rl-m-x", "before"),
        ("after=rl-m-x", "after"),
        ("after=rl-m-a&before=rl-m-b", "before"),
        ("limit=0", "limit"),
    ] {
        let (status, error) = side.get(&format!("/{project}/rate_limits?{query}")).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{query}");
    }
}

#[tokio::test]
async fn a_figure_replaces_the_tiers_in_both_directions_and_null_puts_it_back() {
    let (side, project) = side().await;
    let path = format!("/{project}/rate_limits/rl-m-a");
    let change = json!({"max_requests_per_1_minute": 900, "max_tokens_per_1_minute": 5, "max_tokens_per_1_day": 6});
    let expected = limit(
        "m-a",
        &json!({
            "max_requests_per_1_minute": 900, "max_requests_per_1_day": 100, "max_tokens_per_1_minute": 5,
            "max_tokens_per_1_day": 6, "batch_1_day_max_input_tokens": 10_000,
        }),
    );
    assert_eq!(side.post(&path, change).await, (200, expected.clone()));
    let (_, listed) = side.get(&format!("/{project}/rate_limits")).await;
    assert_eq!(listed["data"][0], expected);
    let (_, reset) = side.post(&path, json!({"max_requests_per_1_minute": null})).await;
    assert_eq!((&reset["max_requests_per_1_minute"], &reset["max_tokens_per_1_minute"]), (&json!(10), &json!(5)));
    // Another tier: what is the project's own stays.
    assert_eq!(side.post(&format!("/{project}"), json!({"tier": "tier2"})).await.0, 200);
    let (_, listed) = side.get(&format!("/{project}/rate_limits")).await;
    let expected = json!({"max_requests_per_1_minute": 500, "max_tokens_per_1_minute": 5, "max_tokens_per_1_day": 6});
    assert_eq!(listed["data"][0], limit("m-a", &expected));
}

#[tokio::test]
async fn a_change_is_in_the_audit_log_and_one_that_changes_nothing_is_not() {
    let (side, project) = side().await;
    let path = format!("/{project}/rate_limits/rl-m-a");
    side.post(&path, json!({"max_requests_per_1_day": 7})).await;
    let row = side.last_audit().await;
    let after = json!({
        "max_requests_per_1_minute": null, "max_requests_per_1_day": 7, "max_tokens_per_1_minute": null,
        "max_tokens_per_1_day": null, "batch_1_day_max_input_tokens": null,
    });
    assert_eq!((&row["type"], &row["object_id"]), (&json!("rate_limit.updated"), &json!("rl-m-a")));
    assert_eq!((&row["project"]["id"], &row["before"], &row["after"]), (&json!(project), &Value::Null, &after));
    assert_eq!(row["rate_limit.updated"]["changes_requested"]["max_requests_per_1_day"], 7);
    side.post(&path, json!({"max_requests_per_1_day": 7})).await;
    assert_eq!(side.last_audit().await["id"], row["id"]);
    side.post(&path, json!({"max_requests_per_1_day": null})).await;
    let reset = side.last_audit().await;
    assert_eq!(
        (&reset["type"], &reset["before"], &reset["after"]),
        (&json!("rate_limit.deleted"), &after, &Value::Null)
    );
}

#[tokio::test]
async fn a_limit_of_no_model_and_one_of_an_archived_project_are_refused() {
    let (side, project) = side().await;
    // A snapshot shares its model's limits.
    for id in ["rl-m-x", "m-a", "rl-m-a-1"] {
        let (status, error) = side.post(&format!("/{project}/rate_limits/{id}"), json!({})).await;
        let message = format!("No such Rate limit object: {id}");
        assert_eq!((status, &error["error"]["message"]), (404, &json!(message)));
    }
    let elsewhere = side.post("/proj_x/rate_limits/rl-m-a", json!({})).await;
    assert_eq!(elsewhere.0, 404);
    assert_eq!(side.post(&format!("/{project}/archive"), json!({})).await.0, 200);
    let (status, error) =
        side.post(&format!("/{project}/rate_limits/rl-m-a"), json!({"max_requests_per_1_day": 7})).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("project_archived")));
}

#[tokio::test]
async fn limits_are_the_same_after_a_restart() {
    let (side, project) = side().await;
    side.post(&format!("/{project}/rate_limits/rl-m-b"), json!({"max_tokens_per_1_minute": 5})).await;
    let id = crate::domain::ids::ProjectId::parse(&project).unwrap();
    let (now, later) = (side.accounts.project(&id).unwrap(), side.reloaded().await.project(&id).unwrap());
    assert_eq!(now.terms.rate_limits.len(), 1);
    assert_eq!(now, later);
}
