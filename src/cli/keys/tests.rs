use std::{collections::BTreeMap, io::Write as _, path::PathBuf};

use axum::response::IntoResponse as _;
use clap::Parser;

use super::*;
use crate::api::fixture::{ADMIN_KEY, AdminSide};
use crate::domain::audit::By;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: KeysCommand,
}

struct Gateway {
    side: AdminSide,
    url: String,
    key_file: tempfile::NamedTempFile,
}

impl Gateway {
    async fn start() -> Self {
        let side = AdminSide::new().await;
        let router = side.router();
        Self::behind(side, router).await
    }

    /// `router` leads to `side`, by whatever way.
    async fn behind(side: AdminSide, router: axum::Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { side, url, key_file: file(&format!("{ADMIN_KEY}\n")) }
    }

    async fn keys(&self, words: &[&str]) -> Result<String, CliError> {
        ask(parse(words, &self.url, self.key_file.path().to_path_buf())).await
    }
}

async fn ask(command: KeysCommand) -> Result<String, CliError> {
    let api = AdminApi::connect(command.access(), None, &BTreeMap::new())?;
    answer(command, &api).await
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn parse(words: &[&str], url: &str, key_file: PathBuf) -> KeysCommand {
    let key_file = key_file.into_os_string().into_string().unwrap();
    let access = ["--admin-url", url, "--admin-key-file", &key_file];
    let words = ["keys"].iter().chain(words).chain(&access);
    Cli::try_parse_from(words).unwrap().command
}

fn value(output: &str) -> &str {
    output.split_whitespace().find(|word| word.starts_with("sk-tg_")).unwrap()
}

#[tokio::test]
async fn a_new_name_makes_a_project_and_a_known_one_is_used_again() {
    let gateway = Gateway::start().await;
    let output = gateway.keys(&["create", "--project", "alpha", "--tier", "tier2"]).await.unwrap();
    assert!(output.contains("once only"), "{output}");
    let now = gateway.side.clock.now();
    let caller = gateway.side.accounts.authenticate(value(&output), now).unwrap();
    assert_eq!((caller.project().name.as_str(), caller.project().tier.as_str()), ("alpha", "tier2"));
    let id = caller.project().id.as_str();
    for project in ["alpha", id] {
        let output = gateway.keys(&["create", "--project", project, "--name", "ci"]).await.unwrap();
        let again = gateway.side.accounts.authenticate(value(&output), now).unwrap();
        assert_eq!(again.project().id.as_str(), id);
        assert_eq!(again.key().name, "ci");
    }
    assert_eq!(gateway.side.accounts.projects().len(), 1);
}

#[tokio::test]
async fn a_project_made_for_a_key_that_then_was_not_is_closed_again() {
    use crate::openai::error::ApiError;
    let side = AdminSide::new().await;
    side.accounts.create_project("old", "tier1".into(), &By::gateway(side.clock.now())).await.unwrap();
    let broken = async |request: axum::extract::Request, next: axum::middleware::Next| {
        let fails = request.uri().path().ends_with("/service_accounts");
        if fails { ApiError::internal().into_response() } else { next.run(request).await }
    };
    let router = side.router().layer(axum::middleware::from_fn(broken));
    let gateway = Gateway::behind(side, router).await;
    for project in ["new", "old"] {
        let error = gateway.keys(&["create", "--project", project]).await.unwrap_err();
        assert!(matches!(error, CliError::Refused { status, .. } if status == 500), "{error}");
    }
    let projects = gateway.side.accounts.projects();
    let open: Vec<_> = projects.iter().filter(|it| it.archived_at.is_none()).map(|it| it.name.as_str()).collect();
    assert_eq!((projects.len(), open), (2, vec!["old"]));
}

#[tokio::test]
async fn limits_and_expiry_reach_the_key() {
    let gateway = Gateway::start().await;
    let words = ["create", "--project", "a", "--requests-per-minute", "5", "--tokens-per-minute", "700", "--json"];
    let more = ["--tokens-per-day", "9000", "--expires-in-days", "2"];
    let output = gateway.keys(&[&words[..], &more].concat()).await.unwrap();
    let answer: Value = serde_json::from_str(&output).unwrap();
    let (now, plain) = (gateway.side.clock.now(), answer["api_key"]["value"].as_str().unwrap());
    assert_eq!(answer["project"]["name"], "a");
    let caller = gateway.side.accounts.authenticate(plain, now).unwrap();
    let limits = caller.key().terms.limits;
    assert_eq!(limits.requests_per_minute.unwrap().get(), 5);
    assert_eq!(limits.tokens_per_minute.unwrap().get(), 700);
    assert_eq!(limits.tokens_per_day.unwrap().get(), 9_000);
    assert_eq!((limits.requests_per_day, limits.batch_queue_tokens), (None, None));
    assert_eq!(caller.key().terms.expires_at.unwrap().since(now), 2 * 86_400 * 1_000_000_000);
}

#[tokio::test]
async fn keys_are_listed_without_their_secret_and_revoked_by_id() {
    let gateway = Gateway::start().await;
    assert!(gateway.keys(&["list"]).await.unwrap().starts_with("No keys yet"));
    let plain = gateway.keys(&["create", "--project", "alpha"]).await.unwrap();
    gateway.keys(&["create", "--project", "beta"]).await.unwrap();
    let listed = gateway.keys(&["list"]).await.unwrap();
    assert_eq!(listed.lines().count(), 3);
    assert!(listed.lines().skip(1).all(|line| line.contains("  -  ")), "{listed}");
    let narrowed = ["--requests-per-minute", "5", "--tokens-per-minute", "700", "--tokens-per-day", "9000"];
    gateway.keys(&[&["create", "--project", "gamma"][..], &narrowed].concat()).await.unwrap();
    let listed = gateway.keys(&["list", "--project", "gamma"]).await.unwrap();
    assert!(listed.contains("  5 RPM, 700 TPM, 9000 TPD  "), "{listed}");
    let gamma: Value =
        serde_json::from_str(&gateway.keys(&["list", "--project", "gamma", "--json"]).await.unwrap()).unwrap();
    gateway.keys(&["revoke", gamma["data"][0]["id"].as_str().unwrap()]).await.unwrap();
    assert!(!listed.contains(value(&plain)));
    let of_alpha: Value =
        serde_json::from_str(&gateway.keys(&["list", "--project", "alpha", "--json"]).await.unwrap()).unwrap();
    assert_eq!(of_alpha["data"].as_array().unwrap().len(), 1);
    assert_eq!(of_alpha["data"][0]["project"]["name"], "alpha");
    let id = of_alpha["data"][0]["id"].as_str().unwrap();
    assert_eq!(gateway.keys(&["revoke", id]).await.unwrap(), format!("Revoked {id} of project alpha.\n"));
    assert!(gateway.side.accounts.authenticate(value(&plain), gateway.side.clock.now()).is_err());
    assert_eq!(gateway.keys(&["list"]).await.unwrap().lines().count(), 2);
    let again = gateway.keys(&["revoke", id]).await.unwrap_err().to_string();
    assert!(again.contains("tollgate keys list"), "{again}");
    let beta = gateway.side.accounts.projects().into_iter().find(|project| project.name == "beta").unwrap();
    gateway.side.accounts.archive_project(&beta.id, &By::gateway(gateway.side.clock.now())).await.unwrap();
    assert!(gateway.keys(&["list"]).await.unwrap().starts_with("No keys yet"));
}

#[tokio::test]
async fn a_rotated_key_is_shown_once_and_the_old_value_ends_with_the_overlap() {
    let gateway = Gateway::start().await;
    let old = gateway.keys(&["create", "--project", "alpha"]).await.unwrap();
    let id = old.split_whitespace().find(|word| word.starts_with("key_")).unwrap();
    let output = gateway.keys(&["rotate", id, "--overlap-hours", "2"]).await.unwrap();
    assert!(output.contains("works until 2023-11-15 00:13:20 UTC"), "{output}");
    let works = |plain: &str| gateway.side.accounts.authenticate(plain, gateway.side.clock.now()).is_ok();
    assert!(works(value(&old)) && works(value(&output)));
    gateway.side.clock.advance(2 * 3_600 * 1_000_000_000);
    assert!(!works(value(&old)) && works(value(&output)));
    let answer = gateway.keys(&["rotate", id, "--overlap-hours", "0", "--json"]).await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((answer["id"].as_str(), &answer["previous_expires_at"]), (Some(id), &Value::Null));
    assert!(!works(value(&output)) && works(answer["value"].as_str().unwrap()));
    let missing = gateway.keys(&["rotate", "key_nobody"]).await.unwrap_err().to_string();
    assert!(missing.contains("there is no key key_nobody in force"), "{missing}");
}

#[tokio::test]
async fn lists_are_read_to_their_last_page() {
    let gateway = Gateway::start().await;
    let now = gateway.side.clock.now();
    for number in 0..103 {
        let (name, now) = (format!("p{number}"), now.plus_nanos(number));
        gateway.side.accounts.create_project(&name, "tier1".into(), &By::gateway(now)).await.unwrap();
    }
    gateway.keys(&["create", "--project", "p102"]).await.unwrap();
    assert_eq!(gateway.side.accounts.projects().len(), 103);
}

#[tokio::test]
async fn each_error_tells_what_to_change() {
    let gateway = Gateway::start().await;
    gateway.keys(&["create", "--project", "alpha"]).await.unwrap();
    for _ in 0..2 {
        let by = By::gateway(gateway.side.clock.now());
        gateway.side.accounts.create_project("twin", "tier1".into(), &by).await.unwrap();
    }
    for (words, told) in [
        (&["create", "--project", "alpha", "--tier", "tier2"][..], "leave --tier out"),
        (&["create", "--project", "new", "--tier", "gold"], "Supported values are: 'tier1' and 'tier2'."),
        (&["create", "--project", "proj_nobody"], "No such Project object: proj_nobody"),
        (&["create", "--project", "twin"], "give one of the ids proj_"),
        (&["list", "--project", "gamma"], "there is no project gamma"),
        (&["revoke", "../../x"], "there is no key ../../x in force"),
    ] {
        let error = gateway.keys(words).await.unwrap_err().to_string();
        assert!(error.contains(told), "{words:?}: {error}");
    }
    let list = |url: &str, key: &str| {
        let (file, url) = (file(key), url.to_owned());
        async move { ask(parse(&["list"], &url, file.path().to_path_buf())).await.unwrap_err() }
    };
    let wrong = list(&gateway.url, "a wrong key").await;
    assert!(matches!(&wrong, CliError::WrongAdminKey(source) if source.contains("tmp")), "{wrong}");
    assert!(matches!(list(&gateway.url, " \n").await, CliError::NoAdminKey));
    assert!(matches!(list(&gateway.url, "a\u{1}b").await, CliError::UnusableAdminKey(_)));
    assert!(matches!(list("ftp://x", ADMIN_KEY).await, CliError::BadUrl(_)));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = list(&format!("http://{closed}"), ADMIN_KEY).await.to_string();
    assert!(unreachable.contains("is it running") && unreachable.contains(&closed.to_string()), "{unreachable}");
    let missing = ask(parse(&["list"], &gateway.url, "/nowhere/key".into())).await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/key"));
}

#[tokio::test]
async fn every_address_that_the_gateway_prints_is_understood() {
    let gateway = Gateway::start().await;
    for path in ["", "/", "/v1", "/v1/", "/v1/organization", "/v1/organization/"] {
        let command = parse(&["list"], &format!("{}{path}", gateway.url), gateway.key_file.path().to_path_buf());
        assert!(ask(command).await.is_ok(), "{path}");
    }
    let elsewhere = parse(&["list"], &format!("{}/x", gateway.url), gateway.key_file.path().to_path_buf());
    assert!(ask(elsewhere).await.is_err());
}

#[tokio::test]
async fn an_address_without_the_admin_api_is_asked_about() {
    use axum::{Json, Router, http::StatusCode};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let error = json!({"error": {"message": "Invalid URL (GET /v1/organization/projects)"}});
    let router = Router::new().fallback(async || (StatusCode::NOT_FOUND, Json(error)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let key = file(ADMIN_KEY);
    let error = ask(parse(&["list"], &url, key.path().to_path_buf())).await.unwrap_err().to_string();
    assert!(error.contains("Invalid URL") && error.contains("is this the admin address"), "{error}");
}

#[tokio::test]
async fn without_an_address_the_configuration_tells_it_and_empty_variables_count_as_not_set() {
    let gateway = Gateway::start().await;
    let port = gateway.url.rsplit_once(':').unwrap().1;
    let config = file(&format!("admin_listen = \"0.0.0.0:{port}\"\n"));
    let key_file = gateway.key_file.path().display().to_string();
    let variables = [("TOLLGATE_ADMIN_URL", ""), ("TOLLGATE_CONFIG", ""), ("TOLLGATE_ADMIN_KEY_FILE", &*key_file)];
    let env = BTreeMap::from(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let command = Cli::try_parse_from(["keys", "list"]).unwrap().command;
    let api = AdminApi::connect(command.access(), Some(config.path()), &env).unwrap();
    assert!(answer(command, &api).await.unwrap().starts_with("No keys yet"));
    let command = Cli::try_parse_from(["keys", "list"]).unwrap().command;
    let broken = file("admin_listen = 1\n");
    let error = AdminApi::connect(command.access(), Some(broken.path()), &env).err().unwrap().to_string();
    assert!(error.contains("give --admin-url") && error.contains(":1: admin_listen: expected a string"), "{error}");
}

#[test]
fn what_the_gateway_would_refuse_is_refused_before_a_project_is_made() {
    let long = "x".repeat(129);
    for (option, value) in [
        ("--requests-per-minute", "0"),
        ("--requests-per-day", "4294967296"),
        ("--tokens-per-minute", "many"),
        ("--batch-queue-tokens", "9"),
        ("--name", ""),
        ("--name", &long),
        ("--name", "a\nb"),
    ] {
        let words = ["keys", "create", "--project", "a", option, value];
        let error = Cli::try_parse_from(words).unwrap_err().to_string();
        assert!(error.contains(option), "{option} {value}: {error}");
    }
    assert!(Cli::try_parse_from(["keys", "create", "--project", " "]).is_err());
    assert!(
        Cli::try_parse_from(["keys", "create", "--project", &long[1..], "--requests-per-day", "4294967295"]).is_ok()
    );
}

#[test]
fn the_admin_key_is_no_argument() {
    let error = Cli::try_parse_from(["keys", "list", "--admin-key", "sk-admin-secret"]).unwrap_err().to_string();
    assert!(error.contains("TOLLGATE_ADMIN_KEY") && !error.contains("secret"), "{error}");
    let help = Cli::try_parse_from(["keys", "list", "--help"]).unwrap_err().to_string();
    assert!(!help.contains("--admin-key "), "{help}");
}

#[test]
fn tables_align() {
    let rows = [["a".to_owned(), "bb".to_owned()], ["äöü".to_owned(), "c".to_owned()]];
    assert_eq!(table(&rows), "a    bb\näöü  c\n");
}
