//! `tollgate export` beside a gateway that runs, and entries that are dropped for their age.

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, value::RawValue};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::support::{Actor, Gateway, TEXT_MODEL, spoken, text, with};

/// 2026-09-21 14:13:20 UTC.
const START_S: u64 = 1_790_000_000;
const DAY_NANOS: u64 = 86_400_000_000_000;

async fn gateway(retention_days: u64) -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    Gateway::start_at(clock, simulator::Options::default(), |settings| settings.retention_days = retention_days).await
}

/// Of all of September.
fn export(data_dir: &Path, format: &str) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["export", "--from", "2026-09-01", "--to", "2026-10-01T00:00:00Z", "--format", format])
        .env_clear()
        .env("TOLLGATE_DATA_DIR", data_dir)
        .output()
        .unwrap()
}

/// Pico-dollars of an exact decimal number.
fn pico(decimal: &str) -> i128 {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    assert!(fraction.len() <= 12 && !decimal.starts_with('-'), "{decimal}");
    format!("{whole}{fraction:0<12}").parse().unwrap()
}

/// The costs of all time, in all their digits.
async fn reported(gateway: &Gateway) -> i128 {
    #[derive(serde::Deserialize)]
    struct Page {
        data: Vec<Bucket>,
    }
    #[derive(serde::Deserialize)]
    struct Bucket {
        results: Vec<Cost>,
    }
    #[derive(serde::Deserialize)]
    struct Cost {
        amount: Amount,
    }
    #[derive(serde::Deserialize)]
    struct Amount {
        value: Box<RawValue>,
    }
    let path = format!("/v1/organization/costs?start_time={}&limit=180&group_by=line_item", START_S - 86_400);
    let page: Page = serde_json::from_slice(&gateway.admin().get(&path).await.body).unwrap();
    let costs = page.data.iter().flat_map(|bucket| &bucket.results);
    costs.map(|cost| pico(cost.amount.value.get())).sum()
}

#[tokio::test]
async fn an_export_beside_a_running_gateway_adds_up_to_its_costs_report() {
    let gateway = gateway(0).await;
    let team = gateway.project("tier1").await;
    for words in ["Hi", "Hello there", "A third one"] {
        team.say(words).await;
    }
    team.chat(&spoken("wav")).await;
    team.chat_with_fault("cached=3", &text(TEXT_MODEL, "Hi")).await;
    team.chat(&with(text(TEXT_MODEL, "Hi"), &serde_json::json!({"service_tier": "priority"}))).await;
    let rows = gateway.ledger().await;
    let costs = reported(&gateway).await;
    assert_eq!(rows.iter().map(|row| i128::from(row.cost_pico.unwrap())).sum::<i128>(), costs);

    let jsonl = export(gateway.data_dir(), "jsonl");
    assert!(jsonl.status.success() && jsonl.stderr.is_empty(), "{jsonl:?}");
    let lines: Vec<&str> = std::str::from_utf8(&jsonl.stdout).unwrap().lines().collect();
    let mut sum = 0;
    for (line, row) in lines.iter().zip(&rows) {
        #[derive(serde::Deserialize)]
        struct Line<'a> {
            request_id: String,
            project_id: String,
            input_audio: i64,
            #[serde(borrow)]
            cost_usd: &'a RawValue,
        }
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        let found = (line.request_id, line.project_id, line.input_audio);
        assert_eq!(found, (row.request_id.clone(), team.project_id.clone(), row.input_audio));
        sum += pico(line.cost_usd.get());
    }
    assert_eq!((lines.len(), sum), (6, costs));

    let csv = String::from_utf8(export(gateway.data_dir(), "csv").stdout).unwrap();
    let mut lines = csv.split_terminator("\r\n");
    let at = lines.next().unwrap().split(',').position(|name| name == "cost_usd").unwrap();
    assert_eq!(lines.map(|line| pico(line.split(',').nth(at).unwrap())).sum::<i128>(), costs);

    let parquet = export(gateway.data_dir(), "parquet");
    assert!(parquet.stdout.starts_with(b"PAR1") && parquet.stdout.ends_with(b"PAR1"));
}

