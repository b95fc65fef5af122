//! Every setting, in one table: the struct's fields, the file's keys, the environment's variables and their help all
//! come from it, so none can drift from the others.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    problem::Problems,
    sources::{Origin, Sources},
    types::{
        Durability, ListenAddress, LogFormat, LogLevel, OnClientDisconnect, Reserve, Secret, UpstreamUrl, WebhookUrl,
    },
    value::{Check, Kind, Value, between, hard_to_guess, signing},
};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// As text; empty is "not set".
    pub default: &'static str,
    pub help: &'static str,
}

/// A setting in force, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    pub name: &'static str,
    pub value: String,
    pub origin: Origin,
}

macro_rules! settings {
    ($(#[doc = $help:literal] $name:ident: $type:ty = $default:literal $(, $check:expr)?;)+) => {
        /// What the operator decides. Each field is also a key of the file and a variable `TOLLGATE_<NAME>`.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $(#[doc = $help] pub $name: $type,)+
            /// Where each value that is no default came from.
            pub origins: BTreeMap<&'static str, Origin>,
            /// Variables of the environment that begin like ours and are no settings.
            pub strangers: Vec<String>,
        }

        pub const KEYS: &[Key] = &[
            $(Key { name: stringify!($name), kind: <$type as Value>::KIND, default: $default, help: $help.trim_ascii() },)+
        ];

        impl Settings {
            /// `None` when a value could not be read; all of them are tried before it says so.
            fn read(sources: &mut Sources) -> Option<Self> {
                $(
                    let checks: &[&dyn Check<$type>] = &[$(&$check)?];
                    let $name = sources.take::<$type>(stringify!($name), $default, checks);
                )+
                Some(Self { $($name: $name?,)+ origins: sources.origins(), strangers: sources.strangers() })
            }

            /// Every setting with its value and where it came from; secrets show only whether they are set.
            pub fn shown(&self) -> Vec<Shown> {
                vec![$(Shown {
                    name: stringify!($name),
                    value: self.$name.show(),
                    origin: self.origin(stringify!($name)),
                },)+]
            }
        }
    };
}

const KIB: usize = 1 << 10;
const GIB: usize = 1 << 30;
const HOUR_S: u64 = 3600;
const DAY_S: u64 = 24 * HOUR_S;

