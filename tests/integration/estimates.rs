//! Reserve first, settle later: what is given back, what becomes debt, and what of it survives a restart.

use serde_json::json;
use tollgate::{
    clock::Clock,
    config::{Reserve, Settings},
    domain::time::UnixNanos,
    simulator,
};

use crate::support::{Actor, Gateway, MODEL, Reply, TEXT_MODEL, spoken, text, with};

const MILLISECOND: u64 = 1_000_000;

async fn gateway(reserve: Reserve) -> Gateway {
    let clock = Clock::manual(UnixNanos::from_seconds(1_790_000_000));
    let change = |settings: &mut Settings| (settings.reserve, settings.allow_unpriced) = (reserve, true);
    Gateway::start_at(clock, simulator::Options::default(), change).await
}

async fn tokens_left(team: &Actor, model: &str) -> u64 {
    let reply = team.chat(&json!({"model": model, "messages": []})).await;
    reply.header("x-ratelimit-remaining-tokens").parse().unwrap()
}

/// What a request took of the tokens that were left before it.
fn held(reply: &Reply, left: u64) -> u64 {
    left - reply.header("x-ratelimit-remaining-tokens").parse::<u64>().unwrap()
}

#[tokio::test]
async fn the_guess_is_held_while_a_request_runs_and_the_rest_comes_back() {
    let gateway = gateway(Reserve::Learned).await;
    let team = gateway.project("tier1").await;
    // "Hi": 3 tokens estimated, 5 billed. The first guess of output is 256; the answer has 16.
    let first = team.say("Hi").await;
    assert_eq!(first.header("x-ratelimit-remaining-tokens"), (200_000 - (3 + 256)).to_string());
    assert_eq!(tokens_left(&team, TEXT_MODEL).await, 200_000 - (5 + 16));
    let second = team.say("Hi").await;
    assert_eq!(second.header("x-ratelimit-remaining-tokens"), (200_000 - (5 + 16) - (3 + 16)).to_string());
    assert_eq!(tokens_left(&team, TEXT_MODEL).await, 200_000 - 2 * (5 + 16));
}

#[tokio::test]
async fn what_a_choice_is_guessed_to_have_does_not_depend_on_how_many_were_asked_for_before() {
    let gateway = gateway(Reserve::Learned).await;
    let team = gateway.project("tier1").await;
    let many = with(text(TEXT_MODEL, "Hi"), &json!({"n": 5}));
    // Four choices more are four tokens more in OpenAI's estimate. Each is answered with 16.
    assert_eq!(held(&team.chat(&many).await, 200_000), 7 + 5 * 256);
    let left = tokens_left(&team, TEXT_MODEL).await;
    assert_eq!(left, 200_000 - (5 + 5 * 16));
    assert_eq!(held(&team.say("Hi").await, left), 3 + 16);
    let left = tokens_left(&team, TEXT_MODEL).await;
    assert_eq!(held(&team.chat(&many).await, left), 7 + 5 * 16);
}

#[tokio::test]
async fn models_that_share_a_limit_are_guessed_each_by_its_own_answers() {
    let gateway = gateway(Reserve::Learned).await;
    let team = gateway.project("tier1").await;
    // Neither name has a page, and all such names have one limit.
    for _ in 0..2 {
        assert_eq!(team.chat_with_fault("chunks=900", &text("wordy", "Hi")).await.status, 200);
        assert_eq!(team.chat(&text("terse", "Hi")).await.status, 200);
    }
    for (model, guess, answer) in [("wordy", 900, 16), ("terse", 16, 16), ("unknown", 256, 16)] {
        let left = tokens_left(&team, model).await;
        assert_eq!(held(&team.chat(&text(model, "Hi")).await, left), 3 + guess, "{model}");
        assert_eq!(tokens_left(&team, model).await, left - (5 + answer));
    }
}

#[tokio::test]
async fn speech_is_guessed_and_settled_as_audio() {
    let gateway = gateway(Reserve::Learned).await;
    let team = gateway.project("tier1").await;
    // "Say hello.": 5 estimated, 7 billed. Guessed: 256 of text and 200 of audio; answered: 4 and 40.
    let first = team.chat(&spoken("wav")).await;
    assert_eq!(first.header("x-ratelimit-remaining-tokens"), (200_000 - (5 + 256 + 200)).to_string());
    assert_eq!(tokens_left(&team, MODEL).await, 200_000 - (7 + 4 + 40));
    let second = team.chat(&spoken("wav")).await;
    let expected = 200_000 - (7 + 4 + 40) - (5 + 4 + 40);
    assert_eq!(second.header("x-ratelimit-remaining-tokens"), expected.to_string());
}

