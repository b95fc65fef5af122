//! The state of the limits of one owner and limit group.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use crate::domain::{
    bucket::{Bucket, HoldNumber, Rate},
    ids::ProjectId,
    limits::{ByScope, Dimension, Limits, Scope},
};

/// Locked while it changes, so that nobody sees a half-made reservation and is refused for it.
#[derive(Debug, Default)]
pub(super) struct Cells(Mutex<Shelf>);

#[derive(Debug, Default)]
pub(super) struct Shelf {
    buckets: [Bucket; Dimension::USUAL.len()],
    /// Made with the first limit of audio.
    audio: Option<Box<[Bucket; Dimension::AUDIO.len()]>>,
    /// What a request holds has the same number in all buckets.
    last: Option<HoldNumber>,
}

/// The requests that are under way, and the streams among them. They are counted without a limit too, so that one which is
/// set later knows them. Changed under the project's lock alone.
#[derive(Debug, Default)]
pub(super) struct UnderWay([AtomicU32; Dimension::CONCURRENT.len()]);

/// What the keys of a project share on a limit group.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) project_id: ProjectId,
    pub(super) limit_group: Arc<str>,
    pub(super) cells: Cells,
    pub(super) under_way: UnderWay,
}

impl Cells {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open_holds(&self) -> u64 {
        self.lock().open_holds()
    }
}

impl Shelf {
    /// `None` for what has no bucket.
    pub(super) fn bucket(&mut self, dimension: Dimension) -> Option<&mut Bucket> {
        match audio(dimension) {
            Some(place) => self.audio.get_or_insert_default().get_mut(place),
            None => self.buckets.get_mut(dimension.index()),
        }
    }

    fn open_holds(&self) -> u64 {
        let buckets = self.buckets.iter().chain(self.audio.iter().flat_map(|buckets| buckets.iter()));
        buckets.fold(0, |sum, bucket| sum.saturating_add(bucket.open_holds()))
    }

    /// The bucket of each limit, in the order of checking.
    #[inline]
    fn each(&mut self, limits: &Limits, mut check: impl FnMut(Dimension, Rate, &mut Bucket)) {
        let mut check = |dimension: Dimension, bucket: &mut Bucket| {
            if let Some(rate) = limits.rate_at(bucket.level(), dimension) {
                check(dimension, rate, bucket);
            }
        };
        let [requests_per_minute, requests_per_day, tokens_per_minute, tokens_per_day] = &mut self.buckets;
        check(Dimension::RequestsPerMinute, requests_per_minute);
        check(Dimension::RequestsPerDay, requests_per_day);
        check(Dimension::TokensPerMinute, tokens_per_minute);
        check(Dimension::TokensPerDay, tokens_per_day);
        if limits.limit_audio() {
            for (dimension, bucket) in Dimension::AUDIO.into_iter().zip(&mut **self.audio.get_or_insert_default()) {
                check(dimension, bucket);
            }
        }
    }

    fn next(&mut self) -> HoldNumber {
        *self.last.insert(HoldNumber::after(self.last))
    }
}

impl UnderWay {
    /// 0 for what is no count.
    pub(super) fn count(&self, dimension: Dimension) -> u32 {
        let place = Dimension::CONCURRENT.iter().position(|known| *known == dimension);
        place.and_then(|place| self.0.get(place)).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn change(&self, stream: bool, change: fn(u32) -> u32) {
        for (dimension, count) in Dimension::CONCURRENT.into_iter().zip(&self.0) {
            if dimension.counts(stream) {
                count.store(change(count.load(Ordering::Relaxed)), Ordering::Relaxed);
            }
        }
    }
}

/// Its place in [`Dimension::AUDIO`].
const fn audio(dimension: Dimension) -> Option<usize> {
    match dimension {
        Dimension::AudioTokensPerMinute => Some(0),
        Dimension::AudioSecondsPerDay => Some(1),
        _ => None,
    }
}

/// Both scopes, held at once: always the project first, so that nobody waits in a circle.
pub(super) struct Locked<'a> {
    pub(super) of_project: MutexGuard<'a, Shelf>,
    pub(super) of_key: Option<MutexGuard<'a, Shelf>>,
    pub(super) under_way: ByScope<&'a UnderWay>,
}

impl Locked<'_> {
    /// The bucket of each limit of both scopes, in the order of checking.
    #[inline]
    pub(super) fn each(
        &mut self,
        limits: &ByScope<Limits>,
        mut check: impl FnMut(Scope, Dimension, Rate, &mut Bucket),
    ) {
        for (scope, shelf) in [(Scope::Project, Some(&mut *self.of_project)), (Scope::Key, self.of_key.as_deref_mut())]
        {
            if let Some(shelf) = shelf {
                shelf.each(&limits[scope], |dimension, rate, bucket| check(scope, dimension, rate, bucket));
            }
        }
    }

    /// For the next hold, in the buckets of each scope.
    pub(super) fn next(&mut self) -> ByScope<Option<HoldNumber>> {
        ByScope { project: Some(self.of_project.next()), key: self.of_key.as_deref_mut().map(Shelf::next) }
    }

    /// A request, which may be a `stream`, is under way.
    pub(super) fn begin(&mut self, stream: bool) {
        self.change_under_way(stream, |count| count.saturating_add(1));
    }

    /// It is not any more.
    pub(super) fn end(&mut self, stream: bool) {
        self.change_under_way(stream, |count| count.saturating_sub(1));
    }

    fn change_under_way(&mut self, stream: bool, change: fn(u32) -> u32) {
        for scope in Scope::ALL {
            self.under_way[scope].change(stream, change);
        }
    }
}
