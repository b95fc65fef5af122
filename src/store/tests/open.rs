use std::{fs, os::unix::fs::PermissionsExt};

use super::{super::*, assert_balanced, number};

#[tokio::test]
async fn a_new_database_has_its_settings_and_only_its_owner_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/tollgate.db");
    let store = Store::open(&path).await.unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(store.writer()).await.unwrap();
    assert_eq!(mode, "wal");
    for (pragma, value) in [
        ("PRAGMA synchronous", 1),
        ("PRAGMA busy_timeout", 5_000),
        ("PRAGMA wal_autocheckpoint", 4_000),
        ("PRAGMA journal_size_limit", 64 << 20),
        ("PRAGMA temp_store", 2),
        ("PRAGMA foreign_keys", 1),
    ] {
        let found: i64 = sqlx::query_scalar(pragma).fetch_one(store.writer()).await.unwrap();
        assert_eq!(found, value, "{pragma}");
    }
    assert_eq!(number(&store, "PRAGMA query_only").await, 1);
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    assert!(sqlx::query("INSERT INTO names (name) VALUES ('x')").execute(store.reader()).await.is_err());
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    let store = Store::open(&path).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (9999, 'later', '2030-01-01', 1, x'00', 0)")
        .execute(store.writer())
        .await
        .unwrap();
    store.writer().close().await;
    let Err(error) = Store::open(&path).await else { panic!("opened") };
    assert!(matches!(error, StoreError::NewerDatabase { version: 9999 }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    fs::write(&path, "not a database, but long enough to be looked at".repeat(100)).unwrap();
    let error = Store::open(&path).await.err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("restore a copy"), "{error}");
    assert!(matches!(Store::open(std::path::Path::new("/proc/none/db")).await, Err(StoreError::File { .. })));
}

/// The ledger of an earlier version, with every migration, as an upgrade leaves it that is ended before the sums are made.
async fn half_upgraded(path: &Path, version: u32) {
    let sql =
        fs::read_to_string(format!("{}/tests/fixtures/ledger_v{version}.sql", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(false);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let store = Store::pools(path, |pool| pool).await.unwrap();
    migrate(&store.writer).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn nobody_adds_to_the_sums_of_an_upgrade_that_was_interrupted_before_they_are_made() {
    for version in [1, 3, 4, 5] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tollgate.db");
        half_upgraded(&path, version).await;
        let opened = Store::open_existing(&path).await;
        assert!(matches!(opened, Err(StoreError::OlderDatabase)), "version {version}");
        let store = Store::open(&path).await.unwrap();
        assert!(number(&store, "SELECT count(*) FROM entries").await > 0);
        assert_balanced(&store).await;
        let sums = number(&store, "SELECT count(*) FROM rollups").await;
        store.close().await;
        assert!(Store::open_existing(&path).await.is_ok());
        let store = Store::open(&path).await.unwrap();
        assert_eq!(number(&store, "SELECT count(*) FROM rollups").await, sums, "version {version}");
    }
}

/// Of minutes there are very many, and no coarse sums of them.
#[tokio::test]
async fn an_upgrade_reads_no_sums_of_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    half_upgraded(&path, 5).await;
    let store = Store::pools(&path, |pool| pool).await.unwrap();
    sqlx::query("UPDATE rollups SET cells = x'ff' WHERE width_s = 60").execute(&store.writer).await.unwrap();
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert!(number(&store, "SELECT count(*) FROM rollups WHERE detail > 0").await > 0);
    assert_eq!(number(&store, "SELECT count(*) FROM rollups WHERE detail > 0 AND width_s = 60").await, 0);
}
