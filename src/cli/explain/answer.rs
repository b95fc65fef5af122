//! The gateway's answer about one request. Amounts stay the text that they are, so that all their digits are shown.

use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Debug, Deserialize)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) project_id: String,
    pub(super) api_key_id: String,
    pub(super) endpoint: String,
    pub(super) requested_model: String,
    pub(super) model: Option<String>,
    pub(super) service_tier: Option<String>,
    pub(super) stream: bool,
    pub(super) outcome: String,
    pub(super) status: u16,
    pub(super) admitted_at: Option<i64>,
    pub(super) duration_ms: Option<u64>,
    pub(super) estimate: Option<Estimate>,
    pub(super) limits: Option<Vec<Limit>>,
    pub(super) usage: Option<Usage>,
    pub(super) lines: Vec<Line>,
    pub(super) prices_from: Option<i64>,
    pub(super) priced: Option<bool>,
    pub(super) cost_before_adjustments: Option<Amount>,
    pub(super) adjustments: Vec<Adjustment>,
    pub(super) cost: Option<Amount>,
    pub(super) refusal: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Estimate {
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Limit {
    pub(super) scope: String,
    pub(super) name: String,
    pub(super) limit_group: String,
    pub(super) limit: u64,
    pub(super) used_before: Option<u64>,
    pub(super) reserved: u64,
    pub(super) used_after: Option<u64>,
    pub(super) settled: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Usage {
    pub(super) basis: String,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) description: String,
    pub(super) quantity: Option<u64>,
    pub(super) price: Option<Price>,
    pub(super) amount: Option<Amount>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Price {
    pub(super) per_million: Box<RawValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Amount {
    pub(super) value: Box<RawValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Adjustment {
    pub(super) reason: String,
    pub(super) adjusted_at: i64,
    pub(super) lines: Vec<Line>,
    pub(super) amount: Amount,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) code: Option<String>,
    pub(super) refused_at_ms: i64,
    pub(super) limit: Option<HitLimit>,
    pub(super) spend_limit: Option<SpendLimit>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SpendLimit {
    pub(super) of: String,
    pub(super) interval: String,
    pub(super) threshold: Amount,
    pub(super) spent: Amount,
    pub(super) held: Amount,
    pub(super) requested: Amount,
    pub(super) admissible_at_ms: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct HitLimit {
    pub(super) scope: String,
    pub(super) name: String,
    pub(super) limit_group: String,
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) requested: u64,
    pub(super) wait_ms: Option<u64>,
    pub(super) admissible_at_ms: Option<i64>,
}
