//! Limits on money that are used to 50, 80 and 100 %: what the audit log and a webhook's receiver are told, and when.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};
use tollgate::{
    config::{Secret, Settings, WebhookUrl},
    domain::webhooks::{Event, SigningKey},
};

use crate::{
    schema::Specification,
    scripted::eventually,
    stand_in::{Canned, Received, StandIn},
    support::{Actor, Gateway, amounts},
    tiers::{gateway, spend},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn tell(settings: &mut Settings, url: &str) {
    settings.budget_webhook_url = Some(WebhookUrl::new(url).unwrap());
    settings.budget_webhook_secret = Some(Secret::new(SECRET));
}

/// A team that has spent the cost of one request, and that cost in whole cents, rounded up.
async fn spender(gateway: &Gateway) -> (Actor, i64) {
    let team = gateway.project("partners").await;
    spend(&team).await;
    let cost = gateway.ledger().await[0].cost_pico.unwrap();
    (team, cost / 10_000_000_000 + 1)
}

async fn limit(gateway: &Gateway, team: &Actor, cents: i64, enforcement: &str) {
    let path = format!("/v1/organization/projects/{}/spend_limit", team.project_id);
    let enforcement = json!({ "status": enforcement });
    let body = json!({"threshold_amount": cents, "currency": "USD", "interval": "month", "enforcement": enforcement});
    assert_eq!(gateway.admin().post(&path, &body).await.status, 200);
}

/// Oldest first.
async fn rows(gateway: &Gateway) -> Vec<Value> {
    let path = "/v1/organization/audit_logs?limit=100&event_types[]=spend_limit.mark_passed";
    let mut rows = gateway.admin().get(path).await.json()["data"].as_array().unwrap().clone();
    rows.reverse();
    rows
}

fn percents(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["after"]["percent"].as_u64().unwrap()).collect()
}

fn is_signed(received: &Received) -> bool {
    let header = |name: &str| received.headers[name].to_str().unwrap();
    let body = String::from_utf8(received.body.to_vec()).unwrap();
    let event = Event { id: header("webhook-id").to_owned(), body };
    let timestamp_s = header("webhook-timestamp").parse().unwrap();
    header("webhook-signature") == SigningKey::parse(SECRET).unwrap().sign(&event, timestamp_s)
}

#[tokio::test]
async fn a_limit_that_is_used_up_leaves_three_rows_and_sends_three_signed_events() {
    let receiver = StandIn::start().await;
    let mut gateway = gateway(|settings| tell(settings, &receiver.url)).await;
    let (mut team, one) = spender(&gateway).await;
    limit(&gateway, &team, 4 * one, "inactive").await;
    for _ in 0..4 {
        spend(&team).await;
    }
    eventually("three rows", async || rows(&gateway).await.len() == 3).await;
    let told = rows(&gateway).await;
    assert_eq!(percents(&told), [50, 80, 100]);
    let document = Specification(gateway.admin().get("/v1/organization/openapi.json").await.json());
    let (mut spent, limit_pico) = (0, i128::from(4 * one) * 10_000_000_000);
    for row in &told {
        assert_eq!(document.problems_of("AuditLog", row), [""; 0]);
        assert_eq!((&row["actor"]["api_key"]["id"], &row["object_id"]), (&json!("gateway"), &json!(team.project_id)));
        assert_eq!(row["project"], json!({"id": team.project_id, "name": "team"}));
        let after = &row["after"];
        let facts =
            ["spender", "interval", "threshold_amount", "enforcement", "start_time", "end_time"].map(|it| &after[it]);
        // September 2026.
        let expected = json!(["project", "month", 4 * one, {"status": "inactive"}, 1_788_220_800, 1_790_812_800]);
        assert_eq!(json!(facts), expected);
        // Written a little later than passed, perhaps with the next request in it.
        let pico = amounts(&after.to_string().replace(":\"", ":").replace("\",", ","), "spent_dollars")[0];
        assert!(pico >= spent && pico * 100 >= limit_pico * i128::from(after["percent"].as_u64().unwrap()), "{row}");
        spent = pico;
    }
    eventually("three events", async || gateway.metric("webhooks_delivered_total").await == 3).await;
    let received = receiver.received();
    assert!(received.iter().all(is_signed), "{received:?}");
    for (event, row) in received.iter().zip(&told) {
        let event: Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!((&event["object"], &event["type"]), (&json!("event"), &json!("spend_limit.mark_passed")));
        assert_eq!((&event["data"]["id"], &event["data"]["percent"]), (&row["id"], &row["after"]["percent"]));
    }
    gateway.stop().await;
    gateway.run().await;
    team.url.clone_from(&gateway.calls_url);
    spend(&team).await;
    gateway.at_rest().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((rows(&gateway).await, receiver.received().len()), (told, 3));
}

