//! What other limits would have refused: requests of the past are told again, in the order of time, to buckets of those
//! limits.
//!
//! Each takes what it took when it was admitted, and gives back or books the rest when it was settled. A request that is
//! refused here takes nothing, and nobody tries it again. The ledger keeps whole milliseconds; what happened within one is
//! told in the order that refuses least, and a wait of less than one is no refusal, so that limits which were in force refuse
//! nobody.

mod found;
mod lanes;
#[cfg(test)]
mod tests;

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    num::NonZeroU32,
    sync::Arc,
};

pub use self::found::{Found, FoundKey, Hit, RefusedBy, Slot, Timeline};
use self::{
    found::Refused,
    lanes::{Lanes, Numbers},
};
use super::{
    bucket::{DAY_NANOS, Rate},
    held::Held,
    ids::{KeyId, ProjectId, RequestId},
    ledger::{Used, units},
    limits::{Audio, Dimension, Limits, Scope},
    time::UnixNanos,
    usage::Usage,
};

/// How far before the first request that counts the replay begins. Only what was used beyond a limit is remembered for longer
/// than the limit's own time: a day is enough for 1,440 times a limit per minute, and a week for seven times one per day.
pub const fn warm_up_nanos(any_per_day: bool) -> u64 {
    if any_per_day { 7 * DAY_NANOS } else { DAY_NANOS }
}

/// What the ledger says of a finished request, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    pub request_id: RequestId,
    pub admitted_at: UnixNanos,
    pub settled_at: UnixNanos,
    pub project_id: ProjectId,
    pub key_id: KeyId,
    /// As the caller wrote it.
    pub requested_model: String,
    pub stream: bool,
    /// HTTP status of our answer; 0 when the client left before there was one.
    pub status: u16,
    pub usage: Usage,
    /// `None` for entries of before it was written down.
    pub held: Option<Held>,
}

/// The limits that a request is told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its model may be called at all.
    pub is_allowed: bool,
    pub limit_group: Arc<str>,
    pub project: Limits,
    pub key: Limits,
    /// What is reserved for the answer gives way to a limit that it alone would exceed, as a guess does; a stated maximum that
    /// is reserved whole does not.
    pub guess_gives_way: bool,
}

/// A request of the past, ready to be told.
#[derive(Clone, Debug)]
struct Past {
    request_id: RequestId,
    admitted_at: UnixNanos,
    settled_at: UnixNanos,
    project_id: ProjectId,
    key_id: KeyId,
    terms: Terms,
    tokens: NonZeroU32,
    audio: Audio,
    used: Used,
    stream: bool,
}

impl Past {
    fn of(booked: Booked, terms: Terms) -> Self {
        let used = booked.used();
        Self {
            request_id: booked.request_id,
            admitted_at: booked.admitted_at,
            // A clock that was set back between two starts; no time passed then.
            settled_at: booked.settled_at.max(booked.admitted_at),
            tokens: booked.tokens(&terms),
            audio: booked.audio(&terms),
            project_id: booked.project_id,
            key_id: booked.key_id,
            stream: booked.stream,
            terms,
            used,
        }
    }

    fn units(&self, dimension: Dimension) -> u32 {
        units(dimension, self.tokens, self.audio)
    }

    /// More was used of this than was held.
    fn books(&self, dimension: Dimension) -> bool {
        self.used.units(dimension) > u64::from(self.units(dimension))
    }

    /// What applies to the request in this scope.
    fn rate(&self, scope: Scope, dimension: Dimension) -> Option<Rate> {
        self.limits(scope).rate(dimension)
    }

    fn limits(&self, scope: Scope) -> Limits {
        match scope {
            Scope::Project => self.terms.project,
            Scope::Key => self.terms.key,
        }
    }

    /// How many may be under way of what the request is one of.
    fn concurrent(&self, scope: Scope, dimension: Dimension) -> Option<u32> {
        let counted = dimension.counts(self.stream).then(|| self.limits(scope).concurrent(dimension));
        counted.flatten().map(NonZeroU32::get)
    }

    /// A limit counts it while it is under way.
    fn is_counted(&self) -> bool {
        let any = |scope| Dimension::CONCURRENT.into_iter().any(|it| self.concurrent(scope, it).is_some());
        Scope::ALL.into_iter().any(any)
    }
}

