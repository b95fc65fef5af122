//! Tiers as teams meet them: which models, how much money a month, and how a project gets to a higher one.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::{
    api,
    app::{Routers, Running, StartError},
    clock::Clock,
    config::{Reserve, Settings, load_catalog},
    domain::time::UnixNanos,
    simulator,
};

use crate::{
    schema::Specification,
    scripted::{Gate, Scripted, Step, eventually, good_json},
    support::{Actor, Gateway, MODEL, TEXT_MODEL, amounts, change_price, spoken, text, with},
};

const PROJECTS: &str = "/v1/organization/projects";
/// 2026-09-21, ten days before the month ends.
const SEPTEMBER: u64 = 1_790_000_000;
const DAY_NANOS: u64 = 86_400_000_000_000;

const TIERS: &str = r#"
tiers = [
    { id = "tier1", name = "One", monthly_usage_limit_dollars = 3, default_limits = { requests_per_minute = 100 } },
    { id = "build", name = "Build", qualification = { spent_dollars = 1 }, default_limits = { requests_per_minute = 200 } },
    { id = "launch", name = "Launch", qualification = { paid_dollars = 1, days_since_first_payment = 7 },
      default_limits = { requests_per_minute = 300 } },
    { id = "grow", name = "Grow", qualification = { spent_dollars = 1000000 }, default_limits = { requests_per_minute = 400 } },
    { id = "partners", name = "By hand", default_limits = { requests_per_minute = 500 } },
]
"#;

/// A gateway of those tiers, where each answer in text costs more than a dollar.
pub async fn gateway(change: impl FnOnce(&mut Settings)) -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(SEPTEMBER));
    Gateway::start_at(clock, simulator::Options::default(), |settings| {
        dear_output(settings);
        let file = settings.data_dir.with_file_name("tiers.toml");
        std::fs::write(&file, TIERS).unwrap();
        settings.tiers_file = Some(file);
        change(settings);
    })
    .await
}

/// A dollar a token.
fn dear_output(settings: &mut Settings) {
    change_price(settings, TEXT_MODEL, "output_text = \"0.6\"", "output_text = \"1000000\"");
}

async fn promoting() -> Gateway {
    gateway(|settings| settings.promote_projects = true).await
}

async fn project(gateway: &Gateway, team: &Actor) -> Value {
    gateway.admin().get(&format!("{PROJECTS}/{}", team.project_id)).await.json()
}

