//! A journal that is damaged at any place: either the end of its last record was never written, which is counted, or the
//! start stops and says where. No request is lost in silence, and none is billed otherwise.

use std::{fs, path::Path};

use super::super::{samples::*, *};

const PLACES: u64 = 200;
/// Any number; the places are the same in every run.
const SEED: u64 = 0x7011_6a7e;

/// Names and contents of the segments of a closed journal, in order.
type Segments = Vec<(String, Vec<u8>)>;

fn journal_of_requests(dir: &Path) -> Segments {
    let (journal, _) = Journal::open(small(dir, 100), NOW).unwrap();
    (0..70).for_each(|number| finish(&journal, number));
    // Two that are open, so that a lost settlement could not hide among settled ones.
    for number in 70..72 {
        let _left = journal.admit(&admission(number)).unwrap();
    }
    drop(journal);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let segments: Segments = files.iter().map(|path| (name(path), fs::read(path).unwrap())).collect();
    assert!(segments.len() >= 4, "the damage is to come in first, middle and last segments");
    segments
}

fn write(dir: &Path, segments: &Segments) {
    for (name, bytes) in segments {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// The segment and the place in it, of a place in all of them.
fn place(segments: &Segments, mut at: usize) -> (usize, usize) {
    for (index, (_, bytes)) in segments.iter().enumerate() {
        if at < bytes.len() {
            return (index, at);
        }
        at -= bytes.len();
    }
    panic!("past the end");
}

fn next(dice: &mut u64) -> usize {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    usize::try_from(*dice >> 11).unwrap()
}

fn line_start(bytes: &[u8], at: usize) -> usize {
    memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |end| end + 1)
}

/// What a start finds: the records that are kept, and what it says of them.
fn start(dir: &Path) -> Result<(Vec<Record>, Recovered), JournalError> {
    let (journal, recovered) = Journal::open(small(dir, 200), NOW)?;
    Ok((read_all(&journal, journal.start()), recovered))
}

#[test]
fn a_byte_that_is_flipped_anywhere_stops_the_start_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let segments = journal_of_requests(dir.path());
    let total: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut dice = SEED;
    let mut in_segment = vec![0; segments.len()];
    for _ in 0..PLACES {
        let (index, at) = place(&segments, next(&mut dice) % total);
        let mut damaged = segments.clone();
        damaged[index].1[at] ^= u8::try_from(1 + next(&mut dice) % 255).unwrap();
        let last = index + 1 == segments.len();
        if last && at + 1 == segments[index].1.len() {
            // Without its line end, the last record is one that was never finished.
            continue;
        }
        in_segment[index] += 1;
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &damaged);
        let error = start(dir.path()).err().unwrap_or_else(|| panic!("byte {at} of segment {index} was not noticed"));
        let line = line_start(&segments[index].1, at) as u64;
        let JournalError::Damaged { path, offset, .. } = &error else {
            panic!("byte {at} of segment {index}: {error}")
        };
        assert!(path.ends_with(&segments[index].0), "{error}");
        assert_eq!(*offset, line, "{error}");
        for (name, bytes) in &damaged {
            assert_eq!(&fs::read(dir.path().join(name)).unwrap(), bytes, "a start that fails changes nothing");
        }
    }
    assert!(in_segment.iter().all(|times| *times > 0), "{in_segment:?}");
}

#[test]
fn an_end_that_is_torn_anywhere_is_dropped_and_counted_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let segments = journal_of_requests(dir.path());
    let (before, _) = {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &segments);
        start(dir.path()).unwrap()
    };
    // As they were, without the settlements that the start added for those that were open.
    let written = &before[..before.len() - 2];
    let total: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut dice = SEED;
    for round in 0..PLACES {
        // Every other time in the last segment, where alone it may be.
        let mut at = next(&mut dice) % total;
        if round % 2 == 0 {
            at = total - 1 - next(&mut dice) % segments.last().unwrap().1.len();
        }
        let (index, at) = place(&segments, at);
        let mut torn = segments.clone();
        torn[index].1.truncate(at);
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &torn);
        let started = start(dir.path());
        if index + 1 < segments.len() {
            let error = started.err().unwrap_or_else(|| panic!("segment {index} cut at {at} was not noticed"));
            assert!(
                matches!(&error, JournalError::Shortened { path, .. } if path.ends_with(&segments[index].0)),
                "{error}"
            );
            continue;
        }
        let (records, recovered) = started.unwrap_or_else(|error| panic!("cut at {at} of the last segment: {error}"));
        let whole = line_start(&segments[index].1, at);
        assert_eq!(recovered.torn_bytes, (at - whole) as u64, "cut at {at}");
        let lost = memchr::memchr_iter(b'\n', &segments[index].1[whole..]).count();
        // The first line of a segment names the one before and is no record.
        let lost = lost - usize::from(whole == 0);
        let kept = written.len() - lost;
        assert_eq!(records[..kept], written[..kept], "cut at {at}");
        let added = &records[kept..];
        assert_eq!(added.len() as u64, recovered.interrupted, "all that was open is settled, once");
        assert!(added.iter().all(|record| matches!(record, Record::Settled(_))));
        let admitted = records.iter().filter(|record| matches!(record, Record::Admitted(_))).count();
        assert_eq!(2 * admitted, records.len(), "each request has its settlement");
    }
}

#[test]
fn what_is_written_past_the_end_of_a_finished_segment_is_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let segments = journal_of_requests(dir.path());
    let mut grown = segments.clone();
    let one_more = segments[1].1[line_start(&segments[1].1, segments[1].1.len() - 1)..].to_vec();
    grown[0].1.extend_from_slice(&one_more);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &grown);
    let (records, recovered) = start(dir.path()).unwrap();
    assert_eq!((records.len(), recovered.torn_bytes), (144, one_more.len() as u64));
    assert_eq!(recovered.unmatched_settlements, 0);
}
