//! Requests explained, as the document describes them: each way in which one can end.

use tollgate::domain::{
    ledger::Outcome,
    limits::{Dimension, Scope},
    money::Total,
    pricing::ServiceTier,
    refusals::Reason,
    spend::{Interval, SpendLimitReached, Spender},
    usage::{Basis, LineItem},
};

use super::*;
use crate::support::spoken;

const LIST: &str = "/v1/organization/requests";
const ONE: &str = "/v1/organization/requests/{request_id}";

fn described(document: &Document, path: &str) -> Described {
    document.operations().into_iter().find(|it| it.path == path).unwrap()
}

/// Answers, with their outcomes and, of refusals, the reasons: all that callers can bring about without hanging up.
async fn ended(gateway: &Gateway, allow_unpriced: bool) -> Vec<(Reply, &'static str, Option<&'static str>)> {
    let admin = gateway.admin();
    let few = gateway.project_with("tier1", json!({"requests_per_minute": 1})).await;
    let small = gateway.project_with("tier1", json!({"tokens_per_minute": 20})).await;
    let team = gateway.project("tier1").await;
    let spent = gateway.project("tier1").await;
    let permissions = format!("/v1/organization/projects/{}/model_permissions", few.project_id);
    let denied = json!({"mode": "deny_list", "model_ids": [MODEL]});
    assert_eq!(admin.post(&permissions, &denied).await.status, 200);
    let limit = json!({"threshold_amount": 1, "currency": "USD", "interval": "month"});
    let spend = format!("/v1/organization/projects/{}/spend_limit", spent.project_id);
    assert_eq!(admin.post(&spend, &limit).await.status, 200);
    let (say, long) = (text(TEXT_MODEL, "Hi"), text(TEXT_MODEL, &"many words ".repeat(100)));
    let streamed = with(say.clone(), &json!({"stream": true, "service_tier": "priority"}));
    let of_unpriced = if allow_unpriced { "completed" } else { "refused" };
    let mut ended = Vec::new();
    for (team, fault, body, outcome, reason) in [
        (&few, "", &say, "completed", None),
        (&few, "", &say, "refused", Some("limit")),
        (&few, "", &text(MODEL, "Hi"), "refused", Some("model_not_allowed")),
        (&small, "", &long, "refused", Some("limit")),
        (&team, "cached=3", &streamed, "completed", None),
        (&team, "no-usage", &say, "completed", None),
        (&team, "500", &say, "upstream_failed", None),
        (&team, "", &text("no-price", "Hi"), of_unpriced, (!allow_unpriced).then_some("unpriced_model")),
        (&team, "", &text("nobody", "Hi"), of_unpriced, (!allow_unpriced).then_some("unknown_model")),
        (&team, "", &text("whisper-1", "Hi"), "refused", Some("wrong_endpoint")),
        // 30 seconds of speech are more than a cent.
        (&spent, "audio-seconds=30", &spoken("wav"), "completed", None),
        (&spent, "", &say, "refused", Some("spend_limit")),
    ] {
        ended.push((team.chat_with_fault(fault, body).await, outcome, reason));
    }
    ended
}

#[tokio::test]
async fn a_request_fits_the_document_however_it_ended() {
    for allow_unpriced in [true, false] {
        assert_each_fits(allow_unpriced).await;
    }
}

