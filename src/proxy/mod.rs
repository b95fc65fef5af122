//! The hot path: from a proven caller and a read request to an answer, with every request in the books.
//!
//! Start with [`Proxy::forward`]; it is meant to be read aloud.

mod answer;
mod attended;
pub mod averages;
mod body;
pub mod drain;
mod dry_run;
pub mod estimate;
mod intake;
pub mod limiter;
#[cfg(test)]
mod limiter_tests;
pub mod notices;
pub mod promotions;
pub mod recorder;
pub mod refusals;

use std::sync::Arc;

use self::{
    answer::Answered,
    attended::Attended,
    drain::Drainer,
    estimate::{Estimate, Size, estimate},
    limiter::{Buckets, Limiter},
    recorder::{Consumed, Ending, Facts, Holds, Meter, Recorder},
    refusals::Refusals,
};
pub use self::{
    answer::{Answer, AnswerBody},
    body::{MeteredBody, StreamTimes},
    dry_run::DryRun,
};
use crate::{
    clock::Clock,
    config::Reserve,
    domain::{
        catalog::{Catalog, Named},
        dry_run::{Bounds, money_held},
        ids::RequestId,
        keys::Caller,
        ledger::Outcome,
        limits::{ByScope, Headrooms, LimitExceeded, Limits},
        money::Total,
        pricing::{Charge, Prices, ServiceTier},
        refusals::{OverLimit, Reason},
        spend::{Payer, SpendLimitReached, Spender},
        time::UnixNanos,
    },
    journal::{JournalError, Position},
    metrics::Metrics,
    openai::{endpoint::Endpoint, error::ApiError},
    upstream::{self, Upstream},
};

/// What a caller wants forwarded, read and checked.
pub struct Call {
    pub endpoint: Endpoint,
    /// As the caller wrote it.
    pub model: Arc<str>,
    pub stream: bool,
    /// The caller did not ask for the usage chunk, so it is taken out again.
    pub hide_usage: bool,
    pub size: Size,
    /// Those that may serve it, as far as it says.
    pub service_tiers: &'static [ServiceTier],
    /// What the upstream will see.
    pub upstream: upstream::Call,
}

impl Call {
    pub const fn request_id(&self) -> RequestId {
        self.upstream.request_id
    }
}

pub struct Options {
    pub reserve: Reserve,
    pub allow_unpriced: bool,
    pub stream_times: StreamTimes,
    pub max_answer_bytes: u64,
}

pub struct Proxy {
    pub limiter: Limiter,
    pub recorder: Arc<Recorder>,
    pub catalog: Arc<Catalog>,
    pub upstream: Upstream,
    pub drainer: Arc<Drainer>,
    /// What was refused and is not written down yet.
    pub refusals: Arc<Refusals>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub options: Options,
}

/// Why a call was not answered by the upstream, and what the limits looked like then (a model that is unknown, or not for this
/// caller: no limits).
#[derive(Debug)]
pub struct Refused {
    pub error: ApiError,
    pub headrooms: Headrooms,
    pub reason: Reason,
}

/// A request that may be sent, and what its answer will tell of limits.
struct Taken {
    meter: Meter,
    headrooms: Headrooms,
    budget_percent: Option<u64>,
}

/// What the catalog and the limiter know about a caller's use of a model.
struct Terms<'a> {
    named: Option<Named<'a>>,
    /// All of the project's and all of the key's, so that each has counted from its start whichever is hit first.
    limits: ByScope<Limits>,
    limit_group: Arc<str>,
    buckets: Arc<Buckets>,
    catalog: &'a Catalog,
}

impl Terms<'_> {
    /// The limit group of a model whose limits are not its own.
    fn shared_limit(&self) -> Option<&str> {
        self.named.filter(|named| named.model.id != self.limit_group).map(|_| &*self.limit_group)
    }
}

/// The limit group of all models without a page: many services answer to any name, and a new name each time must not be a
/// new limit each time.
pub const UNLISTED: &str = "(unlisted)";

