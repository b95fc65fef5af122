//! `tollgate audit`: whether the audit log is as it was written.

use std::{fmt::Write as _, io::Write as _, path::Path, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{check::CONFIGURATION_PROBLEM, serve::settings};
use crate::{
    app::{LedgerError, Verified, verify_audit_log},
    config::Settings,
    domain::audit::AuditHash,
};

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the hash of every row, from the database file and without the gateway.
    ///
    /// A row that was altered, put in or taken out breaks the chain of hashes, and the first such row is named. The newest
    /// rows can be cut off without a trace in what is left: keep the last hash in another place, and hand it back with
    /// --expect-hash.
    Verify(Verify),
}

#[derive(Debug, Args)]
pub struct Verify {
    /// Fail unless a row has this hash, as an earlier run has shown it: then all rows up to it are still there
    #[arg(long, value_name = "HASH", value_parser = hash)]
    expect_hash: Option<AuditHash>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

fn hash(text: &str) -> Result<AuditHash, String> {
    AuditHash::parse(text).ok_or_else(|| "a hash has 64 hexadecimal digits".to_owned())
}

pub async fn run(command: AuditCommand, config_path: Option<&Path>) -> ExitCode {
    let Some(settings) = settings(config_path) else { return ExitCode::from(CONFIGURATION_PROBLEM) };
    let AuditCommand::Verify(verify) = command;
    match verify.answer(&settings).await {
        Ok((answer, right)) => {
            // Whoever closed the pipe still gets the exit code.
            std::io::stdout().write_all(answer.as_bytes()).ok();
            if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("tollgate: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Verify {
    /// What is printed, and whether all is right.
    async fn answer(&self, settings: &Settings) -> Result<(String, bool), LedgerError> {
        let Verified { chain, broken, expected_found } = verify_audit_log(settings, self.expect_hash).await?;
        let right = broken.is_none() && expected_found;
        if self.json {
            let answer = json!({
                "ok": right,
                "rows": chain.rows,
                "last_hash": chain.head.to_string(),
                "first_wrong_row": broken.map(|broken| broken.number),
                "expected_hash_found": self.expect_hash.map(|_| expected_found),
            });
            return Ok((format!("{answer:#}\n"), right));
        }
        let mut text =
            format!("{} rows are as they were written. The hash of the last is\n  {}\n", chain.rows, chain.head);
        if let Some(broken) = broken {
            writeln!(text, "Then the chain breaks: {broken}. What follows proves nothing.").ok();
        }
        if let Some(expected) = self.expect_hash.filter(|_| !expected_found) {
            writeln!(text, "No row has the expected hash {expected}: rows are missing, or this is another log.").ok();
        }
        Ok((text, right))
    }
}

#[cfg(test)]
mod tests;