settings! {
    /// Address that API clients call, host:port; port 0 lets the system choose one.
    listen: ListenAddress = "127.0.0.1:8080";
    /// Address of the admin API and /metrics; the same as `listen` serves everything on one port.
    admin_listen: ListenAddress = "127.0.0.1:8081";
    /// Directory of the journal and the ledger; made if it is missing.
    data_dir: PathBuf = "./data";
    /// Where calls are forwarded to: an OpenAI-compatible service, up to and including /v1.
    upstream_url: UpstreamUrl = "https://api.openai.com/v1";
    /// Key that is presented to the upstream; without it `OPENAI_API_KEY` is used.
    upstream_key: Option<Secret> = "";
    /// Key that administrators present, at least 32 characters.
    admin_key: Option<Secret> = "", |key: &Option<Secret>| hard_to_guess(key.as_ref());
    /// Secret mixed into the stored hashes of API keys, at least 32 characters; changing it makes all issued keys invalid.
    pepper: Option<Secret> = "", |key: &Option<Secret>| hard_to_guess(key.as_ref());
    /// How much is logged: error, warn, info, debug or trace.
    log_level: LogLevel = "info";
    /// How log lines look: text for people, json for machines.
    log_format: LogFormat = "text";
    /// Largest request body that is accepted, in bytes.
    max_body_bytes: usize = "27262976", between(KIB, GIB);
    /// Largest answer that is read from the upstream, in bytes.
    max_answer_bytes: usize = "67108864", between(KIB, 4 * GIB);
    /// Connections held open at one time on each address; further ones wait.
    max_connections: usize = "10000", between(1, 1_000_000);
    /// Seconds a client may take to send the head of a request.
    header_timeout_s: u64 = "10", between(1, HOUR_S);
    /// Seconds between two pieces of a request body before the client is given up.
    body_idle_timeout_s: u64 = "30", between(1, HOUR_S);
    /// Seconds a client may leave its answer unread before it is given up.
    unread_timeout_s: u64 = "120", between(1, DAY_S);
    /// Seconds to connect to the upstream, TLS included.
    upstream_connect_timeout_s: u64 = "5", between(1, HOUR_S);
    /// Seconds from the end of a request to the first byte of its answer.
    upstream_first_byte_timeout_s: u64 = "600", between(1, DAY_S);
    /// Seconds between two pieces of an answer before the upstream is given up.
    stream_idle_timeout_s: u64 = "120", between(1, DAY_S);
    /// Seconds one answer may take in all.
    stream_max_s: u64 = "3600", between(1, DAY_S);
    /// Idle connections kept open to the upstream for the next call.
    upstream_idle_connections: usize = "512", between(0, 1_000_000);
    /// Calls that fail in a row, as the upstream cannot be reached or a model does not answer, before it is only probed for a while; 0 for no end.
    upstream_failures_in_a_row: u64 = "10", between(0, 1_000_000);
    /// What becomes of an answer whose client has left: drain reads on to learn its usage, cancel stops it and estimates.
    on_client_disconnect: OnClientDisconnect = "drain";
    /// Seconds that draining one answer may take.
    drain_max_s: u64 = "60", between(1, DAY_S);
    /// Bytes that draining one answer may read.
    drain_max_bytes: usize = "16777216", between(1, 4 * GIB);
    /// Answers drained at one time; further ones are cancelled.
    drain_max_requests: usize = "64", between(0, 1_000_000);
    /// Seconds that requests under way have to finish when the gateway stops.
    shutdown_grace_s: u64 = "30", between(0, DAY_S);
    /// Output tokens taken from the limits before sending: learned (average so far), strict (the maximum, held of money too) or openai (none; of limits of audio as learned).
    reserve: Reserve = "learned";
    /// Forward calls to models without a price; the ledger marks them unpriced.
    allow_unpriced: bool = "false";
    /// Directory of further model pages (*.toml); a page with the id of a built-in model replaces it.
    models_dir: Option<PathBuf> = "";
    /// File that replaces the built-in tiers.
    tiers_file: Option<PathBuf> = "";
    /// Move a project to a higher tier by itself once what it has spent qualifies it; without it only administrators do.
    promote_projects: bool = "false";
    /// Where a webhook is sent when a spend limit or a budget is used to 50, 80 and 100 percent; needs the secret.
    budget_webhook_url: Option<WebhookUrl> = "";
    /// Secret that webhooks are signed with, as Standard Webhooks has it: whsec_ and base64 of 24 to 64 bytes.
    budget_webhook_secret: Option<Secret> = "", |key: &Option<Secret>| signing(key.as_ref());
    /// Days that entries are kept after their end, 0 for ever; reports lose nothing, but what is gone cannot be exported or repriced.
    retention_days: u64 = "0", between(0, 36_500);
    /// What a record in the journal survives: process (a crash of the gateway) or power (a crash of the machine).
    durability: Durability = "process";
    /// Size of one journal file, in MiB.
    journal_segment_mib: u64 = "16", between(1, 1024);
    /// Size the journal may reach while the ledger is away before requests are refused, in MiB.
    journal_max_mib: u64 = "1024", between(2, 1_048_576);
}

impl Settings {
    /// `config_path` is what `--config` named; the environment is an argument, so that tests need no real one.
    pub fn load(config_path: Option<&Path>, env: &BTreeMap<String, String>) -> Result<Self, Problems> {
        Self::from_sources(Sources::open(config_path, env))
    }

    pub(super) fn from_sources(mut sources: Sources) -> Result<Self, Problems> {
        let settings = Self::read(&mut sources);
        if let Some(settings) = &settings
            && settings.journal_max_mib < 2 * settings.journal_segment_mib
        {
            let least = 2 * settings.journal_segment_mib;
            sources.problem("journal_max_mib", &format!("must hold two segments, which is {least} MiB"));
        }
        if let Some(settings) = &settings
            && settings.upstream_first_byte_timeout_s < settings.upstream_connect_timeout_s
        {
            let least = settings.upstream_connect_timeout_s;
            let what = format!(
                "includes the time to connect, so it must be at least upstream_connect_timeout_s, which is {least}"
            );
            sources.problem("upstream_first_byte_timeout_s", &what);
        }
        if let Some(settings) = &settings
            && settings.budget_webhook_url.is_some()
            && settings.budget_webhook_secret.is_none()
        {
            sources.problem("budget_webhook_url", "needs budget_webhook_secret too: no webhook is sent unsigned");
        }
        let problems = sources.into_problems();
        settings.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Needed to serve; a demo and `tollgate check` do without.
    pub const fn upstream_key(&self) -> Option<&Secret> {
        self.upstream_key.as_ref()
    }

    /// Where the value of a setting came from.
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).copied().unwrap_or(Origin::Default)
    }

    /// Variables of the environment that begin like ours and are no settings.
    pub fn ignored_variables(&self) -> &[String] {
        &self.strangers
    }

    /// Somebody chose the data directory, rather than taking the default.
    pub fn data_dir_is_set(&self) -> bool {
        self.origin("data_dir") != Origin::Default
    }
}

/// All defaults.
#[expect(clippy::expect_used, reason = "a test reads every default")]
impl Default for Settings {
    fn default() -> Self {
        Self::read(&mut Sources::default()).expect("a test reads every default")
    }
}
