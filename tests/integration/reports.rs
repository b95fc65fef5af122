//! Usage and costs over HTTP: as soon as they are settled, told apart by every grouping, and exact to the last digit.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::support::{Actor, Gateway, SNAPSHOT, TEXT_MODEL, spoken, text, with};

const TEXT_SNAPSHOT: &str = "gpt-4o-mini-2024-07-18";
/// 2026-09-21 14:13:20 UTC, in the middle of a minute, an hour and a day.
const START_S: u64 = 1_790_000_000;

async fn gateway() -> Gateway {
    Gateway::start_at(Clock::manual(UnixNanos::from_seconds(START_S)), simulator::Options::default(), |_| {}).await
}

async fn usage(gateway: &Gateway, query: &str) -> Value {
    let reply = gateway.admin().get(&format!("/v1/organization/usage/completions?{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    reply.json()
}

fn results(page: &Value) -> Vec<Value> {
    let buckets = page["data"].as_array().unwrap();
    buckets.iter().flat_map(|bucket| bucket["results"].as_array().unwrap().clone()).collect()
}

fn edges(page: &Value) -> Vec<(u64, u64)> {
    let edge = |bucket: &Value, name: &str| bucket[name].as_u64().unwrap();
    let buckets = page["data"].as_array().unwrap().iter();
    buckets.map(|bucket| (edge(bucket, "start_time"), edge(bucket, "end_time"))).collect()
}

/// Two teams, text and sound, two tiers of service: five requests within one minute.
async fn five_requests(gateway: &Gateway) -> (Actor, Actor) {
    let (one, two) = (gateway.project("tier1").await, gateway.project("tier1").await);
    one.say("Hi").await;
    one.chat(&with(text(TEXT_MODEL, "Hi"), &json!({"service_tier": "priority"}))).await;
    one.chat(&spoken("wav")).await;
    two.say("Hi").await;
    two.chat_with_fault("cached=3", &text(TEXT_MODEL, "Hi")).await;
    assert_eq!(gateway.ledger().await.len(), 5);
    (one, two)
}

#[tokio::test]
async fn a_settled_request_is_in_the_reports_within_a_second() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let start = gateway.clock.now().seconds() - 60;
    let mut slowest = Duration::ZERO;
    for count in 1..=5_u64 {
        assert_eq!(team.say("Hi").await.status, 200);
        let settled = Instant::now();
        loop {
            let page = usage(&gateway, &format!("start_time={start}&bucket_width=1d")).await;
            let seen: u64 = results(&page).iter().map(|it| it["num_model_requests"].as_u64().unwrap()).sum();
            if seen == count {
                break;
            }
            assert!(settled.elapsed() < Duration::from_secs(1), "{seen} of {count} after a second");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        slowest = slowest.max(settled.elapsed());
    }
    println!("in the reports {slowest:?} after the answer, at most");
}

#[tokio::test]
async fn usage_without_groups_is_one_result_with_every_kind_of_token() {
    let gateway = gateway().await;
    five_requests(&gateway).await;
    let page = usage(&gateway, &format!("start_time={}", START_S - 60)).await;
    assert_eq!((&page["object"], &page["has_more"], &page["next_page"]), (&json!("page"), &json!(false), &Value::Null));
    let [result] = results(&page).try_into().unwrap();
    // Text: four times 5 in, of which 3 cached once, and 16 out. Sound: 7 in, 4 and 40 out.
    let expected = json!({
        "object": "organization.usage.completions.result",
        "input_tokens": 27, "input_cached_tokens": 3, "input_cache_write_tokens": 0, "input_uncached_tokens": 24,
        "output_tokens": 108, "input_text_tokens": 24, "output_text_tokens": 68, "input_cached_text_tokens": 3,
        "input_audio_tokens": 0, "input_cached_audio_tokens": 0, "output_audio_tokens": 40, "input_image_tokens": 0,
        "input_cached_image_tokens": 0, "output_image_tokens": 0, "num_model_requests": 5,
        "project_id": null, "user_id": null, "api_key_id": null, "model": null, "batch": null, "service_tier": null,
    });
    assert_eq!(result, expected);
}

#[tokio::test]
async fn results_are_told_apart_by_every_group_and_picked_by_every_filter() {
    let gateway = gateway().await;
    let (one, two) = five_requests(&gateway).await;
    let start = format!("start_time={}", START_S - 60);
    let counts = async |more: &str, key: &str| {
        let page = usage(&gateway, &format!("{start}&{more}")).await;
        let count = |it: &Value| (it[key].to_string().replace('"', ""), it["num_model_requests"].as_u64().unwrap());
        let mut counts: Vec<_> = results(&page).iter().map(count).collect();
        counts.sort();
        counts
    };
    let named = |pairs: &[(&str, u64)]| {
        let mut pairs: Vec<_> = pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        pairs.sort();
        pairs
    };
    let models = named(&[(SNAPSHOT, 1), (TEXT_SNAPSHOT, 4)]);
    for spelling in ["group_by=model", "group_by[]=model", "group_by%5B%5D=model", "group_by=model,user_id"] {
        assert_eq!(counts(spelling, "model").await, models, "{spelling}");
    }
    let projects = named(&[(&one.project_id, 3), (&two.project_id, 2)]);
    assert_eq!(counts("group_by=project_id", "project_id").await, projects);
    let keys = named(&[(&one.key_id, 3), (&two.key_id, 2)]);
    assert_eq!(counts("group_by=api_key_id", "api_key_id").await, keys);
    let tiers = named(&[("default", 4), ("priority", 1)]);
    assert_eq!(counts("group_by=service_tier", "service_tier").await, tiers);
    assert_eq!(counts("group_by=batch", "batch").await, named(&[("false", 5)]));

    let all = named(&[("null", 3)]);
    assert_eq!(counts(&format!("project_ids={}", one.project_id), "model").await, all);
    assert_eq!(counts(&format!("api_key_ids[]={}", one.key_id), "model").await, all);
    assert_eq!(counts(&format!("models={TEXT_MODEL}&batch=false"), "model").await, named(&[("null", 4)]));
    assert_eq!(counts("batch=true", "model").await, []);
    assert_eq!(counts("user_ids=user-1", "model").await, []);
    assert_eq!(counts("project_ids=proj_nobody", "model").await, []);
}

#[tokio::test]
async fn buckets_have_the_width_and_the_limit_that_was_asked_for() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    // One request in each of three minutes that follow each other.
    for _ in 0..3 {
        team.say("Hi").await;
        gateway.clock.advance(60_000_000_000);
    }
    gateway.at_rest().await;
    let first = START_S - START_S % 60;
    let query = format!("start_time={first}&end_time={}&bucket_width=1m&limit=2", first + 180);
    let page = usage(&gateway, &query).await;
    assert_eq!(edges(&page), [(first, first + 60), (first + 60, first + 120)]);
    assert_eq!((results(&page).len(), &page["has_more"]), (2, &json!(true)));
    let next = page["next_page"].as_str().unwrap();
    let page = usage(&gateway, &format!("{query}&page={next}")).await;
    assert_eq!((edges(&page), results(&page).len()), (vec![(first + 120, first + 180)], 1));
    assert_eq!((&page["has_more"], &page["next_page"]), (&json!(false), &Value::Null));
    for (width, width_s) in [("1h", 3_600), ("1d", 86_400)] {
        let start = first - first % width_s;
        let page = usage(&gateway, &format!("start_time={start}&bucket_width={width}")).await;
        assert_eq!(edges(&page)[0].0, start);
        assert_eq!(results(&page)[0]["num_model_requests"], 3, "{width}");
    }
    let before = usage(&gateway, &format!("start_time={}&end_time={first}", first - 60)).await;
    assert_eq!((before["data"].as_array().unwrap().len(), results(&before).len()), (1, 0));
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_says_why() {
    let gateway = gateway().await;
    for (path, param) in [
        ("usage/completions", "start_time"),
        ("usage/completions?start_time=x", "start_time"),
        ("usage/completions?start_time=9&end_time=9", "end_time"),
        ("usage/completions?start_time=9&bucket_width=2h", "bucket_width"),
        ("usage/completions?start_time=9&limit=32", "limit"),
        ("usage/completions?start_time=9&limit=0", "limit"),
        ("usage/completions?start_time=9&group_by=nonsense", "group_by"),
        ("usage/completions?start_time=9&page=page_x", "page"),
        ("costs?start_time=9&bucket_width=1h", "bucket_width"),
        ("costs?start_time=9&group_by=model", "group_by"),
        ("costs?start_time=9&limit=181", "limit"),
    ] {
        let reply = gateway.admin().get(&format!("/v1/organization/{path}")).await;
        let error = reply.error();
        assert_eq!((reply.status.as_u16(), error["param"].as_str()), (400, Some(param)), "{path}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
}

/// The digits after each `"value":`, never through a float, in pico-dollars.
fn amounts(page: &str) -> Vec<i128> {
    let pico = |digits: &str| {
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        assert!(part.len() <= 12, "{digits}");
        format!("{whole}{part:0<12}").parse::<i128>().unwrap()
    };
    let values = page.split("\"value\":").skip(1);
    values.map(|rest| pico(rest.split([',', '}']).next().unwrap())).collect()
}

#[tokio::test]
async fn costs_are_the_sum_of_the_ledgers_rows_to_the_last_digit() {
    let gateway = gateway().await;
    let team = gateway.project("tier1").await;
    let (one, _) = five_requests(&gateway).await;
    for (wish, model) in [
        ("chunks=12345;cached=1", TEXT_MODEL),
        ("no-usage", TEXT_MODEL),
        ("chunks=777", "gpt-4.1-nano"),
        ("", "gpt-5-nano"),
        ("400", TEXT_MODEL),
    ] {
        team.chat_with_fault(wish, &text(model, "What does it cost?")).await;
    }
    let rows = gateway.ledger().await;
    let expected: i128 = rows.iter().map(|row| i128::from(row.cost_pico.unwrap())).sum();
    assert!(rows.len() == 10 && expected > 0);
    for more in ["", "&group_by=line_item", "&group_by=project_id", "&group_by=api_key_id,line_item,project_id"] {
        let path = format!("/v1/organization/costs?start_time={}{more}", START_S - 1);
        let page = gateway.admin().get(&path).await;
        assert_eq!(amounts(&page.text()).iter().sum::<i128>(), expected, "{more}: {}", page.text());
        let bucket = &page.json()["data"][0];
        // Whole days, whatever was asked for.
        assert_eq!((bucket["start_time"].as_u64().unwrap() % 86_400, bucket["object"].as_str()), (0, Some("bucket")));
    }
    let own: i128 =
        rows.iter().filter(|row| row.project_id == one.project_id).map(|row| i128::from(row.cost_pico.unwrap())).sum();
    let path = format!("/v1/organization/costs?start_time={}&project_ids={}", START_S - 1, one.project_id);
    assert_eq!(amounts(&gateway.admin().get(&path).await.text()), [own]);
    let of_nano = |row: &&crate::support::Row| row.model == "gpt-5-nano";
    let nano: i128 = rows.iter().filter(of_nano).map(|row| i128::from(row.cost_pico.unwrap())).sum();
    let path = format!("/v1/organization/costs?start_time={}&models=gpt-5-nano", START_S - 1);
    assert!(nano > 0 && nano < expected);
    assert_eq!(amounts(&gateway.admin().get(&path).await.text()), [nano]);
}

#[tokio::test]
async fn reports_survive_a_restart_and_count_nothing_twice() {
    let mut gateway = gateway().await;
    five_requests(&gateway).await;
    let path = format!("/v1/organization/costs?start_time={}&group_by=line_item", START_S - 1);
    let before = gateway.admin().get(&path).await.text();
    gateway.stop().await;
    gateway.run().await;
    assert_eq!(gateway.admin().get(&path).await.text(), before);
    assert_eq!(gateway.ledger().await.len(), 5);
}
