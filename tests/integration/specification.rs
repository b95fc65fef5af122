//! The organization API against OpenAI's own description of it, where that lies beside the repository.

use serde_json::Value;
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::{
    schema::Specification,
    support::{Gateway, Reply},
    walk::{Things, body, call, in_order},
};

const START_S: u64 = 1_790_000_000;

fn is_served(reply: &Reply) -> bool {
    reply.status != 405 && !reply.text().contains("Invalid URL")
}

#[tokio::test]
async fn every_answer_of_the_organization_api_fits_openais_schema() {
    let Some(specification) = Specification::of_openai() else { return };
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    let gateway = Gateway::start_at(clock, simulator::Options::default(), |_| {}).await;
    let (things, admin) = (Things::new(&gateway).await, gateway.admin());
    let (mut served, mut problems) = (0, Vec::new());
    let operations = specification.operations("/organization/");
    for (method, template, schema) in in_order(operations, |(method, path, _)| (method.clone(), path.clone())) {
        let path = format!("/v1{}?start_time={}", things.path(&template), START_S - 60);
        let body = if method == "POST" { body(&template) } else { Value::Null };
        let reply = call(&admin, &method, &path, &body).await;
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
    assert!(served >= 39, "only {served} operations were there");
}

#[tokio::test]
async fn each_grouping_of_each_report_fits_openais_schema() {
    let Some(specification) = Specification::of_openai() else { return };
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    let gateway = Gateway::start_at(clock, simulator::Options::default(), |_| {}).await;
    Things::new(&gateway).await;
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
