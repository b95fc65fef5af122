use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::store;
use crate::store::{PutBack, Store};

async fn names(pool: &sqlx::SqlitePool) -> Vec<String> {
    sqlx::query_scalar("SELECT name FROM projects ORDER BY name").fetch_all(pool).await.unwrap()
}

async fn add(store: &Store, name: &str) {
    let sql = "INSERT INTO projects (id, name, tier, created_at) VALUES ('proj_' || ?1, ?1, 'free', 0)";
    sqlx::query(sql).bind(name).execute(store.writer()).await.unwrap();
}

fn log(path: &Path) -> PathBuf {
    path.with_file_name("tollgate.db-wal")
}

#[tokio::test]
async fn a_database_that_is_where_it_was_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    add(&store, "B").await;
    assert_eq!(store.put_back().await.unwrap(), None);
    store.checkpoint().await.unwrap();
    assert_eq!(store.put_back().await.unwrap(), None);
    assert!(!dir.path().join("tollgate.db.copy").exists());
}

#[tokio::test]
async fn a_deleted_database_is_put_back_with_all_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    for files in
        [&[path.clone()][..], &[log(&path)], &[path.clone(), log(&path), path.with_file_name("tollgate.db-shm")]]
    {
        let _ = fs::remove_dir_all(dir.path());
        fs::create_dir(dir.path()).unwrap();
        let store = store(dir.path()).await;
        add(&store, "B").await;
        // A reader that has it open, too.
        assert_eq!(names(store.reader()).await, ["A", "B"]);
        for file in files {
            fs::remove_file(file).unwrap();
        }
        add(&store, "C").await;
        assert_eq!(
            store.put_back().await.unwrap(),
            Some(PutBack { database: path.clone(), set_aside: None }),
            "{files:?}"
        );
        assert_eq!(store.put_back().await.unwrap(), None);
        add(&store, "D").await;
        assert_eq!(names(store.reader()).await, ["A", "B", "C", "D"], "readers see what is written from now on");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // As `kill -9` leaves it: nothing is closed.
        let again = Store::open(&path).await.unwrap();
        assert_eq!(names(again.reader()).await, ["A", "B", "C", "D"], "{files:?}");
        let sound: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(again.reader()).await.unwrap();
        assert_eq!(sound, "ok");
        assert!(!dir.path().join("tollgate.db.replaced-1").exists());
    }
}

#[tokio::test]
async fn another_database_in_its_place_is_never_written_to_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    let store = store(dir.path()).await;
    add(&store, "B").await;
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody's copy").unwrap();
    add(&store, "C").await;
    fs::write(log(&path), "its log").unwrap();
    let aside = dir.path().join("tollgate.db.replaced-1");
    assert_eq!(
        store.put_back().await.unwrap(),
        Some(PutBack { database: path.clone(), set_aside: Some(aside.clone()) })
    );
    assert_eq!(fs::read(&aside).unwrap(), b"somebody's copy");
    assert_eq!(fs::read(dir.path().join("tollgate.db.replaced-1-wal")).unwrap(), b"its log");
    assert_eq!(names(store.reader()).await, ["A", "B", "C"]);
}

#[tokio::test]
async fn what_cannot_be_put_back_yet_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    let store = store(dir.path()).await;
    fs::remove_file(&path).unwrap();
    // In the way of the copy.
    fs::create_dir(dir.path().join("tollgate.db.copy")).unwrap();
    assert!(store.put_back().await.is_err());
    assert!(store.files_trouble().is_some());
    add(&store, "B").await;
    fs::remove_dir(dir.path().join("tollgate.db.copy")).unwrap();
    assert_eq!(store.put_back().await.unwrap(), Some(PutBack { database: path.clone(), set_aside: None }));
    assert_eq!(store.files_trouble(), None);
    assert_eq!(names(store.reader()).await, ["A", "B"]);
}

#[tokio::test]
async fn without_a_writer_the_database_is_put_back_by_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    let store = store(dir.path()).await;
    add(&store, "B").await;
    store.writer().acquire().await.unwrap().close().await.unwrap();
    fs::remove_file(&path).unwrap();
    assert!(store.put_back().await.unwrap().is_some());
    add(&store, "C").await;
    assert_eq!(names(store.reader()).await, ["A", "B", "C"]);
}

#[tokio::test]
async fn a_database_behind_a_link_is_found_and_put_back_where_it_is() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = elsewhere.path().join("ledger");
    fs::write(&path, "").unwrap();
    std::os::unix::fs::symlink(&path, dir.path().join("tollgate.db")).unwrap();
    let store = store(dir.path()).await;
    assert_eq!(store.put_back().await.unwrap(), None);
    fs::remove_file(&path).unwrap();
    let path = path.parent().unwrap().canonicalize().unwrap().join("ledger");
    assert_eq!(store.put_back().await.unwrap().map(|it| it.database), Some(path));
    assert_eq!(names(store.reader()).await, ["A"]);
}
