mod ledger;
mod open;
mod projector;
mod replay;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::Store;
use crate::domain::usage::LineItem;

/// A store with the keys `key_one` and `key_two`.
pub(super) async fn store(dir: &Path) -> Store {
    let store = Store::open(&dir.join("tollgate.db")).await.unwrap();
    sqlx::raw_sql(
        "INSERT OR IGNORE INTO projects VALUES ('proj_a', 'A', 'free', 0, NULL);
         INSERT OR IGNORE INTO service_accounts (id, project_id, name, created_at) VALUES ('sa_a', 'proj_a', 'A', 0);
         INSERT OR IGNORE INTO api_keys
             (number, id, project_id, service_account_id, name, hash, redacted_value, limits, created_at, expires_at, revoked_at)
         VALUES
             (1, 'key_one', 'proj_a', 'sa_a', 'one', zeroblob(32), 'tg', '{}', 0, NULL, NULL),
             (2, 'key_two', 'proj_a', 'sa_a', 'two', zeroblob(32), 'tg', '{}', 0, NULL, NULL);",
    )
    .execute(store.writer())
    .await
    .unwrap();
    store
}

impl Store {
    /// With a count of how often a connection has been made or taken from a pool.
    pub(crate) async fn open_counted(path: &Path) -> (Self, Arc<AtomicU64>) {
        let uses = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&uses);
        let store = Self::open_watched(path, move |pool| {
            let (made, taken) = (Arc::clone(&counted), Arc::clone(&counted));
            pool.after_connect(move |_, _| {
                made.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Ok(()) })
            })
            .before_acquire(move |_, _| {
                taken.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Ok(true) })
            })
        });
        (store.await.unwrap(), uses)
    }
}

pub(super) async fn number(store: &Store, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(store.reader()).await.unwrap()
}

pub(super) async fn entries(store: &Store) -> i64 {
    number(store, "SELECT count(*) FROM entries").await
}

/// Fails unless each width's rollups add up to the entries.
pub(super) async fn assert_balanced(store: &Store) {
    let quantities = LineItem::ALL.map(|item| format!("coalesce(sum({}), 0)", item.name())).join(", ");
    let amounts = LineItem::ALL.map(|item| format!("coalesce(sum({}_pico), 0)", item.name())).join(" + ");
    let ledger = format!(
        "SELECT json_array(count(*), count(*) - coalesce(sum(priced), 0), {quantities}, coalesce(sum(cost_pico), 0)) FROM entries"
    );
    let ledger: String = sqlx::query_scalar(sqlx::AssertSqlSafe(ledger)).fetch_one(store.reader()).await.unwrap();
    for width in [60, 3_600, 86_400] {
        let rollups = format!(
            "SELECT json_array(coalesce(sum(requests), 0), coalesce(sum(unpriced_requests), 0), {quantities}, {amounts})
             FROM rollups WHERE width_s = {width} AND bucket_start_s % {width} = 0"
        );
        let rollups: String = sqlx::query_scalar(sqlx::AssertSqlSafe(rollups)).fetch_one(store.reader()).await.unwrap();
        assert_eq!(rollups, ledger, "width {width}");
    }
}
