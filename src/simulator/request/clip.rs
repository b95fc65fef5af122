//! The length of a clip of input audio, from its base64. Deliberately not the gateway's own reader (`openai::audio`): the
//! two are compared by tests, and the upstream must not repeat the gateway's mistakes.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Enough for any header that precedes the samples of a wav file.
const WAV_HEAD_CHARACTERS: usize = 64 * 1024;

/// Tokens of one clip: ten per second, rounded down. `None` when it is not audio of that format.
pub(super) fn tokens(data: &str, format: &str) -> Option<u64> {
    match format {
        "wav" => wav_tokens(data),
        "mp3" => mp3_tokens(&STANDARD.decode(data).ok()?),
        _ => None,
    }
}

fn wav_tokens(data: &str) -> Option<u64> {
    let padding = data.len() - data.trim_end_matches('=').len();
    let length = (data.len() / 4 * 3).checked_sub(padding)?;
    let head = STANDARD.decode(data.as_bytes().get(..data.len().min(WAV_HEAD_CHARACTERS))?).ok()?;
    if head.get(..4)? != b"RIFF" || head.get(8..12)? != b"WAVE" {
        return None;
    }
    let (mut at, mut bytes_per_second) = (12, 0_u64);
    loop {
        let name = head.get(at..at + 4)?;
        let size = u32::from_le_bytes(head.get(at + 4..at + 8)?.try_into().ok()?);
        let size = usize::try_from(size).ok()?;
        at += 8;
        match name {
            b"fmt " => bytes_per_second = u32::from_le_bytes(head.get(at + 8..at + 12)?.try_into().ok()?).into(),
            // A writer that did not know the length yet leaves the largest number there.
            b"data" => return ((size.min(length - at) as u64) * 10).checked_div(bytes_per_second),
            _ => {}
        }
        at = at.checked_add(size)?.checked_add(size % 2)?;
    }
}

/// Adds up the frames: exact for constant and variable rates alike.
fn mp3_tokens(bytes: &[u8]) -> Option<u64> {
    let mut at = id3_length(bytes)?;
    let (mut samples, mut sample_rate) = (0_u64, 0_u64);
    while let Some(frame) = bytes.get(at..at + 4).and_then(Frame::read) {
        samples += frame.samples;
        sample_rate = frame.sample_rate;
        at += frame.length;
    }
    (samples * 10).checked_div(sample_rate)
}

/// Bytes of a leading `ID3v2` tag, whose size is written seven bits a byte.
fn id3_length(bytes: &[u8]) -> Option<usize> {
    if bytes.get(..3)? != b"ID3" {
        return Some(0);
    }
    let size = bytes.get(6..10)?.iter().fold(0_usize, |size, byte| (size << 7) | usize::from(byte & 0x7F));
    Some(size + 10)
}

struct Frame {
    samples: u64,
    sample_rate: u64,
    length: usize,
}

impl Frame {
    /// Layer III of MPEG 1, 2 and 2.5.
    fn read(head: &[u8]) -> Option<Self> {
        const RATES: [u64; 3] = [44_100, 48_000, 32_000];
        const KILOBITS_1: [usize; 16] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0];
        const KILOBITS_2: [usize; 16] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0];
        let [sync, kind, rates, _] = *head else { return None };
        if sync != 0xFF || kind & 0xE6 != 0xE2 {
            return None;
        }
        let divisor: usize = match kind >> 3 & 3 {
            3 => 1,
            2 => 2,
            0 => 4,
            _ => return None,
        };
        let sample_rate = RATES.get(usize::from(rates >> 2 & 3))? / divisor as u64;
        let (kilobits, slots) = if divisor == 1 { (KILOBITS_1, 144_000) } else { (KILOBITS_2, 72_000) };
        let kilobits = *kilobits.get(usize::from(rates >> 4))?;
        if kilobits == 0 {
            return None;
        }
        let padding = usize::from(rates >> 1 & 1);
        let length = slots * kilobits / usize::try_from(sample_rate).ok()? + padding;
        Some(Self { samples: slots as u64 / 125, sample_rate, length })
    }
}
