//! A long mixed load with stops and kills in it: what it leaves in memory, in open files and in the books.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    client::{get, post},
    kill::number,
    ledger::{Ledger, Verdict, read_log},
    load::{Load, Tally, teams},
    measure::{resident_kib, until},
    process::{ADMIN_KEY, Gateway, Key, LookAlike, Setup, log_of},
    survival::text,
};

const IN_FLIGHT: u64 = 32;
const PATIENCE: Duration = Duration::from_secs(30);
/// Minutes of a process that do not count for its growth.
const WARM_UP: usize = 3;
/// An hour: what a slow leak of one allocation for each request would be far above.
const GROWTH_KIB: i64 = 64 * 1024;
/// Files that stay open for a while after a load: connections to the upstream, one for each client, and to the ledger.
const FILES_KEPT: usize = 64;

fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

async fn metric(gateway: &Gateway, name: &str) -> i64 {
    let page = get(gateway.admin, "/metrics", "").await.unwrap().text();
    let start = format!("tollgate_{name} ");
    let line = page.lines().find_map(|line| line.strip_prefix(start.as_str()));
    line.unwrap_or_else(|| panic!("no metric {name}:\n{page}")).parse().unwrap()
}

/// What an administrator and two unwelcome callers do meanwhile: a report, a key that is unknown, and a limit that is reached.
async fn others(gateway: &Gateway, narrow: &Key) {
    let path = "/v1/organization/usage/completions?start_time=1";
    assert_eq!(get(gateway.admin, path, ADMIN_KEY).await.unwrap().status, 200);
    let body = text().to_string();
    let unknown = post(gateway.calls, "/v1/chat/completions", "sk-unknown", &body).await.unwrap();
    assert_eq!(unknown.status, 401);
    assert_eq!(post(gateway.calls, "/v1/chat/completions", &narrow.plain, &body).await.unwrap().status, 429);
}

/// KiB an hour since the warm-up of a process that was looked at each minute, if it ran long enough to tell.
fn growth(looks: &[u64]) -> Option<i64> {
    let looks = looks.get(WARM_UP..).filter(|looks| looks.len() > WARM_UP)?;
    let (first, last) = (looks.first()?.cast_signed(), looks.last()?.cast_signed());
    Some((last - first) * 60 / i64::try_from(looks.len() - 1).unwrap())
}

/// Nothing is open, and the files are those of a gateway at rest.
async fn assert_at_rest(gateway: &Gateway, base: usize) {
    gateway.caught_up().await;
    assert_eq!(metric(gateway, "open_admissions").await, 0);
    let files = || open_files(gateway.process_id());
    until("files are closed", PATIENCE, async || files() <= base + FILES_KEPT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_mixed_load_leaves_nothing_behind() {
    let minutes = number(&tollgate::config::environment(), "TOLLGATE_SOAK_MINUTES", 0);
    // The short form: three rounds of a second, so that each kind of end comes once.
    let (rounds, round) = if minutes == 0 { (3, Duration::from_secs(1)) } else { (minutes, Duration::from_mins(1)) };
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--chunks", "8", "--chunk-gap-ms", "2", "--delay-ms", "5"]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    // It has no request to spend, so that none of its calls gets into the books.
    let narrow = gateway.new_key(&json!({"tokens_per_minute": 1})).await;
    let mut base = open_files(gateway.process_id());
    let (mut tally, mut memory) = (Tally::default(), Vec::new());
    for number in 1..=rounds {
        let began = Instant::now();
        let load = Load::start(gateway.calls, &teams, IN_FLIGHT);
        while began.elapsed() < round {
            others(&gateway, &narrow).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let end = if number % 20 == 2 { "killed" } else { "goes on" };
        if end == "killed" {
            gateway.kill();
        }
        tally.add(load.end().await);
        if end == "killed" {
            gateway = setup.start();
            gateway.healthy().await;
            base = open_files(gateway.process_id());
            memory.clear();
        }
        assert_at_rest(&gateway, base).await;
        let ledger = Ledger::open(&setup.ledger()).await;
        ledger.assert_intact().await;
        let resident = resident_kib(gateway.process_id());
        memory.push(resident);
        let files = open_files(gateway.process_id());
        println!(
            "soak: round {number} of {rounds}: {} answers, {} entries, {resident} KiB, {files} files (base {base}), KiB an hour: {:?}, {end}",
            tally.finished.len(),
            ledger.count().await,
            growth(&memory)
        );
        assert!(growth(&memory).is_none_or(|kib| kib < GROWTH_KIB), "memory grows: {memory:?}");
        if number % 20 == 4 || number == rounds {
            gateway.stop();
            gateway = setup.start();
            base = open_files(gateway.process_id());
            memory.clear();
        }
    }
    gateway.stop();

    let ledger = Ledger::open(&setup.ledger()).await;
    let (log, rows) = (read_log(&log_of(dir.path())), ledger.rows().await);
    let verdict = Verdict::of(&log, &rows, &teams, &tally);
    println!("soak: {verdict}, answers: {:?}, hung up: {}, cut: {}", tally.statuses, tally.hung_up, tally.cut);
    verdict.assert_good();
    ledger.assert_sound().await;
    setup.assert_quiet_log();
    assert!(tally.finished.len() > 20, "nothing was tested");
}
