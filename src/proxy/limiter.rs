//! Takes from all limits of a project and of its key, or from none, and corrects afterwards.

mod shelf;
mod table;
mod under_way;

use std::{
    num::NonZeroU32,
    sync::{Arc, OnceLock},
};

use self::{
    shelf::{Cells, Locked, Shared, UnderWay},
    table::Table,
};
use super::averages::Averages;
use crate::domain::{
    bucket::{HoldNumber, Level, Rate, Refusal},
    explanation::LimitUse,
    ids::{KeyId, ProjectId},
    ledger::{Hold, Used, units},
    limits::{Audio, ByScope, Dimension, Headrooms, LimitExceeded, Limits, NEXT_END_NANOS, Scope, Tightest},
    time::UnixNanos,
};

/// The live buckets of every project, key and limit group that has been used.
#[derive(Debug, Default)]
pub struct Limiter {
    projects: Table<Shared>,
    keys: Table<Buckets>,
}

/// What the requests of one key and limit group take from, and what they have been answered.
#[derive(Debug)]
pub struct Buckets {
    key_id: KeyId,
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

impl Asked {
    #[inline]
    fn units(self, dimension: Dimension) -> u32 {
        units(dimension, self.tokens, self.audio)
    }
}

impl Limiter {
    /// A key belongs to one project as long as it lives.
    pub fn buckets(&self, project_id: &ProjectId, key_id: &KeyId, limit_group: &Arc<str>) -> Arc<Buckets> {
        let is_it = |it: &Buckets| it.key_id == *key_id && it.of_project.limit_group == *limit_group;
        self.keys.find_or_make((key_id, limit_group), is_it, || Buckets {
            key_id: key_id.clone(),
            of_project: self.of_project(project_id, limit_group),
            of_key: OnceLock::new(),
            under_way: UnderWay::default(),
            averages: Averages::default(),
        })
    }

