//! `tollgate check`: what is in force and where it came from, or everything that is wrong, without starting anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

use crate::{
    config::{self, Problems, Settings, Shown, first_moment},
    domain::{
        catalog::{Catalog, Model},
        time::UnixNanos,
    },
};

/// `EX_CONFIG` of sysexits.h.
pub const CONFIGURATION_PROBLEM: u8 = 78;

const NANOS_PER_DAY: u64 = 86_400_000_000_000;
const SHUTDOWN_NOTICE_DAYS: u64 = 90;

/// Show the settings in force and warn of what will hurt, or list every problem.
#[derive(Debug, Default, clap::Args)]
pub struct CheckArgs {
    /// Write JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Default, Serialize)]
struct Report {
    settings: Vec<Shown>,
    models: usize,
    models_without_token_prices: usize,
    tiers: Vec<String>,
    warnings: Vec<String>,
    problems: Problems,
}

/// Writes the report and returns the process's exit code.
pub fn run(
    args: &CheckArgs,
    config_path: Option<&Path>,
    env: &BTreeMap<String, String>,
    now: UnixNanos,
    out: &mut impl Write,
) -> io::Result<u8> {
    let report = report(config_path, env, now);
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        report.write(out)?;
    }
    Ok(if report.problems.is_empty() { 0 } else { CONFIGURATION_PROBLEM })
}

fn report(config_path: Option<&Path>, env: &BTreeMap<String, String>, now: UnixNanos) -> Report {
    let loaded = config::load(config_path, env);
    let shown = loaded.settings.as_ref().map(Settings::shown).unwrap_or_default();
    let (settings, catalog) = match loaded.complete() {
        Ok(both) => both,
        Err(problems) => return Report { settings: shown, problems, ..Report::default() },
    };
    let mut tiers: Vec<_> = catalog.tiers().collect();
    tiers.sort_by_key(|tier| tier.order);
    Report {
        settings: shown,
        models: catalog.models().len(),
        models_without_token_prices: catalog.models().iter().filter(|model| model.prices.is_empty()).count(),
        tiers: tiers.into_iter().map(|tier| tier.name.clone()).collect(),
        warnings: [exposure(&settings), slips(&settings), shutdowns(&catalog, now)].concat(),
        problems: Problems::default(),
    }
}

impl Report {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |text: fn(&Shown) -> &str| self.settings.iter().map(|shown| text(shown).len()).max().unwrap_or(0);
        let (names, values) = (width(|shown| shown.name), width(|shown| &shown.value));
        for Shown { name, value, origin } in &self.settings {
            writeln!(out, "{name:names$}  {value:values$}  {}", origin.name())?;
        }
        if !self.problems.is_empty() {
            writeln!(out, "{}", self.problems)?;
            return writeln!(out, "{} to mend.", plural(self.problems.0.len() as u64, "problem"));
        }
        let (models, unpriced) = (plural(self.models as u64, "model"), self.models_without_token_prices);
        writeln!(out, "\n{models}, {unpriced} of them without token prices; tiers: {}.", self.tiers.join(", "))?;
        for warning in &self.warnings {
            writeln!(out, "warning: {warning}")?;
        }
        Ok(())
    }
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// What is probably not meant, and is therefore also told at every start.
pub(super) fn slips(settings: &Settings) -> Vec<String> {
    let ignored = settings.ignored_variables().iter();
    let ignored = ignored.map(|variable| format!("the environment variable {variable} is no setting and is ignored"));
    let url = &settings.upstream_url;
    let no_path = url.has_no_path().then(|| {
        format!(
            "upstream_url {url} has no path: calls go to {url}/chat/completions, and most services want /v1 before it"
        )
    });
    ignored.chain(no_path).collect()
}

/// Settings that are allowed and may still surprise.
fn exposure(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, address) in [("listen", &settings.listen), ("admin_listen", &settings.admin_listen)] {
        if !address.is_loopback() {
            warnings.push(format!(
                "{name} {address} can be reached from other machines and speaks no TLS: put a TLS proxy in front of it"
            ));
        }
    }
    if settings.listen == settings.admin_listen {
        warnings.push("listen and admin_listen are the same: whoever can call can also reach the admin API".to_owned());
    }
    if settings.upstream_key().is_none() {
        warnings.push("no upstream key: serving needs TOLLGATE_UPSTREAM_KEY or OPENAI_API_KEY".to_owned());
    }
    if settings.upstream_url.is_readable_on_the_way() {
        warnings.push(format!("upstream_url {} has no TLS: the upstream key travels readable", settings.upstream_url));
    }
    if settings.allow_unpriced {
        warnings.push(
            "allow_unpriced is on: calls to models without a price are forwarded, and what they cost is not known"
                .to_owned(),
        );
    }
    warnings
}

