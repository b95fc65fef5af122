//! What arrives at the upstream and what comes back: the same bytes, our credential, and no header that is not on the list.

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate::{clock::Clock, config::OnClientDisconnect};

use crate::{
    raw::{Raw, wait_for},
    stand_in::{Canned, StandIn},
    support::{Actor, Gateway, TEXT_MODEL, text, with},
};

const CHAT: &str = "/v1/chat/completions";

async fn behind(upstream: &StandIn) -> (Gateway, Actor) {
    let gateway = Gateway::start_before(&upstream.url, upstream.stop.clone(), Clock::system(), |_| {}).await;
    let team = gateway.project("tier5").await;
    (gateway, team)
}

/// Unusual spaces, escapes, numbers, key order and repeated unknown keys: re-serialising would change all of it.
const UNUSUAL: &str = "\r\n\t{ \"zebra\" : 1.0e-0, \"messages\":[ {\"content\":\"\\u0048i \u{1F600}\\/\",\"role\" :\"user\"} ],\n\
    \"x\":1,\"x\":2 ,\"seed\":123456789012345678901234567890, \"model\":\"gpt-4o-m\\u0069ni\", \"user\":\"\\ud83d\\ude00\" } \n";

#[tokio::test]
async fn a_request_arrives_byte_for_byte() {
    let upstream = StandIn::start().await;
    let (gateway, team) = behind(&upstream).await;
    let speech = format!(r#"{{"model":"{TEXT_MODEL}","messages":[],"x":"{}"}}"#, "UklGR".repeat(200_000));
    let speech = speech.replace("[]", r#"[{"role":"user","content":[{"type":"text","text":""}]}]"#);
    for body in [UNUSUAL.to_owned(), text(TEXT_MODEL, "").to_string(), speech] {
        let reply = team.post_bytes(CHAT, &[], body.clone()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let received = upstream.last();
        assert!(received.body == body.as_bytes(), "{:?}", received.body.slice(..received.body.len().min(300)));
        assert_eq!(received.headers["content-length"], body.len().to_string());
    }
    assert_eq!(gateway.ledger().await[0].model, "gpt-4o-mini-2024-07-18");
}

const MESSAGES: &str = "\"messages\":[{\"role\":\"user\",\"content\":\"stream_options\"}]";

#[tokio::test]
async fn a_stream_request_differs_only_where_usage_is_asked_for() {
    let upstream = StandIn::start().await;
    upstream.answer_with(Canned::events("data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\ndata: [DONE]\n\n"));
    let (_gateway, team) = behind(&upstream).await;
    let body = |options: &str| format!(" {{ {options}\"stream\" : true,\"model\":\"gpt-4o-mini\",{MESSAGES} }}");
    for (sent, arrived) in [
        ("", None),
        ("\"stream_options\": null ,", Some("\"stream_options\": {\"include_usage\":true} ,")),
        ("\"stream_options\":{ },", Some("\"stream_options\":{\"include_usage\":true},")),
        ("\"stream_options\":{\"include_usage\" : false},", Some("\"stream_options\":{\"include_usage\" : true},")),
        ("\"stream_options\":{ \"include_usage\":true },", Some("\"stream_options\":{ \"include_usage\":true },")),
        (
            "\"stream_options\":{ \"include_obfuscation\":false},",
            Some("\"stream_options\":{\"include_usage\":true, \"include_obfuscation\":false},"),
        ),
    ] {
        let sent = body(sent);
        let reply = team.post_bytes(CHAT, &[], sent.clone()).await;
        assert_eq!(reply.status, 200, "{sent}: {}", reply.text());
        let expected = match arrived {
            Some(options) => body(options),
            None => sent.replacen('{', "{\"stream_options\":{\"include_usage\":true},", 1),
        };
        assert_eq!(String::from_utf8_lossy(&upstream.last().body), expected);
        let asked = sent.contains("\"include_usage\":true");
        assert_eq!(reply.text().contains("usage"), asked, "{sent}: {}", reply.text());
    }
}

#[tokio::test]
async fn the_upstream_sees_our_credential_and_only_headers_on_the_list() {
    let upstream = StandIn::start().await;
    let (_gateway, team) = behind(&upstream).await;
    let key = team.key.clone().unwrap();
    let passed = [
        ("accept", "application/json"),
        ("user-agent", "OpenAI/Python 9.9.9"),
        ("idempotency-key", "stainless-1"),
        ("openai-beta", "assistants=v2"),
    ];
    let kept = [
        ("x-api-key", key.as_str()),
        ("cookie", "session=1"),
        ("forwarded", "for=1.2.3.4;host=evil"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-host", "evil.example"),
        ("x-real-ip", "1.2.3.4"),
        ("openai-organization", "org-theirs"),
        ("openai-project", "proj_theirs"),
        ("x-portkey-custom-host", "http://evil.example"),
        ("x-base-url", "http://evil.example"),
        ("x-skipper-proxy", "http://evil.example"),
        ("x-http-method-override", "DELETE"),
        ("x-request-id", "req_theirs"),
        ("x-client-request-id", "theirs"),
        ("proxy-authorization", "Bearer theirs"),
        ("accept-encoding", "gzip, br"),
        ("te", "trailers"),
        ("expect", ""),
        ("connection", "authorization, x-request-id, content-type"),
        ("origin", "https://evil.example"),
    ];
    let headers: Vec<_> = passed.into_iter().chain(kept).collect();
    let path = format!("{CHAT}?api-version=1&base_url=http://evil.example");
    let reply = team.post_bytes(&path, &headers, text(TEXT_MODEL, "Hi").to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let received = upstream.last();
    assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", CHAT));
    let mut names: Vec<_> = received.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "accept-encoding",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "openai-beta",
        "user-agent",
        "x-client-request-id",
    ];
    assert_eq!(names, expected);
    assert_eq!(received.headers.get_all("authorization").iter().collect::<Vec<_>>(), ["Bearer sk-upstream-canary-key"]);
    assert_eq!(received.headers["accept-encoding"], "identity");
    assert_eq!(received.headers["x-client-request-id"], reply.header("x-request-id"));
    assert_eq!(received.headers["host"], upstream.url.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap());
    for (name, value) in passed {
        assert_eq!(received.headers[name], value);
    }
    let all = format!("{received:?}");
    assert!(!all.contains(&key[8..]) && !all.contains("evil"), "{all}");
}

#[tokio::test]
async fn of_the_upstreams_headers_only_those_on_the_list_leave() {
    let upstream = StandIn::start().await;
    let (gateway, team) = behind(&upstream).await;
    let passed = [
        ("cache-control", "no-cache"),
        ("openai-processing-ms", "12"),
        ("openai-version", "2020-10-01"),
        ("x-content-type-options", "nosniff"),
    ];
    let kept = [
        "set-cookie",
        "server",
        "via",
        "alt-svc",
        "x-powered-by",
        "openai-organization",
        "openai-project",
        "cf-ray",
        "strict-transport-security",
        "access-control-allow-origin",
        "x-ratelimit-limit-project-tokens",
        "x-envoy-upstream-service-time",
        "location",
        "www-authenticate",
    ];
    let stream = "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\ndata: [DONE]\n\n";
    let refusal = r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}"#;
    for (status, base) in [
        (200, Canned::default()),
        (200, Canned::events(stream)),
        (400, Canned::json(refusal)),
        (500, Canned::json(refusal)),
    ] {
        let mut answer = Canned { status, ..base };
        answer.headers.extend(passed.map(|(name, value)| (name, value.to_owned())));
        answer.headers.extend(kept.map(|name| (name, "upstream-canary".to_owned())));
        answer.headers.push(("x-ratelimit-limit-requests", "1".to_owned()));
        answer.headers.push(("x-request-id", "req_upstreams".to_owned()));
        upstream.answer_with(answer);
        let body = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
        let reply = team.chat(&body).await;
        assert_eq!(reply.status.as_u16(), status);
        for (name, value) in passed {
            assert_eq!(reply.header(name), value, "{status}");
        }
        assert!(!format!("{:?}", reply.headers).contains("upstream-canary"), "{status}: {:?}", reply.headers);
        assert_eq!(reply.header("x-ratelimit-limit-requests"), "30000");
        assert_eq!(reply.header("x-upstream-request-id"), "req_upstreams");
    }
    assert_eq!(gateway.ledger().await.len(), 4);
}

#[tokio::test]
async fn an_answer_comes_back_byte_for_byte() {
    let upstream = StandIn::start().await;
    let (_gateway, team) = behind(&upstream).await;
    let unusual = "  \n\n{ \"choices\":[ ],\"model\":\"gpt-4o-mini-2024-07-18\" , \"usage\":{\"total_tokens\" :3,\"x\":1.0e0}, \"\\u0061\":\"\\/\"}\r\n ";
    let refusal = " { \"error\" : {\"message\":\"\\u006eo\",\"type\":\"t\",\"param\":null,\"code\":\"own_code\"}, \"sibling\":1 }";
    for (status, body) in [(200, unusual), (400, refusal), (422, refusal), (429, refusal), (503, refusal)] {
        upstream.answer_with(Canned { status, ..Canned::json(body) });
        let reply = team.chat(&text(TEXT_MODEL, "Hi")).await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (status, body));
    }
}

#[tokio::test]
async fn a_stream_comes_back_byte_for_byte_without_the_chunk_that_was_not_asked_for() {
    let upstream = StandIn::start().await;
    let (_gateway, team) = behind(&upstream).await;
    let before = ": hello\r\n\r\nid: 7\ndata: {\"choices\":[{\"delta\":{\"content\":\"H\u{e9}\"}}]}\n\ndata:{\"choices\":[{\"delta\":{}}]}\r\r";
    let usage =
        "data: {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1,\"total_tokens\":6},\"choices\":[ ]}\n\n";
    let after = "event: x\ndata: {\"choices\":[{\"delta\":{}}],\"usage\":null}\n\ndata: [DONE]\n\n";
    upstream.answer_with(Canned::events(format!("{before}{usage}{after}")));
    let stream = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true}));
    assert_eq!(team.chat(&stream).await.text(), format!("{before}{after}"));
    let asking = with(stream, &json!({"stream_options": {"include_usage": true}}));
    assert_eq!(team.chat(&asking).await.text(), format!("{before}{usage}{after}"));
}

