//! How long a refusal tells to wait, for each limit and whose it is: long enough, and not a millisecond too long.

use serde_json::{Value, json};
use tollgate::{clock::Clock, domain::time::UnixNanos, simulator};

use crate::{
    limits::passes_exactly_when_told,
    support::{Actor, Gateway, TEXT_MODEL},
};

/// A limit by its names in a key's limits, in a project's, and in errors; and whether it is one of a day.
struct Limit {
    of_key: &'static str,
    of_project: &'static str,
    told: &'static str,
    of_day: bool,
}

const REQUESTS: u32 = 7;
const TOKENS: u32 = 1_000;
/// More than any request of these tests needs.
const AMPLE: u32 = 1_000_000;
const LIMITS: [Limit; 4] = [
    Limit {
        of_key: "requests_per_minute",
        of_project: "max_requests_per_1_minute",
        told: "requests per min (RPM): Limit 7, Used 7",
        of_day: false,
    },
    Limit {
        of_key: "requests_per_day",
        of_project: "max_requests_per_1_day",
        told: "requests per day (RPD): Limit 7, Used 7",
        of_day: true,
    },
    Limit {
        of_key: "tokens_per_minute",
        of_project: "max_tokens_per_1_minute",
        told: "tokens per min (TPM): Limit 1000, Used ",
        of_day: false,
    },
    Limit {
        of_key: "tokens_per_day",
        of_project: "max_tokens_per_1_day",
        told: "tokens per day (TPD): Limit 1000, Used ",
        of_day: true,
    },
];

impl Limit {
    fn units(&self) -> u32 {
        if self.of_key.starts_with("requests") { REQUESTS } else { TOKENS }
    }

    /// The project's limits, all ample but for this one.
    async fn set_for_project(&self, gateway: &Gateway, team: &Actor) {
        let mut limits = json!({});
        for limit in &LIMITS {
            let units = if limit.of_key == self.of_key { self.units() } else { AMPLE };
            limits[limit.of_project] = units.into();
        }
        set(gateway, team, &limits).await;
    }
}

async fn set(gateway: &Gateway, team: &Actor, limits: &Value) {
    let path = format!("/v1/organization/projects/{}/rate_limits/rl-{TEXT_MODEL}", team.project_id);
    let set = gateway.admin().post(&path, limits).await;
    assert_eq!(set.status, 200, "{}", set.text());
}

/// Until it is refused; then waits as told, twice.
async fn wait_as_told(gateway: &Gateway, team: &Actor, limit: &Limit, scope: &str) {
    // 3,000 bytes are 770 tokens: the second of them waits for tokens, where those are limited.
    let words = if limit.units() == TOKENS { "x".repeat(3_000) } else { "Hi".to_owned() };
    for round in 0..2 {
        let refused = loop {
            let reply = team.say(&words).await;
            if reply.status != 200 {
                break reply;
            }
        };
        let what = format!("{} of a {scope}, round {round}: {}", limit.of_key, refused.text());
        assert!(refused.status == 429 && refused.text().contains(limit.told), "{what}");
        // The wait of a day's limit is no matter of a retry by the SDK: one waits for oneself.
        let should_retry = refused.headers.get("x-should-retry").map(|value| value.to_str().unwrap());
        let wait_ms: u64 = refused.header("retry-after-ms").parse().unwrap();
        let long = limit.of_day.then_some("false");
        assert_eq!(should_retry, long, "{what}, {wait_ms} ms");
        passes_exactly_when_told(gateway, &refused, async || team.say(&words).await).await;
    }
    let refused = format!("requests_refused_total{{limit=\"{}\",scope=\"{scope}\"}}", limit.of_key);
    assert_eq!(gateway.metric(&refused).await, 4, "{}", limit.of_key);
}

#[tokio::test]
async fn each_limit_of_a_key_and_of_a_project_passes_exactly_when_told() {
    for limit in &LIMITS {
        for scope in ["key", "project"] {
            let clock = Clock::manual(UnixNanos::from_seconds(1_790_000_000));
            let gateway = Gateway::start_at(clock, simulator::Options::default(), |_| {}).await;
            let team = if scope == "key" {
                let mut limits = json!({});
                limits[limit.of_key] = limit.units().into();
                gateway.project_with("tier5", limits).await
            } else {
                let team = gateway.project("tier5").await;
                limit.set_for_project(&gateway, &team).await;
                team
            };
            wait_as_told(&gateway, &team, limit, scope).await;
        }
    }
}