impl Booked {
    /// What it takes of limits in tokens.
    fn tokens(&self, terms: &Terms) -> NonZeroU32 {
        let tokens = match &self.held {
            None => self.usage.total(),
            Some(held) if terms.guess_gives_way => {
                let narrowest = terms.project.narrowed_by(&terms.key);
                let room = narrowest.most_tokens_at_once().map_or(u64::MAX, u64::from);
                held.reserved_tokens.min(room.max(held.estimate.input_total()))
            }
            Some(held) => held.reserved_tokens,
        };
        u32::try_from(tokens.max(1)).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX)
    }

    /// What it takes of limits of audio.
    fn audio(&self, terms: &Terms) -> Audio {
        match &self.held {
            None => Audio::of(&self.usage),
            Some(held) if terms.guess_gives_way => held.reserved_audio.within(&terms.project.narrowed_by(&terms.key)),
            Some(held) => held.reserved_audio,
        }
    }

    /// What finally counted. The ledger does not say whether a failed request without usage reached the upstream; those
    /// that ended without an answer of its own are taken for such that did not. A usage that is the estimate was reported by
    /// nobody, and counts as it was held where that is less.
    fn used(&self) -> Used {
        let tokens = self.usage.total();
        let used = Used::of(tokens > 0 || !matches!(self.status, 0 | 502..=504), &self.usage);
        match &self.held {
            Some(held) if held.estimate == self.usage => {
                let (guessed, kept) = (used.audio, held.reserved_audio);
                let audio = Audio { input: guessed.input.min(kept.input), output: guessed.output.min(kept.output) };
                Used { tokens: tokens.min(held.reserved_tokens), held_audio: Some(audio), ..used }
            }
            _ => used,
        }
    }
}

/// The replay. Its memory grows with the keys and models in use and with the requests that were under way at one time.
#[derive(Debug)]
pub struct WhatIf {
    from: UnixNanos,
    events: BinaryHeap<Reverse<Event>>,
    lanes: Lanes,
    found: Found,
}

#[derive(Debug)]
struct Event {
    at: UnixNanos,
    what: What,
    past: Past,
}

/// In the order in which they are told within a millisecond.
#[derive(Debug)]
enum What {
    /// It is not under way any more.
    Leave,
    GiveBack(Numbers),
    Admit,
    Book(Numbers),
}

impl WhatIf {
    /// Counts what was admitted at `from` or later, and before `until`.
    pub fn new(from: UnixNanos, until: UnixNanos) -> Self {
        let found = Found::new(Timeline::over(from, until));
        Self { from, events: BinaryHeap::new(), lanes: Lanes::default(), found }
    }

    /// The next request, in the order of ids. Those from [`warm_up_nanos`] before are told and not counted.
    pub fn add(&mut self, booked: Booked, terms: Terms) {
        // Nobody who comes later was admitted before this one arrived.
        self.run_before(booked.request_id.arrived_at());
        let past = Past::of(booked, terms);
        self.events.push(Reverse(Event { at: past.admitted_at, what: What::Admit, past }));
    }

    pub fn finish(mut self) -> Found {
        self.run_before(UnixNanos(u64::MAX));
        self.found
    }

    fn run_before(&mut self, end: UnixNanos) {
        while self.events.peek().is_some_and(|Reverse(event)| event.at < end) {
            let Some(Reverse(Event { at, what, past })) = self.events.pop() else { return };
            match what {
                What::Admit => self.admit(past),
                What::Leave => self.lanes.leave(&past),
                What::GiveBack(numbers) => self.lanes.settle(&past, &numbers, past.used, at, |it| !past.books(it)),
                What::Book(numbers) => self.lanes.settle(&past, &numbers, past.used, at, |it| past.books(it)),
            }
        }
    }

    fn admit(&mut self, past: Past) {
        let reserved = if past.terms.is_allowed { self.lanes.reserve(&past) } else { Err(Refused::MODEL) };
        if past.admitted_at >= self.from {
            self.found.add(&past, reserved.as_ref().err());
        }
        if let Ok(numbers) = reserved {
            if Dimension::ALL.into_iter().any(|dimension| past.books(dimension)) {
                self.events.push(Reverse(Event { at: past.settled_at, what: What::Book(numbers), past: past.clone() }));
            }
            if past.is_counted() {
                self.events.push(Reverse(Event { at: past.settled_at, what: What::Leave, past: past.clone() }));
            }
            self.events.push(Reverse(Event { at: past.settled_at, what: What::GiveBack(numbers), past }));
        }
    }
}

impl Event {
    fn order(&self) -> (UnixNanos, u8, RequestId) {
        let rank = match self.what {
            What::Leave | What::GiveBack(_) => 0,
            What::Admit => 1,
            What::Book(_) => 2,
        };
        (self.at, rank, self.past.request_id)
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Event {}