#[tokio::test]
async fn an_enforced_budget_of_a_key_is_told_of_too_and_one_request_may_pass_all_marks() {
    let gateway = gateway(|_| {}).await;
    let (team, _) = spender(&gateway).await;
    let path = format!("/v1/organization/projects/{}/api_keys/{}", team.project_id, team.key_id);
    gateway.clock.advance(86_400_000_000_000);
    let budget = json!({"budget": {"daily_cents": 1}});
    assert_eq!(gateway.admin().post(&path, &budget).await.status, 200);
    spend(&team).await;
    eventually("three rows", async || rows(&gateway).await.len() == 3).await;
    let told = rows(&gateway).await;
    assert_eq!(percents(&told), [50, 80, 100]);
    assert!(told.iter().all(|row| row["object_id"] == *team.key_id && row["after"]["spender"] == "key"), "{told:?}");
    // Nothing soft was passed.
    assert_eq!(gateway.metric("soft_limits_passed_total{percent=\"100\"}").await, 0);
}

#[tokio::test]
async fn an_event_is_tried_again_with_its_id_until_it_is_accepted_and_no_redirect_is_followed() {
    let receiver = StandIn::start().await;
    let gateway = gateway(|settings| tell(settings, &receiver.url)).await;
    let (team, one) = spender(&gateway).await;
    // One more is two thirds.
    limit(&gateway, &team, 3 * one, "inactive").await;
    let elsewhere = vec![("location", receiver.url.replace("/v1", "/elsewhere"))];
    receiver.answer_with(Canned { status: 307, headers: elsewhere, ..Canned::default() });
    spend(&team).await;
    eventually("a first attempt", async || receiver.received().len() == 1).await;
    receiver.answer_with(Canned { status: 500, ..Canned::default() });
    eventually("a second attempt", async || receiver.received().len() == 2).await;
    receiver.answer_with(Canned { status: 204, headers: vec![], body: "".into() });
    eventually("it is delivered", async || gateway.metric("webhooks_delivered_total").await == 1).await;
    let received = receiver.received();
    let ids: Vec<_> = received.iter().map(|it| it.headers["webhook-id"].clone()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]) && received.iter().all(is_signed), "{received:?}");
    assert!(received.iter().all(|it| it.path == "/v1"));
    assert_eq!(gateway.metric("webhooks_failed_total").await, 0);
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_neither_requests_nor_the_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut gateway = gateway(|settings| tell(settings, &url)).await;
    let (team, one) = spender(&gateway).await;
    limit(&gateway, &team, 4 * one, "inactive").await;
    let started = Instant::now();
    for _ in 0..4 {
        spend(&team).await;
    }
    let (held, _) = listener.accept().await.unwrap();
    eventually("three rows", async || rows(&gateway).await.len() == 3).await;
    // Less than one attempt may take.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let metrics = gateway.running.as_ref().unwrap().app.metrics.clone();
    let stopping = Instant::now();
    gateway.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(4), "{:?}", stopping.elapsed());
    assert_eq!((metrics.webhooks_delivered.get(), metrics.webhooks_dropped.get()), (0, 3));
    drop(held);
}
