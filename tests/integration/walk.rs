//! One of each thing that a path of the API can name, to walk all of its operations with.

use serde_json::{Value, json};

use crate::support::{Actor, Gateway, Reply, TEXT_MODEL, spoken};

/// What there is on a gateway. The project's key has been used.
#[derive(Clone)]
pub struct Things {
    pub team: Actor,
    pub service_account_id: String,
    pub rate_limit_id: String,
    /// Of an admin key that is not the one of the settings.
    pub admin_key_id: String,
    /// Of a chat completion that has been answered.
    pub request_id: String,
}

impl Things {
    pub async fn new(gateway: &Gateway) -> Self {
        let (team, admin) = (gateway.project("tier1").await, gateway.admin());
        let (said, heard) = (team.say("Hi").await, team.chat(&spoken("wav")).await);
        assert_eq!((said.status.as_u16(), heard.status.as_u16()), (200, 200));
        let request_id = said.header("x-request-id").to_owned();
        gateway.at_rest().await;
        let first = async |list: &str| {
            let path = format!("/v1/organization/projects/{}/{list}", team.project_id);
            admin.get(&path).await.json()["data"][0]["id"].as_str().unwrap().to_owned()
        };
        let (service_account_id, rate_limit_id) = (first("service_accounts").await, first("rate_limits").await);
        let admin_key = admin.post("/v1/organization/admin_api_keys", &json!({"name": "second"})).await.json();
        let admin_key_id = admin_key["id"].as_str().unwrap().to_owned();
        Self { team, service_account_id, rate_limit_id, admin_key_id, request_id }
    }

    /// `template` with ids in place of its names. Ours and `OpenAI`'s documents name them differently.
    pub fn path(&self, template: &str) -> String {
        let of_project = template.contains("{project_id}");
        let key_id = if of_project { &self.team.key_id } else { &self.admin_key_id };
        let ids = [
            ("{project_id}", &self.team.project_id),
            ("{key_id}", key_id),
            ("{api_key_id}", &self.team.key_id),
            ("{service_account_id}", &self.service_account_id),
            ("{rate_limit_id}", &self.rate_limit_id),
            ("{request_id}", &self.request_id),
            ("{id}", &TEXT_MODEL.to_owned()),
        ];
        let path = ids.into_iter().fold(template.to_owned(), |path, (name, id)| path.replace(name, id));
        assert!(!path.contains('{'), "what is meant in {path}?");
        path
    }
}

/// As `actor`, with what `method` needs.
pub async fn call(actor: &Actor, method: &str, path: &str, body: &Value) -> Reply {
    match method {
        "POST" => actor.post(path, body).await,
        _ => actor.send(actor.request(method.parse().unwrap(), path, &[]), bytes::Bytes::new()).await,
    }
}

/// What is posted to a path.
pub fn body(template: &str) -> Value {
    match template.rsplit_once('/').unwrap().1 {
        "completions" => json!({"model": TEXT_MODEL, "messages": [{"role": "user", "content": "Hi"}]}),
        "projects"
        | "{project_id}"
        | "service_accounts"
        | "{service_account_id}"
        | "admin_api_keys"
        | "api_keys"
        | "{key_id}" => json!({"name": "specified"}),
        "{rate_limit_id}" => json!({"max_requests_per_1_minute": 100}),
        "spend_limit" => json!({"threshold_amount": 1_000, "currency": "USD", "interval": "month"}),
        "model_permissions" => json!({"mode": "allow_list", "model_ids": [TEXT_MODEL]}),
        "rotate" | "archive" => json!({}),
        other => panic!("what is sent to {other}?"),
    }
}

/// Operations in an order in which each finds what it is about: made, read, deleted, and the project closed at the end.
pub fn in_order<T>(mut operations: Vec<T>, named: impl Fn(&T) -> (String, String)) -> Vec<T> {
    operations.sort_by_key(|operation| {
        let (method, path) = named(operation);
        let place = ["POST", "GET", "DELETE"].iter().position(|known| *known == method);
        (path.ends_with("/archive"), place, path)
    });
    operations
}
