//! Whose limits: those of a project hold for all its keys together, those of a key are its own besides.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Project,
    Key,
}

impl Scope {
    /// In the order of checking and locking.
    pub const ALL: [Self; 2] = [Self::Project, Self::Key];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Key => "key",
        }
    }

    /// Of what was written down when only keys had buckets.
    pub(super) const fn of_before() -> Self {
        Self::Key
    }
}

/// The same for a project and for one of its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize + Default + PartialEq", deserialize = "T: Deserialize<'de> + Default"))]
pub struct ByScope<T> {
    #[serde(default, skip_serializing_if = "is_default")]
    pub project: T,
    #[serde(default, skip_serializing_if = "is_default")]
    pub key: T,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl<T> Index<Scope> for ByScope<T> {
    type Output = T;

    fn index(&self, scope: Scope) -> &T {
        match scope {
            Scope::Project => &self.project,
            Scope::Key => &self.key,
        }
    }
}

impl<T> IndexMut<Scope> for ByScope<T> {
    fn index_mut(&mut self, scope: Scope) -> &mut T {
        match scope {
            Scope::Project => &mut self.project,
            Scope::Key => &mut self.key,
        }
    }
}
