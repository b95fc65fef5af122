//! The admin API of a running gateway, as commands call it.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use clap::{ArgMatches, FromArgMatches, error::ErrorKind, parser::ValueSource};
use reqwest::{
    Client, Method, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde_json::Value;

use crate::config::{self, Problems};

const TIMEOUT: Duration = Duration::from_secs(30);
const KEY_VARIABLE: &str = "TOLLGATE_ADMIN_KEY";
const KEY_FILE_VARIABLE: &str = "TOLLGATE_ADMIN_KEY_FILE";
const URL_VARIABLE: &str = "TOLLGATE_ADMIN_URL";
const KEY_ID: &str = "admin_key";

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(
        "no admin key: set {KEY_VARIABLE}, or name a file that holds it with --admin-key-file or {KEY_FILE_VARIABLE}"
    )]
    NoAdminKey,
    #[error("cannot read the admin key from {}: {}", .0.display(), .1)]
    AdminKeyFile(PathBuf, #[source] io::Error),
    #[error("the admin key from {0} has characters that no key has: is it the right one?")]
    UnusableAdminKey(String),
    #[error(
        "the gateway refused the admin key from {0}: set the key that the gateway was started with, or that it \
        showed at its first start"
    )]
    WrongAdminKey(String),
    #[error("the configuration does not tell where the gateway is; mend it, or give --admin-url:\n{0}")]
    NoAddress(#[source] Problems),
    #[error("{0:?} is no address of a gateway: give --admin-url as http://host:port")]
    BadUrl(String),
    #[error("cannot reach the gateway at {0} ({1}): is it running, and is that its admin address (--admin-url)?")]
    Unreachable(String, String),
    #[error("{url} gave an answer that is not a gateway's ({detail}): is it the admin address (--admin-url)?")]
    NotAGateway { url: String, detail: String },
    #[error("{url} answered {message:?}: is this the admin address (--admin-url)?")]
    WrongAddress { url: String, message: String },
    #[error("the gateway answered {status}: {message}")]
    Refused { status: StatusCode, message: String, retry_after: Option<Duration> },
    #[error("{0}")]
    Mistake(String),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Where the gateway is, and the key to it.
#[derive(Debug, clap::Args)]
struct AccessArgs {
    /// The gateway's admin address, also `TOLLGATE_ADMIN_URL`. Without it, the admin address of the configuration
    #[arg(long = "admin-url", value_name = "URL")]
    url: Option<String>,
    /// A file that holds the admin key, also `TOLLGATE_ADMIN_KEY_FILE`. Without it, the key is read from the variable
    /// `TOLLGATE_ADMIN_KEY`
    #[arg(long = "admin-key-file", value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[arg(long = "admin-key", id = KEY_ID, env = KEY_VARIABLE, hide = true, hide_env_values = true)]
    key: Option<Secret>,
}

/// The same, with an admin key from the environment alone: all users of a machine can read its command lines.
#[derive(Debug)]
pub struct Access(AccessArgs);

#[derive(Clone)]
struct Secret(String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl FromArgMatches for Access {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        if matches.value_source(KEY_ID) == Some(ValueSource::CommandLine) {
            let message = format!(
                "an admin key on the command line can be read by others: set {KEY_VARIABLE} or use --admin-key-file\n"
            );
            return Err(clap::Error::raw(ErrorKind::UnknownArgument, message));
        }
        AccessArgs::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Access {
    fn augment_args(command: clap::Command) -> clap::Command {
        AccessArgs::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        AccessArgs::augment_args_for_update(command)
    }
}

pub struct AdminApi {
    client: Client,
    base: String,
    key_source: String,
}

impl AdminApi {
    /// What the command line leaves out comes from the environment, and the address then from the configuration.
    pub fn connect(
        Access(access): &Access,
        config_path: Option<&Path>,
        env: &BTreeMap<String, String>,
    ) -> Result<Self, CliError> {
        let given = match access.url.clone().or_else(|| set(env, URL_VARIABLE)) {
            Some(url) => url,
            None => {
                let listen = config::admin_listen(config_path, env).map_err(CliError::NoAddress)?;
                format!("http://{}", listen.to_connect())
            }
        };
        let url = address(&given)?;
        let (key, key_source) = admin_key(access, env)?;
        Self::new(&url, &key, key_source)
    }

    /// An organization API anywhere; `key_source` says where the key came from.
    pub(super) fn at(url: &str, key: &str, key_source: String) -> Result<Self, CliError> {
        Self::new(&address(url)?, key, key_source)
    }

    fn new(url: &Url, key: &str, key_source: String) -> Result<Self, CliError> {
        let base = base(url).to_owned();
        let mut authorization = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| CliError::UnusableAdminKey(key_source.clone()))?;
        authorization.set_sensitive(true);
        // Fails only when a provider is there already, and then that one serves.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut builder = Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, authorization)]));
        if url.scheme() == "http" {
            // No proxy may see a key in plain text, and a machine without certificates can still be administered.
            builder = builder.no_proxy().tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| CliError::Unreachable(base.clone(), cause(&error)))?;
        Ok(Self { client, base, key_source })
    }

    pub async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, CliError> {
        self.send(Method::DELETE, path, None).await
    }

    /// All pages of a list.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, CliError> {
        let mut objects = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=100&include_archived=true{after}")).await?;
            let data = page.get("data").and_then(Value::as_array).ok_or_else(|| self.not_a_gateway("no list"))?;
            objects.extend(data.iter().cloned());
            match page.get("last_id").and_then(Value::as_str) {
                Some(last) if page.get("has_more") == Some(&Value::Bool(true)) => after = format!("&after={last}"),
                _ => return Ok(objects),
            }
        }
    }

    /// The answer as it came: a [`Value`] would make floats of amounts.
    pub async fn get_text(&self, path: &str) -> Result<String, CliError> {
        let bytes = self.get_bytes(path).await?;
        String::from_utf8(bytes.into()).map_err(|_| self.not_a_gateway("not text"))
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        let answer = self.exchange(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|_| self.not_a_gateway("not JSON"))
    }

    /// The bytes of an answer, for what must be read digit by digit.
    pub(super) async fn get_bytes(&self, path: &str) -> Result<Bytes, CliError> {
        self.exchange(Method::GET, path, None).await
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, CliError> {
        let mut request = self.client.request(method, format!("{}/v1/organization/{path}", self.base));
        if let Some(body) = body {
            request = request.json(body);
        }
        let lost = |error: reqwest::Error| CliError::Unreachable(self.base.clone(), cause(&error));
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let bytes = response.bytes().await.map_err(lost)?;
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(CliError::WrongAdminKey(self.key_source.clone()));
        }
        if status.is_success() {
            return Ok(bytes);
        }
        let answer: Value = match serde_json::from_slice(&bytes) {
            Ok(answer) => answer,
            // Whatever stands in front of a service says it in its own words.
            Err(_) if status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(CliError::Refused { status, message: "ask again later".to_owned(), retry_after });
            }
            Err(_) => return Err(self.not_a_gateway(&format!("{status}, not JSON"))),
        };
        match answer.pointer("/error/message").and_then(Value::as_str) {
            // As the address for calls says it, and OpenAI's own.
            Some(message) if message.starts_with("Invalid URL") => {
                Err(CliError::WrongAddress { url: self.base.clone(), message: message.to_owned() })
            }
            Some(message) => Err(CliError::Refused { status, message: message.to_owned(), retry_after }),
            None => Err(self.not_a_gateway(&format!("{status}, no error object"))),
        }
    }

    fn not_a_gateway(&self, detail: &str) -> CliError {
        CliError::NotAGateway { url: self.base.clone(), detail: detail.to_owned() }
    }
}

