//! What is known of a request afterwards: what it asked for, the limits it met, and each step from its tokens to its cost.

use std::sync::Arc;

use super::{
    held::Held,
    ids::{KeyId, ProjectId, RequestId},
    ledger::Outcome,
    limits::{Audio, ByScope, Dimension, Limits, Scope},
    money::{MoneyError, Total},
    refusals::RefusedRequest,
    tariff::Tariff,
    usage::{Basis, Usage},
};

/// A request that can be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explained {
    Finished(Box<Finished>),
    Refused(Box<RefusedRequest>),
}

impl Explained {
    pub fn request_id(&self) -> RequestId {
        match self {
            Self::Finished(finished) => finished.request_id,
            Self::Refused(refused) => refused.request_id,
        }
    }
}

/// An entry of the ledger, with what has been corrected since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub request_id: RequestId,
    pub project_id: ProjectId,
    pub key_id: KeyId,
    /// As the caller wrote it.
    pub requested_model: String,
    pub stream: bool,
    pub outcome: Outcome,
    /// HTTP status of our answer; 0 when the client left before there was one.
    pub status: u16,
    pub admitted_at_ms: u64,
    pub duration_ms: u64,
    pub basis: Basis,
    pub usage: Usage,
    /// What it was billed by: endpoint, the dated model, service tier and prices.
    pub tariff: Arc<Tariff>,
    /// `None` for entries of before this was written down.
    pub admitted_under: Option<AdmittedUnder>,
    /// In the order in which they were made.
    pub adjustments: Vec<Adjustment>,
}

/// The limits of the admission, and what was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedUnder {
    pub limit_group: String,
    pub limits: ByScope<Limits>,
    pub held: Held,
}

impl AdmittedUnder {
    /// Before projects had buckets there was one number for each limit, that of the key.
    fn used_before(&self, scope: Scope, dimension: Dimension) -> Option<u64> {
        let used = |scope: Scope| self.held.used_before[scope].get(dimension.index()).copied().flatten();
        let of_before = || used(Scope::Project).filter(|_| self.limits.project.rate(dimension).is_none());
        used(scope).or_else(|| if scope == Scope::Key { of_before() } else { None })
    }
}

/// A correction of what a request cost: its quantities at a tariff of differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjustment {
    pub reason: String,
    pub adjusted_at_ms: u64,
    pub usage: Usage,
    pub tariff: Arc<Tariff>,
    /// The request had no price before.
    pub gives_price: bool,
}

/// One limit as the request met it; but for the limit itself in units of its bucket, see [`Dimension::shown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUse {
    pub scope: Scope,
    pub dimension: Dimension,
    pub limit: u32,
    /// Units in use when the request came, and what was held for it.
    pub used_before: Option<u64>,
    pub reserved: u64,
    /// What finally counted of it; `None` where the ledger does not tell.
    pub settled: Option<u64>,
}

impl LimitUse {
    /// Units in use right after the request was admitted.
    pub fn used_after(&self) -> Option<u64> {
        self.used_before.map(|used| used.saturating_add(self.reserved))
    }

    /// Units that are left with the request admitted; `None` where it has no room, or nobody knows.
    pub fn left_after(&self) -> Option<u64> {
        u64::from(self.limit).checked_sub(self.dimension.shown(self.used_after()?))
    }
}

impl Adjustment {
    pub fn amount(&self) -> Result<Total, MoneyError> {
        let amounts = self.usage.items().map(|(item, quantity)| self.tariff.amount(item, quantity));
        amounts.into_iter().try_fold(Total::default(), |sum, amount| sum.checked_add(amount?))
    }
}

impl Finished {
    pub const fn settled_at_ms(&self) -> u64 {
        self.admitted_at_ms.saturating_add(self.duration_ms)
    }

    /// False when something was used that has no price to this day: no cost holds it.
    pub fn priced(&self) -> bool {
        self.tariff.priced || self.adjustments.iter().any(|adjustment| adjustment.gives_price)
    }

    /// By the prices of its time. `None` when nothing of it had one, which is not nothing.
    pub fn first_cost(&self) -> Result<Option<Total>, MoneyError> {
        Ok(self.tariff.cost(&self.usage)?.map(Total::from))
    }

    /// With all adjustments, as reports count it.
    pub fn cost(&self) -> Result<Option<Total>, MoneyError> {
        let first = self.first_cost()?;
        if self.adjustments.is_empty() {
            return Ok(first);
        }
        let amounts = self.adjustments.iter().map(Adjustment::amount);
        amounts.into_iter().try_fold(first.unwrap_or_default(), |sum, amount| sum.checked_add(amount?)).map(Some)
    }

