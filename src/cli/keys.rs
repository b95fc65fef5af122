//! `tollgate keys`: make, show, rotate and revoke API keys on a running gateway.

mod limits;

use std::{
    io::{self, Write as _},
    path::Path,
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::limits::LimitArgs;
pub use super::admin_api::CliError;
use super::admin_api::{Access, AdminApi};
use crate::{
    config,
    domain::ids::{KeyId, ProjectId},
};

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make an API key, and its project if there is none of that name
    Create(Create),
    /// Show the API keys in force
    List(List),
    /// Give an API key another value; the one before works a while longer
    Rotate(Rotate),
    /// Revoke an API key: it is refused from the next request on
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub struct Create {
    /// The project's name or id (`proj_...`)
    #[arg(long, value_parser = name)]
    project: String,
    /// The tier of a new project
    #[arg(long)]
    tier: Option<String>,
    /// What the key is for
    #[arg(long, default_value = "default", value_parser = name)]
    name: String,
    #[command(flatten)]
    limits: LimitArgs,
    /// The key stops working after so many days
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    expires_in_days: Option<u64>,
    /// Print the gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub struct List {
    /// Only this project: its name or id
    #[arg(long)]
    project: Option<String>,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub struct Rotate {
    /// The key's id, as `tollgate keys list` shows it
    key_id: String,
    /// For so many hours the value from before works as well; 0 ends it at once
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(0..=168))]
    overlap_hours: u64,
    /// Print the gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub struct Revoke {
    /// The key's id, as `tollgate keys list` shows it
    key_id: String,
    /// Print the gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: Access,
}

