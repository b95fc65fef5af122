//! What the journal and the ledger keep of a request: that it was admitted, and how it ended. Never its content.

use std::{num::NonZeroU32, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    ids::{KeyId, RequestId},
    limits::{Dimension, Limits},
    money::MoneyError,
    pricing::{Charge, Cost, ServiceTier, cost},
    tariff::Tariff,
    time::UnixNanos,
    usage::{Basis, Usage},
};

/// Written before the upstream is called: from here on the request is in the books, whatever happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub request_id: RequestId,
    pub admitted_at: UnixNanos,
    pub key_id: KeyId,
    /// `chat.completions`.
    pub endpoint: Arc<str>,
    /// As the caller wrote it.
    pub model: Arc<str>,
    pub stream: bool,
    /// What the request is charged when nobody learns more.
    pub estimate: Usage,
    /// Priced at the prices of the admission, for a request that is found open at start-up.
    pub charges: Vec<Charge>,
    /// The dated model the charges are for.
    pub billed_model: Arc<str>,
    /// When the prices in use started; `None` without prices.
    pub prices_from: Option<UnixNanos>,
    pub hold: Hold,
}

/// What a request took from its buckets, with the limits in force: enough to rebuild the buckets from the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub limit_group: Arc<str>,
    /// Only the ceilings that were checked.
    pub limits: Limits,
    pub tokens: NonZeroU32,
    /// Units in use of each limit before this request, so that it can be explained. `None` where there is no limit, and in
    /// journals of before it was written down.
    #[serde(default)]
    pub in_use: [Option<u64>; Dimension::COUNT],
}

impl Hold {
    pub fn in_use(&self, dimension: Dimension) -> Option<u64> {
        self.in_use.get(dimension.index()).copied().flatten()
    }

    /// Units taken from the bucket of `dimension`.
    pub const fn units(&self, dimension: Dimension) -> NonZeroU32 {
        if dimension.is_tokens() { self.tokens } else { NonZeroU32::MIN }
    }
}

/// Written once per admission, before the client gets the last byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    pub request_id: RequestId,
    pub settled_at: UnixNanos,
    pub outcome: Outcome,
    pub basis: Basis,
    /// HTTP status of our answer; 0 when the client left before there was one.
    pub status: u16,
    /// The dated model that answered.
    pub billed_model: Arc<str>,
    pub service_tier: ServiceTier,
    /// When the prices of `charges` came into force, where another model's were used than the admission's too. `None`
    /// without prices, and in journals of before it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices_from: Option<UnixNanos>,
    pub usage: Usage,
    pub charges: Vec<Charge>,
    pub used: Used,
}

/// What finally counts against the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// False when nothing reached the upstream: the request is given back to the request limits.
    pub request: bool,
    pub tokens: u64,
}

impl Used {
    pub const NOTHING: Self = Self { request: false, tokens: 0 };

    pub const fn units(&self, dimension: Dimension) -> u64 {
        if dimension.is_tokens() { self.tokens } else { self.request as u64 }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Completed,
    ClientLeft,
    UpstreamFailed,
    /// The gateway stopped before the request ended.
    Interrupted,
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::Completed, Self::ClientLeft, Self::UpstreamFailed, Self::Interrupted];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientLeft => "client_left",
            Self::UpstreamFailed => "upstream_failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One finished request: a row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub admission: Admission,
    pub settlement: Settlement,
}

impl Entry {
    pub fn cost(&self) -> Result<Cost, MoneyError> {
        cost(&self.settlement.charges)
    }

    /// By what the request was billed. A model that has prices is only ever exchanged for another that has some, so a
    /// settlement without a date was billed by the admission's.
    pub fn tariff(&self) -> Tariff {
        let prices_from = self.settlement.prices_from.or(self.admission.prices_from);
        Tariff::of(&self.admission.endpoint, prices_from, &self.settlement)
    }
}

impl Admission {
    /// How a request is settled that was still open when the process ended: at its estimate.
    pub fn interrupted(&self, now: UnixNanos) -> Settlement {
        Settlement {
            request_id: self.request_id,
            settled_at: now,
            outcome: Outcome::Interrupted,
            basis: Basis::Estimated,
            status: 0,
            billed_model: Arc::clone(&self.billed_model),
            service_tier: ServiceTier::Default,
            prices_from: self.prices_from,
            usage: self.estimate,
            charges: self.charges.clone(),
            used: Used { request: true, tokens: u64::from(self.hold.tokens.get()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::samples::{admission, settlement};

    #[test]
    fn a_tariff_has_the_date_of_the_prices_that_were_really_used() {
        let date = |settled: Option<u64>, admitted: Option<u64>| {
            let [settled, admitted] = [settled, admitted].map(|seconds| seconds.map(UnixNanos::from_seconds));
            let admission = Admission { prices_from: admitted, ..admission(1) };
            let settlement = Settlement { prices_from: settled, ..settlement(&admission) };
            Entry { admission, settlement }.tariff().prices_from.map(UnixNanos::seconds)
        };
        assert_eq!(date(Some(7), Some(5)), Some(7));
        // As in journals of before the settlement had one.
        assert_eq!((date(None, Some(5)), date(None, None)), (Some(5), None));
    }

    #[test]
    fn a_settlement_of_before_it_had_a_date_is_read() {
        let mut old = serde_json::to_value(settlement(&admission(1))).unwrap();
        assert!(old.as_object_mut().unwrap().remove("prices_from").is_some());
        assert_eq!(serde_json::from_value::<Settlement>(old).unwrap().prices_from, None);
    }
}
