//! Refusals for money that is spent.

use super::{ApiError, Retry, Text};
use crate::domain::spend::Spender;

impl ApiError {
    /// A 429 that no waiting helps against before the month ends or the limit is raised.
    pub fn spend_limit_reached(spender: Spender) -> Self {
        let (message, code) = match spender {
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
}
