//! Small numbers for what many rows repeat: words, keys, tariffs, endings and terms.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, PoisonError},
};

use sqlx::{Sqlite, SqliteConnection, query::QueryScalar, sqlite::SqliteArguments};

use super::{
    Store, StoreError,
    tariffs::{self, Kept},
};
use crate::domain::{
    ids::KeyId,
    ledger::{Entry, Hold},
    limits::{ByScope, Limits},
    tariff::{Tariff, TariffKind},
};

/// Callers choose some of the names, so what is remembered is bounded.
const MAX_REMEMBERED: usize = 20_000;

/// Names are kept for ever. Of those that callers made up (models without a page or a price), new ones share a name once
/// there are so many: the sums of reports are kept for each.
const MAX_NAMES: i64 = 20_000;
const OTHER: &str = "(other)";

#[derive(Default)]
pub(super) struct Names {
    names: HashMap<Arc<str>, i64>,
    keys: HashMap<KeyId, i64>,
    tariffs: HashMap<Tariff, i64>,
    endings: HashMap<Ending, i64>,
    terms: HashMap<(Arc<str>, ByScope<Limits>), i64>,
}

/// How a request ended, in the numbers of its words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Ending {
    requested_model: i64,
    outcome: i64,
    basis: i64,
    status: i64,
    stream: bool,
}

type Scalar<'q> = QueryScalar<'q, Sqlite, i64, SqliteArguments>;

/// The number of what `bind` binds, which is written down if it is new.
async fn number<'q>(
    connection: &mut SqliteConnection,
    insert: &'static str,
    select: &'static str,
    bind: impl Fn(Scalar<'q>) -> Scalar<'q>,
) -> Result<i64, StoreError> {
    if let Some(number) = bind(sqlx::query_scalar(select)).fetch_optional(&mut *connection).await? {
        return Ok(number);
    }
    bind(sqlx::query_scalar(insert)).fetch_optional(&mut *connection).await?;
    Ok(bind(sqlx::query_scalar(select)).fetch_one(connection).await?)
}

fn remembered<K: Eq + Hash + Clone>(map: &mut HashMap<K, i64>, key: &K, number: i64) -> i64 {
    map.insert(key.clone(), number);
    number
}

impl Names {
    pub(super) async fn name(&mut self, connection: &mut SqliteConnection, name: &str) -> Result<i64, StoreError> {
        if let Some(number) = self.names.get(name) {
            return Ok(*number);
        }
        let number = number(
            connection,
            "INSERT INTO names (name) VALUES (?1) RETURNING number",
            "SELECT number FROM names WHERE name = ?1",
            |query| query.bind(name.to_owned()),
        );
        let number = number.await?;
        Ok(remembered(&mut self.names, &name.into(), number))
    }

    /// A name that the caller may have made up.
    async fn made_up(&mut self, connection: &mut SqliteConnection, name: &str) -> Result<i64, StoreError> {
        if let Some(number) = self.names.get(name) {
            return Ok(*number);
        }
        // None is ever deleted, so the last number says how many there are.
        let may_stand: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM names WHERE name = ?1) OR (SELECT coalesce(max(number), 0) < ?2 FROM names)",
        )
        .bind(name)
        .bind(MAX_NAMES)
        .fetch_one(&mut *connection)
        .await?;
        self.name(connection, if may_stand { name } else { OTHER }).await
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
        Ok(remembered(&mut self.keys, id, number))
    }

    pub(super) async fn tariff(
        &mut self,
        connection: &mut SqliteConnection,
        tariff: &Tariff,
    ) -> Result<i64, StoreError> {
        if let Some(number) = self.tariffs.get(tariff) {
            return Ok(*number);
        }
        let has_prices = tariff.prices_from.is_some() || tariff.kind == TariffKind::Adjustment;
        let row = tariffs::Row {
            endpoint: self.name(connection, &tariff.endpoint).await?,
            model: if has_prices {
                self.name(connection, &tariff.model).await?
            } else {
                self.made_up(connection, &tariff.model).await?
            },
            service_tier: self.name(connection, tariff.service_tier.name()).await?,
        };
        let kept = tariffs::kept(connection, tariff, row).await?;
        let number = match kept {
            Kept::There(number) => number,
            Kept::ToBeAdded(added) => {
                let bind = |query| tariffs::bind(query, &added, row);
                number(connection, tariffs::INSERT, tariffs::SELECT, bind).await?
            }
        };
        Ok(remembered(&mut self.tariffs, tariff, number))
    }

    pub(super) async fn ending(&mut self, connection: &mut SqliteConnection, entry: &Entry) -> Result<i64, StoreError> {
        let Entry { admission, settlement } = entry;
        let ending = Ending {
            requested_model: match admission.prices_from {
                Some(_) => self.name(connection, &admission.model).await?,
                None => self.made_up(connection, &admission.model).await?,
            },
            outcome: self.name(connection, settlement.outcome.name()).await?,
            basis: self.name(connection, settlement.basis.name()).await?,
            status: settlement.status.into(),
            stream: admission.stream,
        };
        if let Some(number) = self.endings.get(&ending) {
            return Ok(*number);
        }
        let number = number(
            connection,
            "INSERT INTO endings (requested_model, outcome, basis, status, stream) VALUES (?1, ?2, ?3, ?4, ?5)
             RETURNING number",
            "SELECT number FROM endings
             WHERE requested_model = ?1 AND outcome = ?2 AND basis = ?3 AND status = ?4 AND stream = ?5",
            |query| {
                let query = query.bind(ending.requested_model).bind(ending.outcome).bind(ending.basis);
                query.bind(ending.status).bind(ending.stream)
            },
        );
        let number = number.await?;
        Ok(remembered(&mut self.endings, &ending, number))
    }

    pub(super) async fn terms(&mut self, connection: &mut SqliteConnection, hold: &Hold) -> Result<i64, StoreError> {
        let terms = (Arc::clone(&hold.limit_group), hold.limits);
        if let Some(number) = self.terms.get(&terms) {
            return Ok(*number);
        }
        let limits = serde_json::to_string(&hold.limits).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let number = number(
            connection,
            "INSERT INTO terms (limit_group, limits) VALUES (?1, ?2) RETURNING number",
            "SELECT number FROM terms WHERE limit_group = ?1 AND limits = ?2",
            |query| query.bind(hold.limit_group.to_string()).bind(limits.clone()),
        );
        let number = number.await?;
        Ok(remembered(&mut self.terms, &terms, number))
    }

    fn len(&self) -> usize {
        self.names.len() + self.keys.len() + self.tariffs.len() + self.endings.len() + self.terms.len()
    }
}

impl Store {
    /// What is remembered, to be handed back once the transaction that adds to it is committed. Until then, and if it
    /// never is, nothing is remembered: numbers that were rolled back would be wrong.
    pub(super) fn take_names(&self) -> Names {
        std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn remember(&self, names: Names) {
        if names.len() <= MAX_REMEMBERED {
            *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        }
    }
}
