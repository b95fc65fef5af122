//! Each kind of report: what it counts, what it prints, and the recordings and schemas it has to look like.

use std::collections::BTreeMap;

use serde_json::json;

use super::{super::*, *};
use crate::{
    domain::report::{Bucket, Group, Range, Sums},
    openai::endpoint::Endpoint,
};

/// Each kind with the names on the wire: of its path, its results' `object` and its schema.
const NAMES: [(Kind, &str, &str, &str); 11] = [
    (Kind::Completions, "admin_usage_completions", "organization.usage.completions.result", "UsageCompletionsResult"),
    (Kind::Embeddings, "admin_usage_embeddings", "organization.usage.embeddings.result", "UsageEmbeddingsResult"),
    (Kind::Moderations, "admin_usage_moderations", "organization.usage.moderations.result", "UsageModerationsResult"),
    (Kind::Images, "admin_usage_images", "organization.usage.images.result", "UsageImagesResult"),
    (
        Kind::AudioSpeeches,
        "admin_usage_audio_speeches",
        "organization.usage.audio_speeches.result",
        "UsageAudioSpeechesResult",
    ),
    (
        Kind::AudioTranscriptions,
        "admin_usage_audio_transcriptions",
        "organization.usage.audio_transcriptions.result",
        "UsageAudioTranscriptionsResult",
    ),
    (
        Kind::VectorStores,
        "admin_usage_vector_stores",
        "organization.usage.vector_stores.result",
        "UsageVectorStoresResult",
    ),
    (
        Kind::CodeInterpreterSessions,
        "admin_usage_code_interpreter_sessions",
        "organization.usage.code_interpreter_sessions.result",
        "UsageCodeInterpreterSessionsResult",
    ),
    (
        Kind::FileSearchCalls,
        "admin_usage_file_search_calls",
        "organization.usage.file_searches.result",
        "UsageFileSearchCallsResult",
    ),
    (
        Kind::WebSearchCalls,
        "admin_usage_web_search_calls",
        "organization.usage.web_searches.result",
        "UsageWebSearchCallsResult",
    ),
    (Kind::Costs, "admin_costs", "organization.costs.result", "CostsResult"),
];

fn shared(file: &str) -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(file);
    serde_json::from_slice(&std::fs::read(path).ok()?).unwrap()
}

/// One request to each endpoint whose calls a report counts, with 8 tokens of text.
async fn one_of_each() -> World {
    let at =
        |endpoint| Settled { at_s: MIDNIGHT_S + 5, endpoint, lines: &[(InputText, 8, 160_000)], ..Settled::default() };
    let endpoints = Kind::ALL.iter().filter_map(|kind| kind.endpoints()).flatten();
    World::new(&endpoints.map(|endpoint| at(*endpoint)).collect::<Vec<_>>()).await
}

fn results(body: &str) -> Vec<Value> {
    buckets(body).iter().flat_map(|bucket| bucket["results"].as_array().unwrap().clone()).collect()
}

#[test]
fn every_endpoint_that_is_forwarded_is_counted_by_one_report_of_usage() {
    for endpoint in Endpoint::ALL {
        let counts = |kind: &&Kind| kind.endpoints().is_some_and(|names| names.contains(&endpoint.name()));
        assert_eq!(Kind::ALL.iter().filter(counts).count(), 1, "{endpoint:?}");
    }
}

#[tokio::test]
async fn each_report_counts_its_own_endpoints_and_costs_count_all() {
    let world = one_of_each().await;
    let start = format!("start_time={START_S}");
    for (kind, requests, input_tokens) in [
        (Kind::Completions, json!(1), json!(8)),
        (Kind::Embeddings, json!(1), json!(8)),
        (Kind::Moderations, json!(1), json!(8)),
        (Kind::Images, json!(3), Value::Null),
        (Kind::AudioSpeeches, json!(1), Value::Null),
        (Kind::AudioTranscriptions, json!(1), Value::Null),
    ] {
        let [result] = results(&world.page(kind, NOW_S, &start).await).try_into().unwrap();
        assert_eq!((&result["num_model_requests"], &result["input_tokens"]), (&requests, &input_tokens), "{kind:?}");
    }
    for kind in [Kind::VectorStores, Kind::CodeInterpreterSessions, Kind::FileSearchCalls, Kind::WebSearchCalls] {
        let body = world.page(kind, NOW_S, &start).await;
        assert_eq!((buckets(&body).len(), results(&body).len()), (2, 0), "{kind:?}");
    }
    assert!(world.costs(&start).await.contains("\"value\":0.00000128,"));
}

