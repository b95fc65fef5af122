//! How many connections may be open, by the settings and by what the system has room for.

use std::fs;

use crate::config::{Origin, Settings};

/// Open files that are no connections: the ledger and its readers, the journal, standard streams, timers.
const OTHER_FILES: usize = 96;
/// Connections that callers cannot take from administrators.
const ADMINISTRATORS: usize = 256;
/// A gateway for fewer callers at one time is hardly meant.
const FEW_CALLS: usize = 100;
/// A call that is under way has one connection to its client and one to the upstream.
const FILES_PER_CALL: usize = 2;

/// Of each listener: callers who take all of theirs do not lock out the administrators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) calls: usize,
    pub(super) administration: usize,
}

impl Places {
    /// A gateway that accepts until no file can be opened answers nobody: its own journal and upstream need files too.
    pub(super) fn count_out(settings: &Settings) -> Self {
        let most = settings.max_connections;
        let Some(open_files) = open_files() else { return Self { calls: most, administration: most } };
        let places = Self::within(open_files, most, settings.drain_max_requests);
        if places.calls < most {
            let calls = places.calls;
            let hint = "raise the limit on open files (ulimit -n) to hold more connections at one time";
            if settings.origin("max_connections") == Origin::Default && calls >= FEW_CALLS {
                tracing::info!(open_files, calls, "{hint}");
            } else {
                tracing::warn!(open_files, calls, max_connections = most, "{hint}");
            }
        }
        places
    }

    fn within(open_files: usize, most: usize, drains: usize) -> Self {
        let administration = ADMINISTRATORS.min(open_files / 8).min(most).max(1);
        // Mostly the connections that callers had before they left.
        let drains = drains.min(open_files / 4);
        let rest = open_files.saturating_sub(OTHER_FILES).saturating_sub(drains).saturating_sub(administration);
        Self { calls: (rest / FILES_PER_CALL).min(most).max(1), administration }
    }
}

/// As far as this system tells.
fn open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_at_the_worst_is_within_the_limit_on_open_files() {
        for open_files in [256, 1_024, 4_096, 20_000, 1_000_000] {
            let places = Places::within(open_files, 10_000, 64);
            let at_the_worst = places.calls * FILES_PER_CALL + places.administration + OTHER_FILES + 64;
            assert!(at_the_worst <= open_files, "{open_files}: {places:?}");
            assert!(
                places.calls >= 10_000.min(open_files / 8) && places.administration >= 32,
                "{open_files}: {places:?}"
            );
        }
        assert_eq!(Places::within(1_000_000, 10_000, 64), Places { calls: 10_000, administration: 256 });
        assert_eq!(Places::within(20_000, 2, 64), Places { calls: 2, administration: 2 });
        assert!(Places::within(1_024, 10_000, 1_000).calls > 100, "answers that are read on leave room for calls");
        assert_eq!(Places::within(10, 10_000, 64), Places { calls: 1, administration: 1 });
    }
}
