//! `tollgate reconcile`: the ledger beside a provider's own usage and costs.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use reqwest::StatusCode;

use super::{
    admin_api::{AdminApi, CliError, set},
    dates::instant,
    serve::configuration,
};
use crate::{
    api::reports,
    app::{Ledger, LedgerError, open_ledger},
    config::{self, Settings},
    domain::{
        catalog::Catalog,
        reconcile::{Books, Comparison, Overflow, Tolerance},
        report::Kind,
        time::UnixNanos,
    },
    openai::report::{UnreadableReport, read_costs, read_usage},
};

mod answer;

const KEY_VARIABLE: &str = "TOLLGATE_RECONCILE_KEY";
const KEY_FILE_VARIABLE: &str = "TOLLGATE_RECONCILE_KEY_FILE";
const DAY_S: u64 = 86_400;
const MAX_DAYS: u64 = 366;
/// A provider that hands out cursors for ever is not followed for ever.
const MAX_PAGES: usize = 1_000;
/// How often a page is asked for again that the provider has no time for, and how long that may take each time.
const MAX_RETRIES: u32 = 4;
const MAX_WAIT: Duration = Duration::from_mins(1);
/// The two books could not be compared.
const NOT_COMPARED: u8 = 2;

/// Compare the ledger with a provider's own usage and costs; exit 1 where they differ.
///
/// Tokens of each kind, requests and dollars are compared for each day (UTC), model and line item. The ledger is read from the data
/// directory, whether or not a gateway runs on it; the provider is asked over its organization API
/// (/v1/organization/usage/completions and /v1/organization/costs), OpenAI's or any that answers alike. A provider may need
/// some hours until its figures for a day are complete.
///
/// The provider's admin key is read from the variable `TOLLGATE_RECONCILE_KEY`, or from a file.
///
/// Exit codes: 0 when the books agree within the tolerance, 1 when they do not, 2 when they could not be compared.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// The first day: 2026-09-01
    #[arg(long, value_name = "DAY", value_parser = day)]
    from: UnixNanos,
    /// The day after the last: 2026-10-01
    #[arg(long, value_name = "DAY", value_parser = day)]
    to: UnixNanos,
    /// The provider's address, such as `https://api.openai.com/v1`
    #[arg(long, value_name = "URL")]
    base_url: String,
    /// A file that holds the provider's admin key, also `TOLLGATE_RECONCILE_KEY_FILE`
    #[arg(long, value_name = "FILE")]
    admin_key_file: Option<PathBuf>,
    /// Only these of the provider's projects: for an account that has traffic of others too
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    project_ids: Vec<String>,
    /// Differences up to this are none: a share of the larger figure (0.5%), or an amount of money ($0.01), which forgives no
    /// tokens. Given twice, either is enough; without it every digit counts
    #[arg(long, value_name = "LIMIT", value_parser = Tolerance::parse)]
    tolerance: Vec<Tolerance>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

fn day(text: &str) -> Result<UnixNanos, String> {
    let time = instant(text)?;
    let is_midnight = time == UnixNanos::from_seconds(time.seconds()) && time.seconds().is_multiple_of(DAY_S);
    if is_midnight {
        Ok(time)
    } else {
        Err("whole days (UTC) are compared: give a date, such as 2026-09-01".to_owned())
    }
}

