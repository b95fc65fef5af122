//! What belongs to one project is not there for another: no byte of it, on any route.

use serde_json::{Value, json};
use tollgate::{
    api::{self, Operation},
    clock::Clock,
    domain::time::UnixNanos,
    simulator,
};

use crate::{
    support::{Actor, Gateway, Reply, TEXT_MODEL, spoken, text, with},
    walk::{Things, body, call, in_order},
};

const START_S: u64 = 1_790_000_000;
/// A spelling that nobody else uses.
const SPELLING: &str = "gpt-4o-mini-2024-07-18";

/// A project with something of everything, and every text that would give it away.
struct Tenant {
    things: Things,
    marks: Vec<String>,
}

impl Tenant {
    async fn new(gateway: &Gateway, name: &str) -> Self {
        let (things, admin) = (Things::new(gateway).await, gateway.admin());
        let (team, project) = (&things.team, format!("/v1/organization/projects/{}", things.team.project_id));
        let mut marks: Vec<_> = ["project", "account", "key"].map(|object| format!("{name}-{object}-mark")).to_vec();
        let [of_project, of_account, of_key] = [0, 1, 2].map(|number| json!({"name": marks[number]}));
        for (path, body) in [
            (project.clone(), of_project),
            (format!("{project}/service_accounts/{}", things.service_account_id), of_account),
            (format!("{project}/api_keys/{}", team.key_id), of_key),
            (
                format!("{project}/spend_limit"),
                json!({"threshold_amount": 777_700, "currency": "USD", "interval": "month"}),
            ),
            (
                format!("{project}/model_permissions"),
                json!({"mode": "allow_list", "model_ids": [TEXT_MODEL, SPELLING]}),
            ),
        ] {
            let reply = admin.post(&path, &body).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        }
        let unknown = format!("{name}-model-mark");
        for reply in [
            team.chat(&text(SPELLING, "Hi")).await,
            team.chat(&with(text(TEXT_MODEL, "Hi"), &json!({"stream": true, "user": format!("{name}-user-mark")})))
                .await,
            team.chat(&text(&unknown, "Hi")).await,
            team.chat(&spoken("wav")).await,
        ] {
            marks.push(reply.header("x-request-id").to_owned());
        }
        gateway.at_rest().await;
        let key = team.key.clone().unwrap();
        marks.extend([format!("{name}-user-mark"), unknown, key[20..].to_owned(), team.key_id.clone()]);
        marks.extend([team.project_id.clone(), things.service_account_id.clone(), things.request_id.clone()]);
        Self { things, marks }
    }

    /// Those that are in an answer, but for what was asked.
    fn marks_in(&self, reply: &Reply, asked: &str) -> Vec<&String> {
        let whole = format!("{:?} {}", reply.headers, reply.text());
        self.marks.iter().filter(|mark| !asked.contains(mark.as_str()) && whole.contains(mark.as_str())).collect()
    }
}

async fn gateway() -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    Gateway::start_at(clock, simulator::Options::default(), |_| {}).await
}

fn operations(gateway: &Gateway) -> Vec<(String, Operation)> {
    let calls = api::calls_operations().into_iter().map(|operation| (gateway.calls_url.clone(), operation));
    let administration = api::admin_operations().into_iter();
    calls.chain(administration.map(|operation| (gateway.admin_url.clone(), operation))).collect()
}

