//! Puts a request into the books when it is admitted, and its end when it is settled: once, whatever happens.

use std::{num::NonZeroU32, sync::Arc};

use super::{
    estimate::Estimate,
    limiter::Reservation,
    notices::{Notices, Passing},
    promotions::Promotions,
};
use crate::{
    clock::Clock,
    domain::{
        catalog::Catalog,
        ids::RequestId,
        keys::{ApiKey, Caller},
        ledger::{Admission, Held, Outcome, Settlement, Used},
        pricing::{Charge, Prices, ServiceTier, charges, cost},
        spend::{SpendHold, Spending},
        time::UnixNanos,
        usage::{Basis, LineItem, Usage},
    },
    journal::{Journal, JournalError, Position, Ticket},
    metrics::Metrics,
};

/// No answer is larger: 128 choices of 128,000 tokens each are half of it. An upstream that reports more is not believed,
/// so that its numbers cannot overflow the sums of the ledger.
const MAX_BELIEVED_TOKENS: u64 = 1 << 25;

/// What a settlement needs beyond the request's own facts.
pub struct Recorder {
    pub journal: Arc<Journal>,
    pub catalog: Arc<Catalog>,
    pub metrics: Arc<Metrics>,
    pub spending: Arc<Spending>,
    /// Whose limits on money have passed a mark.
    pub notices: Arc<Notices>,
    /// `None`: tiers change only by administrators.
    pub promotions: Option<Arc<Promotions>>,
    pub clock: Clock,
}

/// The facts of a request that its admission keeps.
pub struct Facts {
    pub request_id: RequestId,
    pub endpoint: Arc<str>,
    pub model: Arc<str>,
    pub billed_model: Arc<str>,
    pub stream: bool,
    pub choices: NonZeroU32,
    pub prices: Option<Arc<Prices>>,
    /// What the estimate costs at that service tier.
    pub charges: Vec<Charge>,
    pub service_tier: ServiceTier,
}

/// What a request holds until it is settled: its place on the limits, and the money that it is expected to cost.
pub struct Holds {
    pub reservation: Reservation,
    pub money: SpendHold,
}

/// The watcher of one admitted request. Settled explicitly, or at the latest when dropped.
pub struct Meter {
    open: Option<Open>,
    /// The upstream may have seen the request.
    sent: bool,
    recorder: Arc<Recorder>,
    key: Arc<ApiKey>,
    admission: Admitted,
    choices: NonZeroU32,
    prices: Option<Arc<Prices>>,
}

/// What a settlement needs of the admission: the rest is in the journal, and thousands of streams that wait need not hold it.
struct Admitted {
    request_id: RequestId,
    at: UnixNanos,
    billed_model: Arc<str>,
    estimate: Usage,
    service_tier: ServiceTier,
    held: Held,
}

/// What is given up by settling.
struct Open {
    ticket: Ticket,
    holds: Holds,
}

/// How a request ended, as far as its settlement is concerned.
#[derive(Clone, Debug)]
pub struct Ending {
    pub outcome: Outcome,
    /// HTTP status of our answer; 0 when there was none.
    pub status: u16,
    pub consumed: Consumed,
}

impl Ending {
    /// The same end, for a client that did not wait for it.
    #[must_use]
    pub fn without_client(self) -> Self {
        let outcome = if self.outcome == Outcome::Completed { Outcome::ClientLeft } else { self.outcome };
        Self { outcome, status: 0, ..self }
    }
}

#[derive(Clone, Debug)]
pub enum Consumed {
    /// Nothing reached the upstream.
    NotSent,
    /// The upstream refused or failed and said so: it bills nothing.
    Nothing,
    /// As the upstream reported.
    Reported { usage: Usage, model: Option<String>, service_tier: ServiceTier },
    /// Nobody said: the input as estimated, the output as delivered.
    Delivered(Delivered),
    /// Nobody said, and the upstream may have gone on: not less than the estimate.
    AtLeastEstimate(Delivered),
}

