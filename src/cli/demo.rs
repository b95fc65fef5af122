//! `tollgate demo`: the gateway with the built-in look-alike behind it and a ready key, and commands to paste.

use std::{net::Ipv4Addr, path::Path, process::ExitCode};

use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    check::CONFIGURATION_PROBLEM,
    serve::{address, configuration, signals, start, until_told_to_stop},
};
use crate::{
    app::{Running, Succession},
    config::{Secret, Settings, UpstreamUrl},
    domain::{
        audit::By,
        ids::random_base62,
        keys::{KeyTerms, PlainKey},
        projects::Project,
    },
    secrets::random,
    simulator, telemetry,
};

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Print addresses and keys as one JSON object on one line.
    #[arg(long)]
    json: bool,
}

/// What `demo --json` prints.
#[derive(Serialize)]
struct Ready {
    base_url: String,
    api_key: String,
    admin_url: String,
    admin_key: String,
    upstream_url: String,
}

const PROJECT_NAME: &str = "demo";

pub async fn run(args: &DemoArgs, config_path: Option<&Path>) -> ExitCode {
    let Some((mut settings, catalog)) = configuration(config_path) else {
        return ExitCode::from(CONFIGURATION_PROBLEM);
    };
    telemetry::start(settings.log_level, settings.log_format);
    let Some(signals) = signals() else { return ExitCode::FAILURE };
    let stop_upstream = CancellationToken::new();
    let upstream = match look_alike(&mut settings, &stop_upstream).await {
        Ok(url) => url,
        Err(error) => {
            eprintln!("tollgate demo cannot start its look-alike: {error}");
            return ExitCode::FAILURE;
        }
    };
    let admin_key = prepare(&mut settings);
    let running = match start(&settings, catalog, Succession::default()).await {
        Ok(running) => running,
        Err(code) => return code,
    };
    let api_key = match ready_key(&running).await {
        Ok(key) => key,
        Err(error) => {
            eprintln!("tollgate demo cannot make its key: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ready = Ready {
        base_url: format!("http://{}/v1", address(running.listen)),
        api_key: api_key.reveal().to_owned(),
        admin_url: format!("http://{}", address(running.admin_listen)),
        admin_key,
        upstream_url: upstream,
    };
    print_ready(&ready, &settings, args.json);
    let code = until_told_to_stop(running, signals).await;
    stop_upstream.cancel();
    code
}

/// Starts the look-alike on a free port and points the gateway at it; returns its URL.
async fn look_alike(settings: &mut Settings, stop: &CancellationToken) -> Result<String, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let url = format!("http://{address}/v1");
    settings.upstream_url = UpstreamUrl::new(&url)?;
    settings.upstream_key = Some(Secret::new("sk-look-alike"));
    tokio::spawn(simulator::serve(listener, simulator::Options::default(), stop.clone()));
    Ok(url)
}

/// Keeps the demo's data apart from the real gateway's, and makes sure its admin key can be shown.
fn prepare(settings: &mut Settings) -> String {
    if !settings.data_dir_is_set() {
        settings.data_dir.push("demo");
    }
    let key =
        settings.admin_key.get_or_insert_with(|| Secret::new(format!("sk-admin-{}", random_base62(48, &mut random))));
    key.reveal().to_owned()
}

/// A new key of the project "demo", which is made when it is not there yet.
async fn ready_key(running: &Running) -> Result<PlainKey, Box<dyn std::error::Error>> {
    let (accounts, by) = (&running.app.accounts, By::gateway(running.app.clock.now()));
    let existing = accounts
        .projects()
        .into_iter()
        .find(|project: &std::sync::Arc<Project>| project.name == PROJECT_NAME && project.archived_at.is_none());
    let project = match existing {
        Some(project) => project,
        None => accounts.create_project(PROJECT_NAME, running.app.catalog.default_tier(), &by).await?,
    };
    let created = accounts.create_service_account(&project.id, PROJECT_NAME, KeyTerms::default(), &by).await?;
    let (_, _, plain) = created;
    Ok(plain)
}

fn print_ready(ready: &Ready, settings: &Settings, json: bool) {
    if json {
        // Strings into JSON cannot fail.
        println!("{}", serde_json::to_string(ready).unwrap_or_default());
        return;
    }
    let Ready { base_url, api_key, admin_url, admin_key, upstream_url } = ready;
    println!(
        r#"Tollgate demo. Nothing leaves this machine: behind the gateway is a look-alike of OpenAI.
  calls    {base_url}
  admin    {admin_url}/v1/organization
  upstream {upstream_url} (the look-alike)
  data     {data}

Paste these into another terminal:

export OPENAI_BASE_URL={base_url}
export OPENAI_API_KEY={api_key}

# 1. a text answer
curl -s $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \
  -d '{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"Say hello."}}]}}'; echo

# 2. a spoken answer, saved as answer.wav
curl -s $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \
  -d '{{"model":"gpt-4o-mini-audio-preview","modalities":["text","audio"],"audio":{{"voice":"alloy","format":"wav"}},"messages":[{{"role":"user","content":"Say hello."}}]}}' \
  | grep -o '"data":"[^"]*"' | cut -d'"' -f4 | base64 -d > answer.wav && ls -l answer.wav

# 3. a streamed answer
curl -sN $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \
  -d '{{"model":"gpt-4o-mini","stream":true,"messages":[{{"role":"user","content":"Say hello."}}]}}'

# 4. a question about an audio file (answer.wav from above)
printf '{{"model":"gpt-4o-mini-audio-preview","messages":[{{"role":"user","content":[{{"type":"text","text":"What is said here?"}},{{"type":"input_audio","input_audio":{{"format":"wav","data":"%s"}}}}]}}]}}' "$(base64 < answer.wav | tr -d '\n')" \
  | curl -s $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" -d @-; echo

# 5. what it used, and what it cost, once the last answer is in the ledger
export TOLLGATE_ADMIN_KEY={admin_key}
sleep 1
curl -s "{admin_url}/v1/organization/usage/completions?start_time=$(($(date +%s) - 3600))&bucket_width=1d&group_by=model" -H "Authorization: Bearer $TOLLGATE_ADMIN_KEY"; echo
curl -s "{admin_url}/v1/organization/costs?start_time=$(($(date +%s) - 3600))&group_by=line_item" -H "Authorization: Bearer $TOLLGATE_ADMIN_KEY"; echo

Ctrl-C stops it."#,
        data = settings.data_dir.display(),
    );
}
