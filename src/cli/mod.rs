//! The commands. Each is one file; what they print is for people, and for machines with `--json`.

pub mod admin_api;
pub mod audit;
pub mod check;
mod dates;
pub mod demo;
pub mod explain;
pub mod export;
pub mod healthcheck;
pub mod keys;
pub mod reconcile;
pub mod reprice;
pub mod serve;
mod signals;
pub mod simulate;
pub mod simulate_limits;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// An OpenAI-compatible gateway whose limits and bills can be trusted.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// Configuration file, also named by `TOLLGATE_CONFIG`; without one ./tollgate.toml is read if it is there.
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

const AFTER_HELP: &str = "\
Start here:
  tollgate demo                          everything on this machine, nothing to set up
  OPENAI_API_KEY=sk-... tollgate         the real thing on http://127.0.0.1:8080
  tollgate keys create --project demo    a key for a team
  tollgate explain req_...               why a request was charged or refused
Every setting is in config/tollgate.toml, and is also an environment variable (TOLLGATE_LISTEN, ...).";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway (the default).
    Serve(serve::ServeArgs),
    /// Run the gateway with the built-in OpenAI look-alike behind it and a ready key.
    Demo(demo::DemoArgs),
    /// Run only the OpenAI look-alike.
    Simulate(simulate::SimulateArgs),
    /// Create, list, rotate and revoke API keys on a running gateway.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Tell what a request was charged and why, or why it was refused.
    Explain(explain::ExplainArgs),
    /// Check the log of what administrators have changed.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    Export(export::ExportArgs),
    // These three are described, at length, where their arguments are.
    Reprice(reprice::RepriceArgs),
    Reconcile(reconcile::ReconcileArgs),
    SimulateLimits(simulate_limits::SimulateLimitsArgs),
    /// Check the configuration and show what is in force.
    Check(check::CheckArgs),
    /// Exit 0 if the gateway of this configuration answers, 1 if not.
    Healthcheck,
}
