//! What must be as it was after `kill -9`: limits, keys, the admin key.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    client::{Answer, get, open, request},
    ledger::{Ledger, until_seen},
    load::Dice,
    process::{ADMIN_KEY, Key, LookAlike, Setup},
};

const MODEL: &str = "gpt-4o-mini";

pub fn text() -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": "Count the cars at the gate."}]})
}

fn remaining(answer: &Answer, what: &str) -> i64 {
    answer.header(&format!("x-ratelimit-remaining-{what}")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn limits_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({"requests_per_minute": 5, "tokens_per_minute": 100_000})).await;
    for left in [4, 3, 2] {
        let answer = gateway.chat(&key, &text()).await;
        assert_eq!((answer.status, remaining(&answer, "requests")), (200, left));
    }
    // Two that are under way when it is killed: what is not settled counts as well.
    let hanging = request("POST", "/v1/chat/completions", &key.plain, &[("x-simulate", "hang")], &text().to_string());
    let mut connections = Vec::new();
    for _ in 0..2 {
        connections.push(open(gateway.calls, &hanging, 0).await.unwrap());
    }
    until_seen(&dir, 5).await;
    let before = gateway.chat(&key, &text()).await;
    assert_eq!((before.status, remaining(&before, "requests")), (429, 0));
    gateway.kill();

    let mut gateway = setup.start();
    let after = gateway.chat(&key, &text()).await;
    assert_eq!((after.status, remaining(&after, "requests")), (429, 0), "a crash must not refill a limit");
    let (before, after) = (remaining(&before, "tokens"), remaining(&after, "tokens"));
    // The bucket of 100,000 tokens a minute gets back 1,667 of them in a second.
    assert!(before <= after && after < before + 50_000, "tokens left: {before} before, {after} after");

    // A key that is not used up is not refused because of the crash either.
    let other = gateway.new_key(&json!({"requests_per_minute": 2})).await;
    assert_eq!(gateway.chat(&other, &text()).await.status, 200);
    gateway.kill();
    let gateway = setup.start();
    assert_eq!(gateway.chat(&other, &text()).await.status, 200);
    assert_eq!(gateway.chat(&other, &text()).await.status, 429);
    drop(connections);
}

#[tokio::test]
async fn the_limits_of_a_project_and_of_its_key_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let narrow = gateway.new_key(&json!({"requests_per_day": 3})).await;
    let project = format!("projects/{}", narrow.project_id);
    let account = gateway.admin_post(&format!("{project}/service_accounts"), &json!({"name": "sibling"})).await;
    let text_of = |field: &str| account["api_key"][field].as_str().unwrap().to_owned();
    let sibling = Key { id: text_of("id"), plain: text_of("value"), project_id: narrow.project_id.clone() };
    gateway.admin_post(&format!("{project}/rate_limits/rl-{MODEL}"), &json!({"max_requests_per_1_day": 6})).await;
    for left in [2, 1, 0] {
        let answer = gateway.chat(&narrow, &text()).await;
        assert_eq!((answer.status, remaining(&answer, "requests")), (200, left));
    }
    let answer = gateway.chat(&sibling, &text()).await;
    assert_eq!((answer.status, remaining(&answer, "requests")), (200, 2));
    let fault = [("x-simulate", "hang")];
    let hanging = request("POST", "/v1/chat/completions", &sibling.plain, &fault, &text().to_string());
    let connection = open(gateway.calls, &hanging, 0).await.unwrap();
    until_seen(&dir, 5).await;
    gateway.kill();

    let gateway = setup.start();
    let refused = gateway.chat(&narrow, &text()).await;
    assert!(refused.status == 429 && refused.text().contains("(RPD): Limit 3, Used 3"), "{}", refused.text());
    let last = gateway.chat(&sibling, &text()).await;
    assert_eq!((last.status, remaining(&last, "requests")), (200, 0), "what was under way counts as well");
    let refused = gateway.chat(&sibling, &text()).await;
    assert!(refused.status == 429 && refused.text().contains("(RPD): Limit 6, Used 6"), "{}", refused.text());
    drop(connection);
}

#[tokio::test]
async fn keys_and_admin_key_survive() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let (kept, revoked) = (gateway.new_key(&json!({})).await, gateway.new_key(&json!({})).await);
    let path = format!("/v1/organization/projects/{}/api_keys/{}", revoked.project_id, revoked.id);
    let delete = request("DELETE", &path, ADMIN_KEY, &[], "");
    let deleted = crate::client::exchange(gateway.admin, &delete).await.unwrap();
    gateway.kill();
    assert_eq!(deleted.status, 200);

    let gateway = setup.start();
    assert_eq!(gateway.chat(&kept, &text()).await.status, 200);
    assert_eq!(gateway.chat(&revoked, &text()).await.status, 401, "a crash must not bring a revoked key back");
    assert_eq!(get(gateway.admin, "/v1/organization/projects", ADMIN_KEY).await.unwrap().status, 200);
}

/// The admin key on the screen of a start, if there is one.
pub fn shown_admin_key(screen: &str) -> Option<String> {
    screen.lines().map(str::trim).find(|line| line.starts_with("sk-admin-")).map(str::to_owned)
}

#[tokio::test]
async fn the_first_start_shows_the_admin_key_and_later_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream).with("ADMIN_KEY", "");
    let mut gateway = setup.start();
    let shown = shown_admin_key(&gateway.screen()).expect("the first start shows the admin key");
    for _ in 0..2 {
        let projects = get(gateway.admin, "/v1/organization/projects", &shown).await.unwrap();
        assert_eq!(projects.status, 200, "{}", projects.text());
        gateway.kill();
        gateway = setup.start();
        assert_eq!(shown_admin_key(&gateway.screen()), None);
        let log = std::fs::read_to_string(setup.log()).unwrap();
        assert!(!log.contains(&shown), "the admin key is in the log");
    }
}

#[tokio::test]
async fn a_first_start_that_failed_does_not_use_up_the_admin_key() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream).with("ADMIN_KEY", "");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let failing = setup.clone().with("LISTEN", &taken.local_addr().unwrap().to_string());
    let (code, _, said) = failing.start_in_vain();
    assert_eq!(code, Some(1));
    assert!(said.contains("something else listens there"), "{said}");

    let gateway = setup.start();
    assert!(shown_admin_key(&gateway.screen()).is_some(), "nobody has seen the admin key, and nobody ever will");
}

#[tokio::test]
async fn a_start_that_is_killed_can_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream).with("ADMIN_KEY", "");
    let mut dice = Dice::new();
    let mut shown = Vec::new();
    for _ in 0..15 {
        let screen = setup.start_and_kill(Duration::from_millis(dice.roll(150))).join("\n");
        shown.extend(shown_admin_key(&screen));
    }
    let mut gateway = setup.start();
    shown.extend(shown_admin_key(&gateway.screen()));
    let mut opens = false;
    for key in &shown {
        opens |= get(gateway.admin, "/v1/organization/projects", key).await.unwrap().status == 200;
    }
    assert!(opens, "none of the admin keys that were shown opens anything: {} were shown", shown.len());
    gateway.stop();
    Ledger::open(&setup.ledger()).await.assert_sound().await;
}
