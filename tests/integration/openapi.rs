//! The document that describes this API, against the routes and what they answer.

mod requests;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tollgate::{api, domain::audit::EventType};

use crate::{
    access::{ADMINISTRATION, CALLS, security},
    schema::Specification,
    support::{
        Actor, Gateway, MODEL, Reply, TEXT_MODEL, change_price, command, model_without_price, spoken, text, with,
    },
    walk::{Things, body, call, in_order},
};

/// Where a schema may leave fields open: what belongs to somebody else, and passes through.
const OPEN: [&str; 3] = ["ChatCompletion", "ChatCompletionRequest", "Document"];

const MAX_BODY_BYTES: usize = 128 << 10;

struct Document(Specification);

/// One operation as the document has it.
#[derive(Clone)]
struct Described {
    method: String,
    path: String,
    operation: Value,
}

impl Document {
    async fn of(gateway: &Gateway) -> Self {
        let reply = gateway.admin().get("/v1/organization/openapi.json").await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/json"));
        Self(Specification(reply.json()))
    }

    fn operations(&self) -> Vec<Described> {
        let paths = self.0.0["paths"].as_object().unwrap();
        let of_path = |(path, item): (&String, &Value)| {
            let described = |(method, operation): (&String, &Value)| Described {
                method: method.to_uppercase(),
                path: path.clone(),
                operation: operation.clone(),
            };
            item.as_object().unwrap().iter().map(described).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }

    /// What a reference refers to; anything else is itself.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value.get("$ref") else { return value };
        let pointer = reference.as_str().unwrap().trim_start_matches('#');
        self.0.0.pointer(pointer).unwrap_or_else(|| panic!("{reference} refers to nothing"))
    }

    fn parameters(&self, described: &Described) -> Vec<Value> {
        let listed = described.operation["parameters"].as_array().into_iter().flatten();
        listed.map(|parameter| self.resolved(parameter).clone()).collect()
    }

    fn request(&self, described: &Described) -> Option<(Value, Value)> {
        let content = described.operation.get("requestBody")?["content"]["application/json"].clone();
        Some((self.resolved(&content["schema"]).clone(), content["example"].clone()))
    }

    /// What is wrong with an answer to an operation.
    fn problems(&self, described: &Described, reply: &Reply) -> Vec<String> {
        let what = format!("{} {}: {}", described.method, described.path, reply.status.as_u16());
        let Some(response) = described.operation["responses"].get(reply.status.as_str()) else {
            return vec![format!("{what} is not in the document: {}", reply.text())];
        };
        let media_type = reply.header("content-type").split(';').next().unwrap().to_owned();
        let Some(content) = self.resolved(response)["content"].get(&media_type) else {
            return vec![format!("{what}: {media_type} is not in the document")];
        };
        if media_type != "application/json" {
            return vec![];
        }
        let problems = self.0.problems(&content["schema"], &reply.json());
        problems.iter().map(|problem| format!("{what}: {problem}")).collect()
    }
}

