//! Takes from all limits of a project and of its key, or from none, and corrects afterwards.

mod shelf;
mod under_way;

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use self::shelf::{Cells, Locked, Shared, UnderWay};
use super::averages::Averages;
use crate::domain::{
    bucket::{Level, Rate, Refusal},
    explanation::LimitUse,
    ids::{KeyId, ProjectId},
    ledger::{Hold, Used, UsedBefore},
    limits::{
        Audio, ByScope, Dimension, Headrooms, HoldNumbers, Levels, LimitExceeded, Limits, NEXT_END_NANOS, Rates, Scope,
    },
    time::UnixNanos,
};

/// The live buckets of every project, key and limit group that has been used.
#[derive(Debug, Default)]
pub struct Limiter {
    projects: ById<ProjectId, Groups<Shared>>,
    keys: ById<KeyId, Groups<Buckets>>,
}

type ById<K, V> = RwLock<HashMap<K, Arc<V>, foldhash::fast::RandomState>>;

/// By limit group. A key uses a handful of them, which a list finds faster and keeps in a third of the room of a map.
type Groups<T> = RwLock<Vec<(Arc<str>, Arc<T>)>>;

/// What the requests of one key and limit group take from, and what they have been answered.
#[derive(Debug)]
pub struct Buckets {
    /// Shared with the project's other keys.
    of_project: Arc<Shared>,
    /// Made when the key first has limits of its own: few do.
    of_key: OnceLock<Box<Cells>>,
    under_way: UnderWay,
    pub averages: Averages,
}

/// What a request needs of its limits.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub tokens: NonZeroU32,
    pub audio: Audio,
    pub stream: bool,
}

impl Limiter {
    /// A key belongs to one project as long as it lives.
    pub fn buckets(&self, project_id: &ProjectId, key_id: &KeyId, limit_group: &Arc<str>) -> Arc<Buckets> {
        let of_key = find_or_add(&self.keys, key_id);
        of_group(&of_key, limit_group, || {
            Arc::new(Buckets {
                of_project: self.of_project(project_id, limit_group),
                of_key: OnceLock::new(),
                under_way: UnderWay::default(),
                averages: Averages::default(),
            })
        })
    }

    fn of_project(&self, project_id: &ProjectId, limit_group: &Arc<str>) -> Arc<Shared> {
        of_group(&find_or_add(&self.projects, project_id), limit_group, || {
            Arc::new(Shared {
                project_id: project_id.clone(),
                limit_group: Arc::clone(limit_group),
                cells: Cells::default(),
                under_way: UnderWay::default(),
            })
        })
    }

    /// Puts back the level of a bucket from before a restart. Without a key it is the project's.
    pub fn restore(
        &self,
        project_id: &ProjectId,
        key_id: Option<&KeyId>,
        limit_group: &Arc<str>,
        dimension: Dimension,
        level: Level,
    ) {
        let restore = |cells: &Cells| {
            if let Some(bucket) = cells.lock().bucket(dimension) {
                bucket.restore(level);
            }
        };
        match key_id {
            None => restore(&self.of_project(project_id, limit_group).cells),
            Some(key_id) => restore(self.buckets(project_id, key_id, limit_group).of_key.get_or_init(Box::default)),
        }
    }
}

fn find_or_add<K: Eq + Hash + Clone, V: Default>(map: &ById<K, V>, key: &K) -> Arc<V> {
    if let Some(found) = map.read().unwrap_or_else(PoisonError::into_inner).get(key) {
        return Arc::clone(found);
    }
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(map.entry(key.clone()).or_default())
}

fn of_group<T>(groups: &Groups<T>, limit_group: &Arc<str>, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
    let find = |groups: &[(Arc<str>, Arc<T>)]| {
        let found = groups.iter().find(|(name, _)| Arc::ptr_eq(name, limit_group) || name == limit_group);
        found.map(|(_, found)| Arc::clone(found))
    };
    if let Some(found) = find(&groups.read().unwrap_or_else(PoisonError::into_inner)) {
        return found;
    }
    let mut groups = groups.write().unwrap_or_else(PoisonError::into_inner);
    find(&groups).unwrap_or_else(|| {
        let made = make();
        groups.reserve_exact(1);
        groups.push((Arc::clone(limit_group), Arc::clone(&made)));
        made
    })
}

/// What is checked of the limits of both scopes. Worked out once a request, because each rate is a division.
struct Checked {
    rates: ByScope<Rates>,
    /// Few keys have limits of their own.
    scopes: &'static [Scope],
}

