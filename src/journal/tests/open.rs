use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
};

use super::super::{samples::*, *};
use crate::domain::ledger::Outcome;

fn first_segment(dir: &std::path::Path) -> PathBuf {
    dir.join("0000000001.jsonl")
}

#[test]
fn a_record_torn_at_any_byte_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    finish(&journal, 1);
    let whole = usize::try_from(journal.end().offset).unwrap();
    let _left = journal.admit(&admission(2)).unwrap();
    drop(journal);
    let bytes = fs::read(first_segment(dir.path())).unwrap();
    for length in whole..bytes.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(first_segment(dir.path()), &bytes[..length]).unwrap();
        let (journal, recovered) = Journal::open(Options::new(dir.path()), NOW).unwrap();
        assert_eq!(recovered, Recovered { torn_bytes: (length - whole) as u64, ..Recovered::default() });
        assert_eq!(fs::read(first_segment(dir.path())).unwrap(), bytes[..whole]);
        finish(&journal, 3);
        assert_eq!(read_all(&journal, journal.start()).len(), 4);
    }
}

#[test]
fn a_flipped_byte_stops_the_start_and_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = first_segment(dir.path());
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    finish(&journal, 1);
    let second = journal.end().offset;
    finish(&journal, 2);
    drop(journal);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[usize::try_from(second).unwrap() + 100] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let Err(error) = Journal::open(Options::new(dir.path()), NOW) else { panic!("the damage was not noticed") };
    assert!(matches!(error, JournalError::Damaged { offset, .. } if offset == second), "{error}");
    assert!(error.to_string().contains("0000000001.jsonl is damaged at byte"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), damaged, "nothing was changed");

    let line_end = damaged[usize::try_from(second).unwrap()..].iter().position(|byte| *byte == b'\n').unwrap();
    damaged[usize::try_from(second).unwrap()..][..line_end].fill(b' ');
    fs::write(&path, &damaged).unwrap();
    let (journal, recovered) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    assert_eq!((recovered.interrupted, recovered.unmatched_settlements), (0, 1));
    assert_eq!(read_all(&journal, journal.start()).len(), 3, "as the error says, spaces give one record up");
}

#[test]
fn a_missing_or_shortened_segment_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path(), 1_000), NOW).unwrap();
    (0..100).for_each(|number| finish(&journal, number));
    assert!(journal.end().segment > 3);
    drop(journal);
    let path = dir.path().join("0000000002.jsonl");
    let bytes = fs::read(&path).unwrap();
    let last_line = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(&path, &bytes[..last_line]).unwrap();
    assert!(matches!(Journal::open(small(dir.path(), 9), NOW), Err(JournalError::Shortened { .. })));
    fs::remove_file(&path).unwrap();
    assert!(
        matches!(Journal::open(small(dir.path(), 9), NOW), Err(JournalError::Missing { path: missing }) if missing == path)
    );
}

#[test]
fn open_admissions_are_settled_once_over_many_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path(), 100), NOW).unwrap();
    (0..30).for_each(|number| finish(&journal, number));
    let mut open: Vec<_> = (30..35).map(admission).collect();
    // Held otherwise than estimated.
    open[3].hold.audio.output = 9;
    for admission in &open {
        let _left = journal.admit(admission).unwrap();
    }
    drop(journal);
    let later = NOW.plus_nanos(60_000_000_000);
    let (journal, recovered) = Journal::open(small(dir.path(), 100), later).unwrap();
    assert_eq!(recovered.interrupted, 5);
    let settled = read_all(&journal, journal.run_start);
    let expected: Vec<_> =
        open.iter().map(|admission| Record::Settled(Box::new(admission.interrupted(later)))).collect();
    assert_eq!(settled, expected);
    assert!(matches!(&settled[0], Record::Settled(first) if first.outcome == Outcome::Interrupted));
    drop(journal);
    for _ in 0..3 {
        let (journal, recovered) = Journal::open(small(dir.path(), 100), later).unwrap();
        assert_eq!(recovered, Recovered::default());
        assert_eq!(read_all(&journal, journal.start()).len(), 70);
    }
}

#[test]
fn a_settlement_that_is_there_twice_is_counted_and_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    finish(&journal, 1);
    drop(journal);
    let bytes = fs::read(first_segment(dir.path())).unwrap();
    let settled = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let mut file = OpenOptions::new().append(true).open(first_segment(dir.path())).unwrap();
    file.write_all(&bytes[settled..]).unwrap();
    let (_, recovered) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    assert_eq!(recovered, Recovered { unmatched_settlements: 1, ..Recovered::default() });
}

#[test]
fn a_crash_while_a_segment_was_begun_is_healed() {
    for begun in ["", "[\"0000"] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(small(dir.path(), 100), NOW).unwrap();
        finish(&journal, 1);
        drop(journal);
        fs::write(dir.path().join("0000000002.jsonl"), begun).unwrap();
        let (journal, recovered) = Journal::open(small(dir.path(), 100), NOW).unwrap();
        assert_eq!((journal.end().segment, recovered.torn_bytes), (2, begun.len() as u64));
        finish(&journal, 2);
        drop(journal);
        let (journal, recovered) = Journal::open(small(dir.path(), 100), NOW).unwrap();
        assert_eq!((read_all(&journal, journal.start()).len(), recovered), (4, Recovered::default()));
    }
}

#[test]
fn a_second_gateway_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let first = Journal::open(Options::new(dir.path()), NOW).unwrap();
    assert!(matches!(Journal::open(Options::new(dir.path()), NOW), Err(JournalError::InUse { .. })));
    drop(first);
    assert!(Journal::open(Options::new(dir.path()), NOW).is_ok());
}

#[test]
fn only_the_owner_may_read_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("deep/journal");
    let (journal, _) = Journal::open(small(&dir, 100), NOW).unwrap();
    (0..30).for_each(|number| finish(&journal, number));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}
