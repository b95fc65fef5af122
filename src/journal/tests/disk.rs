//! A disk that fails, played by a file that is open for reading only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    sync::Arc,
};

use super::super::{samples::*, *};

fn mend_disk(journal: &Journal) {
    let segment = journal.end().segment;
    let path = journal.writer().segment_path(segment);
    let file = OpenOptions::new().append(true).read(true).open(path).unwrap();
    journal.writer().current_mut().file = Arc::new(file);
}

#[test]
fn a_settlement_the_disk_refused_waits_and_is_written_first() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    let (one, two) = (admission(1), admission(2));
    let (first, second) = (journal.admit(&one).unwrap(), journal.admit(&two).unwrap());
    journal.break_disk();
    let promised = journal.settle(first, &settlement(&one));
    assert!(promised > journal.end());
    assert!(matches!(journal.admit(&admission(3)), Err(JournalError::Io { .. })));
    let state = journal.state();
    assert_eq!((state.waiting_settlements, state.open_admissions), (1, 1));
    assert!(state.failing.is_some());

    mend_disk(&journal);
    let end = journal.settle(second, &settlement(&two));
    assert!(promised < end && end == journal.end());
    assert_eq!(journal.state().failing, None);
    let settled = [Record::Settled(Box::new(settlement(&one))), Record::Settled(Box::new(settlement(&two)))];
    assert_eq!(read_all(&journal, journal.start())[2..], settled);
}

#[test]
fn a_tick_writes_what_waits_even_if_the_segment_takes_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    let one = admission(1);
    let ticket = journal.admit(&one).unwrap();
    journal.break_disk();
    journal.settle(ticket, &settlement(&one));
    journal.retry().unwrap();
    assert_eq!(journal.end().segment, 2);
    assert_eq!(journal.state().waiting_settlements, 0);
    assert_eq!(read_all(&journal, journal.start()).len(), 2);
    drop(journal);
    let (_, recovered) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    assert_eq!(recovered, Recovered::default());
}

#[test]
fn remains_of_a_failed_write_are_cut_off_before_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    finish(&journal, 1);
    let path = journal.writer().segment_path(1);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"[\"half a rec").unwrap();
    journal.writer().current_mut().torn = true;
    finish(&journal, 2);
    assert_eq!(fs::metadata(&path).unwrap().len(), journal.end().offset);
    assert_eq!(read_all(&journal, journal.start()).len(), 4);
}

#[test]
fn remains_that_cannot_be_cut_off_are_left_behind_in_their_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    let one = admission(1);
    let ticket = journal.admit(&one).unwrap();
    let path = journal.writer().segment_path(1);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"[\"half a rec").unwrap();
    journal.writer().current_mut().torn = true;
    journal.break_disk();
    journal.settle(ticket, &settlement(&one));
    journal.retry().unwrap();
    drop(journal);
    let (journal, recovered) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    assert_eq!(recovered, Recovered { torn_bytes: 12, ..Recovered::default() });
    assert_eq!(read_all(&journal, journal.start()).len(), 2);
}

#[tokio::test]
async fn what_waits_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Power, ..Options::new(dir.path()) };
    let (journal, _) = Journal::open(options, NOW).unwrap();
    let one = admission(1);
    let ticket = journal.admit(&one).unwrap();
    journal.break_disk();
    let promised = journal.settle(ticket, &settlement(&one));
    assert!(matches!(journal.durable(promised).await, Err(JournalError::NotDurable)));
    mend_disk(&journal);
    journal.retry().unwrap();
    journal.durable(promised).await.unwrap();
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_and_a_new_segment_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Power, ..Options::new(dir.path()) };
    let (journal, _) = Journal::open(options, NOW).unwrap();
    let one = admission(1);
    let ticket = journal.admit(&one).unwrap();
    let (_reader, pipe) = io::pipe().unwrap();
    journal.writer().current_mut().file = Arc::new(File::from(OwnedFd::from(pipe)));
    assert!(matches!(journal.durable(ticket.position()).await, Err(JournalError::NotDurable)));
    assert!(journal.state().failing.is_some());
    assert!(journal.admit(&admission(2)).is_err(), "nothing is taken before the disk has proved itself");
    mend_disk(&journal);
    journal.retry().unwrap();

    let second = journal.admit(&admission(2)).unwrap();
    assert_eq!((second.position().segment, journal.state().failing), (2, None));
    journal.durable(second.position()).await.unwrap();
    let settled = journal.settle(ticket, &settlement(&one));
    journal.durable(settled).await.unwrap();
}