impl Checked {
    fn new(limits: &ByScope<Limits>) -> Self {
        let [project, ..] = &Scope::ALL;
        if limits.key.are_checked() {
            let rates = ByScope { project: limits.project.rates(), key: limits.key.rates() };
            return Self { rates, scopes: &Scope::ALL };
        }
        let rates = ByScope { project: limits.project.rates(), key: Rates::default() };
        Self { rates, scopes: std::slice::from_ref(project) }
    }

    /// In the order of checking.
    #[inline]
    fn each(&self, mut check: impl FnMut(Scope, Dimension, Rate)) {
        for scope in self.scopes {
            for (dimension, rate) in Dimension::ALL.into_iter().zip(&self.rates[*scope]) {
                if let Some(rate) = rate {
                    check(*scope, dimension, *rate);
                }
            }
        }
    }
}

/// How many may be under way of what the request, which may be a stream, is one of.
fn counts(limits: &ByScope<Limits>, stream: bool) -> impl Iterator<Item = (Scope, Dimension, u32)> {
    let of_scope = move |scope: Scope| {
        let counted = Dimension::CONCURRENT.into_iter().filter(move |dimension| dimension.counts(stream));
        counted.filter_map(move |dimension| Some((scope, dimension, limits[scope].concurrent(dimension)?.get())))
    };
    Scope::ALL.into_iter().flat_map(of_scope)
}

impl Buckets {
    fn lock(&self, limits: &ByScope<Limits>) -> Locked<'_> {
        let of_key = limits.key.are_checked().then(|| self.of_key.get_or_init(Box::default));
        Locked {
            of_project: self.of_project.cells.lock(),
            of_key: of_key.map(|cells| cells.lock()),
            under_way: ByScope { project: &self.of_project.under_way, key: &self.under_way },
        }
    }

    /// Takes what is asked from the limits of both scopes, or nothing. All of them are asked before anything is taken, so
    /// that of several limits that refuse the one to wait for longest is told.
    pub fn reserve(
        self: &Arc<Self>,
        limits: &ByScope<Limits>,
        asked: Asked,
        now: UnixNanos,
    ) -> Result<Reservation, LimitExceeded> {
        self.reserve_with(limits, asked, now, || Ok(())).map(|(reservation, ())| reservation)
    }

    /// As [`Self::reserve`], where the request must get something besides: `also` is called when all limits have room, and
    /// nobody else takes from them before it returns. Where it fails, nothing is taken.
    pub fn reserve_with<T, E: From<LimitExceeded>>(
        self: &Arc<Self>,
        limits: &ByScope<Limits>,
        asked: Asked,
        now: UnixNanos,
        also: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Reservation, T), E> {
        let stream = asked.stream;
        let mut hold = self.hold(limits, asked);
        let checked = Checked::new(limits);
        let mut locked = self.lock(limits);
        let levels = take(&mut hold, &checked, &locked, stream, now)?;
        let also = also()?;
        let mut numbers = ByScope::<HoldNumbers>::default();
        checked.each(|scope, dimension, rate| {
            if let Some(bucket) = locked.bucket(scope, dimension) {
                let level = *dimension.of(&levels[scope]);
                *dimension.of_mut(&mut numbers[scope]) = Some(bucket.hold(level, rate, now));
            }
        });
        locked.begin(stream);
        drop(locked);
        let headrooms = Headrooms::tightest(&checked.rates, checked.scopes, &levels, now);
        let reservation = Reservation { buckets: Arc::clone(self), hold, stream, numbers, headrooms, open: true };
        Ok((reservation, also))
    }

    pub fn headrooms(&self, limits: &ByScope<Limits>, now: UnixNanos) -> Headrooms {
        let (levels, checked) = (self.lock(limits).levels(), Checked::new(limits));
        Headrooms::tightest(&checked.rates, checked.scopes, &levels, now)
    }

    /// What [`Self::reserve`] would meet and take now, and whether it would be refused. Nothing is taken.
    pub fn would_reserve(&self, limits: &ByScope<Limits>, asked: Asked, now: UnixNanos) -> WouldReserve {
        let mut hold = self.hold(limits, asked);
        let checked = Checked::new(limits);
        let locked = self.lock(limits);
        let levels = locked.levels();
        let refused = take(&mut hold, &checked, &locked, asked.stream, now).err();
        drop(locked);
        let mut met = Vec::new();
        checked.each(|scope, dimension, _| met.push((scope, dimension)));
        met.extend(counts(limits, asked.stream).map(|(scope, dimension, _)| (scope, dimension)));
        let limit_use = |(scope, dimension): (Scope, Dimension)| LimitUse {
            scope,
            dimension,
            limit: limits[scope].ceiling(dimension).unwrap_or(0),
            used_before: *dimension.of(&hold.used_before[scope]),
            reserved: hold.units(dimension).into(),
            settled: None,
        };
        let headrooms = Headrooms::tightest(&checked.rates, checked.scopes, &levels, now);
        WouldReserve { limits: met.into_iter().map(limit_use).collect(), refused, headrooms }
    }

    fn hold(&self, limits: &ByScope<Limits>, asked: Asked) -> Hold {
        Hold {
            project_id: Some(self.of_project.project_id.clone()),
            limit_group: Arc::clone(&self.of_project.limit_group),
            limits: *limits,
            tokens: asked.tokens,
            audio: asked.audio,
            used_before: ByScope::<UsedBefore>::default(),
        }
    }
}

