//! Ids and padding: random to look at, drawn from one counter, never repeated within a process.

use std::sync::atomic::{AtomicU64, Ordering};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789Aa";
const HEX: &[u8; 16] = b"0123456789abcdef";
/// The step of splitmix64, which spreads consecutive numbers over the whole range.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Debug)]
pub(super) struct Ids {
    next: AtomicU64,
}

/// A short-lived source of letters for one answer.
#[derive(Clone, Debug)]
pub(super) struct Letters(u64);

impl Ids {
    pub(super) const fn starting_at(seed: u64) -> Self {
        Self { next: AtomicU64::new(seed) }
    }

    pub(super) fn draw(&self) -> Letters {
        Letters(mix(self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Letters {
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    pub(super) fn hex(&mut self, length: usize, out: &mut Vec<u8>) {
        self.spread(length, 4, |bits| HEX.get(bits & 15).copied().unwrap_or(b'0'), out);
    }

    pub(super) fn text(&mut self, length: usize, out: &mut Vec<u8>) {
        self.spread(length, 6, |bits| ALPHABET.get(bits & 63).copied().unwrap_or(b'0'), out);
    }

    fn spread(&mut self, length: usize, bits_each: u32, letter: impl Fn(usize) -> u8, out: &mut Vec<u8>) {
        let (mut bits, mut left) = (0_u64, 0_u32);
        for _ in 0..length {
            if left < bits_each {
                (bits, left) = (self.number(), u64::BITS);
            }
            out.push(letter((bits & 63) as usize));
            bits >>= bits_each;
            left -= bits_each;
        }
    }
}

const fn mix(number: u64) -> u64 {
    let a = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    b ^ (b >> 31)
}