/// Calls `see` with every object in `value` and the keys that lead there.
fn each_object(value: &Value, place: &str, see: &mut impl FnMut(&str, &Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            see(place, fields);
            fields.iter().for_each(|(name, value)| each_object(value, &format!("{place}/{name}"), see));
        }
        Value::Array(values) => values.iter().for_each(|value| each_object(value, place, see)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_lists_every_route_and_who_may_use_it() {
    let gateway = Gateway::start().await;
    let document = Document::of(&gateway).await;
    assert_eq!(document.0.0["openapi"], "3.1.0");
    let routes = api::calls_operations().into_iter().chain(api::admin_operations());
    let routes: BTreeSet<_> = routes.map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    let described: BTreeSet<_> = document.operations().into_iter().map(|it| (it.method, it.path)).collect();
    let missing: Vec<_> = routes.difference(&described).collect();
    assert!(missing.is_empty(), "not in src/api/openapi.json: {missing:?}");
    let beyond: Vec<_> = described.difference(&routes).collect();
    assert!(beyond.is_empty(), "in src/api/openapi.json, and not served: {beyond:?}");
    let mut names = BTreeSet::new();
    for described in document.operations() {
        let row = CALLS.iter().chain(ADMINISTRATION).find(|row| row.0 == described.method && row.1 == described.path);
        let schemes = security(row.unwrap()).map_or(json!([]), |scheme| json!([{scheme: []}]));
        assert_eq!(described.operation["security"], schemes, "{}", described.path);
        assert!(names.insert(described.operation["operationId"].as_str().unwrap().to_owned()));
        let in_path: BTreeSet<_> = described.path.split('/').filter_map(|it| it.strip_prefix('{')).collect();
        let parameters = document.parameters(&described);
        let named = parameters.iter().filter(|it| it["in"] == "path").map(|it| it["name"].as_str().unwrap());
        assert_eq!(
            in_path,
            named.map(|name| format!("{name}}}")).collect::<Vec<_>>().iter().map(String::as_str).collect()
        );
    }
}

#[tokio::test]
async fn references_lead_somewhere_and_schemas_leave_nothing_open() {
    let gateway = Gateway::start().await;
    let document = Document::of(&gateway).await;
    let whole = &document.0.0;
    each_object(whole, "", &mut |place, object| {
        if let Some(reference) = object.get("$ref") {
            assert!(whole.pointer(&reference.as_str().unwrap()[1..]).is_some(), "{place}: {reference}");
        }
    });
    for (name, schema) in whole["components"]["schemas"].as_object().unwrap() {
        each_object(schema, name, &mut |place, object| {
            if object.contains_key("properties") || object.get("type") == Some(&json!("object")) {
                let closed = object.get("additionalProperties") == Some(&Value::Bool(false));
                assert!(closed || OPEN.contains(&name.as_str()), "{place} leaves fields open");
            }
        });
    }
}

/// `{status}` and `{param}` of the error.
fn told(reply: &Reply) -> (u16, Value) {
    (reply.status.as_u16(), reply.error()["param"].clone())
}

/// A value that a parameter cannot have; `None`: it takes any.
fn wrong(parameter: &Value) -> Option<&'static str> {
    let schema = &parameter["schema"];
    let takes_any =
        ["actor_emails", "actor_ids", "api_key_ids", "models", "project_ids", "resource_ids", "event_types"];
    let takes_any = [&takes_any[..], &["model", "project_id", "user_ids", "vector_store_ids"]].concat();
    let name = parameter["name"].as_str().unwrap();
    match schema["type"].as_str().unwrap() {
        _ if takes_any.contains(&name) => None,
        "array" | "integer" | "boolean" | "string" => Some("nothing"),
        other => panic!("{name}: {other}"),
    }
}

#[tokio::test]
async fn parameters_of_the_document_are_read() {
    let gateway = Gateway::start().await;
    let things = Things::new(&gateway).await;
    let document = Document::of(&gateway).await;
    let mut asked = 0;
    for described in document.operations().into_iter().filter(|it| it.method == "GET") {
        let path = things.path(&described.path);
        for parameter in document.parameters(&described).into_iter().filter(|it| it["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let start = if name == "start_time" { "" } else { "start_time=1&" };
            let Some(wrong) = wrong(&parameter) else {
                let reply = gateway.admin().get(&format!("{path}?{start}{name}=anything")).await;
                assert_eq!(reply.status, 200, "{path}: {}", reply.text());
                continue;
            };
            let reply = gateway.admin().get(&format!("{path}?{start}{name}={wrong}")).await;
            assert_eq!(told(&reply), (400, json!(name)), "{path}: {}", reply.text());
            assert_ne!(reply.error()["code"], "unknown_parameter", "{path}: {}", reply.text());
            assert_eq!(document.problems(&described, &reply), [""; 0]);
            asked += 1;
        }
    }
    assert!(asked > 80, "{asked}");
}

/// Each example has every field that there is, fits, and is taken; another field is not.
#[tokio::test]
async fn bodies_of_the_document_are_taken_and_no_others() {
    let gateway = Gateway::start().await;
    let things = Things::new(&gateway).await;
    let document = Document::of(&gateway).await;
    let admin = gateway.admin();
    for described in document.operations() {
        let Some((schema, example)) = document.request(&described) else { continue };
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&schema["properties"]), names(&example), "{}", described.path);
        assert_eq!(document.0.problems(&schema, &example), [""; 0], "{}", described.path);
        if schema["additionalProperties"] == true {
            continue;
        }
        let mut odd = example.clone();
        odd["oddity"] = json!(1);
        assert_ne!(document.0.problems(&schema, &odd), [""; 0]);
        let reply = admin.post(&things.path(&described.path), &odd).await;
        assert_eq!(told(&reply), (400, json!("oddity")), "{}: {}", described.path, reply.text());
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let mut less = example.clone();
            less.as_object_mut().unwrap().remove(required);
            let reply = admin.post(&things.path(&described.path), &less).await;
            assert_eq!(told(&reply), (400, json!(required)), "{}", described.path);
        }
    }
}

