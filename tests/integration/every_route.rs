//! Everything that can be wrong with a request on any route, on every route: it gets the answer that the table says, and
//! nothing is sent, consumed, changed or left under way. The routes are the router's own: a new one is covered by itself.

use bytes::Bytes;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tollgate::{
    api::{self, Operation},
    clock::Clock,
    domain::time::UnixNanos,
    simulator,
};

use crate::{
    access::{ADMINISTRATION, CALLS, security},
    raw::{Raw, exchange, parse, until_closed},
    support::{ADMIN_KEY, Gateway, Reply, TEXT_MODEL},
    walk::{Things, body},
};

/// One route on one gateway, with what it needs to succeed.
struct Route {
    method: String,
    template: &'static str,
    url: String,
    path: String,
    /// `None`: it asks for no key.
    key: Option<String>,
    body: Option<String>,
    things: Things,
}

/// Which answers are right, and in whose words.
#[derive(Clone, Copy)]
enum Right {
    /// An error object with one of these statuses.
    Told(&'static [u16]),
    /// The same with this code.
    Code(u16, &'static str),
    /// The head could not be read: one of these statuses without a body, and the connection closes.
    Bare(&'static [u16]),
}

struct Case {
    what: String,
    request: Vec<u8>,
    right: Right,
}

fn case(what: impl Into<String>, request: Vec<u8>, right: Right) -> Case {
    Case { what: what.into(), request, right }
}

const NO_KEY: Right = Right::Told(&[401]);
const WRONG_KEY: Right = Right::Code(401, "invalid_api_key");
const TWO_KEYS: Right = Right::Code(400, "conflicting_credentials");
const KEY_IN_URL: Right = Right::Code(400, "api_key_in_url");
const UNREADABLE: Right = Right::Bare(&[400]);
/// More than a head may have; what comes in one piece is seen as too much at twice the bound at the latest.
const LONG: usize = 200 << 10;
/// Takes no body, so there is nothing wrong with any.
const BODY_UNREAD: [&str; 1] = ["/v1/organization/projects/{project_id}/archive"];

impl Route {
    fn bare(&self, path: &str) -> Raw {
        Raw::new(&self.method, path).header("content-type", "application/json")
    }

    /// With the key that opens it.
    fn opened(&self, path: &str) -> Raw {
        match &self.key {
            Some(key) => self.bare(path).header("authorization", format!("Bearer {key}")),
            None => self.bare(path),
        }
    }

    fn with_body(&self, request: Raw) -> Vec<u8> {
        match &self.body {
            Some(body) => request.body(body),
            None => request.rest([]),
        }
    }

    /// One in which everything is right but `path`.
    fn at(&self, path: &str) -> Vec<u8> {
        self.with_body(self.opened(path))
    }

    fn reads_body(&self) -> bool {
        self.body.is_some() && !BODY_UNREAD.contains(&self.template)
    }
}

/// Keys that open nothing, each for a reason of its own.
struct Dead {
    revoked: String,
    expired: String,
    hash: String,
}

// === credentials ===

fn credentials(route: &Route, dead: &Dead) -> Vec<Case> {
    let team = route.things.team.key.as_deref().unwrap();
    let path = &route.path;
    let mut cases = in_urls(route, team);
    let Some(good) = route.key.as_deref() else { return cases };
    let with = |value: &[u8]| route.with_body(route.bare(path).header("authorization", value));
    let no_key = |what: &str, value: &str| case(what, with(value.as_bytes()), NO_KEY);
    cases.push(case("no key", route.with_body(route.bare(path)), NO_KEY));
    cases.push(no_key("an empty header", ""));
    cases.push(no_key("no key after the scheme", "Bearer "));
    cases.push(no_key("Basic", "Basic c2stdGc6"));
    cases.push(no_key("no scheme", good));
    cases.push(no_key("another scheme", &format!("Token {good}")));
    let checksum = format!("{}{}", &team[..team.len() - 1], if team.ends_with('0') { '1' } else { '0' });
    let other_secret = team.replace(&team[20..30], "AAAAAAAAAA");
    for (what, key) in [
        ("SQL", "' OR 1=1--"),
        ("more SQL", "x' UNION SELECT hash FROM api_keys--"),
        ("another checksum", &*checksum),
        ("another secret", &*other_secret),
        ("the first 20 characters", &team[..20]),
        ("the first 40 characters", &team[..40]),
        ("a key and more", &*format!("{good}0")),
        ("two keys in one", &*format!("{good} {good}")),
        ("what is kept of a key", &*dead.hash),
        ("a revoked key", &*dead.revoked),
        ("an expired key", &*dead.expired),
        ("257 characters", &*"k".repeat(257)),
        ("8 KiB", &*"k".repeat(8 << 10)),
        ("letters beyond ASCII", "sk-tg_é€\u{1F600}"),
    ] {
        cases.push(case(what, with(format!("Bearer {key}").as_bytes()), WRONG_KEY));
    }
    cases.push(case("bytes that are no text", with(b"Bearer \xFF\xFE\x80"), WRONG_KEY));
    cases.push(case("a zero byte", with(format!("Bearer {good}\0").as_bytes()), UNREADABLE));
    cases.push(case("a long one", with(format!("Bearer {}", "k".repeat(LONG)).as_bytes()), Right::Bare(&[431])));
    if route.key.as_deref() == Some(ADMIN_KEY) {
        cases.push(case("a project's key", with(format!("Bearer {team}").as_bytes()), Right::Told(&[403])));
    } else {
        cases.push(case("the admin key", with(format!("Bearer {ADMIN_KEY}").as_bytes()), WRONG_KEY));
    }
    cases.extend(elsewhere(route, good));
    cases
}

fn in_urls(route: &Route, team: &str) -> Vec<Case> {
    let path = &route.path;
    let and = if path.contains('?') { '&' } else { '?' };
    let (head, query) = path.split_once('?').unwrap_or((path, ""));
    let mut cases = Vec::new();
    for name in ["api_key", "key", "token", "access_token", "Authorization"] {
        let url = format!("{path}{and}{name}={team}");
        cases.push(case(format!("?{name}="), route.at(&url), KEY_IN_URL));
        cases.push(case(format!("only ?{name}="), route.with_body(route.bare(&url)), KEY_IN_URL));
    }
    cases.push(case("a key as a value", route.at(&format!("{path}{and}x={team}")), KEY_IN_URL));
    cases.push(case("a key in the path", route.at(&format!("{head}/{team}?{query}")), KEY_IN_URL));
    cases
}

/// Keys beside the one that counts, or where none counts.
fn elsewhere(route: &Route, good: &str) -> Vec<Case> {
    let path = &route.path;
    let twice = |other: &str| route.with_body(route.opened(path).header("authorization", format!("Bearer {other}")));
    let beside = |name: &str, value: &str| route.with_body(route.opened(path).header(name, value));
    let only = |name: &str, value: &str| route.with_body(route.bare(path).header(name, value));
    let bearer = format!("Bearer {good}");
    let mut cases = vec![
        case("the key twice", twice(good), TWO_KEYS),
        case("two keys", twice("sk-other"), TWO_KEYS),
        case("another x-api-key", beside("x-api-key", "sk-other"), TWO_KEYS),
        case("white space before the colon", only("authorization ", &bearer), UNREADABLE),
    ];
    let places = ["x-api-key", "x_api_key", "api-key", "authorization_", "proxy-authorization", "x-authorization"];
    cases.extend(places.map(|name| case(format!("only {name}"), only(name, &bearer), NO_KEY)));
    cases.push(case("a cookie", only("cookie", &format!("key={good}")), NO_KEY));
    // What other gateways let a caller choose with is not read, and a request without a key stays one.
    for name in [
        "x-portkey-custom-host",
        "x-base-url",
        "x-skipper-proxy",
        "x-forwarded-host",
        "x-original-url",
        "x-rewrite-url",
        "forwarded",
        "openai-organization",
        "openai-project",
    ] {
        cases.push(case(name, only(name, "http://127.0.0.1:9/health"), NO_KEY));
    }
    cases
}

// === paths and methods ===

fn paths(route: &Route) -> Vec<Case> {
    const NOWHERE: Right = Right::Told(&[404]);
    let path = &route.path;
    let (head, query) =
        path.split_once('?').map_or((&**path, String::new()), |(head, query)| (head, format!("?{query}")));
    let (first, rest) = head[1..].split_once('/').map_or((&head[1..], String::new()), |(a, b)| (a, format!("/{b}")));
    let encoded = format!("/%{:02x}{}{rest}{query}", first.as_bytes()[0], &first[1..]);
    let mut cases: Vec<_> = [
        format!("/{path}"),
        format!("/{first}/{rest}{query}"),
        format!("/{first}/.{rest}{query}/."),
        format!("/x/..{path}"),
        format!("/{first}/..{path}"),
        format!("/{first}/%2e%2e{path}"),
        format!("/{first}/%2E.{path}"),
        format!("/{first}/..%2f{first}{rest}{query}"),
        format!("/{first}/%252e%252e{path}"),
        format!("/{first}/..;{path}"),
        format!("{head}/{query}"),
        format!("{head};x=1/{query}"),
        format!("/{}{rest}{query}", first.to_uppercase()),
        encoded,
    ]
    .into_iter()
    .map(|wrong| case(format!("the path {wrong}"), route.at(&wrong), NOWHERE))
    .collect();
    cases.push(case("a zero byte", route.at(&format!("{head}\0{query}")), UNREADABLE));
    cases.push(case("a backslash", route.at(&format!("/{first}/..\\{first}{rest}")), Right::Told(&[404, 400])));
    cases.push(case("a long path", route.at(&format!("{head}/{}", "a".repeat(LONG))), Right::Bare(&[414, 431])));
    cases.extend(ids(route));
    cases
}

/// In place of each id that the path names.
fn ids(route: &Route) -> Vec<Case> {
    let mut cases = Vec::new();
    let long = "a".repeat(300);
    for (start, _) in route.template.match_indices('{') {
        let name = &route.template[start..=start + route.template[start..].find('}').unwrap()];
        for id in [
            ".",
            "..",
            "%2e%2e",
            "a%2fb",
            "a%3Fb",
            "a%23b",
            "a%40b",
            "a@b",
            "%00",
            "a%0d%0ax-evil:1",
            "%ff%fe",
            "'%20OR%201=1--",
            "%25",
            "*",
            "null",
            "proj_",
            "proj_AAAAAAAAAAAAAAAAAAAAAAAA",
            &long,
            "%F0%9F%92%A9",
        ] {
            let path = route.things.path(&route.template.replace(name, id));
            cases.push(case(format!("{name} = {id}"), route.at(&path), Right::Told(&[400, 404])));
        }
    }
    cases
}

/// Methods that the path does not have. `served` are those of its path.
fn methods(route: &Route, served: &[String]) -> Vec<Case> {
    let all = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "QUERY"];
    let other = all.into_iter().filter(|method| !served.iter().any(|known| known == method));
    let of = |method: &str| {
        let request = Raw::new(method, &route.path)
            .header("x-http-method-override", &route.method)
            .header("x-method-override", &route.method)
            .header("access-control-request-method", &route.method)
            .header("origin", "https://evil.example")
            .header("x-canary", "not to be echoed");
        let request = match &route.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        };
        case(format!("the method {method}"), request.rest([]), Right::Told(&[405]))
    };
    other.map(of).collect()
}

/// Whoever the request says it is for, its key decides.
fn hosts(route: &Route) -> Vec<Case> {
    if route.key.is_none() {
        return Vec::new();
    }
    let (method, path) = (&route.method, &route.path);
    let head = |target: &str, hosts: &str| {
        format!("{method} {target} HTTP/1.1\r\n{hosts}connection: close\r\ncontent-length: 0\r\n\r\n").into_bytes()
    };
    ["", "host: a/b\r\n", "host: a?b#c@d\r\n", "host: a b\r\n", "host: a\\b\r\n", "host: a\r\nhost: b\r\n"]
        .into_iter()
        .map(|hosts| case(format!("hosts {hosts:?}"), head(path, hosts), Right::Bare(&[400])))
        .chain([
            case("an empty host", head(path, "host:\r\n"), NO_KEY),
            case("another authority", head(&format!("http://evil.example{path}"), "host: a\r\n"), NO_KEY),
            case("a name in the authority", head(&format!("http://a:b@evil.example{path}"), "host: a\r\n"), NO_KEY),
        ])
        .collect()
}

// === framing ===

fn framing(route: &Route) -> Vec<Case> {
    let body = route.body.as_deref().unwrap_or_default();
    let length = body.len().to_string();
    let framed = |headers: &[(&str, &str)], rest: &str| {
        let request = route.opened(&route.path);
        headers.iter().fold(request, |request, (name, value)| request.header(name, value)).rest(rest)
    };
    let mut cases: Vec<_> = [
        ("a length with a plus", &[("content-length", &*format!("+{length}"))] as &[_]),
        ("two lengths in one", &[("content-length", &*format!("{length}, 5"))]),
        ("a length twice in one", &[("content-length", &*format!("{length},{length}"))]),
        ("two lengths", &[("content-length", &*length), ("content-length", "777")]),
        ("a hexadecimal length", &[("content-length", "0x43")]),
        ("a negative length", &[("content-length", "-1")]),
        ("a length with a gap", &[("content-length", "1 1")]),
        ("no length", &[("content-length", "")]),
        ("a length of 65 bits", &[("content-length", "18446744073709551616")]),
        ("an unknown coding", &[("transfer-encoding", "xchunked")]),
        ("chunked, identity", &[("transfer-encoding", "chunked, identity")]),
        ("gzip alone", &[("transfer-encoding", "gzip")]),
        ("two codings", &[("transfer-encoding", "chunked"), ("transfer-encoding", "identity")]),
        ("a folded header", &[("x-folded", "a\r\n b"), ("content-length", &length)]),
        ("a zero in a header", &[("x-nul", "a\0b"), ("content-length", &length)]),
        ("a DEL in a header", &[("x-del", "a\x7fb"), ("content-length", &length)]),
        ("a gap before the colon", &[("x-space ", "a"), ("content-length", &length)]),
        ("a bare return", &[("x-return", "a\rb"), ("content-length", &length)]),
    ]
    .into_iter()
    .map(|(what, headers)| case(what, framed(headers, body), UNREADABLE))
    .collect();
    let old = String::from_utf8(framed(&[("transfer-encoding", "chunked")], "0\r\n\r\n")).unwrap();
    let no_colon = String::from_utf8(framed(&[("content-length", &length)], body)).unwrap();
    cases.push(case("chunks in HTTP/1.0", old.replace("HTTP/1.1", "HTTP/1.0").into_bytes(), UNREADABLE));
    cases.push(case(
        "a line without a colon",
        no_colon.replace("host: gateway", "host gateway").into_bytes(),
        UNREADABLE,
    ));
    let many = (0..101).fold(route.opened(&route.path), |request, number| request.header(&format!("x-{number}"), "1"));
    cases.push(case("101 headers", many.rest(body), Right::Bare(&[431])));
    let large = route.opened(&route.path).header("x-large", "x".repeat(LONG));
    cases.push(case("a long header", large.rest(body), Right::Bare(&[431])));
    cases
}

// === bodies ===

fn bodies(route: &Route) -> Vec<Case> {
    let Some(good) = route.body.as_deref().filter(|_| route.reads_body()) else { return Vec::new() };
    let opened = || route.opened(&route.path);
    let bad = |what: &str, body: &[u8]| case(what, opened().body(body), Right::Told(&[400]));
    let plus = |member: &str| if good == "{}" { format!("{{{member}}}") } else { format!("{{{member},{}", &good[1..]) };
    let mut cases = vec![
        bad("null", b"null"),
        bad("an array", b"[]"),
        bad("a string", b"\"a\""),
        bad("half of an object", b"{\"name\":"),
        bad("a comma too many", plus("\"x\":1,").as_bytes()),
        bad("a byte order mark", format!("\u{feff}{good}").as_bytes()),
        bad("UTF-16", &good.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
        bad("bytes that are no text", &[b"{\"x\":\"\xFF\",".as_slice(), &good.as_bytes()[1..]].concat()),
        bad("something after the object", format!("{good}x").as_bytes()),
        bad("two objects", format!("{good}{good}").as_bytes()),
        bad("not a number", plus("\"x\":NaN").as_bytes()),
        bad("half of a surrogate pair", br#"{"name":"\ud800","model":"\ud800","messages":[]}"#),
        bad("30,000 arrays", plus(&format!("\"x\":{}{}", "[".repeat(30_000), "]".repeat(30_000))).as_bytes()),
        bad("200 objects", plus(&format!("\"x\":{}1{}", "{\"a\":".repeat(200), "}".repeat(200))).as_bytes()),
        bad("an object without end", "{\"x\":".repeat(10_000).as_bytes()),
        case("ten gigabytes", opened().header("content-length", "10737418240").rest(good), Right::Told(&[413])),
    ];
    let large = plus(&format!("\"x\":\"{}\"", "x".repeat(70 << 10)));
    cases.push(case("too much", opened().body(&large), Right::Told(&[413])));
    cases.push(case("too much in chunks", opened().chunked(large.as_bytes(), 1_000), Right::Told(&[413])));
    for encoding in ["gzip", "br", "zstd", "deflate", "gzip, gzip", "x-gzip", "GZIP", "identity, gzip"] {
        let request = opened().header("content-encoding", encoding).body(good);
        cases.push(case(encoding, request, Right::Code(415, "unsupported_encoding")));
    }
    for name in ["api_base", "base_url", "api_key", "organization", "extra_headers", "custom_llm_provider"] {
        let request = opened().body(plus(&format!("\"{name}\":\"http://127.0.0.1:9/v1\"")));
        cases.push(case(name, request, Right::Code(400, "unknown_parameter")));
    }
    cases
}

/// Chunks that are none: whether and what is answered is open, but nothing comes of it.
fn broken_chunks(route: &Route) -> Vec<(&'static str, Vec<u8>)> {
    let body = route.body.as_deref().unwrap_or_default();
    let chunks = |rest: &[u8]| route.opened(&route.path).header("transfer-encoding", "chunked").rest(rest);
    let trailers = "x-trailer: 1\r\n".repeat(10_000);
    vec![
        ("a chunk of 65 bits", chunks(b"10000000000000000\r\n{}")),
        ("a size that is none", chunks(b"xyz\r\n{}\r\n0\r\n\r\n")),
        ("a negative size", chunks(b"-2\r\n{}\r\n0\r\n\r\n")),
        ("a chunk without its end", chunks(format!("{:x}\r\n{body}X\r\n0\r\n\r\n", body.len()).as_bytes())),
        ("a megabyte of extension", chunks(format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(1 << 20)).as_bytes())),
        ("10,000 trailers", chunks(format!("{:x}\r\n{body}\r\n0\r\n{trailers}\r\n", body.len()).as_bytes())),
    ]
}

// === the walk ===

const START_S: u64 = 1_790_000_000;
const UPSTREAM_CALLS: &str = "upstream_calls_total";

async fn gateway() -> Gateway {
    // Time stands still, so that nothing which was taken comes back unseen.
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    let small = |settings: &mut tollgate::config::Settings| settings.max_body_bytes = 64 << 10;
    Gateway::start_at(clock, simulator::Options::default(), small).await
}

async fn dead_keys(gateway: &Gateway, things: &Things) -> Dead {
    let (admin, project) = (gateway.admin(), &things.team.project_id);
    let revoked = gateway.key_of(project, serde_json::json!({})).await;
    let keys = format!("/v1/organization/projects/{project}/api_keys");
    assert_eq!(admin.delete(&format!("{keys}/{}", revoked.key_id)).await.status, 200);
    let short = admin.post(&keys, &serde_json::json!({"name": "short", "expires_in_seconds": 1})).await;
    assert_eq!(short.status, 200, "{}", short.text());
    gateway.clock.advance(2_000_000_000);
    let options = SqliteConnectOptions::new().filename(gateway.ledger_path()).read_only(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let hash = sqlx::query_scalar("SELECT lower(hex(hash)) FROM api_keys LIMIT 1").fetch_one(&pool).await.unwrap();
    let expired = short.json()["value"].as_str().unwrap().to_owned();
    Dead { revoked: revoked.key.unwrap(), expired, hash }
}

/// All that a request could change, as administrators and the caller see it.
async fn state(gateway: &Gateway, things: &Things) -> Vec<String> {
    let shown =
        things.team.post("/v1/chat/completions", &serde_json::json!({"model": TEXT_MODEL, "messages": []})).await;
    let limits = shown.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-ratelimit"));
    let mut state: Vec<_> = limits.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    assert_eq!(state.len(), 6, "{}", shown.text());
    state.push(gateway.admin().get("/v1/organization/audit_logs?limit=100").await.text());
    state.push(gateway.metric(UPSTREAM_CALLS).await.to_string());
    state.push(gateway.ledger().await.len().to_string());
    state
}

async fn routes(gateway: &Gateway) -> (Vec<Route>, Dead) {
    let things = Things::new(gateway).await;
    let dead = dead_keys(gateway, &things).await;
    let calls = api::calls_operations().into_iter().map(|operation| (&gateway.calls_url, operation));
    let all = calls.chain(api::admin_operations().into_iter().map(|operation| (&gateway.admin_url, operation)));
    let route = |(url, Operation { method, path })| {
        let named = |row: &&crate::access::Row| (row.0, row.1) == (method.as_str(), path);
        let row = CALLS.iter().chain(ADMINISTRATION).find(named).expect("a row in access.rs");
        let key = match security(row) {
            Some("apiKey") => things.team.key.clone(),
            Some(_) => Some(ADMIN_KEY.to_owned()),
            None => None,
        };
        let query = if method == "GET" && path.starts_with("/v1/organization") { "?start_time=1" } else { "" };
        Route {
            method: method.to_string(),
            template: path,
            url: String::clone(url),
            path: format!("{}{query}", things.path(path)),
            key,
            body: (method == "POST").then(|| body(path).to_string()),
            things: things.clone(),
        }
    };
    (all.map(route).collect(), dead)
}

/// What is wrong with an answer.
fn problem(reply: &Reply, right: Right, route: &Route) -> Option<String> {
    let (statuses, code): (&[u16], _) = match right {
        Right::Told(statuses) => (statuses, None),
        Right::Code(ref status, code) => (std::slice::from_ref(status), Some(code)),
        Right::Bare(statuses) => {
            let right = statuses.contains(&reply.status.as_u16()) && reply.body.is_empty();
            let closes = reply.header("connection") == "close";
            return (!right || !closes).then(|| format!("{} {:?} {}", reply.status, reply.headers, reply.text()));
        }
    };
    let whole = format!("{} {:?} {}", reply.status, reply.headers, reply.text());
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let error = &body["error"];
    let keys = |value: &Value| value.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    let shape = keys(error).is_some_and(|keys| keys == ["code", "message", "param", "type"])
        && keys(&body).is_some_and(|keys| keys == ["error"])
        && reply.header("content-type") == "application/json"
        && reply.header("x-request-id").starts_with("req_");
    let kind = if reply.status == 413 { "server_error" } else { "invalid_request_error" };
    let told = error["type"] == kind && error["message"] != "" && code.is_none_or(|code| error["code"] == code);
    let secret = &route.things.team.key.as_deref().unwrap()[20..];
    let kept = [secret, ADMIN_KEY, "not to be echoed", "access-control-allow"].iter().all(|word| !whole.contains(word));
    let allows = reply.status != 405 || !reply.header("allow").is_empty();
    let right = statuses.contains(&reply.status.as_u16()) && shape && told && kept && allows;
    (!right).then_some(whole)
}

async fn walk(cases: impl Fn(&Route, &[String], &Dead) -> Vec<Case>) -> usize {
    let gateway = gateway().await;
    let (routes, dead) = routes(&gateway).await;
    let before = state(&gateway, &routes[0].things).await;
    let (mut asked, mut problems) = (0, Vec::new());
    for route in &routes {
        let same = routes.iter().filter(|other| (&other.url, other.template) == (&route.url, route.template));
        let served: Vec<_> = same.map(|route| route.method.clone()).collect();
        let metrics = &gateway.running.as_ref().unwrap().app.metrics;
        let sent = metrics.upstream_calls.get();
        for case in cases(route, &served, &dead) {
            let what = format!("{} {}, {}", route.method, route.template, case.what);
            let problem = problem(&exchange(&route.url, &case.request).await, case.right, route);
            problems.extend(problem.map(|problem| format!("{what}: {problem}")));
            assert_eq!((metrics.upstream_calls.get(), metrics.open_admissions.get()), (sent, 0), "{what}");
            asked += 1;
        }
        let what = format!("after {} {}", route.method, route.template);
        assert_eq!(state(&gateway, &route.things).await, before, "{what}");
    }
    assert!(problems.is_empty(), "{} of {asked}:\n{}", problems.len(), problems.join("\n"));
    asked
}

#[tokio::test]
async fn no_route_takes_a_credential_that_is_none() {
    assert!(walk(|route, _, dead| credentials(route, dead)).await > 2_000);
}

#[tokio::test]
async fn no_route_is_reached_by_another_path_method_or_host() {
    let asked =
        walk(|route, served, _| [paths(route), methods(route, served), hosts(route)].into_iter().flatten().collect());
    assert!(asked.await > 2_000);
}

#[tokio::test]
async fn no_route_takes_a_request_whose_end_is_a_matter_of_opinion() {
    assert!(walk(|route, _, _| framing(route)).await > 1_000);
}

#[tokio::test]
async fn no_route_that_reads_a_body_takes_one_that_is_wrong() {
    assert!(walk(|route, _, _| bodies(route)).await > 400);
}

#[tokio::test]
async fn broken_chunks_come_to_nothing_on_any_route() {
    let gateway = gateway().await;
    let (routes, _) = routes(&gateway).await;
    let before = state(&gateway, &routes[0].things).await;
    for route in routes.iter().filter(|route| route.reads_body()) {
        for (what, request) in broken_chunks(route) {
            let answer = until_closed(&route.url, &[&request]).await;
            let status = parse(&answer).map(|reply| reply.status.as_u16());
            assert!(status.is_none_or(|status| (400..500).contains(&status)), "{} {what}: {status:?}", route.template);
            let answers = memchr::memmem::find_iter(&answer, b"HTTP/1.1 ").count();
            assert!(answers <= 1, "{} {what}: {}", route.template, Bytes::from(answer).escape_ascii());
        }
    }
    assert_eq!(state(&gateway, &routes[0].things).await, before);
}
