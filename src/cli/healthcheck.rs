//! `tollgate healthcheck`: for containers that have no other program to ask with.

use std::{path::Path, process::ExitCode, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::{check::CONFIGURATION_PROBLEM, serve::settings};

pub async fn run(config_path: Option<&Path>) -> ExitCode {
    let Some(settings) = settings(config_path) else { return ExitCode::from(CONFIGURATION_PROBLEM) };
    // Over the loopback where the gateway listens on all addresses.
    let url = format!("http://{}/health", settings.listen.to_connect());
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

async fn ask(url: &str) -> Result<(), String> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let uri = url.parse().map_err(|_| "that is no URL".to_owned())?;
    let asked = tokio::time::timeout(TIMEOUT, client.get(uri)).await;
    let answer = asked.map_err(|_| "no answer in time".to_owned())?.map_err(|_| "nothing listens there".to_owned())?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}
