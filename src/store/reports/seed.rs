//! Fills a ledger's rollups for tests, as the projector does: each entry into a minute, an hour and a day.

use std::path::Path;

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::super::{names::Names, rollups::Rollups};
use crate::domain::{
    ids::KeyId,
    money::Money,
    pricing::{Rates, ServiceTier},
    rollup::Cell,
    tariff::{Tariff, TariffKind},
    usage::{LineItem, Usage},
};

/// One settled request; names are made as they come up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled<'a> {
    pub(crate) at_s: u64,
    pub(crate) project_id: &'a str,
    pub(crate) api_key_id: &'a str,
    pub(crate) endpoint: &'a str,
    pub(crate) model: &'a str,
    pub(crate) service_tier: &'a str,
    /// Quantities and pico-dollars.
    pub(crate) lines: &'a [(LineItem, i64, i64)],
}

impl Default for Settled<'_> {
    fn default() -> Self {
        Self {
            at_s: 0,
            project_id: "proj_a",
            api_key_id: "key_a",
            endpoint: "chat.completions",
            model: "m-1",
            service_tier: "default",
            lines: &[],
        }
    }
}

/// A key belongs to the project it is first seen with.
pub(crate) async fn seed(path: &Path, entries: &[Settled<'_>]) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    for entry in entries {
        insert(&mut transaction, entry).await;
    }
    transaction.commit().await.unwrap();
}

pub(crate) async fn clear(path: &Path) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    sqlx::query("DELETE FROM rollups").execute(&mut connection).await.unwrap();
}

async fn insert(connection: &mut SqliteConnection, entry: &Settled<'_>) {
    let account = entry.project_id.replace("proj_", "sa_");
    for statement in [
        "INSERT OR IGNORE INTO projects (id, name, tier, created_at) VALUES (?1, ?1, 'tier1', 0)",
        "INSERT OR IGNORE INTO service_accounts (id, project_id, name, created_at) VALUES (?2, ?1, '', 0)",
        "INSERT OR IGNORE INTO api_keys (id, project_id, service_account_id, name, hash, redacted_value, limits, created_at)
         SELECT ?3, ?1, ?2, '', zeroblob(32), '', '{}', 0",
    ] {
        let query = sqlx::query(statement).bind(entry.project_id).bind(&account).bind(entry.api_key_id);
        query.execute(&mut *connection).await.unwrap();
    }
    let tariff = Tariff {
        endpoint: entry.endpoint.into(),
        model: entry.model.into(),
        service_tier: ServiceTier::from_wire(entry.service_tier),
        prices_from: None,
        rates: entry.lines.iter().fold(Rates::default(), |mut rates, (item, quantity, amount)| {
            assert_eq!(amount % quantity, 0, "an amount is a quantity at a price");
            rates.set(*item, Money::from_pico(amount / quantity));
            rates
        }),
        priced: true,
        kind: TariffKind::Request,
    };
    let mut names = Names::default();
    let key = KeyId::parse(entry.api_key_id).unwrap();
    let key = names.key(connection, &key).await.unwrap();
    let tariff = names.tariff(connection, &tariff).await.unwrap();
    let number = |number: i64| u32::try_from(number).unwrap();
    let usage = entry
        .lines
        .iter()
        .fold(Usage::default(), |usage, (item, quantity, _)| usage.with(*item, u64::try_from(*quantity).unwrap()));
    let mut rollups = Rollups::default();
    let cell = Cell { api_key: number(key), tariff: number(tariff), requests: 1, usage };
    rollups.add(entry.at_s, &cell).unwrap();
    rollups.write(connection).await.unwrap();
}
