//! One record is one line: `["<crc32 as 8 hex digits>",{"admitted":{...}}]`, the checksum over the inner JSON.

use serde::{Deserialize, Serialize};

use crate::domain::{
    ids::hex_letter,
    ledger::{Admission, Settlement},
    limits::Audio,
};

/// What a reader of the journal gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Admitted(Box<Admission>),
    Settled(Box<Settlement>),
}

/// Room kept for the settlement of each open admission; a test holds the largest one against it.
pub(super) const MAX_SETTLEMENT_BYTES: usize = 2_048;
pub(super) const MAX_ADMISSION_BYTES: usize = 16_384;
/// A name longer than this is cut when its settlement would not fit otherwise.
const MAX_NAME_BYTES: usize = 64;

const FRAME_START: &[u8] = b"[\"00000000\",";
const FRAME_END: &[u8] = b"]\n";

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LineRef<'a> {
    Admitted(&'a Admission),
    Settled(&'a Settlement),
    Continues(Continues),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Admitted(Box<Admission>),
    Settled(Box<Settlement>),
    Continues(Continues),
    #[serde(skip)]
    Blank,
}

impl Line {
    /// What of it the projector wants.
    pub(super) fn record(self) -> Option<Record> {
        match self {
            Self::Admitted(admission) => Some(Record::Admitted(admission)),
            Self::Settled(settlement) => Some(Record::Settled(settlement)),
            Self::Continues(_) | Self::Blank => None,
        }
    }
}

/// One line at a time, without a journal around it: tests feed it anything.
#[doc(hidden)]
impl Record {
    /// `line` is given without its newline; `None` when it holds no request.
    pub fn read_line(line: &[u8]) -> Result<Option<Self>, &'static str> {
        decode(line).map(Line::record)
    }

    /// With its newline.
    pub fn line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = Vec::new();
        match self {
            Self::Admitted(admission) => encode(&mut line, &LineRef::Admitted(admission))?,
            Self::Settled(settlement) => encode_settled(&mut line, settlement)?,
        }
        Ok(line)
    }
}

/// First line of a segment: where the one before it ended, so that a lost end is noticed and garbage past it is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Continues {
    pub segment: u64,
    pub bytes: u64,
}

/// Replaces the content of `line` with the record, newline included.
pub(super) fn encode(line: &mut Vec<u8>, record: &LineRef<'_>) -> Result<(), serde_json::Error> {
    line.clear();
    line.extend_from_slice(FRAME_START);
    serde_json::to_writer(&mut *line, record)?;
    let checksum = crc32fast::hash(line.get(FRAME_START.len()..).unwrap_or_default());
    let digits = checksum.to_be_bytes().into_iter().flat_map(|byte| [byte >> 4, byte]);
    for (place, digit) in line.iter_mut().skip(2).zip(digits) {
        *place = hex_letter(digit);
    }
    line.extend_from_slice(FRAME_END);
    Ok(())
}

pub(super) fn encode_settled(line: &mut Vec<u8>, settlement: &Settlement) -> Result<(), serde_json::Error> {
    encode(line, &LineRef::Settled(settlement))?;
    if line.len() > MAX_SETTLEMENT_BYTES {
        let cut = settlement.billed_model.floor_char_boundary(MAX_NAME_BYTES);
        let billed_model = settlement.billed_model.get(..cut).unwrap_or_default().into();
        encode(line, &LineRef::Settled(&Settlement { billed_model, ..settlement.clone() }))?;
    }
    Ok(())
}

/// Reads one line, given without its newline.
pub(super) fn decode(line: &[u8]) -> Result<Line, &'static str> {
    if line.iter().all(|byte| *byte == b' ') {
        return Ok(Line::Blank);
    }
    let (checksum, json) = unframe(line).ok_or("the line is not a record")?;
    if crc32fast::hash(json) != checksum {
        return Err("the checksum does not match");
    }
    let mut record = serde_json::from_slice(json).map_err(|_| "this version does not know such a record")?;
    if let Line::Settled(settlement) = &mut record {
        settlement.used.audio = Audio::of(&settlement.usage);
    }
    Ok(record)
}

fn unframe(line: &[u8]) -> Option<(u32, &[u8])> {
    let (hex, rest) = line.strip_prefix(b"[\"")?.split_at_checked(8)?;
    let lower_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let hex = str::from_utf8(hex).ok().filter(|hex| hex.as_bytes().iter().all(lower_hex))?;
    let json = rest.strip_prefix(b"\",")?.strip_suffix(b"]")?;
    Some((u32::from_str_radix(hex, 16).ok()?, json))
}
