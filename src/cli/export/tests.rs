use std::{collections::BTreeMap, fs};

use clap::Parser;

use super::*;
use crate::store::Store;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: ExportArgs,
}

/// `words` go after the format.
async fn export(data_dir: &Path, words: &[&str]) -> Result<(), Failure> {
    let env = BTreeMap::from([("TOLLGATE_DATA_DIR".to_owned(), data_dir.to_str().unwrap().to_owned())]);
    let settings = Settings::load(None, &env).unwrap();
    let Cli { args } = Cli::try_parse_from(["export", "--format", "csv"].iter().chain(words)).unwrap();
    args.export(&settings).await
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

const NOVEMBER: [&str; 4] = ["--from", "2026-11-01", "--to", "2026-12-01"];

#[tokio::test]
async fn a_file_is_whole_or_not_there_and_never_replaces_another() {
    let (data, outputs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(&data.path().join("tollgate.db")).await.unwrap();
    let path = outputs.path().join("november.csv");
    let words = [&NOVEMBER[..], &["--output", path.to_str().unwrap()]].concat();
    export(data.path(), &words).await.unwrap();
    assert_eq!(names(outputs.path()), ["november.csv"]);
    assert!(fs::read_to_string(&path).unwrap().starts_with("request_id,"));
    let error = export(data.path(), &words).await.unwrap_err().to_string();
    assert!(error.starts_with("there is already a file ") && error.contains("november.csv"), "{error}");
    fs::remove_file(&path).unwrap();
    // It fails after the file was begun.
    sqlx::query("ALTER TABLE entries RENAME TO gone").execute(store.writer()).await.unwrap();
    assert!(matches!(export(data.path(), &words).await, Err(Failure::Read(_))));
    assert_eq!(names(outputs.path()), [""; 0]);
}

#[test]
fn a_file_that_came_meanwhile_is_not_replaced_and_what_a_killed_run_left_is_not_in_the_way() {
    let outputs = tempfile::tempdir().unwrap();
    let path = outputs.path().join("november.csv");
    // Nobody takes the first away, as after a kill.
    std::mem::forget(NewFile::create(&path).unwrap());
    let mut file = NewFile::create(&path).unwrap();
    file.write_all(b"ours").unwrap();
    fs::write(&path, "theirs").unwrap();
    assert!(matches!(file.keep(), Err(Failure::Exists(at)) if at == path));
    assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    fs::remove_file(&path).unwrap();
    let mut file = NewFile::create(&path).unwrap();
    file.write_all(b"ours").unwrap();
    file.keep().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
    let names = names(outputs.path());
    let left: Vec<_> = names.iter().filter(|name| *name != "november.csv").collect();
    let [left] = *left.as_slice() else { panic!("{names:?}") };
    assert!(left.starts_with(".november.csv.") && left.ends_with(".unfinished"), "{left}");
}

#[tokio::test]
async fn what_is_wrong_is_told_in_words_and_nothing_is_made() {
    let empty = tempfile::tempdir().unwrap();
    let error = export(empty.path(), &NOVEMBER).await.unwrap_err().to_string();
    assert!(error.contains("TOLLGATE_DATA_DIR"), "{error}");
    let error = export(empty.path(), &["--from", "2026-12-01", "--to", "2026-12-01"]).await.unwrap_err().to_string();
    assert_eq!(error, "--from must be before --to");
    assert!(names(empty.path()).is_empty());
    Store::open(&empty.path().join("tollgate.db")).await.unwrap().close().await;
    let words = [&NOVEMBER[..], &["--output", "/does/not/exist/a.csv"]].concat();
    let error = export(empty.path(), &words).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot write /does/not/exist/a.csv: No such file"), "{error}");
    let wrong = Cli::try_parse_from(["export", "--format", "csv", "--from", "soon", "--to", "2026-12-01"]).unwrap_err();
    assert!(wrong.to_string().contains("expected a date (2026-"), "{wrong}");
}
