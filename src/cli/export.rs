//! `tollgate export`: entries of the ledger as a file, straight from the data directory.

mod output;

use std::{
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio::time::Instant;

use self::output::NewFile;
use super::{
    check::CONFIGURATION_PROBLEM,
    dates::{instant, shown},
    serve::settings,
    signals::Signals,
};
use crate::{
    app::{Export, LedgerError, Settled, open_export},
    config::Settings,
    domain::time::UnixNanos,
    export::{Format, WriteError, Writer},
};

/// Write the entries of the ledger as CSV, JSON lines or Parquet, one for each request.
///
/// It reads the database file, so it needs no running gateway and does not disturb one. Requests that are settled while it
/// runs may be among the entries or not. It waits some seconds for a gateway whose ledger is behind its journal, and fails
/// when requests of the given time are still missing then.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// First moment: requests count when they are settled, as in reports (2026-11-01, or 2026-11-01T09:30:00Z)
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: UnixNanos,
    /// First moment that is left out
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: UnixNanos,
    #[arg(long, value_enum)]
    format: Layout,
    /// A new file, which is there when all of it is; without it, standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Layout {
    Csv,
    Jsonl,
    Parquet,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("--from must be before --to")]
    EmptyRange,
    #[error("Parquet is not for a screen: name a file with --output, or pass it on")]
    Screen,
    #[error("there is already a file {}: choose another name, or move it away", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Read(#[from] LedgerError),
    #[error("stopped: nothing was written")]
    Stopped,
    #[error("no signals: {0}")]
    Signals(io::Error),
    #[error("cannot write the export: {0}")]
    Write(#[from] WriteError),
}

pub async fn run(args: ExportArgs, config_path: Option<&Path>) -> ExitCode {
    let Some(settings) = settings(config_path) else { return ExitCode::from(CONFIGURATION_PROBLEM) };
    let ended = match args.output {
        Some(_) => until_told_to_stop(args.export(&settings)).await,
        None => args.export(&settings).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody is left to read, and whoever it was knows.
        Err(Failure::Write(error)) if error.is_closed_pipe() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tollgate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A file that was begun is taken away again. To a pipe that nobody reads a signal ends the program as it ends any other.
async fn until_told_to_stop(export: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(Failure::Signals)?;
    tokio::select! {
        ended = export => ended,
        () = signals.next() => Err(Failure::Stopped),
    }
}

impl ExportArgs {
    async fn export(&self, settings: &Settings) -> Result<(), Failure> {
        let format = match self.format {
            Layout::Csv => Format::Csv,
            Layout::Jsonl => Format::Jsonl,
            Layout::Parquet => Format::Parquet,
        };
        if self.from >= self.to {
            return Err(Failure::EmptyRange);
        }
        if self.output.is_none() && !format.is_text() && io::stdout().is_terminal() {
            return Err(Failure::Screen);
        }
        let mut export = open_export(settings, Settled { from: self.from, until: self.to }).await?;
        match &self.output {
            None => {
                let out = io::BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
                copy(&mut export, Writer::begin(format, out)?).await?;
            }
            Some(path) => {
                let file = NewFile::create(path)?;
                let (file, entries) = copy(&mut export, Writer::begin(format, file)?).await?;
                file.keep()?;
                eprintln!("{entries} entries are in {}.", path.display());
            }
        }
        self.tell_of_dropped(&mut export).await
    }

    async fn tell_of_dropped(&self, export: &mut Export) -> Result<(), Failure> {
        let horizon = export.dropped_before().await.map_err(LedgerError::from)?;
        if horizon > self.from {
            let horizon = shown(horizon);
            eprintln!(
                "Entries that were settled before {horizon} may be missing: they are not kept longer (retention_days)."
            );
        }
        Ok(())
    }
}

const BUFFER_BYTES: usize = 64 << 10;

/// All entries that are left, and how many there were.
async fn copy<W: Write + Send>(export: &mut Export, mut writer: Writer<W>) -> Result<(W, u64), Failure> {
    let mut progress = Progress::new();
    let mut entries = 0;
    while let Some(entry) = export.next().await.map_err(LedgerError::from)? {
        writer.write(entry)?;
        entries += 1;
        progress.show(entries);
    }
    progress.end();
    Ok((writer.finish()?, entries))
}

/// A line that counts, on a screen only, and only when it takes long.
struct Progress {
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(2);
    /// Asking for the time costs more than writing an entry.
    const ENTRIES: u64 = 1_000;

    fn new() -> Self {
        Self { next: io::stderr().is_terminal().then(|| Instant::now() + Self::EVERY), shown: false }
    }

    fn show(&mut self, entries: u64) {
        if entries.is_multiple_of(Self::ENTRIES) && self.next.is_some_and(|next| Instant::now() >= next) {
            eprint!("\r{entries} entries ");
            self.next = Some(Instant::now() + Self::EVERY);
            self.shown = true;
        }
    }

    fn end(&self) {
        if self.shown {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests;
