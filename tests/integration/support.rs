//! A gateway of one's own for each test, and those who talk to it: the admin, a project, a stranger.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error as LegacyError, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tollgate::{
    api,
    app::{App, Held, Routers, Running},
    clock::Clock,
    config::{ListenAddress, Secret, Settings, UpstreamUrl, load_catalog},
    domain::{rollup::Cells, usage::LineItem},
    simulator,
};

pub const ADMIN_KEY: &str = "sk-admin-for-tests-0123456789abcdef";
/// The model of most tests: text and audio, priced, with limits in every tier.
pub const MODEL: &str = "gpt-4o-mini-audio-preview";
pub const SNAPSHOT: &str = "gpt-4o-mini-audio-preview-2024-12-17";
/// A text model, for requests without audio.
pub const TEXT_MODEL: &str = "gpt-4o-mini";

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// How long what a test has begun may take to end by itself, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway with a look-alike behind it, both in this process. It has threads of its own, so that at the end of each
/// test it can be looked at while it comes to rest: nothing may be left over, unless the test said so.
pub struct Gateway {
    pub running: Option<Running>,
    pub clock: Clock,
    pub dir: Arc<TempDir>,
    pub settings: Settings,
    pub calls_url: String,
    pub admin_url: String,
    client: HttpClient,
    stop_upstream: CancellationToken,
    runtime: Option<Runtime>,
    leaves: Option<&'static str>,
    pub patience: Duration,
}

/// What came back.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The JSON payloads of an event stream, `[DONE]` left out.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    pub fn error(&self) -> Value {
        self.json()["error"].clone()
    }
}

