//! Trouble with the disk and the database: requests go on as long as they can be recorded, and are refused when they
//! cannot.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::json;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    client::get,
    ledger::{Ledger, read_log},
    load::{Load, teams},
    process::{ADMIN_KEY, Gateway, Key, LookAlike, Setup, log_of, runs},
    survival::text,
};

/// Somebody else at the database: a backup, a person with a shell.
struct Lock(SqliteConnection);

impl Lock {
    async fn take(setup: &Setup) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(setup.ledger())
            .busy_timeout(Duration::from_secs(20))
            .foreign_keys(false);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut connection).await.unwrap();
        Self(connection)
    }

    async fn release(mut self) {
        sqlx::query("ROLLBACK").execute(&mut self.0).await.unwrap();
        self.0.close().await.unwrap();
    }
}

/// Requests as the report for administrators counts them.
pub async fn reported_requests(gateway: &Gateway) -> u64 {
    const PATH: &str = "/v1/organization/usage/completions?start_time=1700000000&bucket_width=1d&limit=31&page=";
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let path = PATH.replace("1700000000", &(now - 86_400).to_string()).replace("&page=", "");
    let answer = get(gateway.admin, &path, ADMIN_KEY).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let report = answer.json();
    let buckets = report["data"].as_array().unwrap().iter();
    let results = buckets.flat_map(|bucket| bucket["results"].as_array().unwrap());
    results.map(|result| result["num_model_requests"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_being_locked_delays_reports_never_requests() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({})).await;
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    gateway.caught_up().await;

    let lock = Lock::take(&setup).await;
    let started = Instant::now();
    let (mut answered, mut slowest) = (1, Duration::ZERO);
    // Longer than the gateway waits for the database at a time.
    let seconds = tollgate::config::environment().get("TOLLGATE_LOCKED_S").map_or(7, |text| text.parse().unwrap());
    while started.elapsed() < Duration::from_secs(seconds) {
        let asked = Instant::now();
        let answer = gateway.chat(&key, &text()).await;
        slowest = slowest.max(asked.elapsed());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answered += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(reported_requests(&gateway).await, 1, "reports answer with what they have");
    assert!(slowest < Duration::from_secs(2), "a request waited for the database: {slowest:?}");
    gateway.healthy().await;
    lock.release().await;
    gateway.caught_up().await;
    assert_eq!(reported_requests(&gateway).await, answered);

    // Killed with the database locked: everything is in the journal.
    let lock = Lock::take(&setup).await;
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    gateway.kill();
    lock.release().await;
    let mut gateway = setup.start();
    assert_eq!(reported_requests(&gateway).await, answered + 1);
    gateway.stop();
    Ledger::open(&setup.ledger()).await.assert_sound().await;
    println!("locked ledger: {answered} requests, the slowest took {} ms", slowest.as_millis());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_refuses_new_requests_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--chunks", "4"]);
    let setup = Setup::new(dir.path(), &upstream).with("JOURNAL_SEGMENT_MIB", "1").with("JOURNAL_MAX_MIB", "2");
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    let narrow = gateway.new_key(&json!({"concurrent_requests": 1})).await;
    let lock = Lock::take(&setup).await;
    let load = Load::start(gateway.calls, &teams, 16);
    let refused = first_refusal(&gateway, &teams[0].key).await;
    assert_eq!(refused["error"]["code"], "storage_unavailable", "{refused}");
    let tally = load.end().await;
    refuses_and_says_so(&gateway, &teams[0].key, dir.path()).await;
    // What cannot be recorded gives back its place among those under way: else the second would be told 429.
    for _ in 0..3 {
        assert_eq!(gateway.chat(&narrow, &text()).await.status, 503);
    }
    lock.release().await;

    gateway.healthy().await;
    assert_eq!(gateway.chat(&teams[0].key, &text()).await.status, 200);
    gateway.stop();
    let ledger = Ledger::open(&setup.ledger()).await;
    let (log, rows) = (read_log(&log_of(dir.path())), ledger.rows().await);
    crate::ledger::Verdict::of(&log, &rows, &teams, &tally).assert_good();
    ledger.assert_sound().await;
    println!("full journal: {} requests recorded, refusals: {:?}", rows.len(), tally.statuses);
}

/// Asks until there is no room for one more request.
pub async fn first_refusal(gateway: &Gateway, key: &Key) -> serde_json::Value {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let answer = gateway.chat(key, &text()).await;
        if answer.status == 503 {
            return answer.json();
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(Instant::now() < deadline, "the storage does not get full");
    }
}

/// With nothing under way, so that no settlement gives room back: refused, not sent, and not healthy.
pub async fn refuses_and_says_so(gateway: &Gateway, key: &Key, dir: &Path) {
    first_refusal(gateway, key).await;
    let called = read_log(&log_of(dir)).len();
    assert_eq!(gateway.chat(key, &text()).await.status, 503);
    assert_eq!(read_log(&log_of(dir)).len(), called, "a refused request was sent");
    assert_eq!(get(gateway.calls, "/health", "").await.unwrap().status, 503);
}

/// A way to start a program with a small disk of its own, which is gone with the program; `None` where that is not
/// allowed.
fn with_own_disk(dir: &Path) -> Option<Vec<String>> {
    const MOUNT: &str = r#"mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@""#;
    let dir = dir.to_str().unwrap();
    [&["--mount"][..], &["--user", "--map-root-user", "--mount"]].into_iter().find_map(|flags| {
        let words = [flags, &["sh", "-c", MOUNT, dir]].concat();
        let works = runs("unshare", &[&words[..], &["true"]].concat());
        works.then(|| ["unshare"].iter().chain(&words).map(|&word| word.to_owned()).collect())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_new_requests_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    let Some(wrapper) = with_own_disk(&dir.path().join("data")) else {
        println!("skipped: this user may not mount a disk of their own");
        return;
    };
    let upstream = LookAlike::start(dir.path(), &["--chunks", "4"]);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let setup = Setup::new(dir.path(), &upstream).with("JOURNAL_SEGMENT_MIB", "1").started_by(&wrapper);
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    // The disk as the gateway sees it.
    let disk = PathBuf::from(format!("/proc/{}/root", gateway.process_id()))
        .join(dir.path().join("data").strip_prefix("/").unwrap());
    let filler = disk.join("filler");
    let load = Load::start(gateway.calls, &teams, 16);
    fill(&filler);
    let refused = first_refusal(&gateway, &teams[0].key).await;
    assert_eq!(refused["error"]["code"], "storage_unavailable", "{refused}");
    let tally = load.end().await;
    refuses_and_says_so(&gateway, &teams[0].key, dir.path()).await;

    fs::remove_file(&filler).unwrap();
    gateway.healthy().await;
    assert_eq!(gateway.chat(&teams[0].key, &text()).await.status, 200);
    gateway.caught_up().await;
    let ledger = Ledger::open_copy(&disk.join("tollgate.db"), dir.path()).await;
    let (log, rows) = (read_log(&log_of(dir.path())), ledger.rows().await);
    crate::ledger::Verdict::of(&log, &rows, &teams, &tally).assert_good();
    ledger.assert_sound().await;
    gateway.stop();
    println!("full disk: {} requests recorded, answers: {:?}", rows.len(), tally.statuses);
}

/// Takes all the room there is.
fn fill(filler: &Path) {
    let mut file = fs::File::create(filler).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        while std::io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
    }
}
