//! Who is asked no more for a while. The upstream as a whole when it cannot be reached, which no model is to blame for; and
//! else one path and model of it: where one model fails, the others are asked as before.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::breaker::{Breaker, Leave, Turn};

/// Paths and models with failures that are told apart at one time; callers may choose the names.
const MOST_PLACES: usize = 64;

pub(super) struct Breakers {
    /// Failures in a row that open one; 0 for never.
    most_failures: u32,
    /// Those that a call has to ask. While all is well this is all that is read.
    watched: AtomicUsize,
    table: Mutex<Table>,
}

struct Table {
    reach: Breaker,
    places: HashMap<Place, Breaker>,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) path: &'static str,
    pub(super) model: Arc<str>,
}

/// What a call has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// It was answered, be it with a refusal.
    Answered,
    /// The upstream was reached and did not answer, or not as one that is there.
    Unavailable,
    Unreachable,
}

/// A call is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// When it is worth to ask again.
    pub wait: Duration,
    /// Whether nothing of the upstream can be reached, or only this model does not answer.
    pub unreachable: bool,
}

/// What is out of service now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutOfService {
    pub unreachable: bool,
    pub models: usize,
}

/// A call under way. Dropped without a result it has shown nothing.
pub(super) struct Leaving<'a> {
    breakers: &'a Breakers,
    place: Place,
    began_at: Instant,
    probes_reach: bool,
    probes_place: bool,
    ended: bool,
}

impl Breakers {
    pub(super) fn new(most_failures: u32) -> Self {
        let table = Mutex::new(Table { reach: Breaker::new(), places: HashMap::new() });
        Self { most_failures, watched: AtomicUsize::new(0), table }
    }

    pub(super) fn ask(&self, place: Place, now: Instant) -> Result<Leaving<'_>, Withheld> {
        let mut leaving =
            Leaving { breakers: self, place, began_at: now, probes_reach: false, probes_place: false, ended: false };
        if self.watched.load(Ordering::Acquire) == 0 {
            return Ok(leaving);
        }
        let mut table = self.lock();
        let Table { reach, places } = &mut *table;
        let mut at_place = places.get_mut(&leaving.place);
        let leave = at_place.as_mut().map_or(Leave::Go, |breaker| breaker.ask(now));
        let withheld = match (reach.ask(now), leave) {
            (Leave::Wait(wait), leave) => {
                if let (Leave::Probe, Some(breaker)) = (leave, at_place) {
                    breaker.given_up(now, now);
                }
                Some(Withheld { wait, unreachable: true })
            }
            (leave, Leave::Wait(wait)) => {
                if leave == Leave::Probe {
                    reach.given_up(now, now);
                }
                Some(Withheld { wait, unreachable: false })
            }
            (reached, leave) => {
                (leaving.probes_reach, leaving.probes_place) = (reached == Leave::Probe, leave == Leave::Probe);
                None
            }
        };
        drop(table);
        if let Some(withheld) = withheld {
            leaving.ended = true;
            return Err(withheld);
        }
        Ok(leaving)
    }

    pub(super) fn out_of_service(&self) -> OutOfService {
        if self.watched.load(Ordering::Acquire) == 0 {
            return OutOfService::default();
        }
        let (table, now) = (self.lock(), Instant::now());
        let models = table.places.values().filter(|breaker| breaker.is_known_to_be_open(now)).count();
        OutOfService { unreachable: table.reach.is_known_to_be_open(now), models }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leaving<'_> {
    /// Whether this call alone finds out if the upstream can be reached.
    pub(super) const fn probes_reach(&self) -> bool {
        self.probes_reach
    }

    pub(super) const fn is_probe(&self) -> bool {
        self.probes_reach || self.probes_place
    }

    /// There is a connection; whatever becomes of the call, the upstream can be reached.
    pub(super) fn reached(&mut self, now: Instant) {
        if std::mem::take(&mut self.probes_reach) {
            let mut table = self.breakers.lock();
            tell_reach(table.reach.succeeded(true, self.began_at, now));
            self.watch(&table);
        }
    }

    pub(super) fn end(mut self, shown: Shown, now: impl FnOnce() -> Instant) {
        self.ended = true;
        if shown == Shown::Answered && !self.is_probe() && self.breakers.watched.load(Ordering::Acquire) == 0 {
            return;
        }
        let most = self.breakers.most_failures;
        if most == 0 {
            return;
        }
        let now = now();
        let mut table = self.breakers.lock();
        match shown {
            Shown::Unreachable => {
                tell_reach(table.reach.failed(self.probes_reach, self.began_at, now, most));
                if let (true, Some(breaker)) = (self.probes_place, table.places.get_mut(&self.place)) {
                    breaker.given_up(self.began_at, now);
                }
            }
            Shown::Answered => {
                tell_reach(table.reach.succeeded(self.probes_reach, self.began_at, now));
                if let Some(breaker) = table.places.get_mut(&self.place) {
                    tell_place(breaker.succeeded(self.probes_place, self.began_at, now), &self.place);
                }
            }
            Shown::Unavailable => {
                tell_reach(table.reach.succeeded(self.probes_reach, self.began_at, now));
                if let Some(breaker) = table.of(&self.place) {
                    tell_place(breaker.failed(self.probes_place, self.began_at, now, most), &self.place);
                }
            }
        }
        self.watch(&table);
    }

    fn watch(&self, table: &Table) {
        let at_places = table.places.values().filter(|breaker| !breaker.is_quiet()).count();
        let watched = at_places + usize::from(!table.reach.is_quiet());
        self.breakers.watched.store(watched, Ordering::Release);
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.ended || !self.is_probe() {
            return;
        }
        let now = Instant::now();
        let mut table = self.breakers.lock();
        if self.probes_reach {
            table.reach.given_up(self.began_at, now);
        }
        if let (true, Some(breaker)) = (self.probes_place, table.places.get_mut(&self.place)) {
            breaker.given_up(self.began_at, now);
        }
    }
}