impl Proxy {
    /// Nothing is sent upstream without a price, a reservation, money left to spend and a place in the journal; from the admission on the
    /// request is settled exactly once, whatever happens.
    pub async fn forward(self: &Arc<Self>, caller: &Caller, call: Call) -> Result<Answer, Refused> {
        let now = self.clock.now();
        let taken = self.take(caller, &call, now);
        let taken = taken.inspect_err(|refused| self.refusals.add(caller, &call, refused, now))?;
        let answer = self.exchange(call, taken.meter).await;
        Ok(Answer { headrooms: taken.headrooms, budget_percent: taken.budget_percent, ..answer })
    }

    /// All that must be so before anything is sent.
    fn take(&self, caller: &Caller, call: &Call, now: UnixNanos) -> Result<Taken, Refused> {
        let terms = self.terms(caller, &call.model).ok_or_else(|| unknown_model(&call.model))?;
        self.check_permission(caller, &call.model, &terms)?;
        check_endpoint(call, &terms)?;
        let prices = self.prices(&call.model, &terms, now)?;
        let estimate = self.estimate(call, &terms);
        let (service_tier, charges) = estimate.bill(call.service_tiers, prices.as_deref());
        let money = self.money_held(call, &terms, &estimate, &charges, prices.as_deref());
        let holds = self.hold(caller, call, &terms, &estimate, money, now)?;
        let (headrooms, budget_percent) = (holds.reservation.headrooms(), holds.money.soft_percent(now));
        let meter = self.admit(caller, call, &terms, (prices, charges, service_tier), &estimate, holds, now)?;
        Ok(Taken { meter, headrooms, budget_percent })
    }

    /// What is left of a caller's limits on `model`, for answers that consume nothing.
    pub fn headrooms(&self, caller: &Caller, model: &str) -> Headrooms {
        let now = self.clock.now();
        self.terms(caller, model).map(|terms| terms.buckets.headrooms(&terms.limits, now)).unwrap_or_default()
    }

