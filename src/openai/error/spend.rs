//! Refusals for money that is spent, or held.

use super::{ApiError, Retry, Text};
use crate::{
    domain::spend::{SpendLimitReached, Spender},
    openai::headers::go_duration,
};

impl ApiError {
    /// A 429. Where the money is spent no waiting helps before the month or the day ends, or the limit is raised; where it is
    /// only held it does.
    pub fn spend_limit_reached(reached: &SpendLimitReached) -> Self {
        if let Some(nanos) = reached.wait_nanos() {
            return Self::money_held(reached, nanos);
        }
        let (message, code) = match reached.spender {
            Spender::Key => ("Your API key reached its enforced spend limit.", "api_key_spend_limit_exceeded"),
            Spender::Project => ("Your project reached its enforced spend limit.", "project_spend_limit_exceeded"),
            Spender::Tier => {
                ("Your project reached the monthly usage limit of its tier.", "project_usage_limit_exceeded")
            }
            Spender::Organization => {
                ("Your organization reached its enforced spend limit.", "organization_spend_limit_exceeded")
            }
        };
        Self::new(429, "insufficient_quota", message, None, Text::from(code)).with_retry(Retry::No)
    }

    /// `OpenAI` holds no money: our words, under the code that clients try again for. Neither the limit nor what was spent is
    /// told, since both may be the organization's.
    fn money_held(reached: &SpendLimitReached, nanos: u64) -> Self {
        let whose = match reached.spender {
            Spender::Key => "your API key's spend limit",
            Spender::Project => "your project's spend limit",
            Spender::Tier => "the monthly usage limit of your project's tier",
            Spender::Organization => "your organization's spend limit",
        };
        let message = format!(
            "What is left of {whose} is held by requests under way: Held ${}, Requested ${}. Please try again in {}, or when \
             one of them has ended.",
            reached.held,
            reached.requested,
            go_duration(nanos),
        );
        let code = Text::from("rate_limit_exceeded");
        Self::new(429, "requests", message, None, code).with_retry(Retry::After { nanos })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::domain::{money::Total, spend::Interval};

    fn refusal(spender: Spender, spent_cents: i128) -> ApiError {
        let cents = |cents| Total::from_pico(cents * 10_000_000_000);
        ApiError::spend_limit_reached(&SpendLimitReached {
            spender,
            interval: Interval::Month,
            threshold_cents: NonZeroU64::new(100).unwrap(),
            spent: cents(spent_cents),
            held: cents(60),
            requested: cents(40),
            ends_s: 1_790_812_800,
        })
    }

    #[test]
    fn money_that_is_held_is_worth_another_try_and_money_that_is_spent_is_not() {
        let held = refusal(Spender::Project, 99);
        assert_eq!(
            held.message,
            "What is left of your project's spend limit is held by requests under way: Held $0.6, Requested $0.4. Please try \
             again in 1s, or when one of them has ended."
        );
        assert_eq!(
            (held.status, held.kind.as_ref(), held.code.as_deref()),
            (429, "requests", Some("rate_limit_exceeded"))
        );
        assert_eq!(held.retry, Retry::After { nanos: 1_000_000_000 });
        let spent = refusal(Spender::Project, 100);
        assert_eq!(
            (spent.kind.as_ref(), spent.code.as_deref()),
            ("insufficient_quota", Some("project_spend_limit_exceeded"))
        );
        assert_eq!(spent.retry, Retry::No);
    }
}
