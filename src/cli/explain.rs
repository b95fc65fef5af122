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
use crate::{config, domain::ids::RequestId};

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
    match io::stdout().write_all(args.answer(&api).await?.as_bytes()) {
        // `explain req_... | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

impl ExplainArgs {
    async fn answer(&self, api: &AdminApi) -> Result<String, CliError> {
        let answer = api.get_text(&format!("requests/{}", self.request_id)).await;
        let text = answer.map_err(|error| self.or_unknown(error))?;
        if self.json {
            return Ok(format!("{text}\n"));
        }
        let request: Request = serde_json::from_str(&text).map_err(|error| {
            CliError::Mistake(format!("the gateway's answer is not understood ({error}): is it of another version?"))
        })?;
        Ok(screen(&request))
    }

    fn or_unknown(&self, error: CliError) -> CliError {
        match error {
            CliError::Refused { status: StatusCode::NOT_FOUND, .. } => CliError::Mistake(format!(
                "the gateway knows no request {}: it may still be under way, have been refused more than 24 hours ago, \
                 or have gone to another gateway",
                self.request_id
            )),
            error => error,
        }
    }
}

#[cfg(test)]
mod tests;
