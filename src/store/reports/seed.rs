//! Fills a ledger's rollups for tests, as the projector does: each entry into a minute, an hour and a day.

use std::path::Path;

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::domain::usage::LineItem;

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
        "INSERT OR IGNORE INTO projects VALUES (?1, ?1, 'tier1', 0, NULL)",
        "INSERT OR IGNORE INTO service_accounts (id, project_id, name, created_at) VALUES (?2, ?1, '', 0)",
        "INSERT OR IGNORE INTO api_keys (id, project_id, service_account_id, name, hash, redacted_value, limits, created_at)
         SELECT ?3, ?1, ?2, '', zeroblob(32), '', '{}', 0",
        "INSERT OR IGNORE INTO names (name) VALUES (?4), (?5), (?6)",
    ] {
        let query = sqlx::query(statement).bind(entry.project_id).bind(&account).bind(entry.api_key_id);
        let query = query.bind(entry.endpoint).bind(entry.model).bind(entry.service_tier);
        query.execute(&mut *connection).await.unwrap();
    }
    let columns = LineItem::ALL.map(LineItem::name);
    let value = |item: LineItem, of: fn(&(LineItem, i64, i64)) -> i64| -> i64 {
        entry.lines.iter().filter(|line| line.0 == item).map(of).sum()
    };
    let quantities = LineItem::ALL.map(|item| value(item, |line| line.1).to_string());
    let amounts = LineItem::ALL.map(|item| value(item, |line| line.2).to_string());
    let add = |name: &str| format!("{name} = {name} + excluded.{name}");
    let updates: Vec<_> = columns.iter().map(|it| format!("{}, {}", add(it), add(&format!("{it}_pico")))).collect();
    for width_s in [60, 3_600, 86_400] {
        let statement = format!(
            "INSERT INTO rollups (width_s, bucket_start_s, api_key, endpoint, model, service_tier, requests,
                unpriced_requests, {}, {}_pico)
             SELECT {width_s}, {}, k.number, e.number, m.number, t.number, 1, 0, {}, {}
             FROM api_keys k, names e, names m, names t
             WHERE k.id = ?1 AND e.name = ?2 AND m.name = ?3 AND t.name = ?4
             ON CONFLICT DO UPDATE SET {}, {}",
            columns.join(", "),
            columns.join("_pico, "),
            entry.at_s - entry.at_s % width_s,
            quantities.join(", "),
            amounts.join(", "),
            add("requests"),
            updates.join(", "),
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(entry.api_key_id).bind(entry.endpoint);
        let done = query.bind(entry.model).bind(entry.service_tier).execute(&mut *connection).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }
}
