//! `tollgate simulate-limits`: whom other limits would have refused.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{
    check::CONFIGURATION_PROBLEM,
    dates::{instant, shown},
    serve::configuration,
};
use crate::{
    app::{self, Against, Question, WhatIfError},
    config::{OtherLimits, Problems, Settings},
    domain::{catalog::Catalog, ids::ProjectId, projects::TierId, time::UnixNanos},
};

mod answer;
mod screen;

/// How often a long run says how far it is.
const REQUESTS_PER_WORD: u64 = 1_000_000;

const LIMITS_FILE: &str = "\
A file of limits, for all models and for some; a limit that is left out is no limit:
  [default_limits]
  requests_per_minute = 100

  [models.\"gpt-4o-mini\"]
  requests_per_minute = 20
  tokens_per_minute = 10_000";

/// Replay the ledger against other limits: which keys would have been refused, when, how often, and by which limit.
///
/// Each request takes what it took when it was admitted, and gives back or books the rest when it ended. The limits of a project
/// hold for all its keys together, on each model or group of models that share them; a key is held to those of its own
/// besides. The day before --from is replayed too, or the week before it where there is a limit per day, so that the limits are as
/// used as they would have been. What was used beyond a limit before that is forgotten.
///
/// With --tier all projects are in that tier; what an administrator has set for a project stays in force, and a request on a
/// model that the tier does not list is refused for that. With --limits the file takes the place of both, for the models that it
/// speaks of, and no model is refused.
///
/// Requests that were refused at the time are no part of the ledger and are not replayed, and nobody tries again what is refused
/// here. Spend limits are not looked at. A gateway may run meanwhile; nothing is written.
#[derive(Debug, Args)]
#[command(after_long_help = LIMITS_FILE)]
pub struct SimulateLimitsArgs {
    /// Requests admitted at this time or later: a date (its start in UTC) or a time, such as 2026-09-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: UnixNanos,
    /// ... and before this time
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: UnixNanos,
    /// As if all projects were in this tier
    #[arg(long, value_name = "TIER", required_unless_present = "limits", conflicts_with = "limits")]
    tier: Option<String>,
    /// Limits from a file
    #[arg(long, value_name = "FILE")]
    limits: Option<PathBuf>,
    /// Only this project
    #[arg(long, value_name = "ID", value_parser = project)]
    project: Option<ProjectId>,
    /// Only this model, with those that share its limits
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

fn project(text: &str) -> Result<ProjectId, String> {
    ProjectId::parse(text).ok_or_else(|| "expected the id of a project (proj_...)".to_owned())
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("--to must be later than --from")]
    EmptyRange,
    #[error("--limits:\n{0}")]
    Limits(Problems),
    #[error(transparent)]
    Replay(#[from] WhatIfError),
    #[error("the answer cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

pub async fn run(args: SimulateLimitsArgs, config_path: Option<&Path>) -> ExitCode {
    let Some((settings, catalog)) = configuration(config_path) else { return ExitCode::from(CONFIGURATION_PROBLEM) };
    match args.replay(&settings, &catalog).await {
        Ok(answer) => {
            // Whoever closed the pipe still gets the exit code.
            std::io::stdout().write_all(answer.as_bytes()).ok();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tollgate: {error}");
            ExitCode::FAILURE
        }
    }
}

impl SimulateLimitsArgs {
    async fn replay(&self, settings: &Settings, catalog: &Catalog) -> Result<String, Failure> {
        if self.from >= self.to {
            return Err(Failure::EmptyRange);
        }
        let question = Question {
            from: self.from,
            until: self.to,
            against: self.against(catalog)?,
            project: self.project.clone(),
            model: self.model.clone(),
        };
        let progress = |requests: u64| {
            if requests.is_multiple_of(REQUESTS_PER_WORD) {
                eprintln!("replaying: {requests} requests");
            }
        };
        let replayed = app::what_if(settings, catalog, &question, progress).await?;
        if replayed.dropped_before > replayed.replayed_from {
            eprintln!(
                "Entries that were settled before {} may be missing, and the replay begins at {}: they are not kept longer \
                 (retention_days).",
                shown(replayed.dropped_before),
                shown(replayed.replayed_from)
            );
        }
        Ok(if self.json { answer::json(self, &replayed)? } else { screen::screen(self, &replayed) })
    }

    fn against(&self, catalog: &Catalog) -> Result<Against, Failure> {
        match &self.limits {
            Some(path) => Ok(Against::Limits(OtherLimits::read(path, catalog).map_err(Failure::Limits)?)),
            // One of both is there, or the arguments are refused.
            None => Ok(Against::Tier(TierId::from(self.tier.as_deref().unwrap_or_default()))),
        }
    }
}

#[cfg(test)]
mod tests;
