use http::Method;
use serde_json::{Value, json};

use crate::api::fixture::{ADMIN_KEY, AdminSide, NOW_SECONDS};

const SECOND: u64 = 1_000_000_000;

async fn logs(side: &AdminSide, query: &str) -> Value {
    let (status, page) = side.as_admin(ADMIN_KEY, Method::GET, &format!("audit_logs{query}"), "").await;
    assert_eq!(status, 200, "{page}");
    page
}

fn fields<'a>(page: &'a Value, field: &str) -> Vec<&'a str> {
    page["data"].as_array().unwrap().iter().map(|row| row[field].as_str().unwrap()).collect()
}

/// A project, then a second later an account with its key, then a second later the key's end.
async fn history(side: &AdminSide) -> (Value, Value) {
    let (_, project) = side.post("", json!({"name": "alpha"})).await;
    side.clock.advance(SECOND);
    let id = project["id"].as_str().unwrap();
    let (_, account) = side.post(&format!("/{id}/service_accounts"), json!({"name": "worker"})).await;
    side.clock.advance(SECOND);
    side.delete(&format!("/{id}/api_keys/{}", account["api_key"]["id"].as_str().unwrap())).await;
    (project, account)
}

#[tokio::test]
async fn every_change_is_there_with_who_when_and_what() {
    let side = AdminSide::new().await;
    let (project, account) = history(&side).await;
    let page = logs(&side, "").await;
    assert_eq!(
        fields(&page, "type"),
        ["api_key.deleted", "api_key.created", "service_account.created", "project.created"]
    );
    let row = &page["data"][0];
    assert_eq!((&row["effective_at"], &row["object_id"]), (&json!(NOW_SECONDS + 2), &account["api_key"]["id"]));
    assert_eq!(row["actor"], json!({"type": "api_key", "api_key": {"id": "key_configured", "type": "user"}}));
    assert_eq!(row["project"], json!({"id": project["id"], "name": "alpha"}));
    assert_eq!((&row["before"]["name"], &row["after"]), (&json!("worker"), &Value::Null));
    let created = &page["data"][3];
    assert_eq!((&created["before"], &created["after"]["tier"]), (&Value::Null, &json!("tier1")));
    assert_eq!(created["project.created"]["data"]["title"], "alpha");
    let secret = account["api_key"]["value"].as_str().unwrap().rsplit_once('_').unwrap().1;
    assert!(!page.to_string().contains(&secret[..8]));
}

#[tokio::test]
async fn pages_go_both_ways_and_miss_nothing() {
    let side = AdminSide::new().await;
    history(&side).await;
    let all = logs(&side, "").await;
    let ids = fields(&all, "id");
    let first = logs(&side, "?limit=3").await;
    assert_eq!((fields(&first, "id"), &first["has_more"]), (ids[..3].to_vec(), &json!(true)));
    assert_eq!((&first["first_id"], &first["last_id"]), (&json!(ids[0]), &json!(ids[2])));
    let rest = logs(&side, &format!("?limit=3&after={}", ids[2])).await;
    assert_eq!((fields(&rest, "id"), &rest["has_more"]), (ids[3..].to_vec(), &json!(false)));
    let back = logs(&side, &format!("?limit=2&before={}", ids[3])).await;
    assert_eq!((fields(&back, "id"), &back["has_more"]), (ids[1..3].to_vec(), &json!(true)));
    let back = logs(&side, &format!("?limit=2&before={}", ids[2])).await;
    assert_eq!((fields(&back, "id"), &back["has_more"]), (ids[..2].to_vec(), &json!(false)));
    for wrong in ["audit_log-2_00000000", "audit_log-99_00000000", "proj_a", "audit_log-x_y", ""] {
        let path = format!("audit_logs?after={wrong}");
        let (status, answer) = side.as_admin(ADMIN_KEY, Method::GET, &path, "").await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("after")), "{wrong}");
    }
}

#[tokio::test]
async fn filters_narrow_together() {
    let side = AdminSide::new().await;
    let (project, account) = history(&side).await;
    side.post("", json!({"name": "beta"})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (project, account) = (text(&project["id"]), text(&account["id"]));
    for (query, found) in [
        (format!("?project_ids[]={project}"), 4),
        (format!("?resource_ids[]={account}&resource_ids[]={project}"), 2),
        ("?event_types[]=project.created".to_owned(), 2),
        (format!("?event_types[]=project.created&project_ids={project}"), 1),
        ("?actor_ids[]=key_configured".to_owned(), 5),
        ("?actor_ids[]=gateway".to_owned(), 0),
        ("?actor_emails[]=a@example.com".to_owned(), 0),
        (format!("?effective_at[gt]={NOW_SECONDS}"), 4),
        (format!("?effective_at[gte]={}&effective_at[lt]={}", NOW_SECONDS + 1, NOW_SECONDS + 2), 2),
        (format!("?effective_at[lte]={NOW_SECONDS}"), 1),
    ] {
        assert_eq!(fields(&logs(&side, &query).await, "id").len(), found, "{query}");
    }
}

#[tokio::test]
async fn a_change_that_was_not_saved_has_no_row() {
    let side = AdminSide::new().await;
    history(&side).await;
    let statement = "CREATE TRIGGER full BEFORE INSERT ON projects BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    sqlx::query(statement).execute(side.store.writer()).await.unwrap();
    assert_eq!(side.post("", json!({"name": "beta"})).await.0, 500);
    assert_eq!(fields(&logs(&side, "").await, "id").len(), 4);
}

#[tokio::test]
async fn a_change_whose_row_cannot_be_written_is_not_made() {
    let side = AdminSide::new().await;
    let (_, project) = side.post("", json!({"name": "alpha"})).await;
    let path = format!("/{}/service_accounts", project["id"].as_str().unwrap());
    let statement = "CREATE TRIGGER full BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    sqlx::query(statement).execute(side.store.writer()).await.unwrap();
    assert_eq!(side.post("", json!({"name": "beta"})).await.0, 500);
    assert_eq!(side.post(&path, json!({"name": "worker"})).await.0, 500);
    let accounts = crate::accounts::Accounts::load(
        std::sync::Arc::clone(&side.store),
        crate::domain::keys::Pepper::from_bytes([7; 32]),
    );
    let accounts = accounts.await.unwrap();
    assert_eq!(accounts.projects().len(), 1);
    assert!(accounts.keys_of(&accounts.projects()[0].id).is_empty());
}
