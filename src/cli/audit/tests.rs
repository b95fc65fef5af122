use std::collections::BTreeMap;

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::{
    accounts::Accounts,
    domain::{audit::By, keys::Pepper, time::UnixNanos},
    store::Store,
};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: AuditCommand,
}

/// A data directory with three rows in its audit log, and the store that wrote them, still open.
struct Fixture {
    directory: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("tollgate.db")).await.unwrap();
        let fixture = Self { directory, store };
        for name in ["a", "b", "c"] {
            fixture.change(name).await;
        }
        fixture
    }

    async fn change(&self, name: &str) {
        let accounts = Accounts::load(self.store.clone().into(), Pepper::from_bytes([7; 32])).await.unwrap();
        accounts.create_project(name, "tier1".into(), &By::gateway(UnixNanos(1))).await.unwrap();
    }

    async fn verify(&self, words: &[&str]) -> Result<(String, bool), LedgerError> {
        verify(self.directory.path().to_str().unwrap(), words).await
    }

    async fn json(&self, words: &[&str]) -> Value {
        let (answer, right) = self.verify(&[words, &["--json"]].concat()).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["ok"], right);
        answer
    }

    /// Past the triggers, as somebody with the file can.
    async fn tamper(&self, sql: &'static str) {
        let drop =
            "DROP TRIGGER IF EXISTS audit_rows_are_never_changed; DROP TRIGGER IF EXISTS audit_rows_are_never_deleted;";
        sqlx::raw_sql(drop).execute(self.store.writer()).await.unwrap();
        let done = sqlx::query(sql).execute(self.store.writer()).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }
}

async fn verify(data_dir: &str, words: &[&str]) -> Result<(String, bool), LedgerError> {
    let env = BTreeMap::from([("TOLLGATE_DATA_DIR".to_owned(), data_dir.to_owned())]);
    let settings = Settings::load(None, &env).unwrap();
    let AuditCommand::Verify(verify) = Cli::try_parse_from(["audit", "verify"].iter().chain(words)).unwrap().command;
    verify.answer(&settings).await
}

#[tokio::test]
async fn a_log_as_it_was_written_is_right_while_a_gateway_runs_and_after() {
    let fixture = Fixture::new().await;
    let (text, right) = fixture.verify(&[]).await.unwrap();
    assert!(right && text.starts_with("3 rows are as they were written."), "{text}");
    let running = fixture.json(&[]).await;
    assert_eq!((&running["rows"], &running["first_wrong_row"]), (&Value::from(3), &Value::Null));
    fixture.store.close().await;
    assert_eq!(fixture.json(&[]).await, running);
}

#[tokio::test]
async fn what_a_killed_gateway_left_in_its_write_ahead_log_is_checked_too() {
    let fixture = Fixture::new().await;
    let copy = tempfile::tempdir().unwrap();
    for name in ["tollgate.db", "tollgate.db-wal"] {
        std::fs::copy(fixture.directory.path().join(name), copy.path().join(name)).unwrap();
    }
    assert!(std::fs::metadata(copy.path().join("tollgate.db-wal")).unwrap().len() > 0);
    let (text, right) = verify(copy.path().to_str().unwrap(), &[]).await.unwrap();
    assert!(right && text.starts_with("3 rows"), "{text}");
}

#[tokio::test]
async fn one_changed_row_is_found_and_named() {
    for (sql, rows, wrong) in [
        ("UPDATE audit_log SET actor = 'key_somebody' WHERE number = 2", 1, 2),
        ("UPDATE audit_log SET after = replace(after, 'tier1', 'tier5') WHERE number = 1", 0, 1),
        ("UPDATE audit_log SET hash = zeroblob(32) WHERE number = 3", 2, 3),
        ("DELETE FROM audit_log WHERE number = 2", 1, 2),
    ] {
        let fixture = Fixture::new().await;
        fixture.tamper(sql).await;
        let answer = fixture.json(&[]).await;
        assert_eq!((&answer["ok"], &answer["rows"]), (&Value::from(false), &Value::from(rows)), "{sql}");
        assert_eq!(answer["first_wrong_row"], wrong, "{sql}");
        let (text, right) = fixture.verify(&[]).await.unwrap();
        assert!(!right && text.contains(&format!("row {wrong} ")), "{text}");
    }
}

#[tokio::test]
async fn rows_cut_off_at_the_end_are_missed_by_whoever_kept_the_hash() {
    let fixture = Fixture::new().await;
    let kept = fixture.json(&[]).await["last_hash"].as_str().unwrap().to_owned();
    fixture.change("d").await;
    let later = fixture.json(&["--expect-hash", &kept]).await;
    assert_eq!((&later["ok"], &later["expected_hash_found"]), (&Value::from(true), &Value::from(true)));
    fixture.tamper("DELETE FROM audit_log WHERE number = 4").await;
    assert_eq!(fixture.json(&["--expect-hash", &kept]).await["ok"], true);
    fixture.tamper("DELETE FROM audit_log WHERE number = 3").await;
    assert_eq!(fixture.json(&[]).await["ok"], true, "what is left holds");
    let cut = fixture.json(&["--expect-hash", &kept]).await;
    assert_eq!((&cut["ok"], &cut["expected_hash_found"]), (&Value::from(false), &Value::from(false)));
    let (text, right) = fixture.verify(&["--expect-hash", &kept]).await.unwrap();
    assert!(!right && text.contains(&kept), "{text}");
}

#[tokio::test]
async fn triggers_refuse_what_would_change_the_log() {
    let fixture = Fixture::new().await;
    for sql in [
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
        "REPLACE INTO audit_log SELECT * FROM audit_log WHERE number = 2",
        "INSERT INTO audit_log SELECT 9, type, actor, effective_at, object_id, NULL, NULL, NULL, NULL, hash FROM audit_log",
    ] {
        let error = sqlx::query(sql).execute(fixture.store.writer()).await.unwrap_err().to_string();
        assert!(error.contains("append-only"), "{sql}: {error}");
    }
    assert_eq!(fixture.json(&[]).await["ok"], true);
}

#[tokio::test]
async fn a_directory_without_a_log_is_told_in_words() {
    let empty = tempfile::tempdir().unwrap();
    let error = verify(empty.path().to_str().unwrap(), &[]).await.unwrap_err().to_string();
    assert!(error.contains("TOLLGATE_DATA_DIR"), "{error}");
    assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none(), "nothing is made");
    let wrong = Cli::try_parse_from(["audit", "verify", "--expect-hash", "12"]).unwrap_err().to_string();
    assert!(wrong.contains("64 hexadecimal digits"), "{wrong}");
}