async fn modify(gateway: &Gateway, team: &Actor, body: Value) {
    let reply = gateway.admin().post(&format!("{PROJECTS}/{}", team.project_id), &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

async fn await_tier(gateway: &Gateway, team: &Actor, tier: &str) {
    for _ in 0..200 {
        if project(gateway, team).await["tier"] == tier {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in {tier} after two seconds: {}", project(gateway, team).await);
}

/// What a promotion under way would have done by then.
async fn stays_in(gateway: &Gateway, team: &Actor, tier: &str) {
    gateway.at_rest().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(project(gateway, team).await["tier"], tier);
}

pub async fn spend(team: &Actor) {
    let reply = team.say("Hi").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// A model without limits of its own: the tier's are told.
async fn limit_of(team: &Actor) -> String {
    let reply = team.say("Hi").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.header("x-ratelimit-limit-requests").to_owned()
}

/// The changes of tier, newest first.
async fn moves(gateway: &Gateway, team: &Actor) -> Vec<Value> {
    let path = format!(
        "/v1/organization/audit_logs?limit=100&event_types[]=project.updated&project_ids[]={}",
        team.project_id
    );
    let log = gateway.admin().get(&path).await.json();
    let rows = log["data"].as_array().unwrap().iter();
    rows.filter(|row| row["before"]["tier"] != row["after"]["tier"]).cloned().collect()
}

// === promotion ===

#[tokio::test]
async fn a_project_moves_up_when_it_has_spent_enough_and_the_audit_log_has_the_figures() {
    let mut gateway = promoting().await;
    let (mut team, idle) = (gateway.project("tier1").await, gateway.project("tier1").await);
    spend(&team).await;
    await_tier(&gateway, &team, "build").await;
    let spent = gateway.ledger().await[0].cost_pico.unwrap();
    assert!(spent > 1_000_000_000_000);
    let rows = moves(&gateway, &team).await;
    let row = &rows[0];
    assert_eq!((rows.len(), &row["actor"]["api_key"]["id"]), (1, &json!("gateway")), "{row}");
    assert_eq!((&row["before"]["tier"], &row["after"]["tier"]), (&json!("tier1"), &json!("build")));
    let figures = &row["after"]["qualified_by"];
    assert_eq!(
        amounts(&figures.to_string().replace(":\"", ":").replace("\",", ",").replace("\"}", "}"), "spent_dollars"),
        [i128::from(spent)]
    );
    assert_eq!(figures["days_since_first_spend"], 0);
    let document = Specification(gateway.admin().get("/v1/organization/openapi.json").await.json());
    assert_eq!(document.problems_of("AuditLog", row), [""; 0]);
    // At once, for the keys that there are.
    assert_eq!(limit_of(&team).await, "200");
    // Whoever sends nothing meanwhile is looked at when the day begins.
    gateway.clock.advance(7 * DAY_NANOS);
    await_tier(&gateway, &team, "launch").await;
    assert_eq!(moves(&gateway, &team).await[0]["after"]["qualified_by"]["days_since_first_spend"], 7);
    gateway.stop().await;
    gateway.run().await;
    team.url.clone_from(&gateway.calls_url);
    assert_eq!(limit_of(&team).await, "300");
    stays_in(&gateway, &team, "launch").await;
    assert_eq!((moves(&gateway, &team).await.len(), &project(&gateway, &idle).await["tier"]), (2, &json!("tier1")));
}

#[tokio::test]
async fn what_was_earned_before_the_start_counts_and_tiers_between_are_skipped() {
    let mut gateway = gateway(|_| {}).await;
    let team = gateway.project("tier1").await;
    spend(&team).await;
    // Off unless it is asked for.
    stays_in(&gateway, &team, "tier1").await;
    gateway.clock.advance(8 * DAY_NANOS);
    gateway.stop().await;
    gateway.settings.promote_projects = true;
    gateway.run().await;
    await_tier(&gateway, &team, "launch").await;
    let rows = moves(&gateway, &team).await;
    assert_eq!((rows.len(), &rows[0]["after"]["qualified_by"]["days_since_first_spend"]), (1, &json!(8)));
}

#[tokio::test]
async fn an_administrators_word_stands() {
    let gateway = promoting().await;
    let team = gateway.project("tier1").await;
    modify(&gateway, &team, json!({"automatic_tier": false})).await;
    spend(&team).await;
    stays_in(&gateway, &team, "tier1").await;
    // Further up than it has earned: never down by itself, and no tier is reached that asks for nothing.
    modify(&gateway, &team, json!({"automatic_tier": true, "tier": "grow"})).await;
    spend(&team).await;
    stays_in(&gateway, &team, "grow").await;
    // Down, and with the word that it may move by itself from there.
    modify(&gateway, &team, json!({"tier": "tier1", "automatic_tier": true})).await;
    gateway.clock.advance(40 * DAY_NANOS);
    spend(&team).await;
    await_tier(&gateway, &team, "launch").await;
}

#[tokio::test]
async fn a_refusal_by_the_tiers_monthly_limit_gives_what_days_have_earned() {
    let gateway = gateway(|settings| {
        settings.promote_projects = true;
        let tiers = TIERS.replace("qualification = { spent_dollars = 1 }, ", "");
        std::fs::write(settings.tiers_file.as_ref().unwrap(), tiers).unwrap();
    })
    .await;
    let team = gateway.project("tier1").await;
    modify(&gateway, &team, json!({"automatic_tier": false})).await;
    while team.say("Hi").await.status == 200 {}
    gateway.clock.advance(7 * DAY_NANOS);
    // Until the day is old: nobody is looked at because it begins.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    modify(&gateway, &team, json!({"automatic_tier": true})).await;
    stays_in(&gateway, &team, "tier1").await;
    assert_eq!(team.say("Hi").await.error()["code"], "project_usage_limit_exceeded");
    await_tier(&gateway, &team, "launch").await;
    spend(&team).await;
}

#[tokio::test]
async fn a_move_down_stands_until_the_project_may_move_by_itself_again() {
    let gateway = promoting().await;
    let team = gateway.project("tier1").await;
    modify(&gateway, &team, json!({"tier": "partners"})).await;
    assert_eq!(project(&gateway, &team).await["automatic_tier"], true);
    modify(&gateway, &team, json!({"tier": "tier1", "automatic_tier": null})).await;
    assert_eq!(project(&gateway, &team).await["automatic_tier"], false);
    let row = &moves(&gateway, &team).await[0];
    assert_eq!(
        (&row["before"]["automatic_tier"], &row["after"]["automatic_tier"]),
        (&json!(true), &json!(false)),
        "{row}"
    );
    spend(&team).await;
    stays_in(&gateway, &team, "tier1").await;
    modify(&gateway, &team, json!({"automatic_tier": true})).await;
    // Answered, or refused by the limit of the tier: either leaves word.
    team.say("Hi").await;
    await_tier(&gateway, &team, "build").await;
}

// === the monthly usage limit ===

#[tokio::test]
async fn a_tiers_monthly_limit_refuses_until_the_tier_is_another() {
    let mut gateway = gateway(|_| {}).await;
    let mut team = gateway.project("tier1").await;
    while gateway.ledger().await.iter().filter_map(|row| row.cost_pico).sum::<i64>() < 3_000_000_000_000 {
        spend(&team).await;
    }
    let calls = gateway.metric("upstream_calls_total").await;
    let expected = json!({
        "message": "Your project reached the monthly usage limit of its tier.", "type": "insufficient_quota", "param": null,
        "code": "project_usage_limit_exceeded",
    });
    let refused = team.say("Hi").await;
    assert_eq!((refused.status.as_u16(), refused.error()), (429, expected.clone()));
    assert_eq!(refused.header("x-should-retry"), "false");
    assert_eq!(gateway.metric("upstream_calls_total").await, calls);
    assert_eq!(gateway.metric("requests_over_spend_limit_total").await, 1);
    let path = format!("/v1/organization/requests/{}", refused.header("x-request-id"));
    let explained = gateway.admin().get(&path).await;
    assert!(explained.text().contains("\"tier\""), "{}", explained.text());
    gateway.stop().await;
    gateway.run().await;
    team.url.clone_from(&gateway.calls_url);
    assert_eq!(team.say("Hi").await.error(), expected);
    modify(&gateway, &team, json!({"tier": "partners"})).await;
    spend(&team).await;
    modify(&gateway, &team, json!({"tier": "tier1"})).await;
    assert_eq!(team.say("Hi").await.error(), expected);
    gateway.clock.advance(11 * DAY_NANOS);
    spend(&team).await;
}

// === money held ===

#[tokio::test]
async fn many_requests_at_once_do_not_pass_a_spend_limit_together() {
    let gateway = gateway(|_| {}).await;
    let team = gateway.project("partners").await;
    spend(&team).await;
    let one = gateway.ledger().await[0].cost_pico.unwrap();
    // Room for four more of these, which are all under way before the first has ended.
    let body = json!({"threshold_amount": 5 * one / 10_000_000_000 + 1, "currency": "USD", "interval": "month"});
    let path = format!("{PROJECTS}/{}/spend_limit", team.project_id);
    assert_eq!(gateway.admin().post(&path, &body).await.status, 200);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let team = team.clone();
        calls.spawn(async move { team.chat_with_fault("delay-ms=1500", &text(TEXT_MODEL, "Hi")).await });
    }
    let replies = calls.join_all().await;
    let count = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
    assert_eq!((count(200), count(429)), (4, 16));
    // Nothing is held for those that have ended, or were refused.
    let costs: Vec<_> = gateway.ledger().await.iter().filter_map(|row| row.cost_pico).collect();
    assert_eq!(costs, [one; 5]);
    spend(&team).await;
    assert_eq!(team.say("Hi").await.error()["code"], "project_spend_limit_exceeded");
}

#[tokio::test]
async fn money_that_is_only_held_is_worth_another_try() {
    let gate = Gate::closed();
    let upstream = Scripted::start({
        let gate = gate.clone();
        move |connection| if connection == 0 { vec![Step::Gate(gate.clone()), good_json()] } else { vec![good_json()] }
    })
    .await;
    let gateway = upstream.gateway(dear_output).await;
    let team = gateway.project("tier5").await;
    // 256 tokens of output are guessed for the first, at a dollar each.
    let body = json!({"threshold_amount": 40_000, "currency": "USD", "interval": "month"});
    let path = format!("{PROJECTS}/{}/spend_limit", team.project_id);
    assert_eq!(gateway.admin().post(&path, &body).await.status, 200);
    let first = tokio::spawn({
        let team = team.clone();
        async move { team.say("Hi").await }
    });
    eventually("the first is under way", async || gateway.metric("open_admissions").await == 1).await;
    let told =
        team.post_bytes("/v1/chat/completions", &[("x-tollgate-dry-run", "true")], text(TEXT_MODEL, "Hi").to_string());
    let told = told.await.json()["refusal"].clone();
    let refused = team.say("Hi").await;
    let expected = json!({
        "message": "What is left of your project's spend limit is held by requests under way: Held $256.00000045, Requested \
            $256.00000045. Please try again in 1s, or when one of them has ended.",
        "type": "requests", "param": null, "code": "rate_limit_exceeded",
    });
    assert_eq!((refused.status.as_u16(), refused.error()), (429, expected.clone()));
    assert_eq!((refused.header("retry-after-ms"), refused.header("retry-after")), ("1000", "1"));
    assert!(!refused.headers.contains_key("x-should-retry"));
    assert_eq!(
        (&told["reason"], &told["error"], &told["retry_after_ms"]),
        (&json!("spend_limit"), &expected, &json!(1_000))
    );
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(team.say("Hi").await.status, 200);
}

#[tokio::test]
async fn strict_holds_the_money_of_all_that_may_be_answered() {
    // Of 100 dollars; 40 tokens of output at a dollar each are allowed, and 7 are learned.
    for (reserve, beside) in [(Reserve::Learned, 200), (Reserve::Strict, 429)] {
        let gate = Gate::closed();
        let upstream = Scripted::start({
            let gate = gate.clone();
            move |connection| {
                if connection == 0 { vec![good_json()] } else { vec![Step::Gate(gate.clone()), good_json()] }
            }
        })
        .await;
        let gateway = upstream
            .gateway(|settings| {
                settings.reserve = reserve;
                dear_output(settings);
            })
            .await;
        let team = gateway.project("tier5").await;
        let body = json!({"threshold_amount": 10_000, "currency": "USD", "interval": "month"});
        let path = format!("{PROJECTS}/{}/spend_limit", team.project_id);
        assert_eq!(gateway.admin().post(&path, &body).await.status, 200);
        spend(&team).await;
        let body = with(text(TEXT_MODEL, "Hi"), &json!({"max_tokens": 40}));
        let calls: Vec<_> = (0..2)
            .map(|_| {
                let (team, body) = (team.clone(), body.clone());
                tokio::spawn(async move { team.chat(&body).await })
            })
            .collect();
        eventually("both are under way", async || gateway.metric("open_admissions").await == 2).await;
        let told =
            team.post_bytes("/v1/chat/completions", &[("x-tollgate-dry-run", "true")], body.to_string()).await.json();
        assert_eq!(told["admitted"], json!(beside == 200), "{reserve:?}: {told}");
        gate.open();
        gate.open();
        for call in calls {
            assert_eq!(call.await.unwrap().status, 200);
        }
    }
}

#[tokio::test]
async fn money_is_held_at_the_service_tier_that_is_asked_for() {
    let gate = Gate::closed();
    let upstream = Scripted::playing(vec![Step::Gate(gate.clone()), good_json()]).await;
    let gateway = upstream.gateway(dear_output).await;
    let team = gateway.project("tier5").await;
    let body = json!({"threshold_amount": 40_000, "currency": "USD", "interval": "month"});
    let path = format!("{PROJECTS}/{}/spend_limit", team.project_id);
    assert_eq!(gateway.admin().post(&path, &body).await.status, 200);
    let first = tokio::spawn({
        let team = team.clone();
        async move { team.say("Hi").await }
    });
    eventually("the first is under way", async || gateway.metric("open_admissions").await == 1).await;
    // 256 dollars are held for it, and as much would be for another. Only the default tier is so dear.
    for (tier, status) in [("default", 429), ("auto", 429), ("priority", 200)] {
        let body = with(text(TEXT_MODEL, "Hi"), &json!({"service_tier": tier}));
        if status == 200 {
            gate.open();
            gate.open();
        }
        assert_eq!(team.chat(&body).await.status, status, "{tier}");
    }
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_keys_budget_is_its_own_and_counts_by_the_month_and_the_day() {
    let mut gateway = gateway(|_| {}).await;
    let mut team = gateway.project("partners").await;
    let sibling = gateway.key_of(&team.project_id, json!({})).await;
    let path = format!("{PROJECTS}/{}/api_keys/{}", team.project_id, team.key_id);
    let set = async |gateway: &Gateway, budget: Value| {
        assert_eq!(gateway.admin().post(&path, &json!({"budget": budget})).await.status, 200);
    };
    set(&gateway, json!({"daily_cents": 1})).await;
    spend(&team).await;
    let expected = json!({
        "message": "Your API key reached its enforced spend limit.", "type": "insufficient_quota", "param": null,
        "code": "api_key_spend_limit_exceeded",
    });
    let refused = team.say("Hi").await;
    assert_eq!((refused.status.as_u16(), refused.error()), (429, expected.clone()));
    assert_eq!(refused.header("x-should-retry"), "false");
    spend(&sibling).await;
    gateway.clock.advance(DAY_NANOS);
    spend(&team).await;
    // What was spent before the budget was set, before the restart and on other days counts for the month.
    set(&gateway, json!({"monthly_cents": 1})).await;
    gateway.clock.advance(DAY_NANOS);
    gateway.stop().await;
    gateway.run().await;
    team.url.clone_from(&gateway.calls_url);
    assert_eq!(team.say("Hi").await.error(), expected);
    set(&gateway, json!({"monthly_cents": null})).await;
    spend(&team).await;
    gateway.stop().await;
    gateway.run().await;
    team.url.clone_from(&gateway.calls_url);
    assert_eq!(team.say("Hi").await.error(), expected);
    set(&gateway, json!({"enforcement": "inactive"})).await;
    spend(&team).await;
    set(&gateway, Value::Null).await;
    spend(&team).await;
}

#[tokio::test]
async fn soft_limits_refuse_nothing_and_tell_how_far_they_are_used() {
    let gateway = gateway(|_| {}).await;
    let team = gateway.project("partners").await;
    spend(&team).await;
    let one = gateway.ledger().await[0].cost_pico.unwrap() / 10_000_000_000 + 1;
    let soft = json!({"threshold_amount": 4 * one, "currency": "USD", "interval": "month", "enforcement": {"status": "inactive"}});
    let path = format!("{PROJECTS}/{}/spend_limit", team.project_id);
    assert_eq!(gateway.admin().post(&path, &soft).await.status, 200);
    let mut told = Vec::new();
    for stream in [false, true, false, true, false] {
        let reply = team.chat(&with(text(TEXT_MODEL, "Hi"), &json!({ "stream": stream }))).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        told.push(reply.header("x-tollgate-budget-percent").parse::<u64>().ok());
    }
    // Before each request: a quarter and a little less than a half go unsaid.
    assert_eq!(told[..2], [None, None]);
    assert!(told[2..].is_sorted() && told[2] >= Some(70) && told[4] >= Some(110), "{told:?}");
    for (percent, passed) in [(50, 1), (80, 1), (100, 1)] {
        let name = format!("soft_limits_passed_total{{percent=\"{percent}\"}}");
        assert_eq!(gateway.metric(&name).await, passed, "{percent}");
    }
}

// === their names ===

#[tokio::test]
async fn tiers_of_any_names_have_one_to_begin_in_and_a_free_one() {
    let gateway = gateway(|settings| {
        let tiers = r#"tiers = [
            { id = "hobby", name = "Hobby", default_limits = { requests_per_minute = 1 } },
            { id = "build", name = "Build", qualification = { spent_dollars = 5 }, default_limits = { requests_per_minute = 1 } },
        ]"#;
        std::fs::write(settings.tiers_file.as_ref().unwrap(), tiers).unwrap();
    })
    .await;
    for (tier, is_free) in [("hobby", true), ("build", false)] {
        let team = gateway.project(tier).await;
        spend(&team).await;
        let refused = team.say("Hi").await;
        let told = refused.error()["message"].as_str().unwrap().contains("by adding a payment method");
        assert_eq!((refused.status.as_u16(), told), (429, is_free), "{}", refused.text());
    }
    let created = gateway.admin().post(PROJECTS, &json!({"name": "new"})).await.json();
    assert_eq!(created["tier"], "build");
}

// === a tier that goes ===

#[tokio::test]
async fn a_tier_may_go_once_nobody_but_archived_projects_is_in_it() {
    let mut gateway = gateway(|_| {}).await;
    let team = gateway.project("partners").await;
    let file = gateway.settings.tiers_file.clone().unwrap();
    let without: Vec<_> = TIERS.lines().filter(|line| !line.contains("partners")).collect();
    let without = without.join("\n");
    gateway.stop().await;
    std::fs::write(&file, &without).unwrap();
    let routers = Routers { calls: api::calls, administration: api::administration, everything: api::everything };
    let catalog = load_catalog(&gateway.settings).unwrap();
    let refused = Running::start(&gateway.settings, catalog, gateway.clock.clone(), &routers).await.err();
    assert!(matches!(refused, Some(StartError::NoSuchTier { .. })), "{refused:?}");
    std::fs::write(&file, TIERS).unwrap();
    gateway.run().await;
    let path = format!("{PROJECTS}/{}/archive", team.project_id);
    assert_eq!(gateway.admin().post(&path, &json!({})).await.status, 200);
    gateway.stop().await;
    std::fs::write(&file, without).unwrap();
    gateway.run().await;
    let archived = project(&gateway, &team).await;
    assert_eq!((&archived["status"], &archived["tier"]), (&json!("archived"), &json!("partners")));
}

// === the models of a tier ===

#[tokio::test]
async fn the_free_tier_is_for_its_models_only() {
    let gateway = Gateway::start().await;
    let team = gateway.project("free").await;
    for model in ["gpt-4o-audio-preview", "gpt-4o"] {
        let refused = team.chat(&text(model, "Hi")).await;
        let expected = json!({
            "message": format!("Project `{}` does not have access to model `{model}`", team.project_id),
            "type": "invalid_request_error", "param": null, "code": "model_not_found",
        });
        assert_eq!((refused.status.as_u16(), refused.error()), (403, expected));
        assert_eq!(team.get(&format!("/v1/models/{model}")).await.status, 404);
    }
    assert_eq!(team.say("Hi").await.status, 200);
    let list = team.get("/v1/models").await.json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&MODEL) && ids.iter().all(|id| id.starts_with(TEXT_MODEL)), "{ids:?}");
    // From the next request on.
    modify(&gateway, &team, json!({"tier": "tier1"})).await;
    let body = with(spoken("wav"), &json!({"model": "gpt-4o-audio-preview"}));
    assert_eq!(team.chat(&body).await.status, 200);
}