/// What a reservation would meet, had it been made.
#[derive(Debug)]
pub struct WouldReserve {
    /// In the order of checking.
    pub limits: Vec<LimitUse>,
    pub refused: Option<LimitExceeded>,
    /// What is left without it.
    pub headrooms: Headrooms,
}

/// The levels with `hold` taken of all that is checked, or which limit has no room for it. What was in use before is noted in
/// `hold`.
fn take(
    hold: &mut Hold,
    checked: &Checked,
    locked: &Locked<'_>,
    stream: bool,
    now: UnixNanos,
) -> Result<ByScope<Levels>, LimitExceeded> {
    let mut levels = ByScope::<Levels>::default();
    let mut refused: Option<LimitExceeded> = None;
    let mut refuse = |exceeded: LimitExceeded| {
        refused = Some(refused.map_or(exceeded, |earlier| earlier.or_worse(exceeded)));
    };
    checked.each(|scope, dimension, rate| {
        let level = locked.level(scope, dimension);
        let used = level.used(rate, now);
        *dimension.of_mut(&mut hold.used_before[scope]) = Some(used);
        match level.take(hold.units(dimension), rate, now) {
            Ok(taken) => *dimension.of_mut(&mut levels[scope]) = taken,
            Err(refusal) => {
                let shown = |units: u64| u32::try_from(dimension.shown(units)).unwrap_or(u32::MAX);
                refuse(LimitExceeded {
                    scope,
                    dimension,
                    limit: shown(rate.limit().into()),
                    used: dimension.shown(used),
                    requested: shown(hold.units(dimension).into()),
                    wait_nanos: wait(refusal),
                });
            }
        }
    });
    let limits = hold.limits;
    for (scope, dimension, limit) in counts(&limits, stream) {
        let used = locked.under_way[scope].count(dimension);
        *dimension.of_mut(&mut hold.used_before[scope]) = Some(used.into());
        if used >= limit {
            let wait_nanos = Some(NEXT_END_NANOS);
            refuse(LimitExceeded { scope, dimension, limit, used: used.into(), requested: 1, wait_nanos });
        }
    }
    refused.map_or(Ok(levels), Err)
}

const fn wait(refusal: Refusal) -> Option<u64> {
    match refusal {
        Refusal::Wait { nanos } => Some(nanos),
        Refusal::TooLarge => None,
    }
}

/// What one request holds of its limits. Settle it with what was used; dropped unsettled, it gives everything back.
#[derive(Debug)]
pub struct Reservation {
    buckets: Arc<Buckets>,
    hold: Hold,
    stream: bool,
    /// Of the limits that were taken from.
    numbers: ByScope<HoldNumbers>,
    headrooms: Headrooms,
    open: bool,
}

impl Reservation {
    pub const fn hold(&self) -> &Hold {
        &self.hold
    }

    pub const fn buckets(&self) -> &Arc<Buckets> {
        &self.buckets
    }

    /// What was left when it was made.
    pub const fn headrooms(&self) -> Headrooms {
        self.headrooms
    }

    pub fn settle(mut self, used: Used, now: UnixNanos) {
        self.close(used, now);
    }

    /// Gives back what was held but not used, or books what was used but not held.
    fn close(&mut self, used: Used, now: UnixNanos) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let mut locked = self.buckets.lock(&self.hold.limits);
        for scope in Scope::ALL {
            for (dimension, number) in Dimension::ALL.into_iter().zip(self.numbers[scope]) {
                let Some(number) = number else { continue };
                if let Some(bucket) = locked.bucket(scope, dimension) {
                    bucket.settle(number, self.hold.units(dimension), used.units(dimension), now);
                }
            }
        }
        locked.end(self.stream);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Only a reservation that was never admitted is dropped open: nothing was sent, and no time worth counting passed.
        self.close(Used::NOTHING, UnixNanos(0));
    }
}

#[cfg(test)]
mod tests;
