mod export;
mod files;
mod ledger;
mod open;
mod past;
mod projector;
mod reading;
mod replay;
mod reprice;
mod requests;
mod retention;
mod upgrade;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Store, reports};
use crate::domain::{
    report::{LATEST_TIME_S, Piece, Range, Selection, Width},
    rollup::Detail,
    usage::LineItem,
};

/// A store with the keys `key_one` and `key_two`.
pub(crate) async fn store(dir: &Path) -> Store {
    let store = Store::open(&dir.join("tollgate.db")).await.unwrap();
    sqlx::raw_sql(
        "INSERT OR IGNORE INTO projects (id, name, tier, created_at) VALUES ('proj_a', 'A', 'free', 0);
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

/// Fails unless the rollups of each width and detail add up to the entries.
pub(super) async fn assert_balanced(store: &Store) {
    let quantities = LineItem::ALL.map(|item| format!("coalesce(sum({}), 0)", item.name())).join(", ");
    let sql = format!(
        "SELECT json_array(count(*), count(*) - coalesce(sum(priced), 0), coalesce(sum(cost_pico), 0), {quantities}) FROM ledger"
    );
    let ledger: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(store.reader()).await.unwrap();
    let ledger: Vec<i128> = serde_json::from_str(&ledger).unwrap();
    let widths = [Width::Minute, Width::Hour, Width::Day];
    for (width, told_apart) in widths.into_iter().flat_map(|width| Detail::ALL.map(|detail| (width, detail))) {
        let selection = Selection { callers: told_apart, ..everything(width) };
        let mut sums = vec![0_i128; 3 + LineItem::COUNT];
        for row in reports::rows(store, &selection).await.unwrap() {
            assert_eq!(row.bucket_start_s % width.seconds(), 0);
            sums[0] += i128::from(row.requests);
            sums[1] += i128::from(row.unpriced_requests);
            for line in row.lines {
                sums[2] += line.amount.pico();
                sums[3 + line.line_item.index()] += i128::from(line.quantity);
            }
        }
        assert_eq!(sums, ledger, "{width:?} {told_apart:?}");
    }
}

/// All rollups of one width.
fn everything(width: Width) -> Selection {
    Selection {
        pieces: vec![Piece { width, range: Range { start_s: 0, end_s: LATEST_TIME_S } }],
        bucket_width: width,
        bucket_starts: Vec::new(),
        callers: Detail::Together,
        by_model: false,
        by_service_tier: false,
        endpoints: None,
        project_ids: None,
        api_key_ids: None,
        models: None,
        batch: None,
    }
}

/// Parts of the rollups of one width.
pub(super) async fn parts(store: &Store, width_s: i64) -> i64 {
    let sql = "SELECT count(*) FROM rollups WHERE detail = 0 AND width_s = ?";
    sqlx::query_scalar(sql).bind(width_s).fetch_one(store.reader()).await.unwrap()
}