#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("--to must be later than --from, by at most {MAX_DAYS} days")]
    Range,
    #[error("no key for the provider: set {KEY_VARIABLE}, or name a file that holds it with --admin-key-file")]
    NoKey,
    #[error("cannot read the provider's key from {}: {}", .0.display(), .1)]
    KeyFile(PathBuf, #[source] std::io::Error),
    #[error("the provider's key from {0} has characters that no key has: is it the right one?")]
    UnusableKey(String),
    #[error("the provider refused the key from {0}: it must be an admin key that may read usage and costs")]
    WrongKey(String),
    #[error("cannot reach the provider at {0} ({1}): is --base-url right?")]
    Unreachable(String, String),
    #[error("--base-url: {0:?} is no address of a provider: give it as https://host/v1")]
    BadUrl(String),
    #[error("{url} gave an answer that is not a provider's ({detail}): is --base-url right?")]
    NotAProvider { url: String, detail: String },
    #[error("{url} answered {message:?}: is --base-url right?")]
    WrongAddress { url: String, message: String },
    #[error("the provider answered {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("the provider: {0}")]
    Provider(CliError),
    #[error("the {0}'s report cannot be read: {1}")]
    Unreadable(&'static str, #[source] UnreadableReport),
    #[error("the {0}'s report has more than {MAX_PAGES} pages")]
    Endless(&'static str),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the ledger cannot be read: {0}")]
    Report(String),
    #[error(transparent)]
    Overflow(#[from] Overflow),
}

impl From<CliError> for ReconcileError {
    /// What is said of a gateway, in the words for a provider.
    fn from(error: CliError) -> Self {
        match error {
            CliError::WrongAdminKey(source) => Self::WrongKey(source),
            CliError::Unreachable(url, cause) => Self::Unreachable(url, cause),
            CliError::BadUrl(url) => Self::BadUrl(url),
            CliError::UnusableAdminKey(source) => Self::UnusableKey(source),
            CliError::NotAGateway { url, detail } => Self::NotAProvider { url, detail },
            CliError::WrongAddress { url, message } => Self::WrongAddress { url, message },
            CliError::Refused { status, message, .. } => Self::Refused { status, message },
            other => Self::Provider(other),
        }
    }
}

/// Where pages of a report come from.
enum Side<'a> {
    Ledger { store: Ledger, catalog: &'a Catalog, end: UnixNanos },
    Provider(AdminApi),
}

pub async fn run(args: ReconcileArgs, config_path: Option<&Path>) -> ExitCode {
    let Some((settings, catalog)) = configuration(config_path) else { return ExitCode::from(NOT_COMPARED) };
    match args.compare(&settings, &catalog, &config::environment()).await {
        Ok(comparison) => {
            let agrees = comparison.agrees();
            let text = if args.json { answer::json(&args, &comparison) } else { answer::text(&comparison) };
            // Whoever closed the pipe still gets the exit code.
            std::io::stdout().write_all(text.as_bytes()).ok();
            if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("tollgate: {error}");
            ExitCode::from(NOT_COMPARED)
        }
    }
}

impl ReconcileArgs {
    async fn compare(
        &self,
        settings: &Settings,
        catalog: &Catalog,
        env: &BTreeMap<String, String>,
    ) -> Result<Comparison, ReconcileError> {
        let days = self.to.seconds().saturating_sub(self.from.seconds()) / DAY_S;
        if !(1..=MAX_DAYS).contains(&days) {
            return Err(ReconcileError::Range);
        }
        let (key, source) = self.key(env)?;
        let provider = Side::Provider(AdminApi::at(&self.base_url, &key, source)?);
        let ledger = Side::Ledger { store: open_ledger(settings).await?, catalog, end: self.to };
        let ours = ledger.books(self.queries(&[])).await?;
        let theirs = provider.books(self.queries(&self.project_ids)).await?;
        Ok(ours.compare(&theirs, &self.tolerance)?)
    }

    /// The provider's key and where it came from; a file goes before the variable.
    fn key(&self, env: &BTreeMap<String, String>) -> Result<(String, String), ReconcileError> {
        let file = self.admin_key_file.clone().or_else(|| set(env, KEY_FILE_VARIABLE).map(PathBuf::from));
        let (text, source) = match file {
            Some(path) => {
                let text =
                    std::fs::read_to_string(&path).map_err(|error| ReconcileError::KeyFile(path.clone(), error))?;
                (text, path.display().to_string())
            }
            None => (set(env, KEY_VARIABLE).ok_or(ReconcileError::NoKey)?, KEY_VARIABLE.to_owned()),
        };
        let key = text.trim();
        if key.is_empty() { Err(ReconcileError::NoKey) } else { Ok((key.to_owned(), source)) }
    }

    /// Of usage and of costs.
    fn queries(&self, project_ids: &[String]) -> [(Kind, String); 2] {
        let (from_s, to_s) = (self.from.seconds(), self.to.seconds());
        let query = |group: &str, limit: &str| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("start_time", &from_s.to_string()).append_pair("end_time", &to_s.to_string());
            query.append_pair("bucket_width", "1d").append_pair("group_by", group).append_pair("limit", limit);
            query.extend_pairs(project_ids.iter().map(|id| ("project_ids", id)));
            query.finish()
        };
        [(Kind::Completions, query("model", "31")), (Kind::Costs, query("line_item", "180"))]
    }
}

impl Side<'_> {
    const fn name(&self) -> &'static str {
        match self {
            Self::Ledger { .. } => "ledger",
            Self::Provider(_) => "provider",
        }
    }

    async fn books(&self, queries: [(Kind, String); 2]) -> Result<Books, ReconcileError> {
        let mut books = Books::default();
        for (kind, query) in queries {
            let mut next = Some(query.clone());
            for _ in 0..MAX_PAGES {
                let Some(asked) = next else { break };
                let page = self.page(kind, &asked).await?;
                let read = if kind == Kind::Costs { read_costs } else { read_usage };
                let cursor = read(&page, &mut books).map_err(|error| ReconcileError::Unreadable(self.name(), error))?;
                let page = |cursor: String| {
                    form_urlencoded::Serializer::new(query.clone()).append_pair("page", &cursor).finish()
                };
                next = cursor.map(page);
            }
            if next.is_some() {
                return Err(ReconcileError::Endless(self.name()));
            }
        }
        Ok(books)
    }

    async fn page(&self, kind: Kind, query: &str) -> Result<Vec<u8>, ReconcileError> {
        match self {
            Self::Ledger { store, catalog, end } => {
                // A report ends at its "now", and the ledger may have been written by a clock that is ahead of this one.
                let page = reports::page(kind, store, catalog, query, *end).await;
                page.map_err(|error| ReconcileError::Report(error.message.into_owned()))
            }
            Self::Provider(api) => {
                let path = if kind == Kind::Costs { "costs" } else { "usage/completions" };
                Ok(patiently(api, &format!("{path}?{query}")).await?.to_vec())
            }
        }
    }
}

/// Asks again while the provider answers that it is asked too often, but not for ever.
async fn patiently(api: &AdminApi, path: &str) -> Result<Bytes, CliError> {
    let mut retries = 0;
    loop {
        let answer = api.get_bytes(path).await;
        let Err(CliError::Refused { status: StatusCode::TOO_MANY_REQUESTS, retry_after, .. }) = &answer else {
            return answer;
        };
        let wait = retry_after.unwrap_or(Duration::from_secs(1 << retries));
        if retries >= MAX_RETRIES || wait > MAX_WAIT {
            return answer;
        }
        retries += 1;
        eprintln!("the provider is asked too often; asking again in {} s", wait.as_secs());
        tokio::time::sleep(wait).await;
    }
}