impl Gateway {
    /// With default settings, a look-alike that answers at once, and the system's clock.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_at(Clock::system(), simulator::Options::default(), change).await
    }

    pub async fn start_at(clock: Clock, upstream: simulator::Options, change: impl FnOnce(&mut Settings)) -> Self {
        let runtime = threads();
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await.unwrap().unwrap();
        let upstream_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let stop_upstream = CancellationToken::new();
        runtime.spawn(simulator::serve(listener, upstream, stop_upstream.clone()));
        Self::start_on(runtime, &upstream_url, stop_upstream, clock, change).await
    }

    /// In front of any upstream.
    pub async fn start_before(
        upstream_url: &str,
        stop_upstream: CancellationToken,
        clock: Clock,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::start_on(threads(), upstream_url, stop_upstream, clock, change).await
    }

    async fn start_on(
        runtime: Runtime,
        upstream_url: &str,
        stop_upstream: CancellationToken,
        clock: Clock,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut settings = Settings {
            listen: address("127.0.0.1:0"),
            admin_listen: address("127.0.0.1:0"),
            data_dir: dir.path().join("data"),
            upstream_url: UpstreamUrl::new(upstream_url).unwrap(),
            upstream_key: Some(Secret::new("sk-upstream-canary-key")),
            admin_key: Some(Secret::new(ADMIN_KEY)),
            shutdown_grace_s: 5,
            ..Settings::default()
        };
        change(&mut settings);
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut gateway = Self {
            running: None,
            clock,
            dir,
            settings,
            calls_url: String::new(),
            admin_url: String::new(),
            client,
            stop_upstream,
            runtime: Some(runtime),
            leaves: None,
            patience: PATIENCE,
        };
        gateway.run().await;
        gateway
    }

    /// Starts, or starts again over the same data.
    pub async fn run(&mut self) {
        let routers = Routers { calls: api::calls, administration: api::administration, everything: api::everything };
        let catalog = load_catalog(&self.settings).unwrap();
        let (settings, clock) = (self.settings.clone(), self.clock.clone());
        let starting = async move { Running::start(&settings, catalog, clock, &routers).await };
        let running = self.threads().spawn(starting).await.unwrap().unwrap();
        self.calls_url = format!("http://{}", running.listen);
        self.admin_url = format!("http://{}", running.admin_listen);
        self.running = Some(running);
    }

    /// Stops in order, and finds nothing left over. The look-alike goes on.
    pub async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        let app = Arc::clone(&running.app);
        self.threads().spawn(running.stop()).await.unwrap();
        assert_eq!(app.held(), Held::default(), "left over after the end");
        assert_eq!(app.metrics.connections.get(), 0, "connections that are open after the end");
        assert!(app.ledger_is_complete());
        sound_books(&self.ledger_path()).await;
    }

    /// The test ends while something is under way, or with books that it has meddled with, and this is why.
    pub fn leaves(&mut self, why: &'static str) {
        self.leaves = Some(why);
    }

    fn threads(&self) -> Handle {
        self.runtime.as_ref().unwrap().handle().clone()
    }

    pub fn ledger_path(&self) -> std::path::PathBuf {
        self.settings.data_dir.join("tollgate.db")
    }

    pub fn data_dir(&self) -> &Path {
        &self.settings.data_dir
    }

    pub fn admin(&self) -> Actor {
        self.actor(&self.admin_url, Some(ADMIN_KEY))
    }

    /// Somebody without a key.
    pub fn stranger(&self) -> Actor {
        self.actor(&self.calls_url, None)
    }

    pub fn bearer(&self, key: &str) -> Actor {
        self.actor(&self.calls_url, Some(key))
    }

    fn actor(&self, url: &str, key: Option<&str>) -> Actor {
        Actor {
            url: url.to_owned(),
            key: key.map(str::to_owned),
            client: self.client.clone(),
            threads: self.threads(),
            key_id: String::new(),
            project_id: String::new(),
        }
    }

    /// A new project of `tier` with one key, ready to call.
    pub async fn project(&self, tier: &str) -> Actor {
        self.project_with(tier, json!({})).await
    }

    /// The same with a key that has limits of its own.
    pub async fn project_with(&self, tier: &str, limits: Value) -> Actor {
        let admin = self.admin();
        let project = admin.post("/v1/organization/projects", &json!({"name": "team", "tier": tier})).await.json();
        let project_id = project["id"].as_str().unwrap().to_owned();
        self.key_of(&project_id, limits).await
    }

    /// One more key of a project.
    pub async fn key_of(&self, project_id: &str, limits: Value) -> Actor {
        let path = format!("/v1/organization/projects/{project_id}/service_accounts");
        let account = self.admin().post(&path, &json!({"name": "worker", "limits": limits})).await;
        assert_eq!(account.status, 200, "{}", account.text());
        let account = account.json();
        let mut actor = self.bearer(account["api_key"]["value"].as_str().unwrap());
        account["api_key"]["id"].as_str().unwrap().clone_into(&mut actor.key_id);
        project_id.clone_into(&mut actor.project_id);
        actor
    }

    /// Waits until nothing is under way and the ledger holds everything, then reads it: one row per finished request,
    /// newest last (within a millisecond in any order). Checks what must hold after every test.
    pub async fn ledger(&self) -> Vec<Row> {
        self.at_rest().await;
        sound_books(&self.ledger_path()).await
    }

    /// Waits until no admission is open and the ledger has caught up with the journal.
    pub async fn at_rest(&self) {
        for _ in 0..500 {
            let page = self.admin().get("/metrics").await.text();
            let gauge = |name: &str| page.lines().any(|line| line == format!("tollgate_{name} 0"));
            if gauge("open_admissions") && gauge("ledger_lag_bytes") && gauge("drains") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not at rest after 5 seconds");
    }

    /// The value of a metric, by its whole name with labels.
    pub async fn metric(&self, name: &str) -> u64 {
        let page = self.admin().get("/metrics").await.text();
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("tollgate_{name} ")));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{page}")).parse().unwrap()
    }
}

/// Threads of a gateway of its own.
fn threads() -> Runtime {
    // They log where the test does.
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let log = move || std::mem::forget(tracing::dispatcher::set_default(&dispatch));
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).on_thread_start(log).enable_all().build().unwrap()
}