/// Whoever names a project or a key writes into other people's spreadsheets, terminals and browsers.
#[tokio::test]
async fn names_are_text_in_every_answer_and_every_format() {
    const ODD: [&str; 6] = [
        "=HYPERLINK(\"http://evil.example\",\"a\")",
        "+1+1",
        "-2+3",
        "@SUM(1)",
        "<img src=x onerror=alert(1)>",
        "javascript:alert(1)",
    ];
    let gateway = gateway(0).await;
    let (team, admin) = (gateway.project("tier1").await, gateway.admin());
    let project = format!("/v1/organization/projects/{}", team.project_id);
    team.say("Hi").await;
    gateway.at_rest().await;
    for name in ODD {
        for path in [project.clone(), format!("{project}/api_keys/{}", team.key_id)] {
            assert_eq!(admin.post(&path, &serde_json::json!({"name": name})).await.status, 200, "{path}");
            let shown = admin.get(&path).await;
            assert_eq!((shown.header("content-type"), &shown.json()["name"]), ("application/json", &Value::from(name)));
        }
        let [csv, jsonl] = ["csv", "jsonl"].map(|format| export(gateway.data_dir(), format).stdout);
        let csv = String::from_utf8(csv).unwrap();
        let doubled = name.replace('"', "\"\"");
        let formula = name.starts_with(['=', '+', '-', '@']);
        let cell = if formula { format!("'{doubled}") } else { doubled };
        let quoted = if cell.contains(['"', ',']) { format!(",\"{cell}\",") } else { format!(",{cell},") };
        assert_eq!(csv.matches(&quoted).count(), 2, "the project and the key: {csv}");
        let line: Value = serde_json::from_slice(&jsonl).unwrap();
        assert_eq!((&line["project_name"], &line["api_key_name"]), (&Value::from(name), &Value::from(name)));
    }
}

#[tokio::test]
async fn entries_older_than_they_are_kept_are_dropped_and_no_report_changes() {
    let mut gateway = gateway(30).await;
    let team = gateway.project("tier1").await;
    team.say("Hi").await;
    team.chat(&spoken("wav")).await;
    assert_eq!(gateway.ledger().await.len(), 2);
    gateway.clock.advance(29 * DAY_NANOS);
    team.say("Hello").await;
    assert_eq!(gateway.ledger().await.len(), 3);
    gateway.stop().await;
    gateway.run().await;
    assert_eq!(gateway.metric("entries_dropped_total").await, 0, "none is thirty days old");
    gateway.clock.advance(2 * DAY_NANOS);
    let again = Actor { url: gateway.calls_url.clone(), ..team };
    again.say("Good evening").await;
    assert_eq!(gateway.ledger().await.len(), 4);
    let costs = reported(&gateway).await;
    gateway.stop().await;
    gateway.run().await;
    let dropped = async {
        while gateway.metric("entries_dropped_total").await < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dropped).await.unwrap();
    let exported = export(gateway.data_dir(), "jsonl");
    assert!(exported.status.success() && exported.stdout.is_empty(), "{exported:?}");
    let said = String::from_utf8(exported.stderr).unwrap();
    assert!(said.contains("before 2026-09-22T14:13:20Z may be missing") && said.contains("retention_days"), "{said}");
    assert_eq!(reported(&gateway).await, costs);
    let projects = gateway.admin().get("/v1/organization/projects").await.json();
    assert_eq!(projects["data"].as_array().map(Vec::len), Some(1));
    let changes = gateway.admin().get("/v1/organization/audit_logs?limit=100").await.json();
    assert!(changes["data"].as_array().is_some_and(|rows| rows.len() >= 3), "{changes}");
    let team = gateway.key_of(&again.project_id, Value::Object(serde_json::Map::new())).await;
    team.say("Hi").await;
    gateway.at_rest().await;
    assert!(reported(&gateway).await > costs);
}
