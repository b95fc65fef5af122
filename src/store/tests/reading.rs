//! Reading requests while others write, and while others read.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::Connection as _;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    super::{
        Store,
        ledger::LedgerBatch,
        requests::{self, Filter},
    },
    store,
};
use crate::{
    domain::{explanation::Explained, ids::RequestId, ledger::Entry},
    journal::{Position, samples::*},
};

fn everything() -> Filter {
    Filter::between(RequestId::earliest(0), RequestId::new(u64::MAX >> 16, u128::MAX))
}

/// With one entry, and an adjustment of it.
async fn adjusted(dir: &Path) -> RequestId {
    let store = store(dir).await;
    let admission = admission(1);
    let id = admission.request_id;
    let entries = vec![Entry { settlement: settlement(&admission), admission }];
    let batch = LedgerBatch { entries, up_to: Position { segment: 1, offset: 100 }, ..LedgerBatch::default() };
    store.append(&batch).await.unwrap();
    sqlx::query(
        "INSERT INTO adjustments (request_id, api_key, tariff, requests, settled_at_ms, adjusted_at_ms, reason, input_audio)
         SELECT request_id, api_key, tariff, 0, admitted_at_ms + duration_ms, 77, 'a wrong price', 17 FROM entries",
    )
    .execute(store.writer())
    .await
    .unwrap();
    store.close().await;
    id
}

/// `before` each use of a connection, be it a new one or not.
async fn watched_by<F>(path: &Path, before: impl Fn() -> F + Clone + Send + Sync + 'static) -> Store
where
    F: Future<Output = ()> + Send + 'static,
{
    let opened = Store::open_watched(path, move |pool| {
        let (first, again) = (before.clone(), before.clone());
        let pool = pool.after_connect(move |_, _| {
            let before = first();
            Box::pin(async move {
                before.await;
                Ok(())
            })
        });
        pool.before_acquire(move |_, _| {
            let before = again();
            Box::pin(async move {
                before.await;
                Ok(true)
            })
        })
    });
    opened.await.unwrap()
}

async fn drop_all(path: PathBuf) {
    let mut connection = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    let statements = "BEGIN IMMEDIATE; UPDATE retention SET horizon_ms = 9000000000000000; DELETE FROM adjustments; \
        DELETE FROM entries; COMMIT";
    sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn an_entry_that_is_dropped_meanwhile_is_read_with_its_adjustments_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let id = adjusted(dir.path()).await;
    let path = dir.path().join("tollgate.db");
    // Connections that are still to be taken before everything is dropped.
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let (watched, dropped) = (Arc::clone(&left), path.clone());
    let opened = watched_by(&path, move || {
        let (is_now, path) = (watched.fetch_sub(1, Ordering::SeqCst) == 0, dropped.clone());
        async move {
            if is_now {
                drop_all(path).await;
            }
        }
    });
    let store = opened.await;
    left.store(1, Ordering::SeqCst);
    match requests::find(&store, id, NOW).await.unwrap() {
        Some(Explained::Finished(finished)) => assert_eq!(finished.adjustments.len(), 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(requests::find(&store, id, NOW).await.unwrap(), None, "it was dropped while it was read");
}

#[tokio::test]
async fn one_list_is_read_at_a_time_and_reports_do_not_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let id = adjusted(dir.path()).await;
    // Whoever takes a connection waits at the gate, as for a long scan.
    let (gate, waiting) = (Arc::new(Semaphore::new(1_000)), Arc::new(AtomicU64::new(0)));
    let (gated, counted) = (Arc::clone(&gate), Arc::clone(&waiting));
    let path = dir.path().join("tollgate.db");
    let opened = watched_by(&path, move || {
        let (gate, waiting) = (Arc::clone(&gated), Arc::clone(&counted));
        async move {
            waiting.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
        }
    });
    let store = opened.await;
    gate.forget_permits(1_000);
    waiting.store(0, Ordering::SeqCst);
    let list = || {
        let store = store.clone();
        tokio::spawn(async move { requests::page(&store, &everything(), NOW, 10).await })
    };
    let lists: Vec<_> = (0..20).map(|_| list()).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // Those who asked have left; what one of them began goes on.
    for list in lists {
        list.abort();
    }
    let patient = list();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(waiting.load(Ordering::SeqCst), 1, "connections that lists have taken");
    // What asks for one request does not wait for the turn of the lists.
    let found = timeout(Duration::from_secs(5), async {
        let found = requests::find(&store, id, NOW);
        let opening = async {
            while waiting.load(Ordering::SeqCst) < 2 {
                tokio::task::yield_now().await;
            }
            gate.add_permits(1_000);
        };
        tokio::join!(found, opening).0
    });
    assert!(found.await.unwrap().unwrap().is_some());
    assert_eq!(patient.await.unwrap().unwrap().len(), 1);
}