/// Some clients end a body with a line end that is not part of it.
#[tokio::test]
async fn bytes_after_a_request_do_not_hold_its_stream_back() {
    let mut gateway = Gateway::start_with(|settings| settings.on_client_disconnect = OnClientDisconnect::Cancel).await;
    gateway.leaves("a client with bytes left unread is only missed when something is written to it");
    let team = gateway.project("tier1").await;
    let body = with(text(TEXT_MODEL, "Hi"), &json!({"stream": true})).to_string();
    let request = Raw::new("POST", CHAT).header("authorization", format!("Bearer {}", team.key.unwrap()));
    let mut request = request.header("x-simulate", "hang-midstream").body(body);
    request.extend_from_slice(b"\r\n");
    wait_for(&gateway.calls_url, &request, b"\"delta\":{\"content\":").await;
}

/// Names that other gateways let a caller choose the upstream with.
#[tokio::test]
async fn a_caller_does_not_choose_where_requests_go() {
    let evil = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    evil.set_nonblocking(true).unwrap();
    let url = format!("http://{}/v1", evil.local_addr().unwrap());
    let upstream = StandIn::start().await;
    let (_gateway, team) = behind(&upstream).await;
    let mut body = text(TEXT_MODEL, "Hi");
    for name in ["api_base", "base_url", "api_key", "organization", "custom_llm_provider", "extra_headers"] {
        let mut routed = body.clone();
        routed[name] = json!(url);
        let reply = team.chat(&routed).await;
        let (status, error) = (reply.status.as_u16(), reply.error());
        assert_eq!((status, &error["param"], &error["code"]), (400, &json!(name), &json!("unknown_parameter")));
    }
    assert_eq!(upstream.received().len(), 0);
    for name in ["endpoint", "proxy", "host"] {
        body[name] = json!(url);
    }
    body["messages"][0]["content"] = json!([{"type": "image_url", "image_url": {"url": format!("{url}/cat.png")}}]);
    let host = evil.local_addr().unwrap().to_string();
    for headers in [vec![], vec![("host", host.as_str()), ("x-base-url", &url), ("forwarded", &url)]] {
        let reply = team.post_bytes(CHAT, &headers, body.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let received = upstream.last();
        assert_eq!(received.headers["authorization"], "Bearer sk-upstream-canary-key");
        assert_eq!(serde_json::from_slice::<Value>(&received.body).unwrap(), body);
        assert_ne!(received.headers["host"], host);
    }
    upstream.answer_with(Canned { status: 307, headers: vec![("location", format!("{url}/x"))], body: Bytes::new() });
    let reply = team.say("Hi").await;
    assert_eq!((reply.status.as_u16(), reply.error()["code"].as_str()), (502, Some("upstream_redirect")));
    assert!(!reply.text().contains(&url));
    assert_eq!(evil.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}