/// The rows of a ledger. They are there once each, and every sum is the sum of its rows.
async fn sound_books(path: &Path) -> Vec<Row> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let rows = sqlx::query_as("SELECT * FROM ledger ORDER BY request_id").fetch_all(&pool).await.unwrap();
    let parts: Vec<(i64, i64, Vec<u8>)> =
        sqlx::query_as("SELECT detail, width_s, cells FROM rollups").fetch_all(&pool).await.unwrap();
    // The quantities of adjustments have been counted before.
    let adjusting: Vec<u32> =
        sqlx::query_scalar("SELECT number FROM tariffs WHERE adjusts").fetch_all(&pool).await.unwrap();
    let kinds = [(0, 60), (0, 3_600), (0, 86_400), (1, 86_400), (2, 3_600), (2, 86_400)];
    let mut sums = BTreeMap::from(kinds.map(|kind| (kind, (0, 0, 0))));
    for (detail, width_s, cells) in parts {
        let (requests, input, output) = sums.get_mut(&(detail, width_s)).unwrap();
        let cells = Cells::of(&cells).unwrap().map(Result::unwrap);
        for cell in cells.filter(|cell| !adjusting.contains(&cell.tariff)) {
            let tokens =
                |items: [LineItem; 2]| items.iter().map(|item| cell.usage.get(*item).cast_signed()).sum::<i64>();
            *requests += cell.requests.cast_signed();
            *input += tokens([LineItem::InputText, LineItem::InputAudio]);
            *output += tokens([LineItem::OutputText, LineItem::OutputAudio]);
        }
    }
    let count = |f: fn(&Row) -> i64| rows.iter().map(f).sum::<i64>();
    let expected =
        (count(|_| 1), count(|row| row.input_text + row.input_audio), count(|row| row.output_text + row.output_audio));
    let horizon: Vec<i64> = sqlx::query_scalar("SELECT horizon_ms FROM retention").fetch_all(&pool).await.unwrap();
    let are_all_kept = horizon.iter().all(|horizon_ms| *horizon_ms == 0);
    for (kind, sums) in sums {
        // Of entries that were dropped for their age the sums stay.
        let is_right = if are_all_kept { sums == expected } else { sums.0 >= expected.0 };
        assert!(is_right, "rollups of detail and width {kind:?} differ from the rows: {sums:?} and {expected:?}");
    }
    let ids: HashSet<_> = rows.iter().map(|row: &Row| row.request_id.as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "a request is in the ledger more than once");
    pool.close().await;
    rows
}

/// Waits until nothing is under way and all of it is in the ledger.
async fn at_rest(app: &App, patience: Duration) {
    let deadline = Instant::now() + patience;
    while app.held() != Held::default() || !app.ledger_is_complete() {
        assert!(Instant::now() < deadline, "the test leaves something over: {:?}", app.held());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Drop for Gateway {
    /// Whatever a test did: at its end nothing is held, open or read on, and the books are sound.
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let path = self.ledger_path();
        let app = self.running.as_ref().map(|running| Arc::clone(&running.app));
        // On a thread of its own, since a test's own runtime cannot wait for another one.
        let checked = std::thread::scope(|scope| {
            let check = || {
                if let Some(app) = app.filter(|_| self.leaves.is_none()) {
                    runtime.block_on(async {
                        at_rest(&app, self.patience).await;
                        sound_books(&path).await
                    });
                }
            };
            if std::thread::panicking() { Ok(()) } else { scope.spawn(check).join() }
        });
        self.stop_upstream.cancel();
        runtime.shutdown_background();
        if let Err(panicked) = checked {
            std::panic::resume_unwind(panicked);
        }
    }
}

/// A row of the ledger's view for people.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    pub request_id: String,
    pub project_id: String,
    pub api_key_id: String,
    pub model: String,
    pub requested_model: String,
    pub service_tier: String,
    pub outcome: String,
    pub basis: String,
    pub status: i64,
    pub stream: i64,
    pub input_text: i64,
    pub input_cached_text: i64,
    pub input_audio: i64,
    pub output_text: i64,
    pub output_audio: i64,
    pub cost_pico: Option<i64>,
    pub priced: i64,
}

/// One who sends requests, with or without a key.
#[derive(Clone)]
pub struct Actor {
    pub url: String,
    pub key: Option<String>,
    pub key_id: String,
    pub project_id: String,
    pub client: HttpClient,
    /// Connections live there, and end with the gateway's and not with the test's.
    pub threads: Handle,
}

