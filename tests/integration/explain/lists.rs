//! Requests in lists: newest first, in pages, filtered.

use serde_json::json;

use super::{MILLISECOND, REQUESTS, START_S, gateway, id, ids, list};
use crate::support::{MODEL, SNAPSHOT, TEXT_MODEL, spoken, text};

#[tokio::test]
async fn pages_are_newest_first_and_lose_and_repeat_nothing() {
    let gateway = gateway().await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 12})).await;
    let mut expected = Vec::new();
    for _ in 0..17 {
        expected.push(id(&team.say("Hi").await));
        gateway.clock.advance(MILLISECOND);
    }
    expected.reverse();
    gateway.at_rest().await;
    for limit in [1, 5, 17, 100] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = list(&gateway, &format!("limit={limit}{after}")).await;
            let ids = ids(&page);
            assert_eq!((&page["object"], page["first_id"].as_str()), (&json!("list"), ids.first().map(String::as_str)));
            seen.extend(ids);
            let last = page["last_id"].as_str().unwrap();
            assert_eq!(seen.last().map(String::as_str), Some(last));
            if page["has_more"] == false {
                break;
            }
            after = format!("&after={last}");
        }
        assert_eq!(seen, expected, "in pages of {limit}");
    }
    let default = list(&gateway, "").await;
    assert_eq!((ids(&default).len(), &default["has_more"]), (17, &json!(false)));
    assert_eq!(default["data"][0]["reason"], "limit");
    assert_eq!(default["data"][16]["outcome"], "completed");
}

#[tokio::test]
async fn lists_are_filtered_by_project_key_model_outcome_and_time() {
    let gateway = gateway().await;
    let (one, two) = (gateway.project("tier1").await, gateway.project("tier1").await);
    let second_key = gateway.key_of(&one.project_id, json!({"requests_per_minute": 1})).await;
    let first = id(&one.say("Hi").await);
    gateway.clock.advance(10_000 * MILLISECOND);
    let spoken = id(&two.chat(&spoken("wav")).await);
    let failed = id(&two.chat_with_fault("400", &text(TEXT_MODEL, "Hi")).await);
    gateway.clock.advance(10_000 * MILLISECOND);
    let passed = id(&second_key.say("Hi").await);
    let refused = id(&second_key.say("Hi").await);
    gateway.at_rest().await;
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    for (query, expected) in [
        (String::new(), vec![&first, &spoken, &failed, &passed, &refused]),
        (format!("project_id={}", one.project_id), vec![&first, &passed, &refused]),
        (format!("api_key_ids[]={}&api_key_ids[]={}", one.key_id, two.key_id), vec![&first, &spoken, &failed]),
        (format!("api_key_ids={},{}", second_key.key_id, one.key_id), vec![&first, &passed, &refused]),
        (format!("project_id={}&api_key_ids={}", two.project_id, one.key_id), vec![]),
        (format!("model={MODEL}"), vec![&spoken]),
        (format!("model={SNAPSHOT}"), vec![&spoken]),
        (format!("model={TEXT_MODEL}"), vec![&first, &failed, &passed, &refused]),
        ("model=gpt-nothing".to_owned(), vec![]),
        ("outcome=refused".to_owned(), vec![&refused]),
        ("outcome=completed,upstream_failed".to_owned(), vec![&first, &spoken, &failed, &passed]),
        ("outcome=interrupted".to_owned(), vec![]),
        (format!("start_time={}", START_S + 10), vec![&spoken, &failed, &passed, &refused]),
        (format!("start_time={}&end_time={}", START_S + 10, START_S + 20), vec![&spoken, &failed]),
    ] {
        let expected = sorted(expected.into_iter().cloned().collect());
        assert_eq!(sorted(ids(&list(&gateway, &query).await)), expected, "{query}");
    }
}

#[tokio::test]
async fn what_is_not_understood_or_not_there_is_said() {
    let gateway = gateway().await;
    let admin = gateway.admin();
    for (query, param) in [
        ("project_ids=proj_a", "project_ids"),
        ("outcome=lost", "outcome"),
        ("limit=101", "limit"),
        ("after=req_1", "after"),
        ("start_time=9&end_time=9", "end_time"),
    ] {
        let reply = admin.get(&format!("{REQUESTS}?{query}")).await;
        assert_eq!((reply.status.as_u16(), reply.error()["param"].as_str()), (400, Some(param)), "{query}");
    }
    for unknown in ["req_00000000000000000000000000000000", "chatcmpl-1"] {
        let reply = admin.get(&format!("{REQUESTS}/{unknown}")).await;
        let message = format!("No such request object: {unknown}");
        assert_eq!((reply.status.as_u16(), reply.error()["message"].as_str()), (404, Some(message.as_str())));
    }
}
