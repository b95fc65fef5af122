//! Prices that were wrong, corrected by another process while the gateway runs.

use serde_json::json;
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::{
    scripted::{Scripted, answer, eventually},
    support::{
        Actor, Ended, Gateway, MODEL, SNAPSHOT, TEXT_MODEL, amounts, change_price, command, model_without_price,
        prepared, spoken, text,
    },
};

/// 2026-09-21 14:13:20 UTC.
const START_S: u64 = 1_790_000_000;
const SEPTEMBER: [&str; 4] = ["--from", "2026-09-01", "--to", "2026-10-01"];

async fn gateway() -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    Gateway::start_at(clock, simulator::Options::default(), |_| {}).await
}

async fn reprice(gateway: &Gateway, more: &[&str]) -> Ended {
    let ended = command(gateway, &[&["reprice"], SEPTEMBER.as_slice(), more].concat(), &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

async fn report(gateway: &Gateway, path: &str) -> String {
    let path = format!("/v1/organization/{path}start_time={}", START_S - 3_600);
    let reply = gateway.admin().get(&path).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

async fn costs(gateway: &Gateway) -> i128 {
    amounts(&report(gateway, "costs?group_by=line_item&").await, "value").iter().sum()
}

async fn usage(gateway: &Gateway) -> String {
    report(gateway, "usage/completions?bucket_width=1d&group_by=model&group_by=api_key_id&").await
}

async fn adjustments(gateway: &Gateway) -> usize {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(gateway.ledger_path()).read_only(true);
    let pool = sqlx::sqlite::SqlitePool::connect_with(options).await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM adjustments").fetch_one(&pool).await.unwrap();
    usize::try_from(count).unwrap()
}

/// Two requests of text and one of sound.
async fn three_requests(gateway: &Gateway) -> Actor {
    let team = gateway.project("tier1").await;
    team.say("Hi").await;
    team.say("Hi").await;
    team.chat(&spoken("wav")).await;
    assert_eq!(gateway.ledger().await.len(), 3);
    team
}

#[tokio::test]
async fn costs_change_by_exactly_the_printed_difference_and_usage_does_not() {
    let mut gateway = gateway().await;
    let mut team = three_requests(&gateway).await;
    // 5 tokens in for each request of text, at 15 cents a million.
    change_price(&mut gateway.settings, TEXT_MODEL, "input_text = \"0.15\"", "input_text = \"0.35\"");
    let (costs_before, usage_before) = (costs(&gateway).await, usage(&gateway).await);

    let dry = reprice(&gateway, &["--dry-run", "--json"]).await;
    assert_eq!(amounts(&dry.out, "difference"), [10 * 200_000, 10 * 200_000]);
    let answer = dry.json();
    assert_eq!((&answer["dry_run"], &answer["requests"], &answer["corrected"]), (&json!(true), &json!(3), &json!(2)));
    assert!(reprice(&gateway, &["--dry-run"]).await.out.contains("would be adjusted; nothing was written"));
    assert_eq!((costs(&gateway).await, adjustments(&gateway).await), (costs_before, 0));

    let wet = reprice(&gateway, &["--reason", "a wrong page"]).await;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = wet.out.lines().map(words).collect();
    assert_eq!(lines[1], ["gpt-4o-mini-2024-07-18", "input", "10", "$0.0000015", "$0.0000035", "$0.000002"]);
    assert_eq!(lines[2], ["TOTAL", "$0.000002"]);
    assert_eq!(costs(&gateway).await - costs_before, 10 * 200_000);
    assert_eq!(usage(&gateway).await, usage_before);

    let again = reprice(&gateway, &[]).await;
    assert_eq!(again.out, "3 requests looked at: the books are right, nothing was written.\n");
    let again = reprice(&gateway, &["--json"]).await.json();
    assert_eq!((&again["corrected"], &again["lines"]), (&json!(0), &json!([])));
    assert_eq!(adjustments(&gateway).await, 2);

    let log = gateway.admin().get("/v1/organization/audit_logs?event_types[]=prices.repriced").await.json();
    let [written, plan] = log["data"].as_array().unwrap().as_slice() else { panic!("{log}") };
    let expected = json!({"settled_from": 1_788_220_800, "settled_before": 1_790_812_800, "planned_requests": 2,
        "planned_difference": "0.000002", "reason": "a wrong page"});
    assert_eq!((&plan["after"], &plan["actor"]["api_key"]["id"]), (&expected, &json!("gateway")));
    let expected = json!({"settled_from": 1_788_220_800, "settled_before": 1_790_812_800, "requests": 2,
        "difference": "0.000002", "reason": "a wrong page"});
    assert_eq!(written["after"], expected);
    assert_eq!(command(&gateway, &["audit", "verify"], &[]).await.code, Some(0));

    // The gateway, started with the mended page, bills what the books say now.
    gateway.stop().await;
    gateway.run().await;
    team.url.clone_from(&gateway.calls_url);
    team.say("Hi").await;
    let rows = gateway.ledger().await;
    let of_text: Vec<_> =
        rows.iter().filter(|row| row.model == "gpt-4o-mini-2024-07-18").map(|row| row.cost_pico).collect();
    assert_eq!(of_text, [Some(5 * 350_000 + 16 * 600_000); 3]);
    assert_eq!(reprice(&gateway, &["--json"]).await.json()["corrected"], 0);
}

#[tokio::test]
async fn what_had_no_price_gets_one_and_is_counted_once() {
    let mut gateway =
        Gateway::start_at(Clock::manual(UnixNanos::from_seconds(START_S)), simulator::Options::default(), |settings| {
            settings.allow_unpriced = true;
            model_without_price(settings);
        })
        .await;
    let team = gateway.project("tier1").await;
    for _ in 0..2 {
        assert_eq!(team.chat(&text("no-price", "Hi")).await.status, 200);
    }
    let rows = gateway.ledger().await;
    assert_eq!(rows.iter().map(|row| (row.cost_pico, row.priced)).collect::<Vec<_>>(), [(None, 0); 2]);
    assert!(report(&gateway, "costs?").await.contains("\"unpriced_requests\":2"));
    let usage_before = usage(&gateway).await;
    let left = reprice(&gateway, &[]).await.out;
    assert!(left.contains("2 requests of no-price: something has no price"), "{left}");

    let page = gateway.settings.models_dir.as_ref().unwrap().join("no-price.toml");
    let prices = "[[prices]]\nfrom = \"2026-01-01\"\n[prices.standard]\ninput_text = \"1\"\noutput_text = \"2\"\n";
    std::fs::write(&page, std::fs::read_to_string(&page).unwrap() + prices).unwrap();
    let answer = reprice(&gateway, &["--json"]).await.json();
    assert_eq!((&answer["corrected"], &answer["without_price"]), (&json!(2), &json!([])));
    let rows = gateway.ledger().await;
    let cost = |row: &crate::support::Row| row.input_text * 1_000_000 + row.output_text * 2_000_000;
    assert!(rows.iter().all(|row| row.priced == 1 && row.cost_pico == Some(cost(row)) && cost(row) > 0), "{rows:?}");
    let page = report(&gateway, "costs?").await;
    assert_eq!(amounts(&page, "value"), [rows.iter().map(|row| i128::from(cost(row))).sum::<i128>()]);
    assert!(!page.contains("unpriced_requests"));
    assert_eq!(usage(&gateway).await, usage_before);
    gateway.stop().await;
    gateway.run().await;
    assert_eq!((report(&gateway, "costs?").await, usage(&gateway).await), (page, usage_before));
}

#[tokio::test]
async fn spend_limits_of_a_running_gateway_count_adjustments() {
    let mut gateway = gateway().await;
    let team = gateway.project("tier1").await;
    let path = format!("/v1/organization/projects/{}/spend_limit", team.project_id);
    let limit = json!({"threshold_amount": 3, "currency": "USD", "interval": "month"});
    assert_eq!(gateway.admin().post(&path, &limit).await.status, 200);
    // 600 tokens of audio: between one cent and two, at 20 dollars a million.
    assert_eq!(team.chat_with_fault("audio-seconds=30", &spoken("wav")).await.status, 200);
    assert_eq!(team.say("Hi").await.status, 200);
    gateway.at_rest().await;
    change_price(&mut gateway.settings, MODEL, "output_audio = \"20\"", "output_audio = \"60\"");
    let answer = reprice(&gateway, &["--json"]).await.json();
    assert_eq!(
        (&answer["lines"][0]["model"], &answer["lines"][0]["line_item"]),
        (&json!(SNAPSHOT), &json!("audio output"))
    );
    eventually("the limit is reached", async || team.say("Hi").await.status == 429).await;
    assert_eq!(team.say("Hi").await.error()["code"], "project_spend_limit_exceeded");
    // And once more from what the ledger says.
    gateway.stop().await;
    gateway.run().await;
    let team = Actor { url: gateway.calls_url.clone(), ..team };
    assert_eq!(team.say("Hi").await.status, 429);
    // Counted once: three times the price is less than four cents, and twice the difference would be more than five.
    let limit = json!({"threshold_amount": 5, "currency": "USD", "interval": "month"});
    assert_eq!(gateway.admin().post(&path, &limit).await.status, 200);
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(team.say("Hi").await.status, 200);
}

#[tokio::test]
async fn a_gateway_under_load_and_its_ledger_do_not_notice() {
    let mut gateway = gateway().await;
    let team = gateway.project("tier5").await;
    for round in 0..4 {
        let cents = format!("input_text = \"0.{}\"", 20 + round);
        change_price(&mut gateway.settings, TEXT_MODEL, "input_text = \"0.15\"", &cents);
        let load = async {
            for _ in 0..10 {
                let replies = tokio::join!(team.say("Hi"), team.say("Hi"), team.say("Hi"));
                assert!([replies.0, replies.1, replies.2].iter().all(|reply| reply.status == 200));
            }
        };
        tokio::join!(load, reprice(&gateway, &[]));
        let health = gateway.admin().get("/metrics").await;
        assert_eq!(health.status, 200);
        assert_eq!(gateway.ledger().await.len(), 30 * (round + 1));
    }
    reprice(&gateway, &[]).await;
    let rows = gateway.ledger().await;
    assert!(rows.iter().all(|row| row.cost_pico == Some(5 * 230_000 + 16 * 600_000)), "{:?}", rows.first());
    assert_eq!(costs(&gateway).await, rows.iter().map(|row| i128::from(row.cost_pico.unwrap())).sum::<i128>());
    gateway.stop().await;
    gateway.run().await;
    assert_eq!(gateway.ledger().await.len(), 120);
}

#[tokio::test]
async fn a_run_that_is_killed_is_finished_by_the_next() {
    const REQUESTS: usize = 1_600;
    let mut gateway = gateway().await;
    let team = gateway.project("tier5").await;
    for _ in 0..REQUESTS / 8 {
        let say = || team.say("Hi");
        let replies = tokio::join!(say(), say(), say(), say(), say(), say(), say(), say());
        assert_eq!(replies.7.status, 200);
    }
    let (requests, usage_before) = (gateway.ledger().await.len(), usage(&gateway).await);
    let mut killed = 0;
    for round in 0..4 {
        let price = format!("input_text = \"0.{}\"", 20 + round);
        change_price(&mut gateway.settings, TEXT_MODEL, "input_text = \"0.15\"", &price);
        let before = adjustments(&gateway).await;
        let words = [&["reprice"], SEPTEMBER.as_slice()].concat();
        let mut child = prepared(&gateway, &words, &[]).stdout(std::process::Stdio::null()).spawn().unwrap();
        eventually("the first piece is written", async || adjustments(&gateway).await > before).await;
        child.kill().unwrap();
        child.wait().unwrap();
        killed += usize::from(adjustments(&gateway).await < before + requests);
        gateway.ledger().await;
        reprice(&gateway, &[]).await;
        assert_eq!(adjustments(&gateway).await, before + requests);
        let rows = gateway.ledger().await;
        let cost = 5 * (200_000 + round * 10_000) + 16 * 600_000;
        assert!(rows.iter().all(|row| row.cost_pico == Some(cost)), "{round}");
        assert_eq!(costs(&gateway).await, i128::from(cost) * i128::try_from(requests).unwrap());
    }
    assert!(killed > 0, "every run was faster than the signal");
    // What a killed run has not written is in no row that says what was.
    let log = gateway.admin().get("/v1/organization/audit_logs?event_types[]=prices.repriced").await.json();
    let facts: Vec<_> = log["data"].as_array().unwrap().iter().map(|row| &row["after"]).collect();
    let sum = |name: &str| facts.iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
    let adjusted = adjustments(&gateway).await as u64;
    assert!(sum("requests") < adjusted && sum("planned_requests") > adjusted, "{adjusted}: {log}");
    assert_eq!(usage(&gateway).await, usage_before);
}

#[tokio::test]
async fn a_run_that_cannot_be_says_why() {
    let gateway = gateway().await;
    let nowhere = gateway.dir.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let backwards = ["reprice", "--from", "2026-10-01", "--to", "2026-09-01"];
    let elsewhere = [&["reprice"], SEPTEMBER.as_slice()].concat();
    for (words, env, code, said) in [
        (backwards.as_slice(), vec![], 1, "--to must be later"),
        (&elsewhere, vec![("TOLLGATE_DATA_DIR", nowhere)], 1, "there is no database at "),
        (&["reprice", "--from", "yesterday", "--to", "2026-09-01"], vec![], 2, "expected a date"),
    ] {
        let ended = command(&gateway, words, &env).await;
        assert_eq!((ended.code, ended.err.contains(said)), (Some(code), true), "{ended:?}");
    }
}

/// Of requests that are gone nobody can say that they were billed right.
#[tokio::test]
async fn what_was_dropped_for_its_age_is_never_called_right() {
    let gateway = gateway().await;
    three_requests(&gateway).await;
    let pool = writable(&gateway).await;
    let horizon = "UPDATE retention SET horizon_ms = 1788220800001";
    sqlx::query(horizon).execute(&pool).await.unwrap();
    let part = reprice(&gateway, &[]).await;
    assert_eq!(part.out, "3 requests looked at, none of them to correct, nothing was written.\n");
    assert!(part.err.contains("before 2026-09-01T00:00:00Z may be missing") && part.err.contains("retention_days"));
    for sql in ["UPDATE retention SET horizon_ms = 1793000000000", "DELETE FROM adjustments", "DELETE FROM entries"] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    let words = [&["reprice"], SEPTEMBER.as_slice(), &["--json"]].concat();
    let none = command(&gateway, &words, &[]).await;
    assert_eq!(none.code, Some(1), "{none:?}");
    assert_eq!((&none.json()["requests"], &none.json()["dropped_before"]), (&json!(0), &json!("2026-10-26T07:33:20Z")));
    let later = ["reprice", "--from", "2026-11-01", "--to", "2026-12-01", "--json"];
    let later = command(&gateway, &later, &[]).await;
    assert_eq!((later.code, &later.json()["dropped_before"], later.err.as_str()), (Some(0), &json!(null), ""));
}

/// The gateway ended, or its ledger failed, before it took over what is in the journal.
#[tokio::test]
async fn requests_that_are_only_in_the_journal_are_not_passed_over() {
    let mut gateway = gateway().await;
    three_requests(&gateway).await;
    gateway.stop().await;
    let pool = writable(&gateway).await;
    sqlx::query("UPDATE projection SET segment = 1, offset = 0").execute(&pool).await.unwrap();
    pool.close().await;
    let priced = [&["reprice"], SEPTEMBER.as_slice()].concat();
    let exported = [&["export", "--format", "csv"], SEPTEMBER.as_slice()].concat();
    let ended = tokio::join!(command(&gateway, &priced, &[]), command(&gateway, &exported, &[]));
    for ended in <[Ended; 2]>::from(ended) {
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.err.contains("in the journal and not in the ledger yet: start the gateway"), "{ended:?}");
    }
    let august = ["export", "--format", "csv", "--from", "2026-08-01", "--to", "2026-09-01"];
    let august = command(&gateway, &august, &[]).await;
    assert_eq!((august.code, august.err.as_str()), (Some(0), ""), "nothing of that time is missing");
    gateway.run().await;
    assert_eq!(reprice(&gateway, &["--json"]).await.json()["requests"], 3);
}

async fn writable(gateway: &Gateway) -> sqlx::sqlite::SqlitePool {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(gateway.ledger_path());
    sqlx::sqlite::SqlitePool::connect_with(options).await.unwrap()
}

/// The tariff of a request has the date of the prices of the model that answered.
#[tokio::test]
async fn the_date_of_the_prices_is_that_of_the_model_that_answered() {
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12});
    let message = json!({"role": "assistant", "content": "Hello there."});
    let body = json!({"model": "gpt-4.1-nano-2025-04-14", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage});
    let upstream = Scripted::playing(vec![answer("200 OK", "application/json", &body.to_string())]).await;
    let gateway = upstream.gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    assert_eq!(team.say("Hi").await.status, 200);
    gateway.ledger().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(gateway.ledger_path()).read_only(true);
    let pool = sqlx::sqlite::SqlitePool::connect_with(options).await.unwrap();
    let sql = "SELECT n.name, date(t.prices_from_s, 'unixepoch') FROM tariffs t JOIN names n ON n.number = t.model";
    let rows: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&pool).await.unwrap();
    assert_eq!(rows, [("gpt-4.1-nano-2025-04-14".to_owned(), "2025-04-14".to_owned())]);
}