/// Output that was seen on its way to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    pub text_tokens: u64,
    pub audio_tokens: u64,
    /// As the upstream said on the way; otherwise the one that was asked for is billed.
    pub service_tier: Option<ServiceTier>,
}

impl Recorder {
    /// Journals the admission. On success the request is in the books and its [`Meter`] will settle it.
    pub fn admit(
        self: &Arc<Self>,
        caller: &Caller,
        facts: Facts,
        estimate: &Estimate,
        holds: Holds,
        now: UnixNanos,
    ) -> Result<Meter, JournalError> {
        let (prices, choices) = (facts.prices, facts.choices);
        let admission = Admission {
            request_id: facts.request_id,
            admitted_at: now,
            key_id: caller.key().id.clone(),
            endpoint: facts.endpoint,
            model: facts.model,
            stream: facts.stream,
            estimate: estimate.usage,
            charges: facts.charges,
            service_tier: facts.service_tier,
            billed_model: facts.billed_model,
            prices_from: prices.as_ref().map(|prices| prices.from),
            hold: holds.reservation.hold(),
        };
        let ticket = self.journal.admit(&admission)?;
        self.metrics.open_admissions.inc();
        let open = Some(Open { ticket, holds });
        let (recorder, key) = (Arc::clone(self), Arc::clone(caller.key()));
        let admission = Admitted {
            request_id: admission.request_id,
            at: now,
            billed_model: admission.billed_model,
            estimate: admission.estimate,
            service_tier: admission.service_tier,
            held: admission.hold.held(),
        };
        Ok(Meter { open, sent: false, recorder, key, admission, choices, prices })
    }
}

impl Meter {
    /// Where the admission stands in the journal.
    pub fn admitted_at(&self) -> Option<Position> {
        self.open.as_ref().map(|open| open.ticket.position())
    }

    /// To be said before the first byte goes to the upstream.
    pub(super) const fn mark_sent(&mut self) {
        self.sent = true;
    }

    pub const fn is_settled(&self) -> bool {
        self.open.is_none()
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.recorder.journal
    }

    /// The only place that gives tokens back or books debt, writes the settlement, and counts it. The second call and
    /// all later ones do nothing; returns where the settlement stands in the journal.
    pub fn settle(&mut self, ending: Ending) -> Option<Position> {
        let Open { ticket, holds: Holds { reservation, money } } = self.open.take()?;
        let now = self.recorder.clock.now();
        let settlement = self.settlement(ending, now);
        if settlement.basis == Basis::Reported
            && settlement.outcome != Outcome::UpstreamFailed
            && settlement.usage.total() > 0
        {
            let averages = &reservation.buckets().averages;
            averages.learn(&self.admission.billed_model, &settlement.usage, self.choices);
        }
        reservation.settle(settlement.used, now);
        self.spend(money, &settlement);
        let position = self.recorder.journal.settle(ticket, &settlement);
        self.recorder.metrics.open_admissions.dec();
        self.recorder.metrics.settled(&settlement);
        Some(position)
    }

    fn settlement(&self, ending: Ending, now: UnixNanos) -> Settlement {
        let sent = !matches!(ending.consumed, Consumed::NotSent);
        let delivered = match ending.consumed {
            Consumed::AtLeastEstimate(delivered) => Some(output(Usage::default(), delivered)),
            _ => None,
        };
        let (usage, basis, model, service_tier) = self.usage(ending.consumed);
        let (billed_model, prices) = self.billed(model);
        let charges = charges(&usage, prices.as_deref(), service_tier);
        let prices_from = prices.map(|prices| prices.from);
        Settlement {
            request_id: self.admission.request_id,
            settled_at: now,
            outcome: ending.outcome,
            basis,
            status: ending.status,
            billed_model,
            service_tier,
            prices_from,
            usage,
            charges,
            used: delivered
                .map_or_else(|| Used::of(sent, &usage), |delivered| self.admission.held.counted(&usage, &delivered)),
        }
    }