/// The query with which an operation says the most.
fn query(document: &Document, described: &Described) -> String {
    let mut query = Vec::new();
    for parameter in document.parameters(described) {
        match parameter["name"].as_str().unwrap() {
            "start_time" => query.push("start_time=1".to_owned()),
            "group_by" => {
                let groups = parameter["schema"]["items"]["enum"].as_array().unwrap();
                query.push(format!(
                    "group_by={}",
                    groups.iter().map(|it| it.as_str().unwrap()).collect::<Vec<_>>().join(",")
                ));
            }
            _ => {}
        }
    }
    query.join("&")
}

/// Answers to one operation that are refusals: to no key, to the other kind of key, to nothing in place of ids, and to a body
/// that is none.
async fn refusals(things: &Things, own: &Actor, other: &Actor, it: &Described) -> Vec<Reply> {
    let path = things.path(&it.path);
    let stranger = Actor { key: None, ..own.clone() };
    let mut refusals = vec![];
    for actor in [&stranger, &Actor { url: own.url.clone(), ..other.clone() }] {
        refusals.push(call(actor, &it.method, &path, &json!([])).await);
    }
    if it.path.contains('{') {
        let segments = it.path.split('/').map(|segment| if segment.starts_with('{') { "nothing" } else { segment });
        let nowhere = segments.collect::<Vec<_>>().join("/");
        let body = if it.method == "POST" { body(&it.path) } else { Value::Null };
        refusals.push(call(own, &it.method, &nowhere, &body).await);
    }
    if it.operation.get("requestBody").is_some() {
        refusals.push(own.post(&path, &json!([])).await);
        refusals.push(own.post_bytes(&path, &[("content-encoding", "gzip")], "{}").await);
        refusals.push(own.post_bytes(&path, &[], vec![b' '; MAX_BODY_BYTES + 1]).await);
    }
    refusals
}

/// A gateway on which every field has something to say.
async fn busy() -> Gateway {
    with_unpriced(true).await
}

async fn with_unpriced(allow_unpriced: bool) -> Gateway {
    Gateway::start_with(|settings| {
        model_without_price(settings);
        settings.allow_unpriced = allow_unpriced;
        settings.max_body_bytes = MAX_BODY_BYTES;
    })
    .await
}

