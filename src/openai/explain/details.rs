//! One request in full: what was asked, the limits it met, and each line from its tokens to its cost. Amounts are exact
//! numbers, as the costs report prints them; what has no price is `null`, never zero.

use serde::Serialize;

use super::{query::REFUSED, refusal::RefusalObject};
use crate::{
    domain::{
        explanation::{Adjustment, AdmittedUnder, Explained, Finished, LimitUse},
        ids::RequestId,
        limits::Dimension,
        money::{MoneyError, Total},
        pricing::Charge,
        refusals::{OverLimit, RefusedRequest},
        tariff::Tariff,
        time::UnixNanos,
        usage::{Basis, Usage},
    },
    openai::report::{Amount, exact_number, line_item_words},
};

const MILLION: i128 = 1_000_000;

/// `GET /v1/organization/requests/{request_id}`. Times are Unix seconds unless the name says otherwise.
#[derive(Debug, Serialize)]
pub struct RequestObject<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    /// `null` where nothing was estimated, or not written down yet.
    estimate: Option<EstimateObject>,
    limits: Option<Vec<LimitObject<'a>>>,
    usage: Option<UsageObject>,
    lines: Vec<LineObject>,
    /// When the prices of the lines came into force.
    prices_from: Option<u64>,
    /// False when something was used that has no price; `null` when nothing could be.
    priced: Option<bool>,
    cost_before_adjustments: Option<Amount>,
    adjustments: Vec<AdjustmentObject<'a>>,
    cost: Option<Amount>,
    refusal: Option<RefusalObject<'a>>,
}

/// What is the same in a list.
#[derive(Debug, Serialize)]
pub(super) struct Head<'a> {
    object: &'static str,
    id: RequestId,
    project_id: &'a str,
    api_key_id: &'a str,
    endpoint: &'a str,
    requested_model: &'a str,
    /// The dated model that was billed.
    model: Option<&'a str>,
    service_tier: Option<&'static str>,
    stream: bool,
    outcome: &'static str,
    status: u16,
    admitted_at: Option<u64>,
    settled_at: Option<u64>,
    duration_ms: Option<u64>,
    refused_at: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(in crate::openai) struct EstimateObject {
    input_tokens: u64,
    output_tokens: u64,
    /// Taken from the limit of tokens, or asked of it.
    reserved_tokens: Option<u64>,
    lines: Vec<QuantityObject>,
}

#[derive(Debug, Serialize)]
struct QuantityObject {
    line_item: &'static str,
    quantity: u64,
}

#[derive(Debug, Serialize)]
struct LimitObject<'a> {
    /// Whose limit it is: that of all the project's keys together, or the key's.
    scope: &'static str,
    name: &'static str,
    limit_group: &'a str,
    unit: &'static str,
    limit: u32,
    used_before: Option<u64>,
    reserved: u64,
    used_after: Option<u64>,
    settled: Option<u64>,
}

#[derive(Debug, Serialize)]
struct UsageObject {
    basis: &'static str,
    input_tokens: u64,
    output_tokens: u64,
}

#[derive(Debug, Serialize)]
struct LineObject {
    line_item: &'static str,
    /// As the costs report calls it.
    description: String,
    /// `null` where the whole line was corrected by one amount.
    quantity: Option<u64>,
    unit: &'static str,
    price: Option<PriceObject>,
    amount: Option<Amount>,
}

#[derive(Debug, Serialize)]
struct PriceObject {
    #[serde(serialize_with = "exact_number")]
    per_token: Total,
    #[serde(serialize_with = "exact_number")]
    per_million: Total,
    currency: &'static str,
}

#[derive(Debug, Serialize)]
struct AdjustmentObject<'a> {
    reason: &'a str,
    adjusted_at: u64,
    prices_from: Option<u64>,
    /// At what the prices differ by.
    lines: Vec<LineObject>,
    amount: Amount,
}

impl<'a> RequestObject<'a> {
    pub fn new(explained: &'a Explained) -> Result<Self, MoneyError> {
        match explained {
            Explained::Finished(finished) => Self::finished(finished),
            Explained::Refused(refused) => Ok(Self::refused(refused)),
        }
    }

    fn finished(it: &'a Finished) -> Result<Self, MoneyError> {
        let under = it.admitted_under.as_ref();
        let limits = it.limits().zip(under);
        let adjustments: Result<_, MoneyError> =
            it.adjustments.iter().map(|its| AdjustmentObject::new(its, &it.usage)).collect();
        Ok(Self {
            head: Head::of_finished(it),
            estimate: under.map(EstimateObject::held),
            limits: limits.map(|(limits, under)| {
                limits.iter().map(|limit| LimitObject::new(limit, &under.limit_group)).collect()
            }),
            usage: Some(UsageObject::new(it.basis, &it.usage)),
            lines: lines(&it.tariff, &it.usage)?,
            prices_from: prices_from(&it.tariff),
            priced: Some(it.priced()),
            cost_before_adjustments: it.first_cost()?.map(Amount::of),
            adjustments: adjustments?,
            cost: it.cost()?.map(Amount::of),
            refusal: None,
        })
    }

