//! The ledger beside a second gateway's reports: one that saw the same, and ones that did not.

use serde_json::json;
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::{
    scripted::{Scripted, Step, answer},
    support::{ADMIN_KEY, Actor, Ended, Gateway, TEXT_MODEL, amounts, change_price, command, spoken, text, with},
};

/// 2026-09-21 14:13:20 UTC.
const START_S: u64 = 1_790_000_000;
const DAY_NANOS: u64 = 86_400_000_000_000;
const KEY: (&str, &str) = ("TOLLGATE_RECONCILE_KEY", ADMIN_KEY);

async fn gateway(price: Option<&str>) -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(START_S));
    Gateway::start_at(clock, simulator::Options::default(), |settings| {
        if let Some(price) = price {
            change_price(settings, TEXT_MODEL, "input_text = \"0.15\"", &format!("input_text = \"{price}\""));
        }
    })
    .await
}

/// Text on two days and sound on the second.
async fn traffic(gateway: &Gateway) -> Actor {
    let team = gateway.project("tier1").await;
    team.say("Hi").await;
    team.chat(&with(text(TEXT_MODEL, "Hi"), &json!({"service_tier": "priority"}))).await;
    gateway.clock.advance(DAY_NANOS);
    team.chat_with_fault("cached=3", &text(TEXT_MODEL, "Hi")).await;
    team.chat(&spoken("wav")).await;
    gateway.at_rest().await;
    team
}

async fn reconcile(ours: &Gateway, theirs: &str, more: &[&str]) -> Ended {
    let words = ["reconcile", "--from", "2026-09-01", "--to", "2026-10-01", "--base-url", theirs];
    command(ours, &[&words, more].concat(), &[KEY]).await
}

#[tokio::test]
async fn books_of_the_same_traffic_agree() {
    let (ours, theirs) = (gateway(None).await, gateway(None).await);
    traffic(&ours).await;
    traffic(&theirs).await;
    for url in [&ours.admin_url, &theirs.admin_url, &format!("{}/v1", theirs.admin_url)] {
        let ended = reconcile(&ours, url, &[]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.out.contains("The books agree: ") && !ended.out.contains(" 0 lines"), "{}", ended.out);
    }
    let ended = reconcile(&ours, &theirs.admin_url, &["--json"]).await;
    let answer = ended.json();
    assert_eq!((&answer["agree"], &answer["differences"]), (&json!(true), &json!([])));
    let expected: i128 = ours.ledger().await.iter().map(|row| i128::from(row.cost_pico.unwrap())).sum();
    assert_eq!((amounts(&ended.out, "ours"), amounts(&ended.out, "theirs")), (vec![expected], vec![expected]));
}

