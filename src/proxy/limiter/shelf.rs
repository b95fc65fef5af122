//! The state of the limits of one owner and limit group.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use crate::domain::{
    bucket::{Bucket, Level},
    ids::ProjectId,
    limits::{ByScope, Dimension, Levels, Scope},
};

/// Locked while it changes, so that nobody sees a half-made reservation and is refused for it.
#[derive(Debug, Default)]
pub(super) struct Cells(Mutex<Shelf>);

#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Of the first dimensions, those that most have.
    buckets: [Bucket; 4],
    /// Made with the first limit of audio.
    audio: Option<Box<[Bucket; Dimension::AUDIO.len()]>>,
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

    fn levels(&self) -> Levels {
        Dimension::ALL.map(|dimension| self.level(dimension))
    }

    fn level(&self, dimension: Dimension) -> Level {
        let bucket = match audio(dimension) {
            Some(place) => self.audio.as_ref().and_then(|buckets| buckets.get(place)),
            None => self.buckets.get(dimension.index()),
        };
        bucket.map(Bucket::level).unwrap_or_default()
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
    fn shelf(&mut self, scope: Scope) -> Option<&mut Shelf> {
        match scope {
            Scope::Project => Some(&mut self.of_project),
            Scope::Key => self.of_key.as_deref_mut(),
        }
    }

    pub(super) fn bucket(&mut self, scope: Scope, dimension: Dimension) -> Option<&mut Bucket> {
        self.shelf(scope)?.bucket(dimension)
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

    pub(super) fn level(&self, scope: Scope, dimension: Dimension) -> Level {
        let shelf = match scope {
            Scope::Project => Some(&*self.of_project),
            Scope::Key => self.of_key.as_deref(),
        };
        shelf.map(|shelf| shelf.level(dimension)).unwrap_or_default()
    }

    pub(super) fn levels(&self) -> ByScope<Levels> {
        let of_key = self.of_key.as_ref().map(|shelf| shelf.levels());
        ByScope { project: self.of_project.levels(), key: of_key.unwrap_or_default() }
    }
}