#[tokio::test]
async fn embeddings_are_told_apart_and_filtered_as_completions_are() {
    let line = [(InputText, 8, 160_000)];
    let first = Settled { at_s: NOW_S, endpoint: "embeddings", model: "e-1", lines: &line, ..Settled::default() };
    let second = Settled { project_id: "proj_b", api_key_id: "key_b", model: "e-2", ..first };
    let world = World::new(&[first, first, second, Settled { endpoint: "moderations", ..second }]).await;
    let found = async |more: &str| {
        let body = world.page(Kind::Embeddings, NOW_S, &format!("start_time={START_S}&{more}")).await;
        results(&body)
    };
    let expected = |requests: u64, project: Option<&str>, key: Option<&str>, model: Option<&str>| {
        json!({
            "object": "organization.usage.embeddings.result", "input_tokens": 8 * requests,
            "num_model_requests": requests, "project_id": project, "user_id": null, "api_key_id": key, "model": model,
        })
    };
    assert_eq!(found("").await, [expected(3, None, None, None)]);
    let grouped = found("group_by[]=project_id&group_by[]=api_key_id&group_by[]=model&group_by[]=user_id").await;
    let apart = [
        expected(2, Some("proj_a"), Some("key_a"), Some("e-1")),
        expected(1, Some("proj_b"), Some("key_b"), Some("e-2")),
    ];
    assert_eq!(grouped, apart);
    assert_eq!(found("models=e-2").await, [expected(1, None, None, None)]);
    assert_eq!(found("api_key_ids[]=key_a&project_ids=proj_a,proj_b").await, [expected(2, None, None, None)]);
    assert_eq!(found("user_ids=user-1").await, [Value::Null; 0]);
}

#[tokio::test]
async fn images_are_filtered_by_their_source_and_nothing_has_a_known_size() {
    let world = one_of_each().await;
    for (filter, requests) in [
        ("sources=image.edit", json!([1])),
        ("sources[]=image.edit&sources[]=image.generation", json!([2])),
        ("group_by=source,size", json!([3])),
        ("sizes=256x256", json!([])),
    ] {
        let found = results(&world.page(Kind::Images, NOW_S, &format!("start_time={START_S}&{filter}")).await);
        let found: Vec<_> = found.iter().map(|result| result["num_model_requests"].clone()).collect();
        assert_eq!(json!(found), requests, "{filter}");
    }
    let [result] =
        results(&world.page(Kind::Images, NOW_S, &format!("start_time={START_S}")).await).try_into().unwrap();
    assert_eq!(result["images"], Value::Null, "requests are counted, images are not");
}

#[tokio::test]
async fn costs_are_filtered_by_keys_and_told_apart_by_all_three_groups() {
    let world = two_teams().await;
    let costs = async |more: &str| results(&world.costs(&format!("start_time={START_S}&{more}")).await);
    let sum = |results: &[Value], key: &str| results.iter().filter(|it| it["api_key_id"] == key).count();
    let grouped = costs("group_by=api_key_id,project_id,line_item").await;
    assert_eq!((sum(&grouped, "key_a"), sum(&grouped, "key_b"), grouped.len()), (5, 6, 11));
    for spelling in ["api_key_ids=key_a", "api_key_ids[]=key_a", "api_key_ids=key_a,key_x", "project_ids=proj_a"] {
        let found = costs(&format!("{spelling}&group_by=api_key_id")).await;
        assert_eq!((sum(&found, "key_a"), found.len()), (1, 1), "{spelling}");
    }
    assert_eq!(costs("api_key_ids=key_x").await, [Value::Null; 0]);
}

/// A page with one result of a kind whether or not the ledger can have one.
fn printed(kind: Kind) -> Value {
    let (report, page) = report::read(kind, "start_time=0", UnixNanos::from_seconds(60)).unwrap();
    let results = BTreeMap::from([(Group::default(), Sums { requests: 1, ..Sums::default() })]);
    let bucket = Bucket { range: Range { start_s: 0, end_s: 60 }, results };
    serde_json::from_slice(&report::print(&report, &page, &[bucket]).unwrap()).unwrap()
}

#[test]
fn results_are_named_after_their_kind_and_unknown_numbers_are_null() {
    for (kind, _, object, _) in NAMES {
        let result = &printed(kind)["data"][0]["results"][0];
        assert_eq!(result["object"], object);
        for unknown in ["images", "characters", "seconds", "usage_bytes", "num_sessions", "num_requests"] {
            assert!(result.get(unknown).is_none_or(Value::is_null), "{object}: {unknown}");
        }
        for grouping in kind.groupings() {
            assert_eq!(result.get(grouping.name()), Some(&Value::Null), "{object}: {}", grouping.name());
        }
    }
}