/// Models that the upstream has shut down or will soon, a line per date.
fn shutdowns(catalog: &Catalog, now: UnixNanos) -> Vec<String> {
    let mut past = BTreeSet::new();
    let mut soon: BTreeMap<(&str, u64), BTreeSet<&str>> = BTreeMap::new();
    for (name, date) in catalog.models().iter().flat_map(|model| dated_names(model)) {
        let Some(end) = first_moment(date) else { continue };
        let days = end.since(now).div_ceil(NANOS_PER_DAY);
        if end <= now {
            past.insert(name);
        } else if days <= SHUTDOWN_NOTICE_DAYS {
            soon.entry((date, days)).or_default().insert(name);
        }
    }
    let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
    let past = (!past.is_empty()).then(|| format!("already shut down by the upstream: {}", list(&past)));
    let soon = soon.iter().map(|((date, days), names)| {
        format!("shut down by the upstream on {date}, {} from now: {}", plural(*days, "day"), list(names))
    });
    past.into_iter().chain(soon).collect()
}

/// The model's name with its date, and each snapshot that ends on another day.
fn dated_names(model: &Model) -> impl Iterator<Item = (&str, &str)> {
    let own = model.shutdown_date.as_deref();
    let snapshots =
        model.snapshots.iter().filter_map(|snapshot| Some((&*snapshot.id, snapshot.shutdown_date.as_deref()?)));
    own.map(|date| (&*model.id, date)).into_iter().chain(snapshots.filter(move |(_, date)| Some(*date) != own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn run_at(date: &str, json: bool, pairs: &[(&str, &str)]) -> (u8, String) {
        let mut out = Vec::new();
        let no_settings = tempfile::NamedTempFile::new().unwrap();
        let code =
            run(&CheckArgs { json }, Some(no_settings.path()), &env(pairs), first_moment(date).unwrap(), &mut out)
                .unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_setting_is_shown_with_its_origin_and_secrets_only_as_set() {
        let pairs = [("TOLLGATE_UPSTREAM_KEY", "sk-very-secret"), ("TOLLGATE_LOG_LEVEL", "warn")];
        let (code, text) = run_at("2025-01-01", false, &pairs);
        assert_eq!(code, 0, "{text}");
        let words = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(words("log_level"), ["log_level", "warn", "environment"]);
        assert_eq!(words("listen"), ["listen", "127.0.0.1:8080", "default"]);
        assert_eq!(words("upstream_key"), ["upstream_key", "set", "environment"]);
        assert!(text.contains(" of them without token prices; tiers: Free, Tier 1, Tier 2,"), "{text}");
        assert!(!text.contains("very-secret") && !text.contains("warning"), "{text}");
    }

    #[test]
    fn problems_are_listed_and_the_exit_code_says_so() {
        let pairs = [("TOLLGATE_LISTEN", "x"), ("TOLLGATE_RESERVE", "y")];
        let (code, text) = run_at("2025-01-01", false, &pairs);
        assert_eq!((code, text.lines().count()), (CONFIGURATION_PROBLEM, 3));
        assert!(text.ends_with("2 problems to mend.\n"), "{text}");
        let (code, text) = run_at("2025-01-01", true, &[("TOLLGATE_MODELS_DIR", "/does/not/exist")]);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &report["problems"][0]["at"]), (CONFIGURATION_PROBLEM, &"/does/not/exist".into()));
    }

    #[test]
    fn what_may_surprise_is_a_warning() {
        let pairs = [
            ("TOLLGATE_LISTEN", "0.0.0.0:80"),
            ("TOLLGATE_ADMIN_LISTEN", "0.0.0.0:80"),
            ("TOLLGATE_UPSTREAM_URL", "http://models.internal/v1"),
            ("TOLLGATE_ALLOW_UNPRICED", "true"),
        ];
        let (code, text) = run_at("2025-01-01", true, &pairs);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, report["warnings"].as_array().unwrap().len()), (0, 6), "{text}");
        let (_, text) = run_at("2025-01-01", false, &[("TOLLGATE_UPSTREAM_URL", "http://[::1]:9/v1")]);
        assert!(!text.contains("no TLS") && !text.contains("no path"), "{text}");
        let (code, text) = run_at("2025-01-01", false, &[("TOLLGATE_UPSTREAM_URL", "https://models.internal")]);
        assert!(code == 0 && text.contains("calls go to https://models.internal/chat/completions"), "{text}");
    }

    #[test]
    fn models_about_to_be_shut_down_are_named_with_the_days_left() {
        let warnings = |date| run_at(date, false, &[]).1;
        assert!(!warnings("2026-10-21").contains("2027-01-20"));
        let near = warnings("2026-10-22");
        let line = near.lines().find(|line| line.contains("on 2027-01-20, 90 days from now")).unwrap();
        assert!(
            line.contains("gpt-4o-mini-audio-preview, ") && !line.contains("gpt-4o-mini-audio-preview-2024"),
            "{line}"
        );
        assert!(warnings("2027-01-19").contains("on 2027-01-20, 1 day from now"));
        let gone = warnings("2027-01-20");
        let line = gone.lines().find(|line| line.contains("already shut down")).unwrap();
        assert!(line.contains("gpt-4o-mini-audio-preview, "), "{line}");
    }
}