pub async fn run(command: KeysCommand, config_path: Option<&Path>) -> Result<(), CliError> {
    let api = AdminApi::connect(command.access(), config_path, &config::environment())?;
    match io::stdout().write_all(answer(command, &api).await?.as_bytes()) {
        // `keys list | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

async fn answer(command: KeysCommand, api: &AdminApi) -> Result<String, CliError> {
    match command {
        KeysCommand::Create(create) => create.run(api).await,
        KeysCommand::List(list) => list.run(api).await,
        KeysCommand::Rotate(rotate) => rotate.run(api).await,
        KeysCommand::Revoke(revoke) => revoke.run(api).await,
    }
}

/// As the gateway would refuse it, but before a project is made for a key that then is not.
fn name(text: &str) -> Result<String, String> {
    let name = text.trim();
    match name.chars().count() {
        1..=128 if !name.chars().any(char::is_control) => Ok(name.to_owned()),
        1..=128 => Err("control characters are not allowed".to_owned()),
        _ => Err("a name has from 1 to 128 characters".to_owned()),
    }
}

impl KeysCommand {
    const fn access(&self) -> &Access {
        match self {
            Self::Create(Create { access, .. })
            | Self::List(List { access, .. })
            | Self::Rotate(Rotate { access, .. })
            | Self::Revoke(Revoke { access, .. }) => access,
        }
    }
}

impl Create {
    async fn run(&self, api: &AdminApi) -> Result<String, CliError> {
        let (project, is_new) = self.project(api).await?;
        let mut body = json!({ "name": self.name, "limits": self.limits.to_json() });
        if let Some(days) = self.expires_in_days {
            put(&mut body, "expires_in_seconds", json!(days * 86_400));
        }
        let path = format!("projects/{}/service_accounts", text(&project, "id"));
        let mut answer = match api.post(&path, &body).await {
            Ok(answer) => answer,
            Err(error) if is_new => return Err(close(api, &project, error).await),
            Err(error) => return Err(error),
        };
        if self.json {
            put(&mut answer, "project", project);
            return Ok(pretty(&answer));
        }
        let key = answer.get("api_key").unwrap_or(&Value::Null);
        let mut rows = vec![
            ["  project".to_owned(), format!("{} ({})", text(&project, "name"), text(&project, "id"))],
            ["  tier".to_owned(), text(&project, "tier").to_owned()],
            ["  key id".to_owned(), text(key, "id").to_owned()],
            ["  key".to_owned(), text(key, "value").to_owned()],
        ];
        if key["expires_at"].is_u64() {
            rows.push(["  expires".to_owned(), date(&key["expires_at"])]);
        }
        Ok(format!("{}\nThe key is shown this once only: store it now.\n", table(&rows)))
    }

    /// The project, and whether it has been made for this key.
    async fn project(&self, api: &AdminApi) -> Result<(Value, bool), CliError> {
        let found = find_project(api, &self.project).await?;
        let Some(project) = found else {
            let mut body = json!({ "name": self.project });
            if let Some(tier) = &self.tier {
                put(&mut body, "tier", json!(tier));
            }
            return Ok((api.post("projects", &body).await?, true));
        };
        match &self.tier {
            Some(tier) if text(&project, "tier") != tier => Err(CliError::Mistake(format!(
                "the project {} exists and has the tier {}: leave --tier out, or name a new project",
                text(&project, "name"),
                text(&project, "tier"),
            ))),
            _ => Ok((project, false)),
        }
    }
}

/// Sets a member; what is no object has none.
fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

/// Archives a project that was made for a key which then was not; what went wrong is said either way.
async fn close(api: &AdminApi, project: &Value, error: CliError) -> CliError {
    let [name, id] = ["name", "id"].map(|field| text(project, field));
    match api.post(&format!("projects/{id}/archive"), &json!({})).await {
        Ok(_) => error,
        Err(_) => CliError::Mistake(format!("{error}\nThe new project {name} ({id}) is left without a key.")),
    }
}

impl List {
    async fn run(&self, api: &AdminApi) -> Result<String, CliError> {
        let projects = match &self.project {
            None => {
                let mut projects = api.list("projects").await?;
                // The keys of the others are refused.
                projects.retain(|project| text(project, "status") == "active");
                projects
            }
            Some(wanted) => {
                let missing = || CliError::Mistake(format!("there is no project {wanted}"));
                vec![find_project(api, wanted).await?.ok_or_else(missing)?]
            }
        };
        let mut keys = Vec::new();
        for project in &projects {
            for mut key in api.list(&format!("projects/{}/api_keys", text(project, "id"))).await? {
                put(&mut key, "project", project.clone());
                keys.push(key);
            }
        }
        if self.json {
            return Ok(pretty(&json!({ "object": "list", "data": keys })));
        }
        if keys.is_empty() {
            return Ok("No keys yet. Make one: tollgate keys create --project <name>\n".to_owned());
        }
        let mut rows =
            vec![["PROJECT", "TIER", "NAME", "KEY ID", "KEY", "LIMITS", "CREATED", "EXPIRES"].map(str::to_owned)];
        rows.extend(keys.iter().map(|key| {
            let project = &key["project"];
            let [name, id, value] = ["name", "id", "redacted_value"].map(|field| text(key, field).to_owned());
            let owner = ["name", "tier"].map(|field| text(project, field).to_owned());
            let [project, tier] = owner;
            let limits = limits::shown(&key["limits"]);
            let [created, expires] = ["created_at", "expires_at"].map(|field| date(&key[field]));
            [project, tier, name, id, shorten(&value), limits, created, expires]
        }));
        Ok(table(&rows))
    }
}

impl Rotate {
    async fn run(&self, api: &AdminApi) -> Result<String, CliError> {
        let (_, path) = find_key(api, &self.key_id).await?;
        let answer =
            api.post(&format!("{path}/rotate"), &json!({ "overlap_seconds": self.overlap_hours * 3_600 })).await?;
        if self.json {
            return Ok(pretty(&answer));
        }
        let before = match answer.get("previous_expires_at").and_then(Value::as_i64) {
            Some(seconds) => format!("works until {}", moment(seconds)),
            None => "is refused from now on".to_owned(),
        };
        let rows = [
            ["  key id".to_owned(), text(&answer, "id").to_owned()],
            ["  key".to_owned(), text(&answer, "value").to_owned()],
            ["  before".to_owned(), before],
        ];
        Ok(format!("{}\nThe key is shown this once only: store it now.\n", table(&rows)))
    }
}

impl Revoke {
    async fn run(&self, api: &AdminApi) -> Result<String, CliError> {
        let (project, path) = find_key(api, &self.key_id).await?;
        let answer = api.delete(&path).await?;
        if self.json {
            return Ok(pretty(&answer));
        }
        Ok(format!("Revoked {} of project {}.\n", self.key_id, text(&project, "name")))
    }
}

/// The project of the key in force with this id, and the key's path.
async fn find_key(api: &AdminApi, id: &str) -> Result<(Value, String), CliError> {
    let missing = || CliError::Mistake(format!("there is no key {id} in force: see tollgate keys list"));
    let id = KeyId::parse(id).ok_or_else(missing)?;
    for project in api.list("projects").await? {
        let path = format!("projects/{}/api_keys/{id}", text(&project, "id"));
        match api.get(&path).await {
            Ok(_) => return Ok((project, path)),
            Err(CliError::Refused { status, .. }) if status == reqwest::StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    Err(missing())
}

/// By id, else by name. An id must exist; a name may be free.
async fn find_project(api: &AdminApi, wanted: &str) -> Result<Option<Value>, CliError> {
    if let Some(id) = ProjectId::parse(wanted) {
        return api.get(&format!("projects/{id}")).await.map(Some);
    }
    let mut named = api.list("projects").await?;
    named.retain(|project| text(project, "name") == wanted.trim() && text(project, "status") == "active");
    if named.len() > 1 {
        let ids: Vec<_> = named.iter().map(|project| text(project, "id")).collect();
        let message = format!("{} projects have the name {wanted}: give one of the ids {}", ids.len(), ids.join(", "));
        return Err(CliError::Mistake(message));
    }
    Ok(named.pop())
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn date(seconds: &Value) -> String {
    let time = seconds.as_i64().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

fn moment(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds);
    time.map_or_else(|_| seconds.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// `sk-tg_ab...6789`: the stars between only take room.
fn shorten(redacted: &str) -> String {
    match (redacted.split_once('*'), redacted.rsplit_once('*')) {
        (Some((head, _)), Some((_, tail))) => format!("{head}...{tail}"),
        _ => redacted.to_owned(),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Columns as wide as their widest cell.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut lines = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width =
                rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
            format!("{cell:width$}")
        });
        lines.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests;
