//! Small numbers for words that many rows repeat.

use std::{collections::HashMap, sync::Arc};

use sqlx::SqliteConnection;

use super::{Store, StoreError};
use crate::domain::ids::KeyId;

/// Callers choose some of the names, so what is remembered is bounded.
const MAX_REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(super) struct Names {
    names: HashMap<Arc<str>, i64>,
    keys: HashMap<KeyId, i64>,
}

impl Names {
    pub(super) async fn name(&mut self, connection: &mut SqliteConnection, name: &str) -> Result<i64, StoreError> {
        if let Some(number) = self.names.get(name) {
            return Ok(*number);
        }
        sqlx::query("INSERT INTO names (name) VALUES (?) ON CONFLICT DO NOTHING")
            .bind(name)
            .execute(&mut *connection)
            .await?;
        let number: i64 =
            sqlx::query_scalar("SELECT number FROM names WHERE name = ?").bind(name).fetch_one(connection).await?;
        self.names.insert(name.into(), number);
        Ok(number)
    }

    pub(super) async fn key(&mut self, connection: &mut SqliteConnection, id: &KeyId) -> Result<i64, StoreError> {
        if let Some(number) = self.keys.get(id) {
            return Ok(*number);
        }
        let number: Option<i64> = sqlx::query_scalar("SELECT number FROM api_keys WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(connection)
            .await?;
        let number = number.ok_or_else(|| StoreError::UnknownKey(id.clone()))?;
        self.keys.insert(id.clone(), number);
        Ok(number)
    }
}

impl Store {
    /// What is remembered, to be handed back once the transaction that adds to it is committed. Until then, and if it
    /// never is, nothing is remembered: numbers that were rolled back would be wrong.
    pub(super) fn take_names(&self) -> Names {
        self.names.lock().map(|mut names| std::mem::take(&mut *names)).unwrap_or_default()
    }

    pub(super) fn remember(&self, names: Names) {
        let few = names.names.len() + names.keys.len() <= MAX_REMEMBERED;
        if few && let Ok(mut remembered) = self.names.lock() {
            *remembered = names;
        }
    }
}
