//! What a person reads of a replay: who was refused, and a picture of when.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{SimulateLimitsArgs, answer::whole_ms};
use crate::{
    app::Replayed,
    cli::{
        dates::shown,
        explain::{columns, printable},
    },
    domain::{
        figures::grouped,
        limits::Scope,
        time::UnixNanos,
        what_if::{FoundKey, Hit, RefusedBy, Timeline},
    },
    openai::headers::go_duration,
};

/// Of the longest bar, in characters.
const BAR_WIDTH: u64 = 40;
/// Rows of the table; JSON has all.
const MAX_ROWS: usize = 100;

pub(super) fn screen(args: &SimulateLimitsArgs, replayed: &Replayed) -> String {
    let found = &replayed.found;
    let against = match (&args.tier, &args.limits) {
        (_, Some(path)) => format!("the limits of {}", path.display()),
        (tier, None) => format!("the limits of the tier {}", tier.as_deref().unwrap_or_default()),
    };
    let mut text = format!(
        "{}, admitted from {} on and before {}, replayed against {against}:\n",
        counted(found.requests, "request"),
        shown(args.from),
        shown(args.to)
    );
    if found.refused == 0 {
        text.push_str("nobody would have been refused.\n");
    } else {
        let (refused, share) = (grouped(found.refused), share(found.refused, found.requests));
        let (some, all) = (found.refused_keys(), counted(found.all_keys() as u64, "key"));
        writeln!(text, "{refused} of them ({share}) would have been refused, on {some} of {all}.\n").ok();
        text.push_str(&table(replayed));
        text.push_str(&picture(&found.timeline));
    }
    text.push_str(
        "\nWhat was refused at the time is not in the ledger, and nobody tries again what is refused here.\n",
    );
    printable(&text)
}

/// The most refused first.
fn table(replayed: &Replayed) -> String {
    let mut found: Vec<_> = replayed
        .found
        .keys
        .iter()
        .flat_map(|((key, group), found)| found.hits.iter().map(move |hit| (key, group, found, hit)))
        .collect();
    found.sort_by_key(|(_, _, _, hit)| std::cmp::Reverse(hit.refused));
    let head =
        ["KEY ", "NAME ", "PROJECT ", "MODELS ", "LIMIT ", "REFUSED ", "SHARE ", "LONGEST WAIT ", "FIRST ", "LAST"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(found.iter().take(MAX_ROWS).map(|(key, group, found, hit)| {
        let names = replayed.names.get(*key);
        let (name, project) = names.map_or(("", ""), |names| (names.key.as_str(), names.project.as_str()));
        let FoundKey { requests, .. } = found;
        let [first, last] = [hit.first, hit.last].map(moment);
        let refused = format!("{} of {}", grouped(hit.refused), grouped(*requests));
        let (limit, share, wait) = (limit(hit), share(hit.refused, *requests), wait(hit));
        let cells: [&str; 9] = [key.as_str(), name, project, group, &limit, &refused, &share, &wait, &first];
        let [key, name, project, group, limit, refused, share, wait, first] = cells.map(|cell| format!("{cell} "));
        [key, name, project, group, limit, refused, share, wait, first, last]
    }));
    let right = [false, false, false, false, false, true, true, true, false, false];
    let mut text = columns(&rows, right);
    if found.len() > MAX_ROWS {
        writeln!(text, "... and {} more rows: --json has them all.", grouped((found.len() - MAX_ROWS) as u64)).ok();
    }
    text
}

/// `3 requests per minute`, and whose it is if not the project's.
fn limit(hit: &Hit) -> String {
    match hit.by {
        RefusedBy::Model => "model not in the tier".to_owned(),
        RefusedBy::Limit { scope, dimension, limit } => {
            let whose = if scope == Scope::Key { " of its own" } else { "" };
            format!("{} {}{whose}", grouped(limit), dimension.name().replace('_', " "))
        }
    }
}

fn wait(hit: &Hit) -> String {
    if hit.by == RefusedBy::Model {
        return "-".to_owned();
    }
    if hit.too_large == hit.refused {
        return "too large".to_owned();
    }
    // Nobody knows how long what is under way takes.
    let Some(nanos) = hit.longest_wait_nanos else { return "unknown".to_owned() };
    let wait = go_duration(UnixNanos::from_millis(whole_ms(nanos)).0);
    if hit.too_large == 0 { wait } else { format!("{wait}, {} too large", grouped(hit.too_large)) }
}

/// A bar for each stretch of time, as long as it had requests, and dark as far as they were refused.
fn picture(timeline: &Timeline) -> String {
    let stretch = match timeline.width_s {
        60 => "minute",
        3_600 => "hour",
        86_400 => "day",
        604_800 => "week",
        _ => "some weeks",
    };
    let most = timeline.busy().map(|(_, slot)| slot.requests).max().unwrap_or(0).max(1);
    let mut rows = vec![[String::new(), String::new(), "REFUSED ".to_owned(), "REQUESTS".to_owned()]];
    rows.extend(timeline.busy().map(|(start_s, slot)| {
        // Whoever is refused is seen, however many were not.
        let dark = scaled(slot.refused, most);
        let light = scaled(slot.requests, most).saturating_sub(dark);
        let bar = "█".repeat(dark) + &"░".repeat(light);
        [
            format!("{} ", start(start_s, timeline.width_s)),
            format!("{bar} "),
            format!("{} ", grouped(slot.refused)),
            grouped(slot.requests),
        ]
    }));
    let bars = columns(&rows, [false, false, true, true]);
    format!("\nBy the {stretch} (UTC): █ refused, ░ admitted\n{bars}")
}

fn scaled(count: u64, most: u64) -> usize {
    let length = u128::from(count) * u128::from(BAR_WIDTH) / u128::from(most);
    usize::try_from(length).unwrap_or(0).max(usize::from(count > 0))
}

/// `14.9%`, rounded down: it is 100% only when nobody passed.
fn share(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1_000 / u128::from(whole.max(1));
    if tenths == 0 { "<0.1%".to_owned() } else { format!("{}.{}%", tenths / 10, tenths % 10) }
}

fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn moment(time: UnixNanos) -> String {
    formatted(time.seconds(), "%Y-%m-%d %H:%M:%S")
}

fn start(seconds: u64, width_s: u64) -> String {
    formatted(seconds, if width_s < 86_400 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d" })
}

fn formatted(seconds: u64, format: &str) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| seconds.to_string(), |time| time.strftime(format).to_string())
}