#[tokio::test]
async fn a_request_that_one_side_lacks_is_named() {
    let (ours, theirs) = (gateway(None).await, gateway(None).await);
    traffic(&ours).await;
    let team = traffic(&theirs).await;
    team.say("Hi").await;
    theirs.at_rest().await;
    let ended = reconcile(&ours, &theirs.admin_url, &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines: Vec<Vec<_>> = ended.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let of = |words: &[&str]| lines.iter().filter(|line| line.starts_with(words)).count();
    let day = "2026-09-22";
    assert_eq!(of(&[day, "gpt-4o-mini-2024-07-18,", "requests", "1", "2", "!"]), 1, "{}", ended.out);
    assert_eq!(of(&[day, "gpt-4o-mini-2024-07-18,", "input", "2", "7", "!", "$0.0000003", "$0.00000105", "!"]), 1);
    // Nothing of the day before, and nothing of the sound.
    assert_eq!((of(&["2026-09-21"]), of(&[day])), (0, 3), "{}", ended.out);
    assert!(ended.out.contains("3 of "), "{}", ended.out);
    // Half of the tokens are too many for any share below, and for no amount.
    for (tolerance, code) in [("80%", 0), ("70%", 1), ("$5", 1)] {
        let ended = reconcile(&ours, &theirs.admin_url, &["--tolerance", tolerance]).await;
        assert_eq!(ended.code, Some(code), "{tolerance}: {ended:?}");
    }
}

#[tokio::test]
async fn a_wrong_price_is_named_and_gone_after_repricing() {
    let (mut ours, theirs) = (gateway(Some("0.35")).await, gateway(None).await);
    traffic(&ours).await;
    traffic(&theirs).await;
    let ended = reconcile(&ours, &theirs.admin_url, &["--json"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let answer = ended.json();
    let differences = answer["differences"].as_array().unwrap();
    // The price of priority is another, so the first day has one wrong request, and so has the second.
    let names: Vec<_> =
        differences.iter().map(|it| (it["day"].as_str().unwrap(), it["line_item"].as_str().unwrap())).collect();
    let input = "gpt-4o-mini-2024-07-18, input";
    assert_eq!(names, [("2026-09-21", input), ("2026-09-22", input)]);
    assert!(differences.iter().all(|it| it["cost"]["differs"] == true && it["quantity"]["differs"] == false));
    assert_eq!(answer["total_cost"]["differs"], true);
    let ended = reconcile(&ours, &theirs.admin_url, &["--tolerance", "$0.000002", "--json"]).await;
    assert_eq!((ended.code, &ended.json()["total_cost"]["differs"]), (Some(0), &json!(false)), "{ended:?}");
    ours.settings.models_dir = None;
    let repriced = command(&ours, &["reprice", "--from", "2026-09-01", "--to", "2026-10-01"], &[]).await;
    assert_eq!(repriced.code, Some(0), "{repriced:?}");
    let ended = reconcile(&ours, &theirs.admin_url, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn a_providers_other_projects_are_left_out() {
    let theirs = gateway(None).await;
    let team = traffic(&theirs).await;
    let ours = gateway(None).await;
    traffic(&ours).await;
    theirs.project("tier1").await.say("Hi").await;
    theirs.at_rest().await;
    assert_eq!(reconcile(&ours, &theirs.admin_url, &[]).await.code, Some(1));
    let ended = reconcile(&ours, &theirs.admin_url, &["--project-ids", &team.project_id]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn many_days_are_read_page_by_page() {
    let gateway = gateway(None).await;
    let team = gateway.project("tier1").await;
    for _ in 0..4 {
        team.say("Hi").await;
        gateway.clock.advance(40 * DAY_NANOS);
    }
    gateway.at_rest().await;
    let words = ["reconcile", "--from", "2026-09-01", "--to", "2027-09-01", "--base-url", &gateway.admin_url, "--json"];
    let ended = command(&gateway, &words, &[KEY]).await;
    assert_eq!((ended.code, ended.json()["compared"].as_u64()), (Some(0), Some(4 * 3)), "{ended:?}");
    let expected: i128 = gateway.ledger().await.iter().map(|row| i128::from(row.cost_pico.unwrap())).sum();
    assert_eq!(amounts(&ended.out, "theirs"), [expected]);
}

/// What a provider says that is asked too often.
fn too_many(retry_after: &str) -> Step {
    let body = r#"{"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}"#;
    let head =
        format!("HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: {retry_after}\r\n");
    Step::Send(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into())
}

#[tokio::test]
async fn a_provider_that_is_asked_too_often_is_asked_again() {
    let gateway = gateway(None).await;
    let page = r#"{"object": "page", "data": [], "has_more": false, "next_page": null}"#;
    let provider = Scripted::start(move |number| match number {
        0 | 1 | 3 => vec![too_many("0")],
        _ => vec![answer("200 OK", "application/json", page)],
    })
    .await;
    let ended = reconcile(&gateway, &provider.url, &[]).await;
    assert_eq!((ended.code, provider.requests().len()), (Some(0), 5), "{ended:?}");
}

#[tokio::test]
async fn what_cannot_be_compared_is_no_difference() {
    let gateway = gateway(None).await;
    let json = |body: &str| vec![answer("200 OK", "application/json", body)];
    let endless = r#"{"data": [], "has_more": true, "next_page": "page_again"}"#;
    let (odd, endless) = (Scripted::playing(json("[]")).await, Scripted::playing(json(endless)).await);
    let file = gateway.dir.path().join("key");
    std::fs::write(&file, "sk-admin-another\n").unwrap();
    let file = file.to_str().unwrap();
    let wrong_key = ["--admin-key-file", file];
    let unusable = gateway.dir.path().join("unusable");
    std::fs::write(&unusable, "sk-admin-another\nand more").unwrap();
    let unusable = ["--admin-key-file", unusable.to_str().unwrap()];
    let refusing = Scripted::playing(vec![too_many("0")]).await;
    let (later, html) =
        (Scripted::playing(vec![too_many("3600")]).await, answer("502 Bad Gateway", "text/html", "<p>"));
    let html = Scripted::playing(vec![html]).await;
    for (url, more, said) in [
        (gateway.admin_url.as_str(), wrong_key.as_slice(), "the provider refused the key from /"),
        (&odd.url, &[], "the provider's report cannot be read: not a page of a report"),
        (&endless.url, &[], "the provider's report has more than 1000 pages"),
        ("http://127.0.0.1:1", &[], "cannot reach the provider at http://127.0.0.1:1"),
        ("somewhere", &[], "is no address of a provider"),
        (&gateway.calls_url, &[], "is --base-url right?"),
        (&html.url, &[], "an answer that is not a provider's (502 Bad Gateway, not JSON): is --base-url right?"),
        (&gateway.admin_url, &unusable, "the provider's key from /"),
        (&refusing.url, &[], "the provider answered 429 Too Many Requests: slow down"),
        (&later.url, &[], "the provider answered 429 Too Many Requests: slow down"),
        (&gateway.admin_url, &["--tolerance", "5"], "expected a share (0.5%) or an amount ($0.01)"),
        (&gateway.admin_url, &["--admin-key", ADMIN_KEY], "unexpected argument '--admin-key'"),
    ] {
        let ended = reconcile(&gateway, url, more).await;
        assert_eq!((ended.code, ended.err.contains(said)), (Some(2), true), "{said}: {ended:?}");
        assert!(!ended.err.contains(ADMIN_KEY) && !ended.err.contains("sk-admin-another"), "{ended:?}");
        assert!(!ended.err.contains("--admin-url") && !ended.err.contains("the gateway"), "{ended:?}");
    }
    // Asked again some times, and not at all when that would take too long.
    assert_eq!((refusing.requests().len(), later.requests().len()), (5, 1));
    let words = ["reconcile", "--from", "2026-09-01", "--to", "2026-10-01", "--base-url", &gateway.admin_url];
    let ended = command(&gateway, &words, &[]).await;
    assert_eq!((ended.code, ended.err.contains("no key for the provider")), (Some(2), true), "{ended:?}");
    let ended = command(&gateway, &words, &[KEY, ("TOLLGATE_LISTEN", "nowhere")]).await;
    assert_eq!((ended.code, ended.err.contains("TOLLGATE_LISTEN")), (Some(2), true), "{ended:?}");
    let hours = ["reconcile", "--from", "2026-09-01T01:00:00Z", "--to", "2026-10-01", "--base-url", &gateway.admin_url];
    assert!(command(&gateway, &hours, &[KEY]).await.err.contains("whole days (UTC) are compared"));
}
