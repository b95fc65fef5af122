//! What administrators change, as teams see it: at once, without a restart, and after one.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::support::{Actor, Gateway, MODEL, SNAPSHOT, TEXT_MODEL, spoken, text, with};

const PROJECTS: &str = "/v1/organization/projects";

fn key_path(team: &Actor) -> String {
    format!("{PROJECTS}/{}/api_keys/{}", team.project_id, team.key_id)
}

/// A key of a new project that may use `models` alone.
async fn narrow_key(gateway: &Gateway, models: &[&str]) -> Actor {
    let team = gateway.project("tier1").await;
    let reply = gateway.admin().post(&key_path(&team), &json!({ "allowed_models": models })).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    team
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_model_that_the_key_may_not_use_is_refused_and_nothing_is_consumed() {
    let gateway = Gateway::start().await;
    let team = narrow_key(&gateway, &[MODEL]).await;
    let refused = team.say("Hi").await;
    let message = format!("Project `{}` does not have access to model `{TEXT_MODEL}`", team.project_id);
    let expected = json!({
        "message": message, "type": "invalid_request_error", "param": null, "code": "model_not_found",
    });
    assert_eq!((refused.status.as_u16(), refused.error()), (403, expected));
    assert_eq!((gateway.metric("upstream_calls_total").await, gateway.ledger().await.len()), (0, 0));
    let unknown = team.chat(&text("gpt-unknown", "Hi")).await;
    assert_eq!((unknown.status.as_u16(), unknown.error()["code"].as_str()), (404, Some("model_not_found")));
    for allowed in [MODEL, SNAPSHOT] {
        let body = with(spoken("wav"), &json!({ "model": allowed }));
        assert_eq!(team.chat(&body).await.status, 200, "{allowed}");
    }
    let reply = gateway.admin().post(&key_path(&team), &json!({"allowed_models": [TEXT_MODEL]})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(team.say("Hi").await.status, 200);
    assert_eq!(team.chat(&spoken("wav")).await.status, 403);
}

#[tokio::test]
async fn the_list_of_models_shows_those_that_the_key_may_use() {
    let gateway = Gateway::start().await;
    let (all, narrow) = (gateway.project("tier1").await, narrow_key(&gateway, &[SNAPSHOT]).await);
    let everything = all.get("/v1/models").await.json();
    assert!(ids(&everything).contains(&MODEL) && ids(&everything).len() > 10);
    assert_eq!(ids(&narrow.get("/v1/models").await.json()), [SNAPSHOT]);
    assert_eq!(narrow.get(&format!("/v1/models/{SNAPSHOT}")).await.status, 200);
    let hidden = narrow.get(&format!("/v1/models/{MODEL}")).await;
    assert_eq!((hidden.status.as_u16(), hidden.error()["code"].as_str()), (404, Some("model_not_found")));
}

#[tokio::test]
async fn a_rotated_key_has_no_fresh_limits() {
    let clock = Clock::manual(UnixNanos::from_seconds(1_790_000_000));
    let gateway = Gateway::start_at(clock, simulator::Options::default(), |_| {}).await;
    let team = gateway.project_with("tier1", json!({"requests_per_day": 2})).await;
    assert_eq!(team.say("Hi").await.status, 200);
    let rotated = gateway.admin().post(&format!("{}/rotate", key_path(&team)), &json!({})).await.json();
    let renewed = gateway.bearer(rotated["value"].as_str().unwrap());
    assert_eq!(renewed.say("Hi").await.status, 200);
    for actor in [&team, &renewed] {
        assert_eq!(actor.say("Hi").await.status, 429);
    }
    let rows = gateway.ledger().await;
    assert!(rows.iter().all(|row| row.api_key_id == team.key_id), "both are the same key in the books");
}

#[tokio::test]
async fn every_change_survives_a_restart() {
    let mut gateway = Gateway::start().await;
    let (open, archived) = (gateway.project("tier1").await, gateway.project("tier1").await);
    let revoked = gateway.key_of(&open.project_id, json!({})).await;
    let admin = gateway.admin();
    let made = admin.post("/v1/organization/admin_api_keys", &json!({"name": "robot"})).await.json();
    let deleted = admin.post("/v1/organization/admin_api_keys", &json!({"name": "gone"})).await.json();
    let path = format!("/v1/organization/admin_api_keys/{}", deleted["id"].as_str().unwrap());
    assert_eq!(admin.delete(&path).await.status, 200);
    assert_eq!(admin.delete(&key_path(&revoked)).await.status, 200);
    admin.post(&format!("{PROJECTS}/{}", open.project_id), &json!({"name": "renamed", "tier": "tier2"})).await;
    assert_eq!(admin.post(&format!("{PROJECTS}/{}/archive", archived.project_id), &json!({})).await.status, 200);
    let rotate = format!("{}/rotate", key_path(&open));
    let rotated = admin.post(&rotate, &json!({"overlap_seconds": 0})).await.json();
    let new = rotated["value"].as_str().unwrap().to_owned();
    for restarted in [false, true] {
        if restarted {
            gateway.stop().await;
            gateway.run().await;
        }
        for key in [&open.key, &archived.key, &revoked.key] {
            assert_eq!(gateway.bearer(key.as_ref().unwrap()).say("Hi").await.status, 401, "restarted: {restarted}");
        }
        assert_eq!(gateway.bearer(&new).say("Hi").await.status, 200, "restarted: {restarted}");
        let robot = Actor { url: gateway.admin_url.clone(), ..gateway.bearer(made["value"].as_str().unwrap()) };
        let gone = Actor { url: gateway.admin_url.clone(), ..gateway.bearer(deleted["value"].as_str().unwrap()) };
        assert_eq!(gone.get(PROJECTS).await.status, 401, "restarted: {restarted}");
        let project = robot.get(&format!("{PROJECTS}/{}", open.project_id)).await.json();
        assert_eq!((&project["name"], &project["tier"]), (&json!("renamed"), &json!("tier2")));
        let key = robot.get(&key_path(&open)).await.json();
        assert!(key["last_used_at"].as_u64() > Some(0), "restarted: {restarted}: {key}");
    }
}

#[tokio::test]
async fn what_this_organization_does_not_have_is_404_in_openais_words() {
    let gateway = Gateway::start().await;
    let (admin, team) = (gateway.admin(), gateway.project("tier1").await);
    for path in [
        "/v1/organization/users".to_owned(),
        "/v1/organization/users/user-x".to_owned(),
        "/v1/organization/invites".to_owned(),
        "/v1/organization/groups".to_owned(),
        "/v1/organization/certificates".to_owned(),
        "/v1/organization/nothing".to_owned(),
        format!("{PROJECTS}/{}/users", team.project_id),
    ] {
        let replies = [("GET", admin.get(&path).await), ("POST", admin.post(&path, &json!({})).await)];
        for (method, reply) in replies {
            let expected = json!({
                "message": format!("Invalid URL ({method} {path})"), "type": "invalid_request_error", "param": null,
                "code": null,
            });
            assert_eq!((reply.status.as_u16(), reply.error()), (404, expected));
        }
    }
}

fn verify(gateway: &Gateway, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["audit", "verify"])
        .args(words)
        .env_clear()
        .env("TOLLGATE_DATA_DIR", gateway.data_dir())
        .current_dir(gateway.dir.path())
        .output()
        .unwrap()
}

#[tokio::test]
async fn the_first_admin_key_is_in_the_audit_log_and_the_log_is_verified_beside_the_gateway() {
    let mut gateway = Gateway::start_with(|settings| settings.admin_key = None).await;
    let running = gateway.running.as_ref().unwrap();
    let key = running.new_admin_key.as_ref().unwrap().reveal().to_owned();
    running.keep_new_admin_key().await.unwrap();
    let admin = Actor { url: gateway.admin_url.clone(), ..gateway.bearer(&key) };
    assert_eq!(admin.post(PROJECTS, &json!({"name": "a"})).await.status, 200);
    let log = admin.get("/v1/organization/audit_logs").await.json();
    let (project, first) = (&log["data"][0], &log["data"][1]);
    assert_eq!((&first["type"], &first["actor"]["api_key"]["id"]), (&json!("api_key.created"), &json!("gateway")));
    assert_eq!(project["actor"]["api_key"]["id"], first["object_id"]);
    let output = verify(&gateway, &["--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{answer}");
    assert_eq!((&answer["rows"], &answer["last_hash"]), (&json!(2), &project["hash"]));
    gateway.stop().await;
    assert!(verify(&gateway, &["--expect-hash", project["hash"].as_str().unwrap()]).status.success());
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(gateway.ledger_path());
    let mut file = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let flip = "DROP TRIGGER audit_rows_are_never_changed; UPDATE audit_log SET object_id = 'key_x' WHERE number = 1";
    sqlx::raw_sql(flip).execute(&mut file).await.unwrap();
    sqlx::Connection::close(file).await.unwrap();
    let output = verify(&gateway, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("row 1 is not as it was written"));
}
