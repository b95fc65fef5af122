use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    problem::Problems,
    settings::{KEYS, Settings},
    sources::Origin,
    types::{LogFormat, LogLevel, Reserve},
    value::Kind,
};

const DOCUMENTED: &str = include_str!("../../config/tollgate.toml");

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Loads settings from `text`.
    fn load(&self, text: &str, env_pairs: &[(&str, &str)]) -> Result<Settings, Problems> {
        Settings::load(Some(&self.file("tollgate.toml", text)), &env(env_pairs))
    }

    /// The problems' lines, with the folder's path taken off.
    fn problems(&self, text: &str, env_pairs: &[(&str, &str)]) -> Vec<String> {
        let folder = format!("{}/", self.0.path().display());
        let problems = self.load(text, env_pairs).unwrap_err().to_string();
        problems.lines().map(|line| line.replace(&folder, "")).collect()
    }
}

#[test]
fn every_default_is_readable_and_nothing_is_set_by_default() {
    let settings = Settings::default();
    assert!(settings.shown().iter().all(|shown| shown.origin == Origin::Default));
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.max_body_bytes, 26 * 1024 * 1024);
    assert!(settings.upstream_key().is_none() && !settings.data_dir_is_set() && !settings.allow_unpriced);
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let file = "log_level = \"debug\"\nlog_format = \"json\"\nmax_connections = 0x10\nallow_unpriced = true\n";
    let settings = Folder::new().load(file, &[("TOLLGATE_LOG_LEVEL", "warn"), ("HOME", "/root")]).unwrap();
    assert_eq!((settings.log_level, settings.origin("log_level")), (LogLevel::Warn, Origin::Environment));
    assert_eq!((settings.log_format, settings.origin("log_format")), (LogFormat::Json, Origin::File));
    assert_eq!((settings.reserve, settings.origin("reserve")), (Reserve::Learned, Origin::Default));
    assert_eq!((settings.max_connections, settings.allow_unpriced), (16, true));
}

#[test]
fn every_problem_is_listed_at_once_with_file_and_line() {
    let file = "\nlisen = \"127.0.0.1:1\"\nlog_level = 3\nmax_connections = \"many\"\n\nheader_timeout_s = 0\n\
                allow_unpriced = 1.5\nlisten_file = \"/x\"\n[limits]\nx = 1\n";
    let variables = [
        ("TOLLGATE_LISTEN", "8080"),
        ("TOLLGATE_LOG_LEVL", "info"),
        ("TOLLGATE_ADMIN_KEY", "changeme-changeme-changeme-changeme"),
        ("TOLLGATE_PEPPER_FILE", "/does/not/exist"),
        ("TOLLGATE_ADMIN_URL", "http://127.0.0.1:1"),
    ];
    let problems = Folder::new().problems(file, &variables);
    assert_eq!(
        problems,
        [
            "tollgate.toml:2: lisen: no such setting (did you mean \"listen\"?)",
            "tollgate.toml:3: log_level: expected a string, found a whole number",
            "tollgate.toml:4: max_connections: expected a whole number, found a string",
            "tollgate.toml:6: header_timeout_s: must be at least 1 and at most 3600, is 0",
            "tollgate.toml:7: allow_unpriced: expected true or false, found a number with a fraction",
            "tollgate.toml:8: listen_file: no such setting",
            "tollgate.toml:9: limits: no such setting",
            "environment TOLLGATE_ADMIN_KEY: is a placeholder: make a secret of your own, for example with \
             `openssl rand -hex 32`",
            "environment TOLLGATE_LISTEN: expected host:port such as \"127.0.0.1:8080\", found \"8080\"",
            "environment TOLLGATE_LOG_LEVL: no such setting (did you mean \"TOLLGATE_LOG_LEVEL\"?)",
            "environment TOLLGATE_PEPPER_FILE: the file \"/does/not/exist\" cannot be read: No such file or directory \
             (os error 2)",
        ]
    );
}