fn address(text: &str) -> Result<Url, CliError> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.username().is_empty());
    url.ok_or_else(|| CliError::BadUrl(text.to_owned()))
}

/// A variable's value. Scripts and compose files pass one that is not set on as an empty one.
pub(super) fn set(env: &BTreeMap<String, String>, variable: &str) -> Option<String> {
    env.get(variable).filter(|value| !value.is_empty()).cloned()
}

/// Up to where `/v1` begins, whichever of the addresses that we print was copied.
fn base(url: &Url) -> &str {
    let mut base = url.as_str().trim_end_matches('/');
    for part in ["/organization", "/v1"] {
        base = base.strip_suffix(part).unwrap_or(base).trim_end_matches('/');
    }
    base
}

/// The key and where it came from; a file that is named goes before the variable.
fn admin_key(access: &AccessArgs, env: &BTreeMap<String, String>) -> Result<(String, String), CliError> {
    let key_file = access.key_file.clone().or_else(|| set(env, KEY_FILE_VARIABLE).map(PathBuf::from));
    let (text, source) = match (key_file, &access.key) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(&path).map_err(|error| CliError::AdminKeyFile(path.clone(), error))?;
            (text, path.display().to_string())
        }
        (None, Some(Secret(key))) => (key.clone(), KEY_VARIABLE.to_owned()),
        (None, None) => return Err(CliError::NoAdminKey),
    };
    let key = text.trim();
    if key.is_empty() { Err(CliError::NoAdminKey) } else { Ok((key.to_owned(), source)) }
}

/// The innermost cause: "Connection refused" says more than what wraps it.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
