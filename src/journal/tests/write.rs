use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    thread,
};

use super::super::{samples::*, *};

#[test]
fn what_is_written_reads_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    let mut expected = Vec::new();
    for number in 0..20 {
        let admission = admission(number);
        let settlement = settlement(&admission);
        let ticket = journal.admit(&admission).unwrap();
        assert_eq!(ticket.position(), journal.end());
        assert_eq!(journal.settle(ticket, &settlement), journal.end());
        expected.extend([Record::Admitted(Box::new(admission)), Record::Settled(Box::new(settlement))]);
    }
    assert_eq!(read_all(&journal, journal.start()), expected);
    let all = journal.read(journal.start(), u64::MAX).unwrap();
    assert_eq!((all.records, all.next), (expected, journal.end()));
    assert_eq!(journal.bytes_after(journal.start()), journal.state().bytes);
}

#[test]
fn records_cross_segments_and_none_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path(), 1_000), NOW).unwrap();
    (0..200).for_each(|number| finish(&journal, number));
    assert!(journal.end().segment > 5);
    assert_eq!(read_all(&journal, journal.start()).len(), 400);
    drop(journal);
    let (journal, recovered) = Journal::open(small(dir.path(), 1_000), NOW).unwrap();
    assert_eq!(recovered, Recovered::default());
    assert_eq!(read_all(&journal, journal.start()).len(), 400);
}

#[test]
fn threads_that_write_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path(), 1_000), NOW).unwrap();
    thread::scope(|scope| {
        for thread in 0..8 {
            let journal = &journal;
            scope.spawn(move || (0..100).for_each(|number| finish(journal, thread * 100 + number)));
        }
    });
    let (mut admitted, mut settled) = (HashSet::new(), HashSet::new());
    for record in read_all(&journal, journal.start()) {
        match record {
            Record::Admitted(admission) => assert!(admitted.insert(admission.request_id)),
            Record::Settled(settlement) => {
                assert!(admitted.contains(&settlement.request_id));
                assert!(settled.insert(settlement.request_id));
            }
        }
    }
    assert_eq!((admitted.len(), settled.len()), (800, 800));
    assert_eq!(journal.state().open_admissions, 0);
}

#[test]
fn a_journal_that_says_it_takes_admissions_takes_one() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path(), 2), NOW).unwrap();
    let (mut open, mut refused) = (VecDeque::new(), 0);
    for number in 0..200 {
        if journal.state().failing.is_none() {
            let admission = admission(number);
            match journal.admit(&admission) {
                Ok(ticket) => open.push_back((ticket, admission)),
                // Only the first refusal is news.
                Err(error) => {
                    refused += 1;
                    assert_eq!(refused, 1, "{error}");
                }
            }
        } else if let Some((ticket, admission)) = open.pop_front() {
            journal.settle(ticket, &settlement(&admission));
        }
    }
    assert_eq!((refused, open.len()), (1, 0), "in the end nothing is open, and no room is left");
    assert!(journal.state().failing.is_some());
}

#[test]
fn at_its_size_limit_the_journal_refuses_admissions_and_takes_every_settlement() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path(), 2), NOW).unwrap();
    let mut open = Vec::new();
    let refused = loop {
        let admission = admission(open.len() as u64);
        match journal.admit(&admission) {
            Ok(ticket) => open.push((ticket, admission)),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::Full { .. }), "{refused}");
    assert!(open.len() > 5);
    assert!(journal.state().failing.is_some());
    let settled = open.len();
    for (ticket, admission) in open {
        journal.settle(ticket, &settlement(&admission));
    }
    assert_eq!(journal.state().waiting_settlements, 0);
    assert!(journal.state().bytes <= 2 * (16 << 10), "settlements had room set aside");
    assert_eq!(read_all(&journal, journal.start()).len(), 2 * settled);

    while journal.admit(&admission(1_000)).is_ok() {}
    journal.release(journal.end()).unwrap();
    assert!(journal.retry().is_err(), "an open admission keeps its segment");
}

#[test]
fn released_segments_make_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path(), 3), NOW).unwrap();
    for number in 0..300 {
        finish(&journal, number);
        journal.release(journal.end()).unwrap();
    }
    assert!(journal.start().segment > 5);
    let segments = std::fs::read_dir(dir.path()).unwrap().count() - 1;
    assert_eq!(segments as u64, journal.end().segment - journal.start().segment + 1);
    assert!(matches!(journal.read(Position { segment: 1, offset: 0 }, 100), Err(JournalError::NotKept(_))));
}

#[test]
fn a_segment_with_an_open_admission_is_not_released() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path(), 1_000), NOW).unwrap();
    (0..50).for_each(|number| finish(&journal, number));
    let first = admission(50);
    let ticket = journal.admit(&first).unwrap();
    let held = ticket.position().segment;
    (51..200).for_each(|number| finish(&journal, number));
    journal.release(journal.end()).unwrap();
    assert_eq!(journal.start().segment, held);
    journal.settle(ticket, &settlement(&first));
    journal.release(journal.end()).unwrap();
    assert_eq!(journal.start().segment, journal.end().segment);
}

#[test]
fn a_record_too_large_to_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    let admission = Admission { model: "m".repeat(20_000).into(), ..admission(1) };
    assert!(matches!(journal.admit(&admission), Err(JournalError::TooLarge { .. })));
    assert_eq!(journal.state(), JournalState::default());
}

#[tokio::test]
async fn a_waiting_reader_is_told_of_new_records() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(dir.path()), NOW).unwrap();
    let told = tokio::spawn({
        let journal = Arc::clone(&journal);
        async move { journal.changed().await }
    });
    finish(&journal, 1);
    told.await.unwrap();
}

#[tokio::test]
async fn in_power_mode_a_record_is_durable_after_one_sync_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Power, ..small(dir.path(), 1_000) };
    let (journal, _) = Journal::open(options, NOW).unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..100 {
        let ticket = journal.admit(&admission(number)).unwrap();
        let journal = Arc::clone(&journal);
        waiting.spawn(async move { journal.durable(ticket.position()).await });
    }
    while let Some(result) = waiting.join_next().await {
        result.unwrap().unwrap();
    }
    journal.durable(journal.end()).await.unwrap();
}