    /// The limits that were checked, in the order of checking; `None` when the ledger does not know them.
    pub fn limits(&self) -> Option<Vec<LimitUse>> {
        let under = self.admitted_under.as_ref()?;
        let limit_use = |(scope, dimension): (Scope, Dimension)| {
            let limit = under.limits[scope].ceiling(dimension)?;
            if dimension.is_concurrent() && !dimension.counts(self.stream) {
                return None;
            }
            let reserved = match dimension {
                _ if dimension.is_tokens() => under.held.reserved_tokens,
                _ if dimension.is_audio() => under.held.reserved_audio.units(dimension),
                _ => 1,
            };
            Some(LimitUse {
                scope,
                dimension,
                limit,
                used_before: under.used_before(scope, dimension),
                reserved,
                settled: match dimension {
                    // Over with the request.
                    _ if dimension.is_concurrent() => Some(0),
                    _ if dimension.is_tokens() => self.settled_units(self.usage.total(), reserved),
                    _ if dimension.is_audio() => self.settled_units(Audio::of(&self.usage).units(dimension), reserved),
                    _ => self.settled_requests(),
                },
            })
        };
        let checked = Scope::ALL.into_iter().flat_map(|scope| Dimension::ALL.map(|dimension| (scope, dimension)));
        Some(checked.filter_map(limit_use).collect())
    }

    /// A request that the end of the process interrupted keeps what it held, any other counts what it used: where these
    /// differ, and the entry could be either, nothing is said.
    fn settled_units(&self, used: u64, reserved: u64) -> Option<u64> {
        (self.outcome != Outcome::Interrupted || self.status != 0 || used == reserved).then_some(used)
    }

    /// A request that reached no upstream is given back, and the entry of one that failed does not tell whether it did.
    fn settled_requests(&self) -> Option<u64> {
        if self.usage.total() > 0 || self.outcome == Outcome::Completed {
            return Some(1);
        }
        // Refused by us, for it could not be recorded.
        (self.outcome == Outcome::Interrupted && self.status == 503).then_some(0)
    }
}

#[cfg(test)]
pub(crate) mod sample {
    use super::*;
    use crate::domain::{
        money::Money,
        pricing::{Rates, ServiceTier},
        tariff::TariffKind,
        time::UnixNanos,
        usage::LineItem,
    };

    pub(crate) fn rates(prices: &[(LineItem, i64)]) -> Rates {
        prices.iter().fold(Rates::default(), |mut rates, (item, pico)| {
            rates.set(*item, Money::from_pico(*pico));
            rates
        })
    }

    pub(crate) fn tariff(kind: TariffKind, prices: &[(LineItem, i64)]) -> Arc<Tariff> {
        Arc::new(Tariff {
            endpoint: "chat.completions".into(),
            model: "gpt-4o-mini-2024-07-18".into(),
            service_tier: ServiceTier::Default,
            prices_from: Some(UnixNanos::from_seconds(1_721_260_800)),
            rates: rates(prices),
            priced: true,
            kind,
        })
    }

