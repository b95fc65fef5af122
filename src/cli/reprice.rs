//! `tollgate reprice`: corrects what past requests cost, by the prices of today's configuration.

use std::{fmt::Write as _, io::Write as _, path::Path, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    check::CONFIGURATION_PROBLEM,
    dates::{instant, shown},
    keys::table,
    serve::configuration,
};
use crate::{
    app::{self, Pass, Repricing},
    clock::Clock,
    domain::{
        money::{MoneyError, Total},
        reprice::Repriced,
        time::UnixNanos,
    },
    openai::report::{exact_number, line_item_words},
};

/// How often a long run says how far it is.
const REQUESTS_PER_WORD: u64 = 100_000;

/// Correct what past requests cost, by the prices of this configuration.
///
/// For each request that ended in the given time: what do the model pages that are now in force charge for it (the prices of
/// the day on which it was admitted, for the model and the service tier that served it), and what does it cost in the books?
/// Where the two differ an adjustment is added to the ledger. Entries are never changed; reports, costs and spend limits count
/// adjustments like the requests that they belong to. A model that has no price any more keeps the prices it had.
///
/// A gateway may run meanwhile. Mend its model pages and restart it first, or new requests are billed at the old prices. Requests
/// that were dropped for their age (`retention_days`) cannot be corrected: it says so, and fails when it finds no others. It
/// fails too when the ledger has not taken over from the journal what ended in that time. A run that finds nothing to correct writes nothing, so a run
/// that was ended in the middle is simply started again.
#[derive(Debug, Args)]
pub struct RepriceArgs {
    /// Requests that ended at this time or later: a date (its start in UTC) or a time, such as 2026-09-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: UnixNanos,
    /// ... and before this time
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: UnixNanos,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Kept with each adjustment and in the audit log
    #[arg(long, value_name = "TEXT", default_value = "reprice", value_parser = reason)]
    reason: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    settled_from: String,
    settled_before: String,
    dry_run: bool,
    requests: u64,
    corrected: u64,
    lines: Vec<Line<'a>>,
    #[serde(serialize_with = "exact_number")]
    difference: Total,
    without_price: Vec<WithoutPrice<'a>>,
    /// Requests of before then may be gone, and were not looked at.
    dropped_before: Option<String>,
}

/// What the corrected requests used of one line item; amounts are exact dollars.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    line_item: &'static str,
    quantity: u64,
    #[serde(serialize_with = "exact_number")]
    before: Total,
    #[serde(serialize_with = "exact_number")]
    after: Total,
    #[serde(serialize_with = "exact_number")]
    difference: Total,
}

#[derive(Serialize)]
struct WithoutPrice<'a> {
    model: &'a str,
    requests: u64,
}

fn reason(text: &str) -> Result<String, String> {
    match text.chars().count() {
        1..=200 if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err("a reason has from 1 to 200 characters, on one line".to_owned()),
    }
}

pub async fn run(args: RepriceArgs, config_path: Option<&Path>) -> ExitCode {
    let Some((settings, catalog)) = configuration(config_path) else { return ExitCode::from(CONFIGURATION_PROBLEM) };
    if args.from >= args.to {
        eprintln!("tollgate: --to must be later than --from");
        return ExitCode::FAILURE;
    }
    let repricing = Repricing { from: args.from, to: args.to, reason: args.reason.clone(), dry_run: args.dry_run };
    let mut said = (Pass::Finding, 0);
    let progress = |pass: Pass, requests: u64| {
        let steps = requests / REQUESTS_PER_WORD;
        if steps > 0 && said != (pass, steps) {
            said = (pass, steps);
            let doing = if pass == Pass::Finding { "looking" } else { "adjusting" };
            eprintln!("{doing}: {requests} requests");
        }
    };
    let repriced = app::reprice(&settings, &catalog, &repricing, Clock::system().now(), progress).await;
    let answer = repriced.map_err(|error| error.to_string());
    match answer.and_then(|repriced| Ok((args.answer(&repriced)?, repriced))) {
        Ok((answer, repriced)) => {
            // Whoever closed the pipe still gets the exit code.
            std::io::stdout().write_all(answer.as_bytes()).ok();
            if let Some(horizon) = repriced.dropped_before.map(shown) {
                eprintln!(
                    "Requests that were settled before {horizon} may be missing, and stay as they are: they are not kept longer \
                     (retention_days)."
                );
            }
            if repriced.is_too_late() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("tollgate: {error}");
            ExitCode::FAILURE
        }
    }
}

impl RepriceArgs {
    fn answer(&self, repriced: &Repriced) -> Result<String, String> {
        let lines = lines(repriced).map_err(|error| error.to_string())?;
        if !self.json {
            return Ok(self.text(repriced, &lines));
        }
        let without_price = repriced.without_price.iter();
        let answer = Answer {
            settled_from: shown(self.from),
            settled_before: shown(self.to),
            dry_run: self.dry_run,
            requests: repriced.requests,
            corrected: repriced.corrected,
            lines,
            difference: repriced.difference,
            without_price: without_price.map(|(model, requests)| WithoutPrice { model, requests: *requests }).collect(),
            dropped_before: repriced.dropped_before.map(shown),
        };
        serde_json::to_string_pretty(&answer).map(|text| text + "\n").map_err(|error| error.to_string())
    }

    fn text(&self, repriced: &Repriced, lines: &[Line<'_>]) -> String {
        let mut text = String::new();
        let requests = count(repriced.requests);
        if repriced.corrected == 0 {
            let right =
                if repriced.dropped_before.is_none() { ": the books are right" } else { ", none of them to correct" };
            writeln!(text, "{requests} looked at{right}, nothing was written.").ok();
        } else {
            let mut rows = vec![["MODEL", "LINE ITEM", "QUANTITY", "BEFORE", "AFTER", "DIFFERENCE"].map(str::to_owned)];
            rows.extend(lines.iter().map(|line| {
                let [before, after, difference] = [line.before, line.after, line.difference].map(dollars);
                [line.model.to_owned(), line.line_item.to_owned(), line.quantity.to_string(), before, after, difference]
            }));
            let total = ["TOTAL", "", "", "", ""].map(str::to_owned);
            let [model, item, quantity, before, after] = total;
            rows.push([model, item, quantity, before, after, dollars(repriced.difference)]);
            text.push_str(&table(&rows));
            let what = if self.dry_run { "would be adjusted; nothing was written" } else { "adjusted" };
            writeln!(text, "\n{requests} looked at, {} of them {what}.", repriced.corrected).ok();
        }
        for (model, requests) in &repriced.without_price {
            let requests = count(*requests);
            writeln!(text, "{requests} of {model}: something has no price in this configuration and stays as it is.")
                .ok();
        }
        text
    }
}

fn lines(repriced: &Repriced) -> Result<Vec<Line<'_>>, MoneyError> {
    let lines = repriced.lines.iter().map(|((model, item), sum)| {
        let (before, after, difference) = (sum.before, sum.after, sum.difference()?);
        let line_item = line_item_words(*item);
        Ok(Line { model, line_item, quantity: sum.quantity, before, after, difference })
    });
    lines.collect()
}

fn count(requests: u64) -> String {
    format!("{requests} request{}", if requests == 1 { "" } else { "s" })
}

/// `$0.0002469`, with all digits.
fn dollars(amount: Total) -> String {
    let digits = amount.to_string();
    digits.strip_prefix('-').map_or_else(|| format!("${digits}"), |digits| format!("-${digits}"))
}
