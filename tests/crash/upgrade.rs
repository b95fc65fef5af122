//! Databases of earlier versions: each is opened, brought up to date, and says what it said before.
//!
//! `tests/fixtures/ledger_v<N>.sql` is a ledger as the version with migration N left it. The first line says what is in it,
//! counted by the upstream and the clients of that time. A new migration needs a new file; the older ones stay as they are:
//! `cargo test --test crash write_the_fixture -- --ignored`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

use crate::{
    client::get,
    ledger::{Ledger, Row, Verdict, read_log},
    load::{Load, teams},
    process::{ADMIN_KEY, Gateway, Key, LookAlike, Setup, log_of},
    survival::text,
};

/// What the keys in the fixtures were made with.
const PEPPER: &str = "pepper-of-the-databases-that-are-kept-for-tests";
const DAY_S: u64 = 86_400;

/// The first line of a fixture.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Facts {
    requests: u64,
    input_tokens: i64,
    output_tokens: i64,
    input_audio_tokens: i64,
    cost_pico: i64,
    /// The day of the first request.
    start_s: u64,
    /// A key that worked, and must go on working.
    key: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(version: u64) -> PathBuf {
    root().join(format!("tests/fixtures/ledger_v{version}.sql"))
}

/// The numbers of all migrations.
fn versions() -> Vec<u64> {
    let names = fs::read_dir(root().join("migrations")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut versions: Vec<u64> =
        names.map(|name| name.to_str().unwrap().split('_').next().unwrap().parse().unwrap()).collect();
    versions.sort_unstable();
    versions
}

fn setup(dir: &Path, upstream: &LookAlike) -> Setup {
    Setup::new(dir, upstream).with("PEPPER", PEPPER)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_every_version_are_brought_up_to_date_and_report_the_same() {
    for version in versions() {
        let path = fixture(version);
        let sql = fs::read_to_string(&path)
            .unwrap_or_else(|_| panic!("migration {version} has no {}: see the top of this file", path.display()));
        let facts: Facts = serde_json::from_str(sql.lines().next().unwrap().trim_start_matches("-- ")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let upstream = LookAlike::start(dir.path(), &[]);
        let setup = setup(dir.path(), &upstream);
        fs::create_dir(setup.ledger().parent().unwrap()).unwrap();
        load(&setup.ledger(), &sql).await;

        let mut gateway = setup.start();
        assert_eq!(reported(&gateway, &facts).await, facts, "version {version}");
        let key = Key { id: String::new(), plain: facts.key.clone(), project_id: String::new() };
        assert_eq!(gateway.chat(&key, &text()).await.status, 200, "a key of version {version} is refused");
        gateway.stop();
        let ledger = Ledger::open(&setup.ledger()).await;
        ledger.assert_sound().await;
        assert_eq!(ledger.count().await, i64::try_from(facts.requests).unwrap() + 1);
        setup.assert_quiet_log();
    }
}

async fn load(ledger: &Path, sql: &str) {
    let options = SqliteConnectOptions::new()
        .filename(ledger)
        .create_if_missing(true)
        .foreign_keys(false)
        .journal_mode(SqliteJournalMode::Wal);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// What the reports for administrators say about the time of `facts`.
async fn reported(gateway: &Gateway, facts: &Facts) -> Facts {
    let page = async |path: &str| {
        let range = format!("start_time={}&end_time={}", facts.start_s, facts.start_s + 2 * DAY_S);
        let path = format!("/v1/organization/{path}?{range}&bucket_width=1d");
        let answer = get(gateway.admin, &path, ADMIN_KEY).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    };
    let (usage, costs) = (page("usage/completions").await.json(), page("costs").await.text());
    let buckets = usage["data"].as_array().unwrap().iter();
    let results: Vec<_> = buckets.flat_map(|bucket| bucket["results"].as_array().unwrap()).collect();
    let sum = |field: &str| results.iter().map(|result| result[field].as_i64().unwrap()).sum::<i64>();
    // As text: a JSON reader would make floats of them.
    let amounts = costs.split("\"value\":").skip(1).map(|rest| rest.split([',', '}']).next().unwrap().trim());
    Facts {
        requests: u64::try_from(sum("num_model_requests")).unwrap(),
        input_tokens: sum("input_tokens"),
        output_tokens: sum("output_tokens"),
        input_audio_tokens: sum("input_audio_tokens"),
        cost_pico: amounts.map(pico).sum(),
        start_s: facts.start_s,
        key: facts.key.clone(),
    }
}

/// Decimal dollars as pico-dollars, by their digits.
fn pico(dollars: &str) -> i64 {
    const DIGITS: usize = 12;
    let (whole, part) = dollars.split_once('.').unwrap_or((dollars, ""));
    assert!(part.len() <= DIGITS, "{dollars} is no sum of pico-dollars");
    format!("{whole}{part:0<DIGITS$}").parse().unwrap_or_else(|_| panic!("{dollars} is not plain decimal"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture of the newest migration"]
async fn write_the_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--delay-ms", "20"]);
    let setup = setup(dir.path(), &upstream);
    let mut gateway = setup.start();
    let teams = teams(&gateway).await;
    let started = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let load = Load::start(gateway.calls, &teams, 4);
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let tally = load.end().await;
    gateway.stop();

    let rows = Ledger::open(&setup.ledger()).await.rows().await;
    let log = read_log(&log_of(dir.path()));
    Verdict::of(&log, &rows, &teams, &tally).assert_good();
    let sum = |of: fn(&Row) -> i64| rows.iter().map(of).sum::<i64>();
    let facts = Facts {
        requests: rows.len() as u64,
        input_tokens: sum(Row::input_tokens),
        output_tokens: sum(Row::output_tokens),
        input_audio_tokens: sum(|row| row.input_audio),
        cost_pico: sum(|row| row.cost_pico.unwrap()),
        start_s: started - started % DAY_S,
        key: teams[0].key.plain.clone(),
    };
    assert!(facts.input_audio_tokens > 0, "a ledger without audio proves little: again, please");
    let sql = format!("-- {}\n{}", json!(facts), dump(&setup.ledger()).await);
    let path = fixture(*versions().last().unwrap());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, sql).unwrap();
}

/// The database as SQL: tables with their rows, then everything else.
async fn dump(ledger: &Path) -> String {
    let options = SqliteConnectOptions::new().filename(ledger).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let schema: Vec<(String, String, String)> = sqlx::query_as(
        // What SQLite keeps for itself it makes again.
        "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
         ORDER BY type <> 'table', rowid",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut statements = Vec::new();
    for (kind, name, create) in schema {
        statements.push(format!("{create};"));
        // Without the journal of that time there is no place in it.
        if kind == "table" && name != "projection" {
            let columns: Vec<String> = sqlx::query_scalar("SELECT 'quote(' || name || ')' FROM pragma_table_info(?)")
                .bind(&name)
                .fetch_all(&mut connection)
                .await
                .unwrap();
            let values = columns.join(" || ',' || ");
            let rows = format!("SELECT 'INSERT INTO {name} VALUES (' || {values} || ');' FROM {name}");
            let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_all(&mut connection).await.unwrap();
            statements.extend(rows);
        }
    }
    statements.push(String::new());
    statements.join("\n")
}
