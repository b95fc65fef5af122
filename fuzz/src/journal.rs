//! A line of the journal: read, or refused; and what was read is written again as the same.

use tollgate::{
    domain::{ledger::Entry, limits::Dimension, pricing::cost, time::UnixNanos, usage::Usage},
    journal::Record,
};

use super::choice;

pub fn journal(data: &[u8]) {
    // As it may stand in a damaged file.
    if let Ok(Some(record)) = Record::read_line(data) {
        is_written_again(&record);
    }
    // With the right checksum, so that what is inside is looked at.
    let Some((place, json)) = choice(data) else { return };
    let line = framed(json);
    let read = Record::read_line(&line);
    if let Ok(Some(record)) = &read {
        is_written_again(record);
        is_used(record);
    }
    let mut damaged = line;
    let at = usize::from(place) * damaged.len() / 256;
    damaged[at] ^= 1 << (place % 8);
    if json.contains(&b'\n') || read.is_err() {
        return;
    }
    assert!(Record::read_line(&damaged).is_err(), "byte {at} was changed, and nobody saw it");
}

fn framed(json: &[u8]) -> Vec<u8> {
    [format!("[\"{:08x}\",", crc32fast::hash(json)).as_bytes(), json, b"]"].concat()
}

fn is_written_again(record: &Record) {
    let line = record.line().expect("a record can be written");
    let Some((b'\n', without_newline)) = line.split_last() else { panic!("a line ends in a newline") };
    assert!(!without_newline.contains(&b'\n'));
    let again = Record::read_line(without_newline).expect("what was written can be read").expect("and is a record");
    let mut expected = record.clone();
    if let (Record::Settled(expected), Record::Settled(again)) = (&mut expected, &again)
        && expected.billed_model.len() > again.billed_model.len()
        && expected.billed_model.starts_with(&*again.billed_model)
    {
        // It would have been longer than the room that is kept for it.
        expected.billed_model = again.billed_model.clone();
    }
    assert_eq!(again, expected);
    assert_eq!(again.line().expect("it can be written again"), line);
}

/// What a start does with what it finds.
fn is_used(record: &Record) {
    match record {
        Record::Admitted(admission) => {
            let settlement = admission.interrupted(UnixNanos::from_seconds(1_800_000_000));
            let nothing = Usage::default();
            admission.hold.held().counted(&admission.estimate, &nothing);
            for dimension in Dimension::ALL {
                admission.hold.units(dimension);
                settlement.used.units(dimension);
            }
            is_written_again(&Record::Settled(Box::new(settlement.clone())));
            let entry = Entry { admission: (**admission).clone(), settlement };
            entry.tariff();
            assert_eq!(entry.cost(), cost(&entry.admission.charges));
        }
        Record::Settled(settlement) => {
            settlement.usage.total();
            if cost(&settlement.charges).is_ok_and(|cost| cost.priced) {
                assert!(settlement.charges.iter().all(|charge| charge.price.is_some()));
            }
        }
    }
}
