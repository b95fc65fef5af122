//! Errors of the disk while the gateway runs: what cannot be recorded is refused, what is under way is settled when the disk is
//! back, and everybody who looks is told why.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    client::get,
    ledger::{Ledger, Verdict, read_log},
    load::{Load, Tally, teams},
    process::{Gateway, LookAlike, Setup, log_of},
    storage::{first_refusal, refuses_and_says_so, reported_requests},
    survival::text,
};

/// As Linux numbers them.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// A disk that fails as it is told, for the gateways that are started with it.
struct FailingDisk {
    library: PathBuf,
    told: PathBuf,
}

impl FailingDisk {
    fn build(dir: &Path) -> Self {
        let (library, told) = (dir.join("failing_disk.so"), dir.join("disk-fault"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/failing_disk.c");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        assert!(built.is_ok_and(|status| status.success()), "a C compiler is needed, as for the program itself");
        Self { library, told }
    }

    fn under(&self, setup: Setup) -> Setup {
        let preload = format!("LD_PRELOAD={}", self.library.display());
        setup.started_by(&["env", &preload, &format!("DISK_FAULT={}", self.told.display())])
    }

    /// In one step, so that no half of an order is read.
    fn fail(&self, call: &str, part: &str, error: i32, times: u32) {
        let new = self.told.with_extension("new");
        fs::write(&new, format!("{call} {part} {error} {times}")).unwrap();
        fs::rename(new, &self.told).unwrap();
    }

    fn recover(&self) {
        fs::remove_file(&self.told).unwrap();
    }
}

/// What `/health` and `/metrics` say of `part`.
async fn trouble(gateway: &Gateway, part: &str) -> (u16, serde_json::Value, Option<String>) {
    let health = get(gateway.admin, "/health", "").await.unwrap();
    let page = get(gateway.admin, "/metrics", "").await.unwrap().text();
    let line = format!("tollgate_storage_failing{{part=\"{part}\",cause=\"");
    let cause = page.lines().find_map(|found| found.strip_prefix(&line)?.strip_suffix("\"} 1").map(str::to_owned));
    (health.status, health.json()[part].clone(), cause)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_cannot_be_written_refuses_new_requests_says_why_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--chunks", "4", "--chunk-gap-ms", "5"]);
    let disk = FailingDisk::build(dir.path());
    let setup = disk.under(Setup::new(dir.path(), &upstream));
    let mut gateway = setup.start();
    let (teams, mut tally) = (teams(&gateway).await, Tally::default());
    let mut slowest = Duration::ZERO;
    for (error, cause) in [(EIO, "disk_error"), (EROFS, "read_only"), (ENOSPC, "no_space")] {
        let load = Load::start(gateway.calls, &teams, 16);
        tokio::time::sleep(Duration::from_millis(200)).await;
        disk.fail("write", "/journal/", error, 0);
        let failed = Instant::now();
        let refused = first_refusal(&gateway, &teams[0].key).await;
        assert!(failed.elapsed() < Duration::from_secs(5), "refused after {:?}", failed.elapsed());
        assert_eq!(refused["error"]["code"], "storage_unavailable", "{refused}");
        tally.add(load.end().await);
        refuses_and_says_so(&gateway, &teams[0].key, dir.path()).await;
        assert_eq!(trouble(&gateway, "journal").await, (503, json!(cause), Some(cause.to_owned())));
        disk.recover();
        let mended = Instant::now();
        gateway.healthy().await;
        slowest = slowest.max(mended.elapsed());
        assert_eq!(trouble(&gateway, "journal").await, (200, json!(null), None));
        assert_eq!(gateway.chat(&teams[0].key, &text()).await.status, 200);
    }
    gateway.caught_up().await;
    gateway.stop();
    let ledger = Ledger::open(&setup.ledger()).await;
    let (log, rows) = (read_log(&log_of(dir.path())), ledger.rows().await);
    println!(
        "disk errors: {} requests recorded, answers: {:?}, well again after {} ms at most",
        rows.len(),
        tally.statuses,
        slowest.as_millis()
    );
    Verdict::of(&log, &rows, &teams, &tally).assert_good();
    ledger.assert_sound().await;
    assert!(slowest < Duration::from_secs(5), "well again after {slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_failed_once_is_never_taken_for_done() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let disk = FailingDisk::build(dir.path());
    let setup = disk.under(Setup::new(dir.path(), &upstream)).with("DURABILITY", "power");
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    assert_eq!(gateway.chat(&teams[0].key, &text()).await.status, 200);
    let segments = || fs::read_dir(setup.ledger().with_file_name("journal")).unwrap().count();
    let before = segments();
    let sent = read_log(&log_of(dir.path())).len();
    disk.fail("fdatasync", "/journal/", EIO, 1);
    let refused = gateway.chat(&teams[0].key, &text()).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("storage_unavailable")));
    assert_eq!(read_log(&log_of(dir.path())).len(), sent, "what the disk has not confirmed was sent");
    gateway.healthy().await;
    assert_eq!(gateway.chat(&teams[0].key, &text()).await.status, 200);
    assert!(segments() > before, "what follows goes to a file whose syncs did not fail");
    gateway.caught_up().await;
    gateway.stop();
    let ledger = Ledger::open(&setup.ledger()).await;
    ledger.assert_sound().await;
    assert_eq!(ledger.rows().await.len(), 3, "the refused one too, for nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_cannot_be_written_delays_reports_alone_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let disk = FailingDisk::build(dir.path());
    let setup = disk.under(Setup::new(dir.path(), &upstream));
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    gateway.caught_up().await;
    for (round, (error, cause)) in [(EIO, "disk_error"), (ENOSPC, "no_space")].into_iter().enumerate() {
        let answered = 10 * round as u64;
        disk.fail("pwrite64", "tollgate.db", error, 0);
        for _ in 0..10 {
            assert_eq!(gateway.chat(&teams[0].key, &text()).await.status, 200);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while trouble(&gateway, "ledger").await != (200, json!(cause), Some(cause.to_owned())) {
            let found = trouble(&gateway, "ledger").await;
            assert!(Instant::now() < deadline, "nobody is told that the ledger fails: {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(reported_requests(&gateway).await, answered, "reports answer with what they have");
        disk.recover();
        let mended = Instant::now();
        gateway.caught_up().await;
        assert!(mended.elapsed() < Duration::from_secs(10), "caught up after {:?}", mended.elapsed());
        assert_eq!(reported_requests(&gateway).await, answered + 10);
        assert_eq!(trouble(&gateway, "ledger").await, (200, json!(null), None));
    }
    gateway.stop();
    Ledger::open(&setup.ledger()).await.assert_sound().await;
}