    fn of_project(&self, project_id: &ProjectId, limit_group: &Arc<str>) -> Arc<Shared> {
        let is_it = |it: &Shared| it.project_id == *project_id && it.limit_group == *limit_group;
        self.projects.find_or_make((project_id, limit_group), is_it, || Shared {
            project_id: project_id.clone(),
            limit_group: Arc::clone(limit_group),
            cells: Cells::default(),
            under_way: UnderWay::default(),
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

/// Units in use of each limit before a request, by dimension; 0 where there is no limit.
type UsedBefore = ByScope<[u64; Dimension::COUNT]>;

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
        let mut locked = self.lock(limits);
        let mut used_before = UsedBefore::default();
        check(&mut locked, limits, asked, now, &mut used_before)?;
        let also = also()?;
        let numbers = locked.next();
        let mut tightest = Tightest::default();
        locked.each(limits, |scope, dimension, rate, bucket| {
            let (Some(number), units) = (numbers[scope], asked.units(dimension)) else { return };
            bucket.retake_as(number, units, rate, now);
            let used = dimension.of(&used_before[scope]).saturating_add(units.into());
            tightest.add(dimension, bucket.level().headroom_beside(used, rate, now));
        });
        locked.begin(asked.stream);
        drop(locked);
        let (buckets, headrooms) = (Arc::clone(self), tightest.headrooms());
        Ok((Reservation { buckets, limits: *limits, asked, used_before, numbers, headrooms, open: true }, also))
    }

    pub fn headrooms(&self, limits: &ByScope<Limits>, now: UnixNanos) -> Headrooms {
        headrooms(&mut self.lock(limits), limits, now)
    }

    /// What [`Self::reserve`] would meet and take now, and whether it would be refused. Nothing is taken.
    pub fn would_reserve(&self, limits: &ByScope<Limits>, asked: Asked, now: UnixNanos) -> WouldReserve {
        let mut locked = self.lock(limits);
        let mut used_before = UsedBefore::default();
        let refused = check(&mut locked, limits, asked, now, &mut used_before).err();
        let headrooms = headrooms(&mut locked, limits, now);
        drop(locked);
        let met = |(scope, dimension): (Scope, Dimension)| {
            limits[scope].check(dimension, asked.stream).then(|| LimitUse {
                scope,
                dimension,
                limit: limits[scope].ceiling(dimension).unwrap_or(0),
                used_before: Some(*dimension.of(&used_before[scope])),
                reserved: asked.units(dimension).into(),
                settled: None,
            })
        };
        let (under_way, taken): (Vec<_>, Vec<_>) = Scope::ALL
            .into_iter()
            .flat_map(|scope| Dimension::ALL.map(|dimension| (scope, dimension)))
            .filter_map(met)
            .partition(|it| it.dimension.is_concurrent());
        WouldReserve { limits: taken.into_iter().chain(under_way).collect(), refused, headrooms }
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

/// Whether all limits have room, and of those that have none the one to wait for longest. What is in use of each is noted in
/// `used_before`.
fn check(
    locked: &mut Locked<'_>,
    limits: &ByScope<Limits>,
    asked: Asked,
    now: UnixNanos,
    used_before: &mut UsedBefore,
) -> Result<(), LimitExceeded> {
    let mut refused: Option<LimitExceeded> = None;
    let mut refuse = |exceeded: LimitExceeded| {
        refused = Some(refused.map_or(exceeded, |earlier| earlier.or_worse(exceeded)));
    };
    locked.each(limits, |scope, dimension, rate, bucket| {
        let (level, units) = (bucket.level(), asked.units(dimension));
        let used = level.used(rate, now);
        *dimension.of_mut(&mut used_before[scope]) = used;
        if !level.has_room(units, rate, now) {
            refuse(exceeded((scope, dimension, rate), level, units, now));
        }
    });
    for scope in Scope::ALL {
        for dimension in Dimension::CONCURRENT.into_iter().filter(|dimension| dimension.counts(asked.stream)) {
            let Some(limit) = limits[scope].concurrent(dimension).map(NonZeroU32::get) else { continue };
            let used = locked.under_way[scope].count(dimension);
            *dimension.of_mut(&mut used_before[scope]) = used.into();
            if used >= limit {
                let wait_nanos = Some(NEXT_END_NANOS);
                refuse(LimitExceeded { scope, dimension, limit, used: used.into(), requested: 1, wait_nanos });
            }
        }
    }
    refused.map_or(Ok(()), Err)
}

fn headrooms(locked: &mut Locked<'_>, limits: &ByScope<Limits>, now: UnixNanos) -> Headrooms {
    let mut tightest = Tightest::default();
    locked.each(limits, |_, dimension, rate, bucket| tightest.add(dimension, bucket.level().headroom(rate, now)));
    tightest.headrooms()
}

/// Why a bucket has no room for `units`. Apart from the requests that pass.
#[cold]
fn exceeded(
    (scope, dimension, rate): (Scope, Dimension, Rate),
    level: Level,
    units: u32,
    now: UnixNanos,
) -> LimitExceeded {
    let shown = |units: u64| u32::try_from(dimension.shown(units)).unwrap_or(u32::MAX);
    let wait_nanos = match level.take(units, rate, now) {
        Err(Refusal::TooLarge) => None,
        Err(Refusal::Wait { nanos }) => Some(nanos),
        Ok(_) => Some(0),
    };
    LimitExceeded {
        scope,
        dimension,
        limit: shown(rate.limit().into()),
        used: dimension.shown(level.used(rate, now)),
        requested: shown(units.into()),
        wait_nanos,
    }
}

/// What one request holds of its limits. Settle it with what was used; dropped unsettled, it gives everything back.
#[derive(Debug)]
pub struct Reservation {
    buckets: Arc<Buckets>,
    limits: ByScope<Limits>,
    asked: Asked,
    used_before: UsedBefore,
    /// Of the hold in the buckets of each scope; `None` for a key without limits.
    numbers: ByScope<Option<HoldNumber>>,
    headrooms: Headrooms,
    open: bool,
}

impl Reservation {
    /// As the journal keeps it.
    pub fn hold(&self) -> Hold {
        let Shared { project_id, limit_group, .. } = &*self.buckets.of_project;
        let used_before = |scope: Scope| {
            Dimension::ALL.map(|dimension| {
                let is_met = self.limits[scope].check(dimension, self.asked.stream);
                is_met.then_some(*dimension.of(&self.used_before[scope]))
            })
        };
        Hold {
            project_id: Some(project_id.clone()),
            limit_group: Arc::clone(limit_group),
            limits: self.limits,
            tokens: self.asked.tokens,
            audio: self.asked.audio,
            used_before: ByScope { project: used_before(Scope::Project), key: used_before(Scope::Key) },
        }
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
        let mut locked = self.buckets.lock(&self.limits);
        locked.each(&self.limits, |scope, dimension, _, bucket| {
            if let Some(number) = self.numbers[scope] {
                bucket.settle(number, self.asked.units(dimension), used.units(dimension), now);
            }
        });
        locked.end(self.asked.stream);
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