    fn terms(&self, caller: &Caller, model: &str) -> Option<Terms<'_>> {
        let named = self.catalog.resolve(model);
        if named.is_none() && !self.options.allow_unpriced {
            return None;
        }
        let page = named.map(|named| named.model.as_ref());
        let project = self.catalog.limits_of(caller.project(), page);
        let limits = ByScope { project, key: caller.key().terms.limits };
        let limit_group = page.map_or_else(|| Arc::from(UNLISTED), |page| Arc::clone(&page.limit_group));
        let buckets = self.limiter.buckets(&caller.project().id, &caller.key().id, &limit_group);
        Some(Terms { named, limits, limit_group, buckets, catalog: &self.catalog })
    }

    /// `OpenAI` shows no limits with a 403 (protocol facts d.1).
    fn check_permission(&self, caller: &Caller, model: &str, terms: &Terms<'_>) -> Result<(), Refused> {
        if self.catalog.may_use(caller, model, terms.named.as_ref()) {
            return Ok(());
        }
        let error = ApiError::model_not_allowed(caller.project().id.as_str(), model);
        Err(Refused { error, headrooms: Headrooms::default(), reason: Reason::ModelNotAllowed })
    }

    fn prices(&self, model: &str, terms: &Terms<'_>, now: UnixNanos) -> Result<Option<Arc<Prices>>, Refused> {
        let prices = terms.named.and_then(|named| named.prices(now).cloned());
        if prices.is_none() && !self.options.allow_unpriced {
            let headrooms = terms.buckets.headrooms(&terms.limits, now);
            let error = ApiError::unpriced_model(model);
            return Err(Refused { error, headrooms, reason: Reason::UnpricedModel });
        }
        Ok(prices)
    }

    fn money_held(
        &self,
        call: &Call,
        terms: &Terms<'_>,
        estimate: &Estimate,
        charges: &[Charge],
        prices: Option<&Prices>,
    ) -> Total {
        let all_output = self.options.reserve == Reserve::Strict;
        money_held(&estimate.usage, charges, &bounds(call, terms), all_output, prices)
    }

    /// A place on all limits and the money that the request is expected to cost, until it is settled; or neither, so that
    /// nobody is refused because of what is about to be given back.
    fn hold(
        &self,
        caller: &Caller,
        call: &Call,
        terms: &Terms<'_>,
        estimate: &Estimate,
        amount: Total,
        now: UnixNanos,
    ) -> Result<Holds, Refused> {
        let money = || self.recorder.spending.hold(&self.payer(caller), amount, now).map_err(NoRoom::Money);
        let held = terms.buckets.reserve_with(&terms.limits, estimate.asked(call.stream), now, money);
        let (reservation, money) = held.map_err(|no_room| {
            let told = match no_room {
                NoRoom::Limit(exceeded) => {
                    let LimitExceeded { scope, dimension, .. } = exceeded;
                    tracing::debug!(scope = scope.name(), limit = dimension.name(), key_id = %caller.key().id, "a limit refused a request");
                    no_room_for(exceeded, self.money_reached(caller, amount, now))
                }
                money @ NoRoom::Money(_) => money,
            };
            if let (NoRoom::Money(reached), Some(promotions)) = (&told, &self.recorder.promotions)
                && reached.spender == Spender::Tier
            {
                promotions.held_by_its_tier(caller.project(), now);
            }
            refused(caller, call, terms, estimate, told, now)
        })?;
        Ok(Holds { reservation, money })
    }

    /// The spend limit that has no room for `amount` now. Nothing is held.
    fn money_reached(&self, caller: &Caller, amount: Total, now: UnixNanos) -> Option<SpendLimitReached> {
        self.recorder.spending.would_hold(&self.payer(caller), amount, now).refused
    }

    fn payer<'a>(&self, caller: &'a Caller) -> Payer<'a> {
        self.catalog.payer(caller.key())
    }

    fn estimate(&self, call: &Call, terms: &Terms<'_>) -> Estimate {
        let narrowest = terms.limits.project.narrowed_by(&terms.limits.key);
        let average = terms.buckets.averages.of(billed_model(call, terms));
        estimate(&size(call, terms), average, self.options.reserve, &narrowest)
    }

    #[expect(clippy::too_many_arguments, reason = "the admission brings together everything decided before it")]
    fn admit(
        &self,
        caller: &Caller,
        call: &Call,
        terms: &Terms<'_>,
        (prices, charges, service_tier): (Option<Arc<Prices>>, Vec<Charge>, ServiceTier),
        estimate: &Estimate,
        holds: Holds,
        now: UnixNanos,
    ) -> Result<Meter, Refused> {
        let headrooms = holds.reservation.headrooms();
        let facts = Facts {
            request_id: call.request_id(),
            endpoint: Arc::from(call.endpoint.name()),
            model: Arc::clone(&call.model),
            billed_model: Arc::clone(billed_model(call, terms)),
            stream: call.stream,
            choices: call.size.choices,
            prices,
            charges,
            service_tier,
        };
        let admitted = self.recorder.admit(caller, facts, estimate, holds, now);
        admitted.map_err(|error: JournalError| {
            tracing::error!(request_id = %call.request_id(), %error, "cannot record a request, so it is refused");
            Refused { error: ApiError::storage_unavailable(), headrooms, reason: Reason::NotRecorded }
        })
    }

    /// From the admission to the answer. A client that leaves drops this; then [`Attended`] sees to the rest.
    async fn exchange(self: &Arc<Self>, call: Call, mut meter: Meter) -> Answer {
        if !self.on_disk(meter.admitted_at()).await {
            meter.settle(Ending { outcome: Outcome::Interrupted, status: 503, consumed: Consumed::NotSent });
            return Answer::error(&ApiError::storage_unavailable());
        }
        match Attended::new(self, call, meter).await {
            (call, Answered::Stream(response), meter) => self.stream(&call, response, meter),
            (_, Answered::Whole(answer, ending), mut meter) => {
                self.on_disk(meter.settle(ending)).await;
                answer
            }
        }
    }

    /// Waits for the disk where power loss must not lose what is at `position`. False: the disk did not take it.
    async fn on_disk(&self, position: Option<Position>) -> bool {
        let Some(position) = position else { return true };
        let durable = self.recorder.journal.durable(position).await;
        durable.inspect_err(|error| tracing::error!(%error, "a record may not survive a loss of power")).is_ok()
    }
}