#[test]
fn results_have_every_key_of_the_specification_and_fit_it_but_for_what_is_unknown() {
    let Some(specification) = schema::Specification::of_openai() else { return };
    let Some(document) = shared("openapi/gateway-subset.json") else { return };
    for (kind, _, object, schema) in NAMES {
        let properties = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
        let result = printed(kind)["data"][0]["results"][0].as_object().unwrap().clone();
        let beyond: Vec<_> = result.keys().filter(|key| !properties.contains_key(*key)).collect();
        let missing: Vec<_> = properties.keys().filter(|key| !result.contains_key(*key)).collect();
        assert_eq!(missing, [""; 0], "{object}");
        let expected: &[&str] = if kind == Kind::Costs { &["organization_id"] } else { &[] };
        assert_eq!(beyond, expected, "{object}");
        for problem in specification.problems_of(schema, &Value::Object(result)) {
            assert!(problem.ends_with("not of type \"integer\": null"), "{object}: {problem}");
        }
    }
}

#[tokio::test]
async fn every_page_fits_the_specification() {
    let Some(specification) = schema::Specification::of_openai() else { return };
    let world = one_of_each().await;
    for (kind, ..) in NAMES {
        // What these count is not in the ledger, and null where a number is required.
        if matches!(kind, Kind::Images | Kind::AudioSpeeches | Kind::AudioTranscriptions) {
            continue;
        }
        let groupings: Vec<_> = kind.groupings().iter().map(|it| it.name()).collect();
        for more in ["", "&limit=1", "&timezone=Asia/Kolkata", &format!("&group_by={}", groupings.join(","))] {
            let body = world.page(kind, NOW_S, &format!("start_time={START_S}{more}")).await;
            assert_eq!(specification.problems_of("UsageResponse", &parsed(&body)), [""; 0], "{kind:?} {more}");
        }
    }
}

#[test]
fn a_result_of_every_kind_fits_our_own_document() {
    let document = schema::Specification(serde_json::from_str(include_str!("../../openapi.json")).unwrap());
    let operations = document.operations("/v1/organization/");
    for (kind, name, ..) in NAMES {
        let path = name.replace("admin_", "/v1/organization/").replacen("usage_", "usage/", 1);
        let (.., schema) = operations.iter().find(|(_, served, _)| *served == path).unwrap();
        assert_eq!(document.problems(schema, &printed(kind)), [""; 0], "{path}");
    }
}

/// Everything that is recorded is there, and of the same type; what is null on one side may be anything on the other.
fn assert_covers(ours: &Value, recorded: &Value) {
    match (ours, recorded) {
        (Value::Object(ours), Value::Object(recorded)) => {
            for (key, recorded) in recorded {
                assert_covers(ours.get(key).unwrap_or_else(|| panic!("{key} is missing")), recorded);
            }
        }
        (Value::Array(ours), Value::Array(recorded)) => {
            assert_eq!(ours.len(), recorded.len());
            ours.iter().zip(recorded).for_each(|(ours, recorded)| assert_covers(ours, recorded));
        }
        (Value::Null, _) | (_, Value::Null) => {}
        (ours, recorded) => {
            assert_eq!(std::mem::discriminant(ours), std::mem::discriminant(recorded), "{ours} {recorded}");
        }
    }
}

#[tokio::test]
async fn answers_have_the_keys_types_and_buckets_of_the_recordings() {
    // As in the recordings, one day is empty in the usage.
    let early = Settled { at_s: MIDNIGHT_S - 80_000, lines: &BEEP, ..Settled::default() };
    let world = one_of_each().await;
    seed(&world.path, &[early]).await;
    let mut recordings = 0;
    for (kind, fixture, ..) in NAMES {
        let Some(recorded) = shared(&format!("fixtures/{fixture}/response.body.json")) else { continue };
        recordings += 1;
        let recorded_now_s = recorded["data"][1]["end_time"].as_u64().unwrap();
        let now_s = if kind == Kind::Costs { NOW_S } else { recorded_now_s };
        // One was recorded as a minute began, which we would have in the report.
        let end = if kind == Kind::VectorStores { format!("&end_time={now_s}") } else { String::new() };
        let ours = parsed(&world.page(kind, now_s, &format!("start_time={START_S}{end}")).await);
        let times = |page: &Value| -> Vec<_> {
            let buckets = page["data"].as_array().unwrap().iter();
            buckets.map(|bucket| (bucket["start_time"].clone(), bucket["end_time"].clone())).collect()
        };
        assert_eq!(times(&ours), times(&recorded), "{fixture}");
        if kind == Kind::VectorStores {
            // Nothing is stored here, so there is no result to compare; the shape of one is.
            assert_covers(&printed(kind)["data"][0]["results"], &recorded["data"][0]["results"]);
        } else {
            assert_covers(&ours, &recorded);
        }
    }
    assert!(matches!(recordings, 0 | 7), "{recordings} recordings");
}