impl Actor {
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path, &[]), Bytes::new()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path, &[]), Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, &[], body.to_string()).await
    }

    pub async fn post_bytes(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.send(self.request(Method::POST, path, headers), body.into()).await
    }

    /// A chat completion of `MODEL`'s text kin: one user message.
    pub async fn say(&self, text: &str) -> Reply {
        self.chat(&json!({"model": TEXT_MODEL, "messages": [{"role": "user", "content": text}]})).await
    }

    pub async fn chat(&self, body: &Value) -> Reply {
        self.post("/v1/chat/completions", body).await
    }

    /// A chat completion with a fault of the look-alike, see `simulator::faults`.
    pub async fn chat_with_fault(&self, fault: &str, body: &Value) -> Reply {
        self.post_bytes("/v1/chat/completions", &[("x-simulate", fault)], body.to_string()).await
    }

    /// Sends a chat completion and hands back the answer with its body unread: drop it to hang up.
    pub async fn open(&self, headers: &[(&str, &str)], body: &Value) -> http::Response<Incoming> {
        let request = self.request(Method::POST, "/v1/chat/completions", headers);
        self.sent(request.body(Full::from(body.to_string())).unwrap()).await.unwrap()
    }

    pub fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request = request.header("content-type", "application/json");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }

    /// A client that no longer waits hangs up.
    async fn sent(&self, request: Request<Full<Bytes>>) -> Result<http::Response<Incoming>, LegacyError> {
        let client = self.client.clone();
        let sending = AbortOnDropHandle::new(self.threads.spawn(async move { client.request(request).await }));
        sending.await.unwrap()
    }

    pub async fn send(&self, request: http::request::Builder, body: Bytes) -> Reply {
        let response = self.sent(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        Reply { status: head.status, headers: head.headers, body: body.unwrap_or_default() }
    }
}

pub fn address(text: &str) -> ListenAddress {
    ListenAddress::new(text).unwrap()
}

/// A body with one user message of text.
pub fn text(model: &str, words: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": words}]})
}

/// A body that asks for a spoken answer.
pub fn spoken(format: &str) -> Value {
    json!({
        "model": MODEL, "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": format},
        "messages": [{"role": "user", "content": "Say hello."}],
    })
}

/// `body` with more members.
pub fn with(mut body: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The name of a model with a page of its own and without a price; the settings that know it.
pub fn model_without_price(settings: &mut Settings) -> &'static str {
    let folder = settings.data_dir.with_file_name("models");
    let page = "id = \"no-price\"\ndescription = \"Billed by nothing\"\ncreated = 1700000000\nowned_by = \"us\"\n\
        endpoints = [\"/v1/chat/completions\"]\n";
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("no-price.toml"), page).unwrap();
    settings.models_dir = Some(folder);
    "no-price"
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// Runs the program with the settings of a gateway, which goes on meanwhile.
pub async fn command(gateway: &Gateway, words: &[&str], env: &[(&str, &str)]) -> Ended {
    let mut command = prepared(gateway, words, env);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ended { code: output.status.code(), out, err }
}

/// The program with the settings of a gateway, ready to be started.
pub fn prepared(gateway: &Gateway, words: &[&str], env: &[(&str, &str)]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(words).env_clear().current_dir(gateway.dir.path()).stdin(std::process::Stdio::null());
    command.env("TOLLGATE_DATA_DIR", gateway.data_dir()).envs(env.iter().copied());
    if let Some(folder) = &gateway.settings.models_dir {
        command.env("TOLLGATE_MODELS_DIR", folder);
    }
    command
}

/// A folder of model pages for a gateway's settings: that of `model`, with a price in place of another.
pub fn change_price(settings: &mut Settings, model: &str, line: &str, other: &str) {
    let folder = settings.data_dir.with_file_name("models");
    std::fs::create_dir_all(&folder).unwrap();
    let file = format!("{model}.toml");
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/models").join(&file)).unwrap();
    assert_eq!(page.matches(line).count(), 1, "{line} in\n{page}");
    std::fs::write(folder.join(file), page.replace(line, other)).unwrap();
    settings.models_dir = Some(folder);
}

/// The digits after each `name` of an answer, never through a float, in pico-dollars.
pub fn amounts(page: &str, name: &str) -> Vec<i128> {
    let pico = |digits: &str| {
        let (sign, digits) = digits.strip_prefix('-').map_or((1, digits), |digits| (-1, digits));
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        assert!(part.len() <= 12, "{digits}");
        sign * format!("{whole}{part:0<12}").parse::<i128>().unwrap()
    };
    let name = format!("\"{name}\":");
    let values = page.split(&name).skip(1);
    values.map(|rest| pico(rest.split([',', '}', '\n']).next().unwrap().trim())).collect()
}