impl Table {
    /// The breaker of a place that has failed. A place that has not makes room; where all are open the next is not watched.
    fn of(&mut self, place: &Place) -> Option<&mut Breaker> {
        if !self.places.contains_key(place) && self.places.len() >= MOST_PLACES {
            let quiet = self.places.iter().find(|(_, breaker)| breaker.is_quiet());
            let closed = || self.places.iter().find(|(_, breaker)| !breaker.is_open());
            let leaves = quiet.or_else(closed).map(|(place, _)| place.clone())?;
            self.places.remove(&leaves);
        }
        Some(self.places.entry(place.clone()).or_insert_with(Breaker::new))
    }
}

fn tell_reach(turn: Turn) {
    match turn {
        Turn::Opened => tracing::warn!("the upstream cannot be reached: calls are refused but for one probe at a time"),
        Turn::Closed => tracing::info!("the upstream can be reached again"),
        Turn::None => {}
    }
}

fn tell_place(turn: Turn, place: &Place) {
    let Place { path, model } = place;
    match turn {
        Turn::Opened => tracing::warn!(path, %model, "a model does not answer: its calls are refused but for probes"),
        Turn::Closed => tracing::info!(path, %model, "a model answers again"),
        Turn::None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u32 = 5;

    fn at(model: &str) -> Place {
        Place { path: "/chat/completions", model: model.into() }
    }

    fn fail(breakers: &Breakers, model: &str, shown: Shown, times: u32, now: Instant) {
        let calls: Vec<_> = (0..times).map(|_| breakers.ask(at(model), now).ok().unwrap()).collect();
        for call in calls {
            call.end(shown, || now);
        }
    }

    fn withheld(breakers: &Breakers, model: &str, now: Instant) -> Option<Withheld> {
        breakers.ask(at(model), now).err()
    }

    #[test]
    fn a_model_that_fails_takes_no_other_with_it() {
        let (breakers, now) = (Breakers::new(MOST), Instant::now());
        fail(&breakers, "bad", Shown::Unavailable, MOST, now);
        let wait = Duration::from_secs(1);
        assert_eq!(withheld(&breakers, "bad", now), Some(Withheld { wait, unreachable: false }));
        assert_eq!(withheld(&breakers, "good", now), None);
        let elsewhere = Place { path: "/embeddings", ..at("bad") };
        assert!(breakers.ask(elsewhere, now).is_ok(), "another path of the same model");
        assert_eq!(breakers.out_of_service(), OutOfService { unreachable: false, models: 1 });
    }

    #[test]
    fn an_upstream_that_is_not_reached_is_asked_by_nobody_but_the_probe() {
        let (breakers, start) = (Breakers::new(MOST), Instant::now());
        for model in ["a", "b", "c", "d", "e"] {
            fail(&breakers, model, Shown::Unreachable, 1, start);
        }
        let wait = Duration::from_secs(1);
        assert_eq!(withheld(&breakers, "f", start), Some(Withheld { wait, unreachable: true }));
        let now = start + wait;
        let mut probe = breakers.ask(at("f"), now).ok().unwrap();
        assert!(probe.probes_reach());
        assert!(withheld(&breakers, "a", now).is_some_and(|withheld| withheld.unreachable));
        probe.reached(now);
        assert_eq!(withheld(&breakers, "a", now), None, "it is reached, before it has answered");
        probe.end(Shown::Unavailable, || now);
        assert_eq!(breakers.out_of_service(), OutOfService::default());
    }

    #[test]
    fn a_probe_that_is_dropped_leaves_its_place_to_the_next() {
        let (breakers, start) = (Breakers::new(1), Instant::now());
        fail(&breakers, "a", Shown::Unreachable, 1, start);
        let now = start + Duration::from_secs(1);
        let probe = breakers.ask(at("a"), now).ok().unwrap();
        assert!(withheld(&breakers, "b", now).is_some());
        drop(probe);
        let later = Instant::now() + Duration::from_secs(1);
        assert!(breakers.ask(at("b"), later).ok().unwrap().probes_reach());
    }

    #[test]
    fn a_model_behind_an_upstream_that_is_not_reached_keeps_its_own_probe() {
        let (breakers, start) = (Breakers::new(1), Instant::now());
        fail(&breakers, "a", Shown::Unavailable, 1, start);
        fail(&breakers, "b", Shown::Unreachable, 1, start);
        let now = start + Duration::from_secs(1);
        let probe = breakers.ask(at("b"), now).ok().unwrap();
        assert!(withheld(&breakers, "a", now).is_some_and(|withheld| withheld.unreachable));
        probe.end(Shown::Answered, || now);
        assert!(breakers.ask(at("a"), now).ok().unwrap().probes_place);
    }

    #[test]
    fn refusals_of_callers_and_single_failures_open_nothing() {
        let (breakers, now) = (Breakers::new(MOST), Instant::now());
        fail(&breakers, "a", Shown::Answered, 1_000, now);
        assert_eq!(breakers.watched.load(Ordering::Relaxed), 0);
        for _ in 0..100 {
            fail(&breakers, "a", Shown::Unavailable, MOST - 1, now);
            fail(&breakers, "a", Shown::Answered, 1, now);
        }
        assert_eq!((withheld(&breakers, "a", now), breakers.watched.load(Ordering::Relaxed)), (None, 0));
    }

    #[test]
    fn with_zero_nothing_is_ever_withheld() {
        let (breakers, now) = (Breakers::new(0), Instant::now());
        fail(&breakers, "a", Shown::Unreachable, 1_000, now);
        fail(&breakers, "a", Shown::Unavailable, 1_000, now);
        assert_eq!(withheld(&breakers, "a", now), None);
    }

    #[test]
    fn any_number_of_names_is_told_apart_only_so_far() {
        let (breakers, now) = (Breakers::new(MOST), Instant::now());
        for number in 0..10 * MOST_PLACES {
            fail(&breakers, &format!("m{number}"), Shown::Unavailable, 1, now);
        }
        assert_eq!(breakers.lock().places.len(), MOST_PLACES);
        fail(&breakers, "last", Shown::Unavailable, MOST, now);
        assert!(withheld(&breakers, "last", now).is_some());
        for number in 0..10 * MOST_PLACES {
            fail(&breakers, &format!("m{number}"), Shown::Unavailable, 1, now);
        }
        assert!(withheld(&breakers, "last", now).is_some(), "an open one makes no room");
    }
}
