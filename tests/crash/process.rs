//! Processes of the program under test, and the certainty that none is left behind.

use std::{
    fs::{self, File, OpenOptions},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::client::{Answer, get, post};

pub const ADMIN_KEY: &str = "sk-admin-for-the-crash-tests-0123456789";
/// Generous: several tests share few cores with a compiler.
const PATIENCE: Duration = Duration::from_secs(30);
const PROGRAM: &str = env!("CARGO_BIN_EXE_tollgate");

/// A process that ends with this value, if it has not ended before.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    output: Vec<String>,
    log: PathBuf,
}

impl Process {
    /// Its log lines (standard error) are appended to `log`.
    fn start(command: &mut Command, log: &Path) -> Self {
        let stderr = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)).map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, output: Vec::new(), log: log.to_owned() }
    }

    /// Waits for a line of standard output with `text` in it, and returns that line.
    fn line_with(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                panic!("no line with {text:?} came, but {:#?}\n{log}", self.output);
            };
            self.output.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub fn tell_to_stop(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let told = Command::new("sh").args(["-c", "kill -s \"$2\" \"$1\"", "sh", &id, name]).status().unwrap();
        assert!(told.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The look-alike of the service behind the gateway, in a process that survives the gateway's.
pub struct LookAlike {
    url: String,
    _process: Process,
}

impl LookAlike {
    pub fn start(dir: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command
            .stdin(Stdio::null())
            .env_clear()
            .args(["simulate", "--listen", "127.0.0.1:0", "--log"])
            .arg(log_of(dir))
            .args(more);
        let mut process = Process::start(&mut command, &dir.join("look-alike.err"));
        Self { url: process.line_with("http://"), _process: process }
    }
}

/// Where a look-alike in `dir` writes down what it was sent.
pub fn log_of(dir: &Path) -> PathBuf {
    dir.join("look-alike.jsonl")
}

/// How a gateway is started: again and again on the same data.
#[derive(Clone)]
pub struct Setup {
    data: PathBuf,
    settings: Vec<(&'static str, String)>,
    /// A program to start it with, and its arguments.
    wrapper: Vec<String>,
    /// Further words after `serve`.
    words: Vec<String>,
    /// Handed over as a service manager does.
    socket: Option<Arc<TcpListener>>,
}

impl Setup {
    /// With its data in `dir`, and an admin key that is known.
    pub fn new(dir: &Path, upstream: &LookAlike) -> Self {
        let data = dir.join("data");
        let setup =
            Self { data: data.clone(), settings: Vec::new(), wrapper: Vec::new(), words: Vec::new(), socket: None };
        setup
            .with("DATA_DIR", data.to_str().unwrap())
            .with("UPSTREAM_URL", &upstream.url)
            .with("UPSTREAM_KEY", "sk-for-the-look-alike")
            .with("LISTEN", "127.0.0.1:0")
            .with("ADMIN_LISTEN", "127.0.0.1:0")
            .with("LOG_LEVEL", "warn")
            .with("ADMIN_KEY", ADMIN_KEY)
    }

    /// A setting by the name of its variable; a later one replaces an earlier one, and an empty one is not set.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.to_owned()));
        self
    }

    #[must_use]
    pub fn started_by(self, wrapper: &[&str]) -> Self {
        Self { wrapper: wrapper.iter().map(|&word| word.to_owned()).collect(), ..self }
    }

    #[must_use]
    pub fn started_with(&self, words: &[&str]) -> Self {
        Self { words: words.iter().map(|&word| word.to_owned()).collect(), ..self.clone() }
    }

    /// As systemd would: descriptor 3 and two variables.
    #[must_use]
    pub fn with_socket(self, socket: TcpListener) -> Self {
        let shell = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@""#;
        Self { socket: Some(Arc::new(socket)), ..self }.started_by(&["sh", "-c", shell, "sh"])
    }

    fn command(&self) -> Command {
        let more = self.words.iter().map(String::as_str);
        let mut words = self.wrapper.iter().map(String::as_str).chain([PROGRAM, "serve"]).chain(more);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // No configuration file of the directory that tests run in.
        command.current_dir(self.data.parent().unwrap());
        for (name, value) in self.settings.iter().filter(|(_, value)| !value.is_empty()) {
            command.env(format!("TOLLGATE_{name}"), value);
        }
        match &self.socket {
            Some(socket) => command.stdin(OwnedFd::from(socket.try_clone().unwrap())),
            None => command.stdin(Stdio::null()),
        };
        command
    }

    /// Starts it and tells it to stop after `time`, ready or not: its exit code (none when it was too early to listen for
    /// signals), and how long its end took.
    pub fn start_and_stop(&self, time: Duration) -> (Option<i32>, Duration) {
        let mut process = Process::start(&mut self.command(), &self.log());
        std::thread::sleep(time);
        process.tell_to_stop();
        let told = Instant::now();
        (process.wait().code(), told.elapsed())
    }

    pub fn start(&self) -> Gateway {
        let mut process = Process::start(&mut self.command(), &self.log());
        let address = |line: String| -> SocketAddr {
            let (_, rest) = line.split_once("http://").unwrap();
            rest.split('/').next().unwrap().parse().unwrap()
        };
        let calls = address(process.line_with("calls    http://"));
        let admin = address(process.line_with("admin    http://"));
        process.line_with("and let the team set");
        Gateway { process, calls, admin }
    }

    /// Starts it and kills it after `time`, ready or not.
    pub fn start_and_kill(&self, time: Duration) -> Vec<String> {
        let mut process = Process::start(&mut self.command(), &self.log());
        std::thread::sleep(time);
        process.kill();
        process.lines.iter().collect()
    }

    /// A start that is to end by itself: its exit code, standard output and standard error.
    pub fn start_in_vain(&self) -> (Option<i32>, String, String) {
        let log = self.data.with_extension("vain.log");
        let mut process = Process::start(&mut self.command(), &log);
        let code = process.wait().code();
        let output: Vec<String> = process.lines.iter().collect();
        (code, output.join("\n"), fs::read_to_string(log).unwrap())
    }

    /// The log lines of all gateways started with this setup.
    pub fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    pub fn ledger(&self) -> PathBuf {
        self.data.join("tollgate.db")
    }

    /// Nothing that a gateway of this setup logged is a sign of a defect.
    pub fn assert_quiet_log(&self) {
        let log = fs::read_to_string(self.log()).unwrap();
        for alarm in ["ERROR", "panicked", "not open: ignored", "without saying how", "not counted twice"] {
            let line = log.lines().find(|line| line.contains(alarm));
            assert_eq!(line, None, "the gateway's log");
        }
    }
}

/// A running gateway.
pub struct Gateway {
    process: Process,
    pub calls: SocketAddr,
    pub admin: SocketAddr,
}

impl Gateway {
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn tell_to_stop(&self) {
        self.process.tell_to_stop();
    }

    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// SIGTERM, and success.
    pub fn stop(&mut self) {
        self.tell_to_stop();
        assert!(self.wait().success());
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// What it printed at its start.
    pub fn screen(&self) -> String {
        self.process.output.join("\n")
    }

    /// Waits until it takes requests.
    pub async fn healthy(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !get(self.calls, "/health", "").await.is_ok_and(|answer| answer.status == 200) {
            let log = || fs::read_to_string(&self.process.log).unwrap_or_default();
            assert!(Instant::now() < deadline, "the gateway does not get healthy:\n{}", log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn admin_post(&self, path: &str, body: &Value) -> Value {
        let answer = post(self.admin, &format!("/v1/organization/{path}"), ADMIN_KEY, &body.to_string()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// A key in a project of its own, with the widest tier and `limits` of its own.
    pub async fn new_key(&self, limits: &Value) -> Key {
        let project = self.admin_post("projects", &json!({"name": "crash tests", "tier": "tier5"})).await;
        self.key_of(project["id"].as_str().unwrap(), limits).await
    }

    /// One more key of a project.
    pub async fn key_of(&self, project_id: &str, limits: &Value) -> Key {
        let accounts = format!("projects/{project_id}/service_accounts");
        let account = self.admin_post(&accounts, &json!({"name": "worker", "limits": limits})).await;
        let text = |field: &str| account["api_key"][field].as_str().unwrap().to_owned();
        Key { id: text("id"), plain: text("value"), project_id: project_id.to_owned() }
    }

    pub async fn chat(&self, key: &Key, body: &Value) -> Answer {
        post(self.calls, "/v1/chat/completions", &key.plain, &body.to_string()).await.unwrap()
    }

    /// Waits until the ledger holds everything that is in the journal.
    pub async fn caught_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = get(self.admin, "/metrics", "").await.unwrap().text();
            let zero = |name: &str| page.lines().any(|line| line == format!("tollgate_{name} 0"));
            if zero("open_admissions") && zero("ledger_lag_bytes") {
                return;
            }
            assert!(Instant::now() < deadline, "the ledger does not catch up:\n{page}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub plain: String,
    pub project_id: String,
}

/// True if `program` runs here at all; a test that needs it says that it is skipped otherwise.
pub fn runs(program: &str, arguments: &[&str]) -> bool {
    let null = || File::options().write(true).open("/dev/null").unwrap();
    Command::new(program).args(arguments).stdout(null()).stderr(null()).status().is_ok_and(|status| status.success())
}