#[test]
fn webhooks_are_signed_and_their_secret_is_a_key_that_is_not_shown() {
    let url = "budget_webhook_url = \"https://a.example/b\"\n";
    let secret = "budget_webhook_secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
    let settings = Folder::new().load(&format!("{url}{secret}"), &[]).unwrap();
    assert!(!format!("{settings:?} {:?}", settings.shown()).contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    assert_eq!(
        Folder::new().problems(url, &[]),
        ["tollgate.toml:1: budget_webhook_url: needs budget_webhook_secret too: no webhook is sent unsigned"]
    );
    let problems = Folder::new().problems(url, &[("TOLLGATE_BUDGET_WEBHOOK_SECRET", "hunter2")]);
    let said = "environment TOLLGATE_BUDGET_WEBHOOK_SECRET: must be whsec_ and base64 of 24 to 64 bytes";
    assert!(problems.len() == 1 && problems[0].starts_with(said) && !problems[0].contains("hunter2"), "{problems:?}");
}

#[test]
fn a_number_its_type_cannot_hold_is_told_what_is_allowed() {
    let problems = Folder::new().problems("max_body_bytes = -5\n", &[("TOLLGATE_DRAIN_MAX_S", "1.5")]);
    assert_eq!(
        problems,
        [
            "tollgate.toml:1: max_body_bytes: must be at least 1024 and at most 1073741824, is -5",
            "environment TOLLGATE_DRAIN_MAX_S: expected a whole number, found \"1.5\"",
        ]
    );
}

#[test]
fn a_bad_setting_and_a_bad_model_page_are_told_together() {
    let folder = Folder::new();
    let pages = Folder::new();
    pages.file("page.toml", "id = \"a\"\nprize = 1\n");
    let settings = folder.file("z.toml", &format!("listen = \"x\"\nmodels_dir = {:?}\n", pages.0.path()));
    let loaded = super::load(Some(&settings), &env(&[]));
    assert!(loaded.settings.is_none() && loaded.catalog.is_none());
    let lines: Vec<String> = loaded.complete().err().unwrap().to_string().lines().map(str::to_owned).collect();
    for place in ["page.toml:2: unknown field `prize`", "z.toml:1: listen: expected host:port"] {
        assert!(lines.iter().any(|line| line.contains(place)), "{lines:#?}");
    }
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[test]
fn variables_of_others_are_ignored_and_told() {
    let variables = [("TOLLGATE_PORT", "tcp://10.0.0.1:8080"), ("TOLLGATE_SERVICE_HOST", "10.0.0.1")];
    let settings = Folder::new().load("", &variables).unwrap();
    assert_eq!(settings.ignored_variables(), ["TOLLGATE_PORT", "TOLLGATE_SERVICE_HOST"]);
}

#[test]
fn broken_toml_is_a_problem_with_its_line_beside_the_environments() {
    let problems = Folder::new().problems("listen = \"a:1\"\nlog_level = \n", &[("TOLLGATE_RESERVE", "all")]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("tollgate.toml:2: "), "{problems:?}");
    assert_eq!(problems[1], "environment TOLLGATE_RESERVE: expected one of learned, strict, openai, found \"all\"");
}

#[test]
fn a_named_file_must_exist() {
    let missing = Path::new("/does/not/exist.toml");
    let problems = Settings::load(Some(missing), &env(&[])).unwrap_err();
    assert_eq!(problems.0[0].at, "/does/not/exist.toml");
    let problems = Settings::load(None, &env(&[("TOLLGATE_CONFIG", "/does/not/exist.toml")])).unwrap_err();
    assert_eq!(problems.0.len(), 1);
}

#[test]
fn a_secret_comes_from_a_file_when_asked_and_is_never_shown() {
    let folder = Folder::new();
    let secret = folder.file("secret", "sk-from-a-file\n").display().to_string();
    let settings = folder.load("", &[("TOLLGATE_UPSTREAM_KEY_FILE", &secret), ("OPENAI_API_KEY", "sk-other")]).unwrap();
    assert_eq!(settings.upstream_key().unwrap().reveal(), "sk-from-a-file");
    let settings = folder.load(&format!("upstream_key_file = {secret:?}\n"), &[]).unwrap();
    assert_eq!(settings.upstream_key().unwrap().reveal(), "sk-from-a-file");
    assert!(!format!("{settings:?} {:?}", settings.shown()).contains("sk-from"));

    let both = [("TOLLGATE_UPSTREAM_KEY_FILE", secret.as_str()), ("TOLLGATE_UPSTREAM_KEY", "sk-x")];
    let problems = folder.problems("", &both);
    assert_eq!(
        problems,
        ["environment TOLLGATE_UPSTREAM_KEY_FILE: give either upstream_key or upstream_key_file, not both"]
    );
}

#[test]
fn the_upstream_key_falls_back_to_the_variable_that_openai_tools_use() {
    let key = |file: &str, pairs: &[(&str, &str)]| {
        Folder::new().load(file, pairs).unwrap().upstream_key().map(|key| key.reveal().to_owned())
    };
    let fallback = ("OPENAI_API_KEY", "sk-fallback");
    assert_eq!(key("", &[fallback]).as_deref(), Some("sk-fallback"));
    assert_eq!(key("upstream_key = \"\"", &[fallback, ("TOLLGATE_UPSTREAM_KEY", "")]).as_deref(), Some("sk-fallback"));
    assert_eq!(key("upstream_key = \"sk-file\"", &[fallback]).as_deref(), Some("sk-file"));
    assert_eq!(key("", &[]), None);
}

#[test]
fn the_journal_holds_at_least_two_segments() {
    let problems = Folder::new().problems("journal_segment_mib = 64\njournal_max_mib = 100\n", &[]);
    assert_eq!(problems, ["tollgate.toml:2: journal_max_mib: must hold two segments, which is 128 MiB"]);
}

#[test]
fn the_documented_file_names_every_setting_with_its_help_and_default() {
    for key in KEYS {
        let literal = match key.kind {
            Kind::Text | Kind::Secret => format!("{:?}", key.default),
            Kind::Number | Kind::Switch => key.default.to_owned(),
        };
        let block = format!("\n# {}\n# {} = {literal}\n", key.help, key.name);
        assert!(DOCUMENTED.contains(&block), "config/tollgate.toml should contain:{block}");
    }
}

#[test]
fn the_documented_file_holds_exactly_the_defaults_when_uncommented() {
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    let uncomment = |line: &str| {
        let setting = line.strip_prefix("# ").and_then(|rest| Some((rest.split_once(" = ")?.0, rest)));
        setting.filter(|(name, _)| names.contains(name)).map(|(_, rest)| rest.to_owned())
    };
    let lines: Vec<String> = DOCUMENTED.lines().filter_map(uncomment).collect();
    assert_eq!(lines.len(), KEYS.len());
    let values = |settings: &Settings| settings.shown().into_iter().map(|shown| shown.value).collect::<Vec<_>>();
    let uncommented = Folder::new().load(&lines.join("\n"), &[]).unwrap();
    assert_eq!(values(&uncommented), values(&Settings::default()));
    assert_eq!(values(&Folder::new().load(DOCUMENTED, &[]).unwrap()), values(&Settings::default()));
}
