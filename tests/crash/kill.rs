//! Nothing that reached the upstream is missing from the ledger, killed at any moment, as often as may be.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    ledger::{Ledger, Verdict, read_log},
    load::{Dice, Load, Tally, teams},
    process::{LookAlike, Setup, log_of},
};

/// A number that the environment can raise.
pub fn number(environment: &BTreeMap<String, String>, name: &str, default: u64) -> u64 {
    environment.get(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_after_kill_9() {
    let environment = tollgate::config::environment();
    let cycles = number(&environment, "TOLLGATE_KILL_CYCLES", 20);
    let in_flight = number(&environment, "TOLLGATE_KILL_IN_FLIGHT", 64);
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--chunks", "8", "--chunk-gap-ms", "2", "--delay-ms", "5"]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let (teams, mut dice) = (teams(&gateway).await, Dice::new());
    let mut tally = Tally::default();
    // Until it says that it listens, and until a health request has got through the clients that all come back at once.
    let (mut slowest_to_listen, mut slowest_start) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..cycles {
        let load = Load::start(gateway.calls, &teams, in_flight);
        tokio::time::sleep(Duration::from_millis(50 + dice.roll(550))).await;
        gateway.kill();
        let started = Instant::now();
        gateway = setup.start();
        slowest_to_listen = slowest_to_listen.max(started.elapsed());
        gateway.healthy().await;
        slowest_start = slowest_start.max(started.elapsed());
        Ledger::open(&setup.ledger()).await.assert_intact().await;
        tally.add(load.end().await);
    }
    gateway.stop();

    let ledger = Ledger::open(&setup.ledger()).await;
    let (log, rows) = (read_log(&log_of(dir.path())), ledger.rows().await);
    let verdict = Verdict::of(&log, &rows, &teams, &tally);
    println!(
        "kill -9: cycles: {cycles}, in flight: {in_flight}, {verdict}, answers: {:?}, cut: {}, hung up: {}, restart to \
         listening: {} ms at most, to ready: {} ms at most",
        tally.statuses,
        tally.cut,
        tally.hung_up,
        slowest_to_listen.as_millis(),
        slowest_start.as_millis()
    );
    verdict.assert_good();
    ledger.assert_sound().await;
    setup.assert_quiet_log();
    assert!(verdict.interrupted > 0, "no request was under way when the gateway was killed: nothing was tested");
    assert!(tally.statuses.keys().all(|status| *status == 200 || *status == 429), "{:?}", tally.statuses);
}