fn limits(reply: &Reply) -> Vec<(String, String)> {
    let headers = reply.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-ratelimit"));
    headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn a_project_sees_no_byte_of_another_on_any_route() {
    let gateway = gateway().await;
    let mine = gateway.project("tier1").await;
    let invalid = json!({"model": TEXT_MODEL, "messages": []});
    let untouched = limits(&mine.chat(&invalid).await);
    let other = Tenant::new(&gateway, "alpha").await;
    assert_eq!(limits(&mine.chat(&invalid).await), untouched, "what another project uses is not shown");
    assert_eq!(untouched.len(), 6);
    let mut asked = 0;
    for (url, Operation { method, path: template }) in operations(&gateway) {
        let path = other.things.path(template);
        let query = if method == "GET" { "?start_time=1" } else { "" };
        let body = if method == "POST" { body(template) } else { Value::Null };
        for key in [mine.key.clone(), None, Some("sk-tg_nobody".to_owned())] {
            let actor = Actor { url: url.clone(), key, ..mine.clone() };
            for path in
                [format!("{path}{query}"), format!("{path}?limit=1&project_ids={}", other.things.team.project_id)]
            {
                let reply = call(&actor, method.as_str(), &path, &body).await;
                assert_eq!(other.marks_in(&reply, &path), [""; 0], "{method} {path}: {}", reply.text());
                let open = ["/health", "/metrics"].contains(&template) || url == gateway.calls_url;
                assert!(open || matches!(reply.status.as_u16(), 401 | 403), "{method} {path}: {}", reply.status);
                asked += 1;
            }
        }
    }
    assert!(asked > 200, "{asked}");
    // Nor by asking for what is another's by its name.
    for mark in &other.marks {
        for reply in [mine.get(&format!("/v1/models/{mark}")).await, mine.chat(&text(mark, "Hi")).await] {
            assert_eq!(reply.status, 404, "{mark}: {}", reply.text());
            assert_eq!(other.marks_in(&reply, mark), [""; 0], "{mark}");
        }
    }
    // They are there to be found.
    let page = gateway.admin().get("/v1/organization/requests?limit=100").await;
    assert!(other.marks_in(&page, "").len() > 5, "{}", page.text());
}

#[tokio::test]
async fn an_administrators_look_at_one_project_shows_no_other() {
    let gateway = gateway().await;
    let (alpha, beta) = (Tenant::new(&gateway, "alpha").await, Tenant::new(&gateway, "beta").await);
    let admin = gateway.admin();
    for (one, other) in [(&alpha, &beta), (&beta, &alpha)] {
        let id = &one.things.team.project_id;
        let (mut found, mut lists) = (0, 0);
        for (url, Operation { method, path: template }) in operations(&gateway) {
            if method != "GET" || url != gateway.admin_url {
                continue;
            }
            let (path, filters): (_, &[&str]) =
                if template.contains("{project_id}") || template.contains("{request_id}") {
                    (one.things.path(template), &["limit=100"])
                } else if template.contains("/usage/") {
                    (
                        template.to_owned(),
                        &["bucket_width=1d&group_by=project_id&project_ids=", "bucket_width=1h&project_ids[]="],
                    )
                } else if template.ends_with("/costs") {
                    (template.to_owned(), &["group_by=project_id,line_item&project_ids=", "project_ids[]="])
                } else if template.ends_with("/requests") {
                    (template.to_owned(), &["limit=100&project_id="])
                } else if template.ends_with("/audit_logs") {
                    (template.to_owned(), &["limit=100&project_ids[]="])
                } else {
                    continue;
                };
            for filter in filters {
                let start =
                    if path.contains("/usage/") || path.ends_with("/costs") { "start_time=1789900000&" } else { "" };
                let value = if filter.ends_with('=') { id } else { "" };
                let path = format!("{path}?{start}{filter}{value}");
                let reply = admin.get(&path).await;
                assert_eq!(reply.status, 200, "{path}: {}", reply.text());
                assert_eq!(other.marks_in(&reply, ""), [""; 0], "{path}: {}", reply.text());
                found += one.marks_in(&reply, "").len();
                lists += 1;
            }
        }
        assert!(lists > 20 && found > 20, "{lists} lists, {found} marks");
    }
}

#[tokio::test]
async fn what_another_project_owns_is_not_there_rather_than_forbidden() {
    let gateway = gateway().await;
    let (alpha, beta) = (Tenant::new(&gateway, "alpha").await, Tenant::new(&gateway, "beta").await);
    let admin = gateway.admin();
    let state = async || {
        let audit = admin.get("/v1/organization/audit_logs?limit=100").await.text();
        (audit, beta.things.team.get("/v1/models").await.status)
    };
    let before = state().await;
    let of_objects = |operation: &&(String, Operation)| {
        let path = operation.1.path;
        path.contains("{service_account_id}") || (path.contains("{project_id}") && path.contains("{key_id}"))
    };
    let all = operations(&gateway);
    let operations = in_order(all.iter().filter(of_objects).collect(), |(_, operation)| {
        (operation.method.to_string(), operation.path.to_owned())
    });
    assert!(operations.len() >= 8);
    for (_, Operation { method, path: template }) in operations {
        let path = beta.things.path(&template.replace("{project_id}", &alpha.things.team.project_id));
        // The names of keys depend on whether a project is named.
        let path = path.replace(&beta.things.admin_key_id, &beta.things.team.key_id);
        let body = if method == "POST" { body(template) } else { Value::Null };
        let reply = call(&admin, method.as_str(), &path, &body).await;
        assert_eq!(reply.status, 404, "{method} {path}: {}", reply.text());
        assert_eq!(beta.marks_in(&reply, &path), [""; 0], "{method} {path}: {}", reply.text());
    }
    assert_eq!(state().await, before);
    for id in ["req_0000000000000000000000000000000a", "proj_x", &alpha.things.team.key_id] {
        assert_eq!(admin.get(&format!("/v1/organization/requests/{id}")).await.status, 404);
    }
}
