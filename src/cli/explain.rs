//! `tollgate explain`: the story of one request, from what it asked for to its charge or its refusal, on one screen.

mod answer;
mod screen;

use std::{
    io::{self, Write as _},
    path::Path,
};

use clap::Args;
use reqwest::StatusCode;

pub(super) use self::screen::{columns, printable};
use self::{answer::Request, screen::screen};
use super::admin_api::{Access, AdminApi, CliError};
use crate::{
    clock::Clock,
    config,
    domain::{ids::RequestId, refusals::KEPT_NANOS, time::UnixNanos},
};

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The request's id (`req_...`), as the header `x-request-id` of its answer shows it
    #[arg(value_parser = request_id)]
    request_id: RequestId,
    /// Print the gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: Access,
}

fn request_id(text: &str) -> Result<RequestId, String> {
    let wrong =
        || "an id of a request is req_ and 32 hexadecimal digits, as the header x-request-id shows it".to_owned();
    RequestId::parse(text).ok_or_else(wrong)
}

pub async fn run(args: &ExplainArgs, config_path: Option<&Path>) -> Result<(), CliError> {
    let api = AdminApi::connect(&args.access, config_path, &config::environment())?;
    let answer = args.answer(&api, Clock::system().now()).await?;
    match io::stdout().write_all(answer.as_bytes()) {
        // `explain req_... | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

impl ExplainArgs {
    async fn answer(&self, api: &AdminApi, now: UnixNanos) -> Result<String, CliError> {
        let answer = api.get_text(&format!("requests/{}", self.request_id)).await;
        let text = answer.map_err(|error| match error {
            CliError::Refused { status: StatusCode::NOT_FOUND, .. } => CliError::Mistake(unknown(self.request_id, now)),
            error => error,
        })?;
        if self.json {
            return Ok(format!("{text}\n"));
        }
        let request: Request = serde_json::from_str(&text).map_err(|error| {
            CliError::Mistake(format!("the gateway's answer is not understood ({error}): is it of another version?"))
        })?;
        Ok(screen(&request))
    }
}

/// All that can have become of a request that the gateway does not know.
fn unknown(request_id: RequestId, now: UnixNanos) -> String {
    /// Longer than any setting lets a request take.
    const LONGEST_MS: u64 = 3 * 86_400_000;
    let age_ms = now.millis().saturating_sub(request_id.arrived_ms());
    let is_old = age_ms > KEPT_NANOS / 1_000_000;
    let mut may = vec!["it was refused for its key, or before it was understood: that is never kept"];
    may.push(if is_old {
        "it was refused more than 24 hours ago: for longer no refusal is kept"
    } else {
        "it was refused among so many that not all could be kept"
    });
    if is_old {
        may.push("it was charged, and has been dropped for its age (retention_days)");
    }
    if age_ms <= LONGEST_MS {
        may.push("it is still under way: it can be explained when it has ended");
    }
    may.push("it went to another gateway");
    format!("the gateway knows no request {request_id}. It may be that\n  - {}", may.join("\n  - "))
}

#[cfg(test)]
mod tests;