#[tokio::test]
async fn every_answer_fits_the_document() {
    let gateway = busy().await;
    let things = Things::new(&gateway).await;
    for (model, status) in [("no-price", 200), ("whisper-1", 404)] {
        assert_eq!(things.team.chat(&text(model, "Hi")).await.status, status);
    }
    gateway.at_rest().await;
    let document = Document::of(&gateway).await;
    let (team, admin) = (things.team.clone(), gateway.admin());
    let mut problems = Vec::new();
    for described in in_order(document.operations(), |it| (it.method.clone(), it.path.clone())) {
        let calls = CALLS.iter().any(|row| row.1 == described.path && row.1 != "/health");
        let (own, other) = if calls { (&team, &admin) } else { (&admin, &team) };
        if described.operation["security"] != json!([]) {
            for refusal in refusals(&things, own, other, &described).await {
                assert!(refusal.status.is_client_error(), "{} {}", described.path, refusal.text());
                problems.extend(document.problems(&described, &refusal));
            }
        }
        let path = format!("{}?{}", things.path(&described.path), query(&document, &described));
        let body = document.request(&described).map_or(Value::Null, |(_, example)| example);
        let reply = call(own, &described.method, &path, &body).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        problems.extend(document.problems(&described, &reply));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Spends with a budget of a cent until half of it is spent and told of.
async fn pass_a_mark(gateway: &Gateway) {
    let (team, admin) = (gateway.project("tier5").await, gateway.admin());
    let path = format!("/v1/organization/projects/{}/api_keys/{}", team.project_id, team.key_id);
    let budget = json!({"budget": {"daily_cents": 1, "enforcement": "inactive"}});
    assert_eq!(admin.post(&path, &budget).await.status, 200);
    for _ in 0..100 {
        assert_eq!(team.chat(&spoken("wav")).await.status, 200);
        let told = admin.get("/v1/organization/audit_logs?event_types[]=spend_limit.mark_passed").await.json();
        if told["data"] != json!([]) {
            return;
        }
    }
    panic!("nothing was told of");
}

#[tokio::test]
async fn every_kind_of_row_in_the_audit_log_fits_the_document() {
    let mut gateway = busy().await;
    let things = Things::new(&gateway).await;
    gateway.at_rest().await;
    change_price(&mut gateway.settings, TEXT_MODEL, "input_text = \"0.15\"", "input_text = \"0.35\"");
    let ended = command(&gateway, &["reprice", "--from", "2026-01-01", "--to", "2100-01-01"], &[]).await;
    assert!(ended.out.contains(" of them adjusted"), "{ended:?}");
    pass_a_mark(&gateway).await;
    let document = Document::of(&gateway).await;
    let (admin, operations) = (gateway.admin(), document.operations());
    let changes = operations.iter().filter(|it| it.method != "GET" && it.path.contains("organization")).cloned();
    for described in in_order(changes.collect(), |it| (it.method.clone(), it.path.clone())) {
        let path = things.path(&described.path);
        let example = document.request(&described).map_or(Value::Null, |(_, example)| example);
        assert_eq!(call(&admin, &described.method, &path, &example).await.status, 200, "{path}");
        if described.path.contains("{rate_limit_id}") {
            let nulls: Map<_, _> = example.as_object().unwrap().keys().map(|it| (it.clone(), Value::Null)).collect();
            assert_eq!(admin.post(&path, &Value::Object(nulls)).await.status, 200);
        }
    }
    let listing = operations.iter().find(|it| it.path == "/v1/organization/audit_logs").unwrap();
    let reply = admin.get("/v1/organization/audit_logs?limit=100").await;
    assert_eq!(document.problems(listing, &reply), [""; 0]);
    let reply = reply.json();
    let types: BTreeSet<_> = reply["data"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(types, EventType::ALL.iter().map(|it| it.name()).collect());
}

#[tokio::test]
async fn answers_to_calls_fit_the_document_whatever_they_are() {
    let gateway = Gateway::start().await;
    let team = gateway.project_with("tier1", json!({"requests_per_minute": 2})).await;
    let document = Document::of(&gateway).await;
    let operations = document.operations();
    let described = operations.iter().find(|it| it.path == "/v1/chat/completions").unwrap();
    let permissions = format!("/v1/organization/projects/{}/model_permissions", team.project_id);
    let denied = json!({"mode": "deny_list", "model_ids": [MODEL]});
    assert_eq!(gateway.admin().post(&permissions, &denied).await.status, 200);
    let say = text(TEXT_MODEL, "Hi");
    for (body, status) in [
        (say.clone(), 200),
        (with(say.clone(), &json!({"stream": true})), 200),
        (say, 429),
        (text("nobody", "Hi"), 404),
        (text(MODEL, "Hi"), 403),
        (json!({"model": TEXT_MODEL, "messages": []}), 400),
    ] {
        let reply = team.chat(&body).await;
        assert_eq!(reply.status.as_u16(), status, "{body}: {}", reply.text());
        assert_eq!(document.problems(described, &reply), [""; 0]);
        let dry = team.post_bytes(&described.path, &[("x-tollgate-dry-run", "true")], body.to_string()).await;
        assert_eq!(dry.status, if status == 400 { 400 } else { 200 });
        assert_eq!(document.problems(described, &dry), [""; 0]);
    }
}
