//! `tollgate` and `tollgate serve`.

use std::{net::SocketAddr, path::Path, process::ExitCode};

use super::{
    check::{CONFIGURATION_PROBLEM, slips},
    signals::Signals,
};
use crate::{
    api,
    app::{Routers, Running, StartError},
    clock::Clock,
    config::{self, Settings},
    domain::catalog::Catalog,
    telemetry,
};

pub async fn run(config_path: Option<&Path>) -> ExitCode {
    let Some((settings, catalog)) = configuration(config_path) else { return ExitCode::from(CONFIGURATION_PROBLEM) };
    telemetry::start(settings.log_level, settings.log_format);
    let Some(signals) = signals() else { return ExitCode::FAILURE };
    match start(&settings, catalog).await {
        Ok(running) => {
            print_start(&running, &settings);
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
pub(super) async fn start(settings: &Settings, catalog: Catalog) -> Result<Running, ExitCode> {
    for slip in slips(settings) {
        tracing::warn!("{slip}");
    }
    let routers = Routers { calls: api::calls, administration: api::administration, everything: api::everything };
    Running::start(settings, catalog, Clock::system(), &routers).await.map_err(|error| {
        eprintln!("tollgate cannot start: {error}");
        match error {
            StartError::NoUpstreamKey | StartError::BadUpstreamKey => ExitCode::from(CONFIGURATION_PROBLEM),
            _ => ExitCode::FAILURE,
        }
    })
}

/// One screen: what it listens on, where its data is, what to do next.
fn print_start(running: &Running, settings: &Settings) {
    let (calls, admin) = (address(running.listen), address(running.admin_listen));
    println!("Tollgate {}", env!("CARGO_PKG_VERSION"));
    println!("  calls    http://{calls}/v1");
    println!("  admin    http://{admin}/v1/organization");
    println!("  upstream {}", settings.upstream_url);
    println!("  data     {}", settings.data_dir.display());
    match running.recovered.interrupted {
        0 => {}
        1 => println!("  1 request was open when it last stopped; it is settled at its estimate"),
        open => println!("  {open} requests were open when it last stopped; they are settled at their estimates"),
    }
    if let Some(key) = &running.new_admin_key {
        println!();
        println!("Your admin key, shown this once. Keep it; it opens everything under /v1/organization:");
        println!("  {}", key.reveal());
    }
    println!();
    println!("Next: make a key for a team");
    println!("  TOLLGATE_ADMIN_KEY=... {} keys create --project my-team --admin-url http://{admin}", program());
    println!("and let the team set OPENAI_BASE_URL=http://{calls}/v1 and OPENAI_API_KEY to that key.");
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
    signals.next().await;
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
