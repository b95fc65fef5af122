//! `tollgate` and `tollgate serve`.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
};

use super::{
    check::{CONFIGURATION_PROBLEM, slips},
    signals::Signals,
};
use crate::{
    api,
    app::{Routers, Running, StartError, Succession},
    clock::Clock,
    config::{self, Settings},
    domain::catalog::Catalog,
    telemetry,
};

#[derive(Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Take the listening sockets from the gateway that runs on the same data, stop it, and go on when it has ended: clients that
    /// connect meanwhile wait, and none is refused. Without such a gateway this is a start like any other. Sockets of a
    /// service manager (`LISTEN_FDS`, as of a systemd socket unit) are used in any case.
    #[arg(long)]
    pub take_over: bool,
}

pub async fn run(args: &ServeArgs, config_path: Option<&Path>) -> ExitCode {
    let Some((settings, catalog)) = configuration(config_path) else { return ExitCode::from(CONFIGURATION_PROBLEM) };
    telemetry::start(settings.log_level, settings.log_format);
    let Some(mut signals) = signals() else { return ExitCode::FAILURE };
    let succession = match Succession::from_environment(&config::environment()) {
        Ok(found) if args.take_over => found.taking_over(),
        Ok(found) => found,
        Err(error) => return cannot_start(&error.into()),
    };
    let started = tokio::select! {
        started = start(&settings, catalog, succession) => started,
        // As good as a crash, after which nothing is missing either.
        () = signals.next() => {
            tracing::info!("told to stop before the start was complete");
            return ExitCode::SUCCESS;
        }
    };
    match started {
        Ok(running) => {
            let shown = show(&screen(&running, &settings));
            if shown.is_err() && running.new_admin_key.is_some() {
                tracing::error!("the new admin key cannot be shown, so it is not kept: the next start makes another");
                running.stop().await;
                return ExitCode::FAILURE;
            }
            if let Err(error) = running.keep_new_admin_key().await {
                tracing::error!(%error, "the new admin key is not saved: the next start makes another");
            }
            until_told_to_stop(running, signals).await
        }
        Err(code) => code,
    }
}

/// What a gateway needs to start, or all that is wrong with it on standard error.
pub(super) fn configuration(config_path: Option<&Path>) -> Option<(Settings, Catalog)> {
    let loaded = config::load(config_path, &config::environment()).complete();
    loaded.inspect_err(|problems| eprintln!("{problems}")).ok()
}

/// The settings, or all that is wrong with them on standard error.
pub(super) fn settings(config_path: Option<&Path>) -> Option<Settings> {
    Settings::load(config_path, &config::environment()).inspect_err(|problems| eprintln!("{problems}")).ok()
}

/// Starts the gateway, or says why not on standard error. Slips in the configuration go to the log.
pub(super) async fn start(settings: &Settings, catalog: Catalog, succession: Succession) -> Result<Running, ExitCode> {
    for slip in slips(settings) {
        tracing::warn!("{slip}");
    }
    let routers = Routers { calls: api::calls, administration: api::administration, everything: api::everything };
    let started = Running::succeed(settings, catalog, Clock::system(), &routers, succession).await;
    started.map_err(|error| cannot_start(&error))
}

fn cannot_start(error: &StartError) -> ExitCode {
    eprintln!("tollgate cannot start: {error}");
    match error {
        StartError::NoUpstreamKey | StartError::BadUpstreamKey => ExitCode::from(CONFIGURATION_PROBLEM),
        _ => ExitCode::FAILURE,
    }
}

/// Standard output may be closed: a gateway that nobody watches goes on.
fn show(screen: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(screen.as_bytes()).and_then(|()| out.flush())
}

/// One screen: what it listens on, where its data is, what to do next.
fn screen(running: &Running, settings: &Settings) -> String {
    let mut screen = String::new();
    // Writing to a String cannot fail.
    let _ = write_screen(&mut screen, running, settings);
    screen
}

fn write_screen(out: &mut String, running: &Running, settings: &Settings) -> std::fmt::Result {
    let (calls, admin) = (address(running.listen), address(running.admin_listen));
    writeln!(out, "Tollgate {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  calls    http://{calls}/v1")?;
    writeln!(out, "  admin    http://{admin}/v1/organization")?;
    writeln!(out, "  upstream {}", settings.upstream_url)?;
    writeln!(out, "  data     {}", settings.data_dir.display())?;
    match running.recovered.interrupted {
        0 => {}
        1 => writeln!(out, "  1 request was open when it last stopped; it is settled at its estimate")?,
        open => writeln!(out, "  {open} requests were open when it last stopped; they are settled at their estimates")?,
    }
    if let Some(key) = &running.new_admin_key {
        writeln!(out)?;
        writeln!(out, "Your admin key, shown this once. Keep it; it opens everything under /v1/organization:")?;
        writeln!(out, "  {}", key.reveal())?;
    }
    writeln!(out)?;
    writeln!(out, "Next: make a key for a team")?;
    writeln!(out, "  TOLLGATE_ADMIN_KEY=... {} keys create --project my-team --admin-url http://{admin}", program())?;
    writeln!(out, "and let the team set OPENAI_BASE_URL=http://{calls}/v1 and OPENAI_API_KEY to that key.")
}

/// What to type for this program: as it was typed, for it need not be on the PATH.
fn program() -> String {
    let typed = std::env::args_os().next().and_then(|typed| typed.into_string().ok());
    typed.filter(|typed| !typed.is_empty() && !typed.contains(' ')).unwrap_or_else(|| "tollgate".to_owned())
}

/// Addresses to connect to: one that means "all of this machine" is shown as this machine.
pub(super) fn address(listening: SocketAddr) -> SocketAddr {
    match listening {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port())),
        listening => listening,
    }
}

/// Serves until SIGINT or SIGTERM, then stops in order; a second signal stops at once.
pub(super) async fn until_told_to_stop(running: Running, mut signals: Signals) -> ExitCode {
    let handed_over = running.handed_over().clone();
    tokio::select! {
        () = signals.next() => {}
        () = handed_over.cancelled() => tracing::info!("another gateway takes over"),
    }
    tracing::info!("stopping: open requests finish first, a second signal stops at once");
    tokio::select! {
        () = running.stop() => ExitCode::SUCCESS,
        () = signals.next() => ExitCode::FAILURE,
    }
}

/// Signals, or why there are none on standard error.
pub(super) fn signals() -> Option<Signals> {
    Signals::listen().inspect_err(|error| eprintln!("tollgate cannot start: no signals: {error}")).ok()
}
