//! What a process costs, as the system counts it.

use std::{
    fs,
    time::{Duration, Instant},
};

/// Memory that is really there, in KiB.
pub fn resident_kib(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Processor time so far, in milliseconds: the clock ticks of this counter are hundredths of a second on Linux.
pub fn processor_ms(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name before it may hold anything.
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks * 10
}

/// The number that the next file it opens gets: a limit of this many leaves it none.
pub fn first_free_file(process: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let open: Vec<usize> = open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    (0..100_000).find(|number| !open.contains(number)).unwrap()
}

/// A number from the environment, for the long forms.
pub fn number(variable: &str, otherwise: usize) -> usize {
    tollgate::config::environment().get(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// Waits until it is so.
pub async fn until(what: &str, patience: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
