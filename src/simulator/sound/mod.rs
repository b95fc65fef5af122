//! Audio answers that play, of exactly the length their tokens say.

mod clips;
mod tone;

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::ids::Letters;

pub(super) use self::clips::clip;

/// 50 ms of samples, the length of one token.
const TOKEN_SAMPLES: u64 = tone::SAMPLE_RATE / 20;
const TOKEN_BYTES: u64 = TOKEN_SAMPLES * 2;
/// Base64 of one token; whole, because 2400 bytes are a multiple of three.
pub(super) const TOKEN_CHARACTERS: usize = 3_200;
/// The first answer makes ten seconds at once.
const FIRST_TOKENS: u64 = 200;
/// Answers name their audio for an hour and a second.
pub(super) const LIFETIME_SECONDS: u64 = 3_601;

/// The melody in base64, made once and shared by all answers; any number of tokens is a prefix of it.
#[derive(Debug, Default)]
pub(super) struct Melody(Mutex<Bytes>);

impl Melody {
    /// Base64 of raw 24 kHz mono 16-bit samples.
    pub(super) fn pcm16(&self, tokens: u64) -> Bytes {
        let length = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(TOKEN_CHARACTERS);
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() < length {
            *made = synthesise(tokens.next_power_of_two().max(FIRST_TOKENS)).into();
        }
        made.slice(..length)
    }

    /// A wav file: a head of its own, then the same samples. 78 bytes of head, a multiple of three, keep the base64 whole.
    pub(super) fn wav(&self, tokens: u64) -> [Bytes; 2] {
        [STANDARD.encode(wav_head(tokens)).into(), self.pcm16(tokens)]
    }
}

fn synthesise(tokens: u64) -> String {
    let mut bytes = Vec::with_capacity(usize::try_from(tokens * TOKEN_BYTES).unwrap_or(0));
    for index in 0..tokens * TOKEN_SAMPLES {
        bytes.extend_from_slice(&tone::sample(index).to_le_bytes());
    }
    STANDARD.encode(bytes)
}

fn wav_head(tokens: u64) -> Vec<u8> {
    const CHANNELS: u16 = 1;
    const BITS: u16 = 16;
    const HEAD_AFTER_SIZE: u32 = 70;
    let data = u32::try_from(tokens * TOKEN_BYTES).unwrap_or(u32::MAX - HEAD_AFTER_SIZE);
    let rate = u32::try_from(tone::SAMPLE_RATE).unwrap_or(0);
    let mut head = Vec::with_capacity(78);
    head.extend_from_slice(b"RIFF");
    head.extend_from_slice(&(data + HEAD_AFTER_SIZE).to_le_bytes());
    head.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0");
    head.extend_from_slice(&CHANNELS.to_le_bytes());
    head.extend_from_slice(&rate.to_le_bytes());
    head.extend_from_slice(&(rate * 2).to_le_bytes());
    head.extend_from_slice(&(BITS / 8).to_le_bytes());
    head.extend_from_slice(&BITS.to_le_bytes());
    head.extend_from_slice(b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Tollgate sim\0\0data");
    head.extend_from_slice(&data.to_le_bytes());
    head
}

/// `audio_`, the creation time as the recordings have it, random digits, the token count and a check of it all: so that a
/// later request can be billed for it, by any simulator.
pub(super) fn audio_id(created: u64, tokens: u64, letters: &mut Letters) -> String {
    let mut id = Vec::with_capacity(38);
    // Writing into memory cannot fail.
    let _ = write!(id, "{:08x}", created & 0xFFFF_FFFF);
    letters.hex(10, &mut id);
    let _ = write!(id, "{:06x}", tokens & 0xFF_FFFF);
    let check = crc32fast::hash(&id);
    format!("audio_{}{check:08x}", String::from_utf8_lossy(&id))
}

/// What a replayed answer costs: its own tokens again. `None` when it never was, or is no more.
pub(super) fn replayed_tokens(id: &str, now: u64) -> Option<u64> {
    let hex = id.strip_prefix("audio_").filter(|hex| hex.len() == 32 && hex.is_ascii())?;
    let number = |range| u64::from_str_radix(hex.get(range)?, 16).ok();
    let genuine = number(24..32)? == u64::from(crc32fast::hash(hex.as_bytes().get(..24)?));
    let alive = number(0..8)? + LIFETIME_SECONDS > now & 0xFFFF_FFFF;
    (genuine && alive).then(|| number(18..24))?
}