    /// What has no price counts as nothing, as it does in the ledger.
    fn spend(&self, money: SpendHold, settlement: &Settlement) {
        match cost(&settlement.charges) {
            Ok(cost) => {
                let marks = money.settle(cost.amount.into(), settlement.settled_at);
                self.recorder.metrics.soft_limits_passed(&marks);
                if !marks.is_empty() {
                    let (key, at) = (Arc::clone(&self.key), settlement.settled_at);
                    self.recorder.notices.put(Passing { key, at, marks });
                }
                if let Some(promotions) = &self.recorder.promotions {
                    promotions.settled(&self.key.project, cost.amount.into(), settlement.settled_at);
                }
            }
            Err(error) => {
                tracing::error!(request_id = %settlement.request_id, %error, "the cost of this request cannot be summed");
            }
        }
    }

    fn usage(&self, consumed: Consumed) -> (Usage, Basis, Option<String>, ServiceTier) {
        let (estimate, asked) = (self.admission.estimate, self.admission.service_tier);
        match consumed {
            Consumed::NotSent | Consumed::Nothing => (Usage::default(), Basis::Reported, None, ServiceTier::Default),
            Consumed::Reported { usage, .. } if usage.items().any(|(_, quantity)| quantity > MAX_BELIEVED_TOKENS) => {
                tracing::error!(request_id = %self.admission.request_id, ?usage, "the upstream reported an impossible usage");
                (estimate, Basis::Estimated, None, asked)
            }
            Consumed::Reported { usage, model, service_tier } => (usage, Basis::Reported, model, service_tier),
            Consumed::Delivered(delivered) => {
                (output(estimate, delivered), Basis::Estimated, None, delivered.service_tier.unwrap_or(asked))
            }
            Consumed::AtLeastEstimate(delivered) => {
                let (text, audio) = (estimate.get(LineItem::OutputText), estimate.get(LineItem::OutputAudio));
                // What came of one kind beyond its estimate was part of what was reserved for both.
                let text_beyond = delivered.text_tokens.saturating_sub(text);
                let audio_beyond = delivered.audio_tokens.saturating_sub(audio);
                let delivered = Delivered {
                    text_tokens: delivered.text_tokens.max(text.saturating_sub(audio_beyond)),
                    audio_tokens: delivered.audio_tokens.max(audio.saturating_sub(text_beyond)),
                    ..delivered
                };
                (output(estimate, delivered), Basis::Estimated, None, delivered.service_tier.unwrap_or(asked))
            }
        }
    }

    /// The dated model that answered and its prices. A name that is not in the catalog is not believed: the upstream does
    /// not choose what a request costs.
    fn billed(&self, model: Option<String>) -> (Arc<str>, Option<Arc<Prices>>) {
        let admitted = (Arc::clone(&self.admission.billed_model), self.prices.clone());
        let Some(model) = model.filter(|model| **model != *self.admission.billed_model) else { return admitted };
        match self.recorder.catalog.resolve(&model) {
            Some(named) => match named.prices(self.admission.at) {
                Some(prices) => (Arc::clone(named.billed_name()), Some(Arc::clone(prices))),
                None => admitted,
            },
            None => admitted,
        }
    }
}

fn output(estimate: Usage, delivered: Delivered) -> Usage {
    estimate.with(LineItem::OutputText, delivered.text_tokens).with(LineItem::OutputAudio, delivered.audio_tokens)
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.open.is_some() && !self.sent {
            // The client left while the admission was on its way to the disk.
            self.settle(Ending { outcome: Outcome::ClientLeft, status: 0, consumed: Consumed::NotSent });
        }
        if self.open.is_some() {
            tracing::warn!(request_id = %self.admission.request_id, "a request ended without saying how; settled at its estimate");
            let consumed = Consumed::AtLeastEstimate(Delivered::default());
            self.settle(Ending { outcome: Outcome::Interrupted, status: 0, consumed });
        }
    }
}
