//! Two listeners, two kinds of key, and no way around them. Route by route: `access.rs`.

use http::Method;

use crate::{
    raw::{Raw, exchange},
    support::{ADMIN_KEY, Actor, Gateway, TEXT_MODEL, address, text},
};

/// The same knock at the other door.
fn at(url: &str, actor: &Actor) -> Actor {
    Actor { url: url.to_owned(), ..actor.clone() }
}

#[tokio::test]
async fn the_admin_key_calls_no_models() {
    let gateway = Gateway::start().await;
    let admin = at(&gateway.calls_url, &gateway.admin());
    let reply = admin.say("Hi").await;
    assert_eq!((reply.status.as_u16(), reply.error()["code"].as_str()), (401, Some("invalid_api_key")));
    assert!(!reply.text().contains(ADMIN_KEY));
    assert_eq!(admin.get("/v1/models").await.status, 401);
    assert_eq!(gateway.metric("upstream_calls_total").await, 0);
}

#[tokio::test]
async fn health_is_told_at_both_addresses_without_a_key() {
    let gateway = Gateway::start().await;
    for url in [&gateway.calls_url, &gateway.admin_url] {
        let health = at(url, &gateway.stranger()).get("/health").await;
        assert_eq!((health.status.as_u16(), health.text().as_str()), (200, r#"{"status":"ok"}"#));
    }
}

#[tokio::test]
async fn both_on_one_address_serve_everything_and_keep_keys_apart() {
    let gateway = Gateway::start_with(|settings| {
        // A port that was free a moment ago: the same address twice needs a number.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        settings.listen = address(&free);
        settings.admin_listen = address(&free);
    })
    .await;
    assert_eq!(gateway.calls_url, gateway.admin_url);
    let team = gateway.project("tier1").await;
    assert_eq!(team.say("Hi").await.status, 200);
    assert_eq!(gateway.ledger().await.len(), 1);
    assert_eq!(gateway.admin().get("/v1/organization/costs?start_time=1").await.status, 200);
    assert_eq!(team.get("/v1/organization/costs?start_time=1").await.status, 403);
    assert_eq!(gateway.admin().say("Hi").await.status, 401);
    assert_eq!(gateway.stranger().get("/health").await.status, 200);
}

#[tokio::test]
async fn a_revoked_key_is_refused_from_the_next_request_on() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    assert_eq!(team.say("Hi").await.status, 200);
    let path = format!("/v1/organization/projects/{}/api_keys/{}", team.project_id, team.key_id);
    assert_eq!(gateway.admin().delete(&path).await.status, 200);
    let reply = team.say("Hi").await;
    assert_eq!((reply.status.as_u16(), reply.error()["code"].as_str()), (401, Some("invalid_api_key")));
    assert_eq!(at(&gateway.admin_url, &team).get("/v1/organization/projects").await.status, 401);
}

const NO_PATHS: [&str; 42] = [
    "/v1/../v1/organization/projects",
    "/v1/../v1/chat/completions",
    "/v1/%2e%2e/organization/projects",
    "/v1/%2E%2E/v1/chat/completions",
    "/v1/..%2fv1/organization/projects",
    "/v1/%252e%252e/organization/projects",
    "/v1/..;/organization/projects",
    "/v1//organization/projects",
    "//v1/organization/projects",
    "/v1//chat/completions",
    "//v1/chat/completions",
    "/v1/chat/completions/",
    "/v1/chat//completions",
    "/v1/chat/./completions",
    "/v1/chat%2fcompletions",
    "/v1/ch%61t/completions",
    "/V1/chat/completions",
    "/v1/Chat/Completions",
    "/v1/chat/completions%00",
    "/v1/chat/completions;x=1",
    "/v1/%6frganization/projects",
    "/v1/organization/projects/",
    "/v1/organization/./projects",
    "/v1/organization/projects/..",
    "/chat/completions",
    "/",
    "/.env",
    "/config",
    "/debug/pprof",
    "/swagger",
    "/docs",
    "/openapi.json",
    "/debug/vars",
    "/actuator/env",
    "/server-status",
    "/admin",
    "/admin/keys",
    "/.git/config",
    "/robots.txt",
    "/health/",
    "/health/live",
    "/metrics/",
];

/// None of them leads anywhere, with a key or without.
#[tokio::test]
async fn tricks_with_paths_lead_nowhere() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let bearer = |key: &str| format!("Bearer {key}");
    let keys = [Some(bearer(team.key.as_ref().unwrap())), Some(bearer(ADMIN_KEY)), None];
    let body = text(TEXT_MODEL, "Hi").to_string();
    let before = gateway.admin().get("/v1/organization/projects").await.text();
    for path in NO_PATHS {
        for url in [&gateway.calls_url, &gateway.admin_url] {
            for key in &keys {
                for method in ["POST", "GET"] {
                    let request = Raw::new(method, path);
                    let request = key.iter().fold(request, |request, key| request.header("authorization", key));
                    let reply = exchange(url, &request.body(&body)).await;
                    let status = reply.status.as_u16();
                    assert!(
                        matches!(status, 400 | 401 | 403 | 404 | 405),
                        "{method} {path} at {url}: {status} {}",
                        reply.text()
                    );
                    if status > 400 {
                        assert_eq!(reply.error()["type"], "invalid_request_error", "{path}");
                    }
                }
            }
        }
    }
    assert_eq!(gateway.admin().get("/v1/organization/projects").await.text(), before);
    assert_eq!((gateway.metric("upstream_calls_total").await, gateway.ledger().await.len()), (0, 0));
}

#[tokio::test]
async fn other_methods_are_not_allowed_and_say_which_is() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = team.request(method.clone(), "/v1/chat/completions", &[("x-http-method-override", "POST")]);
        let reply = team.send(request, bytes::Bytes::new()).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "POST"), "{method}");
        if method != Method::HEAD {
            assert_eq!(reply.error()["code"], "method_not_supported", "{method}");
        }
    }
    let admin = gateway.admin();
    let reply = admin.delete("/v1/organization/costs").await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "GET,HEAD"));
    assert_eq!(gateway.metric("upstream_calls_total").await, 0);
}

#[tokio::test]
async fn no_other_origin_is_let_in() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier1").await;
    let evil = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    for actor in [team, gateway.admin()] {
        for path in ["/v1/chat/completions", "/v1/organization/projects", "/v1/models"] {
            for method in [Method::OPTIONS, Method::GET, Method::POST] {
                let request = actor.request(method, path, &evil);
                let reply = actor.send(request, bytes::Bytes::from(text(TEXT_MODEL, "Hi").to_string())).await;
                let opens = reply.headers.keys().any(|name| name.as_str().starts_with("access-control-allow"));
                assert!(!opens, "{path}: {:?}", reply.headers);
            }
        }
    }
}