async fn assert_each_fits(allow_unpriced: bool) {
    let gateway = with_unpriced(allow_unpriced).await;
    let document = Document::of(&gateway).await;
    let (admin, one, list) = (gateway.admin(), described(&document, ONE), described(&document, LIST));
    let ended = ended(&gateway, allow_unpriced).await;
    gateway.at_rest().await;
    let mut problems = Vec::new();
    for (reply, outcome, reason) in &ended {
        let found = admin.get(&format!("{LIST}/{}", reply.header("x-request-id"))).await;
        assert_eq!(found.status, 200, "{}", found.text());
        problems.extend(document.problems(&one, &found));
        let found = found.json();
        assert_eq!((&found["outcome"], &found["refusal"]["reason"]), (&json!(outcome), &json!(reason)), "{found}");
    }
    let page = admin.get(&format!("{LIST}?limit=100")).await;
    problems.extend(document.problems(&list, &page));
    assert_eq!(page.json()["data"].as_array().unwrap().len(), ended.len());
    let unpriced = admin.get(&format!("{LIST}?model=no-price")).await;
    problems.extend(document.problems(&list, &unpriced));
    let row = &unpriced.json()["data"][0];
    let priced = if allow_unpriced { json!(false) } else { Value::Null };
    assert_eq!((&row["priced"], &row["cost"]), (&priced, &Value::Null));
    let empty = admin.get(&format!("{LIST}?model=nothing")).await;
    assert_eq!(empty.json()["data"], json!([]));
    problems.extend(document.problems(&list, &empty));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The unit tests print these digit by digit; one has an adjustment.
#[tokio::test]
async fn what_the_unit_tests_print_fits_the_document() {
    let gateway = Gateway::start().await;
    let document = Document::of(&gateway).await;
    for (schema, printed) in [
        ("Request", include_str!("../../../src/openai/explain/golden/finished.json")),
        ("Request", include_str!("../../../src/openai/explain/golden/refused.json")),
        ("Request", include_str!("../../../src/openai/explain/golden/over_spend_limit.json")),
        ("RequestSummaryList", include_str!("../../../src/openai/explain/golden/list.json")),
    ] {
        let printed: Value = serde_json::from_str(printed).unwrap();
        assert_eq!(document.0.problems_of(schema, &printed), [""; 0]);
        let mut odd = printed.clone();
        odd["oddity"] = json!(1);
        assert_ne!(document.0.problems_of(schema, &odd), [""; 0]);
    }
}

#[tokio::test]
async fn every_field_of_a_request_is_always_there() {
    let gateway = Gateway::start().await;
    let document = Document::of(&gateway).await;
    let mut objects = 0;
    let schemas = document.0.0["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas.iter().filter(|(name, _)| name.starts_with("Request") || *name == "Headroom") {
        each_object(schema, name, &mut |place, object| {
            let Some(properties) = object.get("properties").filter(|_| object.contains_key("type")) else { return };
            let names: BTreeSet<_> = properties.as_object().unwrap().keys().map(String::as_str).collect();
            let required = object["required"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
            assert_eq!(required.collect::<BTreeSet<_>>(), names, "{place}");
            objects += 1;
        });
    }
    assert!(objects >= 14, "{objects}");
}

/// A word that the code has and the document does not would make an answer that does not fit it.
#[tokio::test]
async fn words_of_requests_are_the_ones_of_the_code() {
    let gateway = Gateway::start().await;
    let document = Document::of(&gateway).await;
    let components = &document.0.0["components"];
    let spend_limit = Reason::SpendLimit(Box::new(SpendLimitReached {
        spender: Spender::Project,
        threshold_cents: std::num::NonZeroU64::MIN,
        interval: Interval::Month,
        spent: Total::default(),
        held: Total::default(),
        requested: Total::default(),
        ends_s: 0,
    }));
    let refused = [Reason::UnknownModel, Reason::ModelNotAllowed, Reason::WrongEndpoint, Reason::UnpricedModel];
    let refused = refused.iter().chain([&spend_limit, &Reason::NotRecorded]).map(Reason::name);
    let outcomes: Vec<_> = Outcome::ALL.map(Outcome::name).into_iter().chain(["refused"]).collect();
    let tiers = [ServiceTier::Default, ServiceTier::Flex, ServiceTier::Priority, ServiceTier::Batch];
    for (place, words) in [
        ("/schemas/RefusalReason", refused.chain(["limit"]).collect()),
        ("/schemas/TokenKind", LineItem::ALL.map(LineItem::name).to_vec()),
        ("/schemas/Request/properties/outcome", outcomes.clone()),
        ("/schemas/RequestSummary/properties/outcome", outcomes.clone()),
        ("/parameters/outcome/schema/items", outcomes),
        ("/schemas/Request/properties/service_tier", tiers.map(ServiceTier::name).to_vec()),
        ("/schemas/RequestSummary/properties/service_tier", tiers.map(ServiceTier::name).to_vec()),
        ("/schemas/Request/properties/usage/properties/basis", Basis::ALL.map(Basis::name).to_vec()),
        ("/schemas/RequestLimit/properties/scope", Scope::ALL.map(Scope::name).to_vec()),
        ("/schemas/RequestRefusal/properties/limit/properties/scope", Scope::ALL.map(Scope::name).to_vec()),
        ("/schemas/RequestLimit/properties/name", Dimension::ALL.map(Dimension::name).to_vec()),
        (
            "/schemas/RequestRefusal/properties/spend_limit/properties/of",
            [Spender::Key, Spender::Project, Spender::Tier, Spender::Organization].map(Spender::name).to_vec(),
        ),
        (
            "/schemas/RequestRefusal/properties/spend_limit/properties/interval",
            Interval::ALL.map(Interval::name).to_vec(),
        ),
        ("/schemas/RequestRefusal/properties/limit/properties/name", Dimension::ALL.map(Dimension::name).to_vec()),
    ] {
        let listed = components.pointer(&format!("{place}/enum")).and_then(Value::as_array).unwrap();
        let listed: BTreeSet<_> = listed.iter().filter_map(Value::as_str).collect();
        assert_eq!(listed, words.into_iter().collect(), "{place}");
    }
}
