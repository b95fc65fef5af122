use super::super::{record::*, samples::*};
use crate::domain::{
    ids::RequestId,
    ledger::{Outcome, Settlement, Used},
    limits::Audio,
    money::Money,
    pricing::{Charge, ServiceTier},
    time::UnixNanos,
    usage::{Basis, LineItem, Usage},
};

fn line(record: &LineRef<'_>) -> Vec<u8> {
    let mut line = b"left over".to_vec();
    encode(&mut line, record).unwrap();
    line
}

#[test]
fn a_record_is_one_line_of_json_that_reads_back() {
    let admission = admission(1);
    let line = line(&LineRef::Admitted(&admission));
    let (newline, json) = line.split_last().unwrap();
    assert_eq!((*newline, json.contains(&b'\n')), (b'\n', false));
    let (checksum, record): (String, serde_json::Value) = serde_json::from_slice(json).unwrap();
    assert_eq!(checksum.len(), 8);
    assert_eq!(record["admitted"]["model"], "gpt-4o-audio-preview");
    assert!(matches!(decode(json), Ok(Line::Admitted(read)) if *read == admission));

    let settlement = settlement(&admission);
    let line = self::line(&LineRef::Settled(&settlement));
    assert!(matches!(decode(&line[..line.len() - 1]), Ok(Line::Settled(read)) if *read == settlement));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let line = line(&LineRef::Settled(&settlement(&admission(1))));
    let json = &line[..line.len() - 1];
    for index in 0..json.len() {
        for bit in 0..8 {
            let mut damaged = json.to_vec();
            damaged[index] ^= 1 << bit;
            assert!(decode(&damaged).is_err(), "byte {index} bit {bit}");
        }
    }
}

#[test]
fn the_largest_settlement_fits_the_room_that_is_kept_for_it() {
    let usage = LineItem::ALL.into_iter().fold(Usage::default(), |usage, item| usage.with(item, u64::MAX));
    let price = Some(Money::from_pico(i64::MIN));
    let charges = usage.items().map(|(line_item, quantity)| Charge { line_item, quantity, price }).collect();
    let mut largest = Settlement {
        request_id: RequestId::new(0, u128::MAX),
        settled_at: UnixNanos(u64::MAX),
        outcome: Outcome::UpstreamFailed,
        basis: Basis::Estimated,
        status: u16::MAX,
        billed_model: "\u{1}".repeat(64).into(),
        service_tier: ServiceTier::Priority,
        prices_from: Some(UnixNanos(u64::MAX)),
        usage,
        charges,
        used: Used { request: false, tokens: u64::MAX, audio: Audio::of(&usage), held_audio: None },
    };
    let mut line = Vec::new();
    encode_settled(&mut line, &largest).unwrap();
    assert!(line.len() <= MAX_SETTLEMENT_BYTES, "{}", line.len());
    assert!(matches!(decode(&line[..line.len() - 1]), Ok(Line::Settled(read)) if *read == largest));

    // Only what is estimated tells its hold, and an estimate has fewer line items.
    let estimated = [LineItem::InputText, LineItem::InputAudio, LineItem::OutputText, LineItem::OutputAudio];
    let mut interrupted = Settlement {
        usage: estimated.into_iter().fold(Usage::default(), |usage, item| usage.with(item, u64::MAX)),
        ..largest.clone()
    };
    interrupted.charges.retain(|charge| estimated.contains(&charge.line_item));
    interrupted.used.held_audio = Some(Audio { input: u64::MAX, output: u64::MAX });
    encode_settled(&mut line, &interrupted).unwrap();
    assert!(line.len() <= MAX_SETTLEMENT_BYTES, "{}", line.len());
    assert!(matches!(decode(&line[..line.len() - 1]), Ok(Line::Settled(read)) if *read == interrupted));

    largest.billed_model = "é".repeat(4_000).into();
    encode_settled(&mut line, &largest).unwrap();
    assert!(line.len() <= MAX_SETTLEMENT_BYTES, "a name is cut before a settlement is lost");
}
