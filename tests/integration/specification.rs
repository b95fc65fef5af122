//! The organization API against OpenAI's own description of it, where that lies beside the repository.

use std::collections::HashMap;

use serde_json::{Value, json};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::{
    schema::Specification,
    support::{Gateway, Reply, TEXT_MODEL, spoken},
};

const START_S: u64 = 1_790_000_000;

/// The operations in an order in which each finds what it is about: made, read, then deleted.
fn in_order(mut operations: Vec<(String, String, Value)>) -> Vec<(String, String, Value)> {
    let place = |method: &str| ["POST", "GET", "DELETE"].iter().position(|known| *known == method);
    operations.sort_by_key(|(method, path, _)| (place(method), path.clone()));
    operations
}

/// What is sent to a path.
fn body(path: &str) -> Value {
    match path.rsplit_once('/').unwrap().1 {
        "projects" | "{project_id}" | "service_accounts" | "{service_account_id}" | "admin_api_keys" | "api_keys" => {
            json!({"name": "specified"})
        }
        "{rate_limit_id}" => json!({"max_requests_per_1_minute": 100}),
        "spend_limit" => json!({"threshold_amount": 1_000, "currency": "USD", "interval": "month"}),
        "model_permissions" => json!({"mode": "allow_list", "model_ids": [TEXT_MODEL]}),
        other => panic!("what is sent to {other}?"),
    }
}

/// A project with a key that has been used, and an admin key.
async fn ids(gateway: &Gateway) -> HashMap<&'static str, String> {
    let team = gateway.project("tier1").await;
    assert_eq!(
        (team.say("Hi").await.status, team.chat(&spoken("wav")).await.status),
        (200.try_into().unwrap(), 200.try_into().unwrap())
    );
    gateway.at_rest().await;
    let project = format!("/v1/organization/projects/{}", team.project_id);
    let first = async |path: String| {
        let list = gateway.admin().get(&path).await.json();
        list["data"][0]["id"].as_str().unwrap_or_default().to_owned()
    };
    let admin_key = gateway.admin().post("/v1/organization/admin_api_keys", &json!({"name": "second"})).await.json();
    HashMap::from([
        ("{api_key_id}", team.key_id.clone()),
        ("{service_account_id}", first(format!("{project}/service_accounts")).await),
        ("{rate_limit_id}", first(format!("{project}/rate_limits")).await),
        ("{key_id}", admin_key["id"].as_str().unwrap().to_owned()),
        ("{project_id}", team.project_id),
    ])
}

fn is_served(reply: &Reply) -> bool {
    reply.status != 405 && !reply.text().contains("Invalid URL")
}

#[tokio::test]
async fn every_answer_of_the_organization_api_fits_openais_schema() {
    let Some(specification) = Specification::of_openai() else { return };
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    let gateway = Gateway::start_at(clock, simulator::Options::default(), |_| {}).await;
    let (ids, admin) = (ids(&gateway).await, gateway.admin());
    let (mut served, mut problems) = (0, Vec::new());
    for (method, template, schema) in in_order(specification.operations("/organization/")) {
        let path = ids.iter().fold(format!("/v1{template}"), |path, (name, id)| path.replace(name, id));
        let reply = match method.as_str() {
            "POST" => admin.post(&path, &body(&template)).await,
            "DELETE" => admin.delete(&path).await,
            _ => admin.get(&format!("{path}?start_time={}", START_S - 60)).await,
        };
        if !is_served(&reply) {
            println!("{method} {template} is not served");
            continue;
        }
        served += 1;
        let found =
            if reply.status == 200 { specification.problems(&schema, &reply.json()) } else { vec![reply.text()] };
        problems.extend(found.iter().map(|problem| format!("{method} {template}: {problem}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(served >= 27, "only {served} operations were there");
}

#[tokio::test]
async fn each_grouping_of_each_report_fits_openais_schema() {
    let Some(specification) = Specification::of_openai() else { return };
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    let gateway = Gateway::start_at(clock, simulator::Options::default(), |_| {}).await;
    ids(&gateway).await;
    for (path, groupings) in [
        ("costs", "project_id,line_item,api_key_id"),
        ("usage/completions", "project_id,user_id,api_key_id,model,batch,service_tier"),
    ] {
        let query = format!("start_time={}&group_by={groupings}&timezone=Asia/Kolkata", START_S - 60);
        let page = gateway.admin().get(&format!("/v1/organization/{path}?{query}")).await.json();
        assert_eq!(specification.problems_of("UsageResponse", &page), [""; 0], "{path}");
        assert!(page["data"][0]["results"].as_array().unwrap().len() > 1, "{path}: {page}");
    }
}
