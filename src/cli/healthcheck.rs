//! `tollgate healthcheck`: for containers that have no other program to ask with.

use std::{path::Path, process::ExitCode, time::Duration};

use super::check::CONFIGURATION_PROBLEM;
use super::serve::{settings};
use crate::config::ListenAddress;

pub async fn run(config_path: Option<&Path>) -> ExitCode {
    let Some(settings) = settings(config_path) else { return ExitCode::from(CONFIGURATION_PROBLEM) };
    let url = url(&settings.listen);
    match ask(&url).await {
        Ok(()) => {
            println!("healthy: {url}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("not healthy: {url}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Asks over the loopback where the gateway listens on all addresses.
fn url(listen: &ListenAddress) -> String {
    let host = match listen.host() {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("http://{host}:{}/health", listen.port())
}

async fn ask(url: &str) -> Result<(), String> {
    let client = super::keys::http_client(Duration::from_secs(5)).map_err(|error| error.to_string())?;
    let answer = client.get(url).send().await.map_err(|error| error.to_string())?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}
