//! What the numbers in packed sums stand for. Keys and tariffs are only ever added, so what was read once stays true.

use std::sync::{Arc, PoisonError};

use super::super::{Store, StoreError};
use crate::domain::{
    ids::{KeyId, ProjectId},
    tariff::Tariff,
};

#[derive(Clone, Default)]
pub(in crate::store) struct Directory {
    /// By number; there is no number 0.
    keys: Vec<Option<Key>>,
    tariffs: Vec<Option<Arc<Tariff>>>,
}

#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: KeyId,
    pub(super) project_id: ProjectId,
}

impl Directory {
    pub(super) fn keys(&self) -> impl Iterator<Item = Option<&Key>> {
        self.keys.iter().map(Option::as_ref)
    }

    pub(super) fn tariffs(&self) -> impl Iterator<Item = Option<&Arc<Tariff>>> {
        self.tariffs.iter().map(Option::as_ref)
    }

    pub(in crate::store) fn tariff(&self, number: i64) -> Option<&Arc<Tariff>> {
        self.tariffs.get(usize::try_from(number).ok()?)?.as_ref()
    }

    pub(super) fn key(&self, number: u32) -> Option<&Key> {
        self.keys.get(number as usize)?.as_ref()
    }
}

impl Store {
    /// With everything that was committed before the call.
    pub(in crate::store) async fn directory(&self) -> Result<Arc<Directory>, StoreError> {
        let known = Arc::clone(&self.directory.lock().unwrap_or_else(PoisonError::into_inner));
        let after = |length: usize| i64::try_from(length.saturating_sub(1)).unwrap_or(i64::MAX);
        let keys: Vec<(i64, String, String)> =
            sqlx::query_as("SELECT number, id, project_id FROM api_keys WHERE number > ? ORDER BY number")
                .bind(after(known.keys.len()))
                .fetch_all(self.reader())
                .await?;
        let tariffs = self.tariffs_after(after(known.tariffs.len())).await?;
        if keys.is_empty() && tariffs.is_empty() {
            return Ok(known);
        }
        let mut directory = Directory::clone(&known);
        for (number, id, project_id) in keys {
            let key = KeyId::parse(&id).zip(ProjectId::parse(&project_id));
            let (id, project_id) = key.ok_or(StoreError::Unreadable(id))?;
            put(&mut directory.keys, number, Key { id, project_id })?;
        }
        for (number, tariff) in tariffs {
            put(&mut directory.tariffs, number, Arc::new(tariff))?;
        }
        let directory = Arc::new(directory);
        *self.directory.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&directory);
        Ok(directory)
    }
}

fn put<T: Clone>(places: &mut Vec<Option<T>>, number: i64, value: T) -> Result<(), StoreError> {
    let at = u32::try_from(number).map_err(|_| StoreError::Unreadable(number.to_string()))? as usize;
    if places.len() <= at {
        places.resize(at + 1, None);
    }
    if let Some(place) = places.get_mut(at) {
        *place = Some(value);
    }
    Ok(())
}