    /// 1,204 tokens in at 0.15 dollars, 310 out at 0.60.
    pub(crate) fn finished() -> Finished {
        let number = std::num::NonZeroU32::new;
        Finished {
            request_id: RequestId::new(1_790_000_000_000, 7),
            project_id: ProjectId::parse("proj_a").unwrap(),
            key_id: KeyId::parse("key_a").unwrap(),
            requested_model: "gpt-4o-mini".to_owned(),
            stream: true,
            outcome: Outcome::Completed,
            status: 200,
            admitted_at_ms: 1_790_000_000_002,
            duration_ms: 1_834,
            basis: Basis::Reported,
            usage: Usage::default().with(LineItem::InputText, 1_204).with(LineItem::OutputText, 310),
            tariff: tariff(TariffKind::Request, &[(LineItem::InputText, 150_000), (LineItem::OutputText, 600_000)]),
            admitted_under: Some(AdmittedUnder {
                limit_group: "gpt-4o-mini".to_owned(),
                limits: ByScope {
                    project: Limits {
                        requests_per_minute: number(500),
                        tokens_per_minute: number(200_000),
                        ..Limits::default()
                    },
                    key: Limits { tokens_per_day: number(50_000), ..Limits::default() },
                },
                held: Held {
                    reserved_audio: Audio::NONE,
                    reserved_tokens: 1_456,
                    used_before: ByScope {
                        project: [Some(12), None, Some(8_020), None, None, None, None, None],
                        key: [None, None, None, Some(30_000), None, None, None, None],
                    },
                    estimate: Usage::default().with(LineItem::InputText, 1_200).with(LineItem::OutputText, 256),
                },
            }),
            adjustments: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{sample::*, *};
    use crate::domain::{tariff::TariffKind, usage::LineItem};

    fn adjustment(prices: &[(LineItem, i64)]) -> Adjustment {
        Adjustment {
            reason: "a price was wrong".to_owned(),
            adjusted_at_ms: 1_790_000_500_000,
            usage: finished().usage,
            tariff: tariff(TariffKind::Adjustment, prices),
            gives_price: false,
        }
    }

    #[test]
    fn lines_add_up_to_the_cost() {
        let finished = finished();
        let charges = finished.tariff.charges(&finished.usage);
        let lines: Vec<_> = charges.iter().map(|charge| charge.amount().unwrap().unwrap().pico()).collect();
        assert_eq!(lines, [180_600_000, 186_000_000]);
        assert_eq!(finished.cost(), Ok(Some(Total::from_pico(366_600_000))));
    }

    #[test]
    fn adjustments_change_the_cost_and_not_the_first_one() {
        let mut finished = finished();
        finished.adjustments.push(adjustment(&[(LineItem::InputText, -50_000)]));
        finished.adjustments.push(adjustment(&[(LineItem::OutputText, 1)]));
        assert_eq!(finished.first_cost(), Ok(Some(Total::from_pico(366_600_000))));
        assert_eq!(finished.cost(), Ok(Some(Total::from_pico(366_600_000 - 1_204 * 50_000 + 310))));
    }

    #[test]
    fn what_has_no_price_is_not_free_until_an_adjustment_gives_it_one() {
        let mut finished = finished();
        finished.tariff = Arc::new(Tariff { priced: false, rates: rates(&[]), ..Tariff::clone(&finished.tariff) });
        assert_eq!((finished.cost(), finished.priced()), (Ok(None), false));
        let given = Adjustment { gives_price: true, ..adjustment(&[(LineItem::InputText, 10)]) };
        finished.adjustments.push(given);
        assert_eq!((finished.first_cost(), finished.priced()), (Ok(None), true));
        assert_eq!(finished.cost(), Ok(Some(Total::from_pico(12_040))));
    }

    #[test]
    fn limits_tell_what_was_in_use_before_and_after() {
        let limits = finished().limits().unwrap();
        let seen: Vec<_> = limits
            .iter()
            .map(|it| {
                (it.scope, it.dimension.name(), it.limit, it.used_before, it.reserved, it.used_after(), it.settled)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (Scope::Project, "requests_per_minute", 500, Some(12), 1, Some(13), Some(1)),
                (Scope::Project, "tokens_per_minute", 200_000, Some(8_020), 1_456, Some(9_476), Some(1_514)),
                (Scope::Key, "tokens_per_day", 50_000, Some(30_000), 1_456, Some(31_456), Some(1_514)),
            ]
        );
    }

    #[test]
    fn limits_of_before_projects_had_buckets_were_the_keys() {
        let mut finished = finished();
        let under = finished.admitted_under.as_mut().unwrap();
        under.limits = ByScope { project: Limits::default(), key: under.limits.project };
        under.held.used_before.key = [None; Dimension::COUNT];
        let seen: Vec<_> = finished.limits().unwrap().iter().map(|it| (it.scope, it.limit, it.used_before)).collect();
        assert_eq!(seen, [(Scope::Key, 500, Some(12)), (Scope::Key, 200_000, Some(8_020))]);
    }

    #[test]
    fn what_the_ledger_cannot_tell_is_not_said() {
        let settled = |outcome, status, usage| {
            let finished = Finished { outcome, status, usage, ..finished() };
            finished.limits().unwrap().iter().map(|it| it.settled).collect::<Vec<_>>()
        };
        let some = finished().usage;
        assert_eq!(settled(Outcome::UpstreamFailed, 502, Usage::default()), [None, Some(0), Some(0)]);
        assert_eq!(settled(Outcome::Completed, 200, Usage::default()), [Some(1), Some(0), Some(0)]);
        assert_eq!(settled(Outcome::ClientLeft, 0, some), [Some(1), Some(1_514), Some(1_514)]);
        assert_eq!(settled(Outcome::Interrupted, 0, some), [Some(1), None, None]);
        assert_eq!(settled(Outcome::Interrupted, 503, Usage::default()), [Some(0), Some(0), Some(0)]);
        assert_eq!(Finished { admitted_under: None, ..finished() }.limits(), None);
    }
}