#[test]
fn a_segment_has_its_room_set_aside_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path(), 100), NOW).unwrap();
    let file = Arc::clone(&journal.writer().current_mut().file);
    let set_aside = || file.metadata().unwrap().blocks() * 512 >= 16 << 10;
    if segment::preallocate(&file, 16 << 10).unwrap() {
        assert!(set_aside());
        assert_eq!(file.metadata().unwrap().len(), 0);
        journal.writer().current_mut().torn = true;
        finish(&journal, 1);
        assert!(set_aside(), "also after a failed write was cut off");
    }
}

#[test]
fn a_full_disk_a_read_only_one_and_a_broken_one_are_told_apart() {
    for (code, cause) in [(28, Cause::NoSpace), (122, Cause::NoSpace), (30, Cause::ReadOnly), (5, Cause::DiskError)] {
        let error = JournalError::io("write to", "some/path")(io::Error::from_raw_os_error(code));
        assert_eq!(error.cause(), cause, "{error}");
    }
    assert_eq!(JournalError::Full { max_bytes: 1 }.cause(), Cause::JournalFull);
}

#[tokio::test]
async fn a_settlement_after_a_failed_sync_goes_into_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Power, ..Options::new(dir.path()) };
    let (journal, _) = Journal::open(options, NOW).unwrap();
    let one = admission(1);
    let ticket = journal.admit(&one).unwrap();
    journal.durable(ticket.position()).await.unwrap();
    let eio = io::Error::from_raw_os_error(5);
    journal.writer().abandon(JournalError::io("sync", "journal")(eio));
    assert_eq!(journal.state().failing.map(|failing| failing.cause), Some(Cause::DiskError));
    let settled = journal.settle(ticket, &settlement(&one));
    assert!(journal.state().failing.is_some(), "the disk has not proved itself");
    assert!(matches!(journal.durable(settled).await, Err(JournalError::NotDurable)));
    journal.retry().unwrap();
    assert_eq!((journal.end().segment, journal.state().failing), (2, None));
    journal.durable(journal.end()).await.unwrap();
    assert_eq!(read_all(&journal, journal.start()).len(), 2);
    drop(journal);
    let (_, recovered) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    assert_eq!(recovered, Recovered::default());
}

#[tokio::test]
async fn what_is_written_while_a_sync_fails_is_not_durable_either() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Power, ..Options::new(dir.path()) };
    let (journal, _) = Journal::open(options, NOW).unwrap();
    let first = journal.admit(&admission(1)).unwrap();
    // The sync has begun with the end as it was; meanwhile comes another request, into the same file.
    let (_, begun_at) = journal.writer().unsynced();
    assert_eq!(begun_at, first.position());
    let second = journal.admit(&admission(2)).unwrap();
    let lost = journal.writer().abandon(JournalError::NotDurable);
    assert_eq!(lost, second.position(), "both are lost");
    journal.retry().unwrap();
    assert!(
        journal.writer().unsynced().0.len() == 1,
        "the abandoned file is not synced again: it would seem to succeed"
    );
}

#[test]
fn a_new_segment_that_cannot_be_made_is_made_by_a_later_try() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Power, ..small(dir.path(), 100) };
    let (journal, _) = Journal::open(options, NOW).unwrap();
    finish(&journal, 1);
    let end = journal.end();
    // Another file of that name is in the way, as one would be that an earlier try left.
    let next = journal.writer().segment_path(end.segment + 1);
    fs::write(&next, "").unwrap();
    journal.writer().abandon(JournalError::NotDurable);
    assert!(journal.retry().is_err());
    fs::remove_file(&next).unwrap();
    journal.retry().unwrap();
    assert!(journal.end().segment > end.segment);
    assert_eq!(journal.state().failing, None);
    finish(&journal, 2);
    assert_eq!(read_all(&journal, journal.start()).len(), 4);
}
