use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use crate::api::{
    fixture::{ADMIN_KEY, AdminSide},
    projects::tests::project,
};

/// The limit of a project, or that of the organization.
async fn call(side: &AdminSide, project: Option<&str>, method: Method, body: &Value) -> (u16, Value) {
    ask(side, project, method, "", body).await
}

async fn ask(side: &AdminSide, project: Option<&str>, method: Method, query: &str, body: &Value) -> (u16, Value) {
    let path = project.map_or("spend_limit".to_owned(), |project| format!("projects/{project}/spend_limit"));
    let path = path + query;
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    side.as_admin(ADMIN_KEY, method, &path, body).await
}

#[tokio::test]
async fn both_limits_are_set_replaced_shown_and_taken_away() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    for (of, object, missing) in [
        (Some(project.as_str()), "project.spend_limit", project.as_str()),
        (None, "organization.spend_limit", "organization"),
    ] {
        let none = json!({"error": {
            "message": format!("No such Spend limit object: {missing}"), "type": "invalid_request_error", "param": "id",
            "code": null,
        }});
        assert_eq!(call(&side, of, Method::GET, &Value::Null).await, (404, none.clone()));
        assert_eq!(call(&side, of, Method::DELETE, &Value::Null).await, (404, none.clone()));
        let mut body = json!({"threshold_amount": 12_345, "currency": "USD", "interval": "month"});
        let mut expected = body.clone();
        expected["object"] = object.into();
        expected["enforcement"] = json!({"status": "enforcing"});
        assert_eq!(call(&side, of, Method::POST, &body).await, (200, expected.clone()));
        assert_eq!(call(&side, of, Method::GET, &Value::Null).await, (200, expected.clone()));
        (body["enforcement"], expected["enforcement"]) = (json!({"status": "inactive"}), json!({"status": "inactive"}));
        assert_eq!(call(&side, of, Method::POST, &body).await, (200, expected.clone()));
        assert_eq!(call(&side, of, Method::GET, &Value::Null).await, (200, expected));
        let deleted = json!({"object": format!("{object}.deleted"), "deleted": true});
        assert_eq!(call(&side, of, Method::DELETE, &Value::Null).await, (200, deleted));
        assert_eq!(call(&side, of, Method::GET, &Value::Null).await, (404, none));
    }
}

#[tokio::test]
async fn a_limit_of_the_month_and_one_of_the_day_do_not_touch_each_other() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    for of in [Some(project.as_str()), None] {
        let set = async |cents: u64, interval: &str| {
            let body = json!({"threshold_amount": cents, "currency": "USD", "interval": interval});
            assert_eq!(call(&side, of, Method::POST, &body).await.0, 200);
        };
        let cents =
            async |query: &str| ask(&side, of, Method::GET, query, &Value::Null).await.1["threshold_amount"].as_u64();
        let delete = async |query: &str| ask(&side, of, Method::DELETE, query, &Value::Null).await.0;
        let all = async || (cents("").await, cents("?interval=month").await, cents("?interval=day").await);
        set(5, "day").await;
        assert_eq!(all().await, (Some(5), None, Some(5)));
        set(90, "month").await;
        assert_eq!(all().await, (Some(90), Some(90), Some(5)));
        set(7, "day").await;
        let row = side.last_audit().await;
        let of_day =
            |cents| json!({"threshold_amount": cents, "interval": "day", "enforcement": {"status": "enforcing"}});
        assert_eq!((&row["before"], &row["after"]), (&of_day(5), &of_day(7)));
        set(80, "month").await;
        assert_eq!(all().await, (Some(80), Some(80), Some(7)));
        let accounts = side.reloaded().await;
        let limits = match of {
            Some(id) => {
                accounts.project(&crate::domain::ids::ProjectId::parse(id).unwrap()).unwrap().terms.spend_limits
            }
            None => accounts.organization_limits().current(),
        };
        assert_eq!(limits.iter().map(|limit| limit.threshold_cents.get()).collect::<Vec<_>>(), [80, 7]);
        assert_eq!(delete("?interval=week").await, 400);
        assert_eq!((delete("?interval=day").await, delete("?interval=day").await), (200, 404));
        assert_eq!(all().await, (Some(80), Some(80), None));
        set(7, "day").await;
        assert_eq!(delete("").await, 400, "of two the one that goes is named");
        assert_eq!(delete("?interval=month").await, 200);
        assert_eq!(all().await, (Some(7), None, Some(7)));
        assert_eq!((delete("").await, delete("").await), (200, 404));
    }
}

#[tokio::test]
async fn both_limits_are_the_same_after_a_restart() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    let id = crate::domain::ids::ProjectId::parse(&project).unwrap();
    let cents = async || {
        let accounts = side.reloaded().await;
        let cents =
            |limits: crate::domain::spend::SpendLimits| limits.iter().next().map(|limit| limit.threshold_cents.get());
        (cents(accounts.project(&id).unwrap().terms.spend_limits), cents(accounts.organization_limits().current()))
    };
    assert_eq!(cents().await, (None, None));
    for (of, threshold) in [(Some(project.as_str()), 5), (None, 7)] {
        let body = json!({"threshold_amount": threshold, "currency": "USD", "interval": "month"});
        assert_eq!(call(&side, of, Method::POST, &body).await.0, 200);
    }
    assert_eq!(cents().await, (Some(5), Some(7)));
    for of in [Some(project.as_str()), None] {
        assert_eq!(call(&side, of, Method::DELETE, &Value::Null).await.0, 200);
    }
    assert_eq!(cents().await, (None, None));
}

#[tokio::test]
async fn changes_are_in_the_audit_log() {
    let side = AdminSide::new().await;
    let project = project(&side, "alpha").await;
    let facts =
        |cents: u64| json!({"threshold_amount": cents, "interval": "month", "enforcement": {"status": "enforcing"}});
    for (of, object_id, in_project) in
        [(Some(project.as_str()), project.as_str(), json!(project)), (None, "organization", Value::Null)]
    {
        let mut before = Value::Null;
        for cents in [5, 7] {
            let body = json!({"threshold_amount": cents, "currency": "USD", "interval": "month"});
            call(&side, of, Method::POST, &body).await;
            let row = side.last_audit().await;
            assert_eq!((&row["type"], &row["object_id"]), (&json!("spend_limit.updated"), &json!(object_id)));
            assert_eq!((&row["before"], &row["after"]), (&before, &facts(cents)));
            assert_eq!(row["project"]["id"], in_project);
            before = facts(cents);
            call(&side, of, Method::POST, &body).await;
            assert_eq!(side.last_audit().await["id"], row["id"], "nothing was changed");
        }
        call(&side, of, Method::DELETE, &Value::Null).await;
        let row = side.last_audit().await;
        assert_eq!(
            (&row["type"], &row["before"], &row["after"]),
            (&json!("spend_limit.deleted"), &before, &Value::Null)
        );
    }
}