#[tokio::test]
async fn a_stated_maximum_bounds_the_guess_and_strict_holds_all_of_it() {
    let body = with(text(TEXT_MODEL, "Hi"), &json!({"max_completion_tokens": 10, "n": 3}));
    let large = with(text(TEXT_MODEL, "Hi"), &json!({"max_tokens": 4_000}));
    let unsaid = text(TEXT_MODEL, "Hi");
    // Three choices count two tokens more in OpenAI's estimate. The model's own maximum is 16,384.
    for (reserve, expected) in [
        (Reserve::Learned, [5 + 30, 3 + 256, 3 + 256]),
        (Reserve::Strict, [5 + 30, 3 + 4_000, 3 + 16_384]),
        (Reserve::Openai, [5, 3, 3]),
    ] {
        let gateway = gateway(reserve).await;
        for (body, held) in [&body, &large, &unsaid].into_iter().zip(expected) {
            let reply = gateway.project("tier1").await.chat(body).await;
            let remaining = reply.header("x-ratelimit-remaining-tokens").to_owned();
            assert_eq!(remaining, (200_000 - held).to_string(), "{reserve:?}: {body}");
        }
    }
}

#[tokio::test]
async fn an_answer_larger_than_its_guess_is_debt_that_is_paid_before_the_next() {
    let gateway = gateway(Reserve::Learned).await;
    let team = gateway.project_with("tier1", json!({"tokens_per_minute": 1_000})).await;
    let body = text(TEXT_MODEL, "Hi");
    assert_eq!(team.chat_with_fault("chunks=5000", &body).await.status, 200);
    assert_eq!(tokens_left(&team, TEXT_MODEL).await, 0);
    // It used 5,005 of 1,000. The next asks for 3 and 7 at most, so 4,015 have to come back: 60 ms each.
    let small = with(body, &json!({"max_tokens": 7}));
    let refused = team.chat(&small).await;
    assert_eq!(refused.status, 429);
    let says = "Limit 1000, Used 5005, Requested 10. Please try again in 4m0.9s.";
    assert!(refused.text().contains(says), "{}", refused.text());
    assert_eq!(refused.header("retry-after-ms"), "240900");
    // Clients that do not wait for four minutes would try again at once.
    assert_eq!(refused.header("x-should-retry"), "false");
    gateway.clock.advance(240_899 * MILLISECOND);
    assert_eq!(team.chat(&small).await.status, 429);
    gateway.clock.advance(MILLISECOND);
    assert_eq!(team.chat(&small).await.status, 200);
}

#[tokio::test]
async fn what_never_reached_the_upstream_is_given_back_whole() {
    let gateway = gateway(Reserve::Learned).await;
    let team = gateway.project("tier1").await;
    let unreachable = {
        // A port that was free a moment ago, and that nobody listens on.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/v1", listener.local_addr().unwrap())
    };
    let elsewhere =
        Gateway::start_before(&unreachable, tokio_util::sync::CancellationToken::new(), gateway.clock.clone(), |_| {})
            .await;
    let other_team = elsewhere.project("tier1").await;
    assert_eq!(other_team.say("Hi").await.status, 502);
    let shown = other_team.chat(&json!({"model": TEXT_MODEL, "messages": []})).await;
    assert_eq!(shown.header("x-ratelimit-remaining-requests"), "10000");
    assert_eq!(shown.header("x-ratelimit-remaining-tokens"), "200000");
    // What the upstream refused counts as a request, as it does at OpenAI, and costs no tokens.
    assert_eq!(team.chat_with_fault("503", &text(TEXT_MODEL, "Hi")).await.status, 503);
    let shown = team.chat(&json!({"model": TEXT_MODEL, "messages": []})).await;
    assert_eq!(shown.header("x-ratelimit-remaining-requests"), "9999");
    assert_eq!(shown.header("x-ratelimit-remaining-tokens"), "200000");
}

#[tokio::test]
async fn limits_and_debts_survive_an_orderly_restart() {
    let mut gateway = gateway(Reserve::Learned).await;
    let mut free = gateway.project("free").await;
    let mut indebted = gateway.project_with("tier1", json!({"tokens_per_minute": 1_000, "requests_per_day": 50})).await;
    assert_eq!(free.say("Hi").await.status, 200);
    assert_eq!(free.say("Hi").await.status, 200);
    assert_eq!(indebted.chat_with_fault("chunks=5000", &text(TEXT_MODEL, "Hi")).await.status, 200);
    gateway.stop().await;
    gateway.run().await;
    for team in [&mut free, &mut indebted] {
        gateway.calls_url.clone_into(&mut team.url);
    }
    assert_eq!(free.say("Hi").await.status, 200);
    let refused = free.say("Hi").await;
    assert!(refused.text().contains("(RPM): Limit 3, Used 3, Requested 1"), "{}", refused.text());
    let refused = indebted.say("Hi").await;
    assert!(refused.text().contains("(TPM): Limit 1000, Used 5005,"), "{}", refused.text());
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "49");
    assert_eq!(gateway.ledger().await.len(), 4);
}
