//! The state of the limits of one owner and limit group.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::{
    bucket::{Bucket, Level},
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
    /// Requests and streams under way, of those that were admitted under a limit of them.
    under_way: [u32; Dimension::CONCURRENT.len()],
}

impl Cells {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn under_way(&mut self, dimension: Dimension) -> Option<&mut u32> {
        let place = Dimension::CONCURRENT.iter().position(|known| *known == dimension)?;
        self.under_way.get_mut(place)
    }
}

fn audio(dimension: Dimension) -> Option<usize> {
    Dimension::AUDIO.iter().position(|known| *known == dimension)
}

/// Both scopes, held at once: always the project first, so that nobody waits in a circle.
pub(super) struct Locked<'a> {
    pub(super) of_project: MutexGuard<'a, Shelf>,
    pub(super) of_key: Option<MutexGuard<'a, Shelf>>,
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

    pub(super) fn under_way(&mut self, scope: Scope, dimension: Dimension) -> Option<&mut u32> {
        self.shelf(scope)?.under_way(dimension)
    }

    pub(super) fn levels(&self) -> ByScope<Levels> {
        let of_key = self.of_key.as_ref().map(|shelf| shelf.levels());
        ByScope { project: self.of_project.levels(), key: of_key.unwrap_or_default() }
    }
}