    fn refused(it: &'a RefusedRequest) -> Self {
        Self {
            head: Head::of_refused(it),
            estimate: it.over_limit().map(EstimateObject::asked),
            limits: None,
            usage: None,
            lines: Vec::new(),
            prices_from: None,
            priced: None,
            cost_before_adjustments: None,
            adjustments: Vec::new(),
            cost: None,
            refusal: Some(RefusalObject::new(it)),
        }
    }
}

impl<'a> Head<'a> {
    const OBJECT: &'static str = "organization.request";

    pub(super) fn of_finished(it: &'a Finished) -> Self {
        Self {
            object: Self::OBJECT,
            id: it.request_id,
            project_id: it.project_id.as_str(),
            api_key_id: it.key_id.as_str(),
            endpoint: &it.tariff.endpoint,
            requested_model: &it.requested_model,
            model: Some(&it.tariff.model),
            service_tier: Some(it.tariff.service_tier.name()),
            stream: it.stream,
            outcome: it.outcome.name(),
            status: it.status,
            admitted_at: Some(it.admitted_at_ms / 1_000),
            settled_at: Some(it.settled_at_ms() / 1_000),
            duration_ms: Some(it.duration_ms),
            refused_at: None,
        }
    }

    pub(super) fn of_refused(it: &'a RefusedRequest) -> Self {
        Self {
            object: Self::OBJECT,
            id: it.request_id,
            project_id: it.project_id.as_str(),
            api_key_id: it.key_id.as_str(),
            endpoint: &it.endpoint,
            requested_model: &it.model,
            model: None,
            service_tier: None,
            stream: it.stream,
            outcome: REFUSED,
            status: it.status,
            admitted_at: None,
            settled_at: None,
            duration_ms: None,
            refused_at: Some(it.refused_at.seconds()),
        }
    }
}

impl EstimateObject {
    fn held(under: &AdmittedUnder) -> Self {
        Self::reserving(&under.held.estimate, under.held.reserved_tokens)
    }

    pub(in crate::openai) fn reserving(usage: &Usage, reserved_tokens: u64) -> Self {
        Self { reserved_tokens: Some(reserved_tokens), ..Self::new(usage) }
    }

    /// Only a limit of tokens was asked for them.
    fn asked(over: &OverLimit) -> Self {
        let asked = over.exceeded.dimension.is_tokens().then_some(over.exceeded.requested);
        Self { reserved_tokens: asked.map(u64::from), ..Self::new(&over.estimate) }
    }

    fn new(usage: &Usage) -> Self {
        let lines = usage.items().map(|(item, quantity)| QuantityObject { line_item: item.name(), quantity });
        Self {
            input_tokens: usage.input_total(),
            output_tokens: usage.output_total(),
            reserved_tokens: None,
            lines: lines.collect(),
        }
    }
}

pub(in crate::openai) const fn unit(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::AudioSecondsPerDay => "seconds",
        _ if dimension.is_tokens() || dimension.is_audio() => "tokens",
        _ => "requests",
    }
}

impl<'a> LimitObject<'a> {
    fn new(it: &LimitUse, limit_group: &'a str) -> Self {
        let shown = |units| it.dimension.shown(units);
        Self {
            scope: it.scope.name(),
            name: it.dimension.name(),
            limit_group,
            unit: unit(it.dimension),
            limit: it.limit,
            used_before: it.used_before.map(shown),
            reserved: shown(it.reserved),
            used_after: it.used_after().map(shown),
            settled: it.settled.map(shown),
        }
    }
}

impl UsageObject {
    fn new(basis: Basis, usage: &Usage) -> Self {
        Self { basis: basis.name(), input_tokens: usage.input_total(), output_tokens: usage.output_total() }
    }
}

fn lines(tariff: &Tariff, usage: &Usage) -> Result<Vec<LineObject>, MoneyError> {
    tariff.charges(usage).iter().map(|charge| line(tariff, charge)).collect()
}

fn line(tariff: &Tariff, charge: &Charge) -> Result<LineObject, MoneyError> {
    let price = charge.price.map(|price| PriceObject {
        per_token: price.into(),
        per_million: Total::from_pico(i128::from(price.pico()).saturating_mul(MILLION)),
        currency: "usd",
    });
    Ok(LineObject {
        line_item: charge.line_item.name(),
        description: format!("{}, {}", tariff.model, line_item_words(charge.line_item)),
        quantity: Some(charge.quantity),
        unit: "tokens",
        price,
        amount: charge.amount()?.map(|amount| Amount::of(amount.into())),
    })
}

fn prices_from(tariff: &Tariff) -> Option<u64> {
    tariff.prices_from.map(UnixNanos::seconds)
}

impl<'a> AdjustmentObject<'a> {
    /// A difference that is no whole number for each token `used` is booked as a price of one token that nobody used.
    fn new(it: &'a Adjustment, used: &Usage) -> Result<Self, MoneyError> {
        let charges = it.tariff.charges(&it.usage);
        let lines = charges.iter().map(|charge| {
            let line = line(&it.tariff, charge)?;
            let is_by_token = charge.quantity == used.get(charge.line_item);
            Ok(if is_by_token { line } else { LineObject { quantity: None, price: None, ..line } })
        });
        Ok(Self {
            reason: &it.reason,
            adjusted_at: it.adjusted_at_ms / 1_000,
            prices_from: prices_from(&it.tariff),
            lines: lines.collect::<Result<_, MoneyError>>()?,
            amount: Amount::of(it.amount()?),
        })
    }
}