/// A page that lists its model's endpoints is believed; one that lists none says nothing.
fn check_endpoint(call: &Call, terms: &Terms<'_>) -> Result<(), Refused> {
    let listed = terms.named.map_or(&[][..], |named| named.model.endpoints.as_slice());
    if listed.is_empty() || listed.iter().any(|path| path == call.endpoint.path()) {
        return Ok(());
    }
    let error = ApiError::not_a_chat_model();
    Err(Refused { error, headrooms: Headrooms::default(), reason: Reason::WrongEndpoint })
}

/// The dated name of the model, so that all names for it are billed, and learned from, as one.
fn billed_model<'a>(call: &'a Call, terms: &'a Terms<'_>) -> &'a Arc<str> {
    terms.named.map_or(&call.model, |named| named.billed_name())
}

/// As the request says, and the model's page.
fn size(call: &Call, terms: &Terms<'_>) -> Size {
    let model_max_output = terms.named.and_then(|named| named.model.max_output_tokens);
    Size { model_max_output, ..call.size }
}

fn bounds(call: &Call, terms: &Terms<'_>) -> Bounds {
    let size = size(call, terms);
    let (max_output, wants_audio) = (size.max_output(), size.wants_audio);
    Bounds { max_output, wants_audio, service_tiers: call.service_tiers }
}

fn unknown_model(model: &str) -> Refused {
    tracing::debug!(?model, "unknown model: it has no page in the catalog, and allow_unpriced is false");
    let error = ApiError::unknown_model(model);
    Refused { error, headrooms: Headrooms::default(), reason: Reason::UnknownModel }
}

/// What has no room for a request.
#[derive(Clone, Copy)]
enum NoRoom {
    Limit(LimitExceeded),
    Money(SpendLimitReached),
}

impl From<LimitExceeded> for NoRoom {
    fn from(exceeded: LimitExceeded) -> Self {
        Self::Limit(exceeded)
    }
}

/// Which of both is told: money that is spent, since it is in vain to wait for the limit then; otherwise the limit.
fn no_room_for(exceeded: LimitExceeded, money: Option<SpendLimitReached>) -> NoRoom {
    money.filter(SpendLimitReached::is_spent).map_or(NoRoom::Limit(exceeded), NoRoom::Money)
}

fn refused(
    caller: &Caller,
    call: &Call,
    terms: &Terms<'_>,
    estimate: &Estimate,
    no_room: NoRoom,
    now: UnixNanos,
) -> Refused {
    match no_room {
        NoRoom::Limit(exceeded) => over_limit(caller, call, terms, estimate, exceeded, now),
        NoRoom::Money(reached) => over_spend_limit(terms, reached, now),
    }
}

fn over_spend_limit(terms: &Terms<'_>, reached: SpendLimitReached, now: UnixNanos) -> Refused {
    let headrooms = terms.buckets.headrooms(&terms.limits, now);
    let error = ApiError::spend_limit_reached(&reached);
    Refused { error, headrooms, reason: Reason::SpendLimit(Box::new(reached)) }
}

fn over_limit(
    caller: &Caller,
    call: &Call,
    terms: &Terms<'_>,
    estimate: &Estimate,
    exceeded: LimitExceeded,
    now: UnixNanos,
) -> Refused {
    let shared_limit = terms.shared_limit();
    let error = ApiError::limit_exceeded(&exceeded, &call.model, shared_limit, caller.project().id.as_str());
    let free = terms.catalog.is_free(&caller.project().tier);
    let error = if free { error.with_free_tier_hint() } else { error };
    let limit_group = Arc::clone(&terms.limit_group);
    let over = OverLimit { limit_group, exceeded, estimate: estimate.usage };
    let headrooms = terms.buckets.headrooms(&terms.limits, now);
    Refused { error, headrooms, reason: Reason::Limit(Box::new(over)) }
}
