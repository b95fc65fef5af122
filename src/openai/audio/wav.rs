//! The length of a wav file, from its chunks.

use super::{Length, encoded::Encoded};

/// Real files have a handful of chunks; one made of millions is not walked to its end.
const MAX_CHUNKS: usize = 1_000;

pub(super) fn is_wav(file: &Encoded<'_>) -> bool {
    let kind = file.bytes::<4>(0);
    (kind == Some(*b"RIFF") || kind == Some(*b"RF64")) && file.bytes::<4>(8) == Some(*b"WAVE")
}

/// The size of the whole file is not looked at: programs that write to a pipe cannot know it.
pub(super) fn length(file: &Encoded<'_>) -> Option<Length> {
    let (mut at, mut format) = (12_usize, None);
    for _ in 0..MAX_CHUNKS {
        let (name, size) = (file.bytes::<4>(at)?, file.le_u32(at.checked_add(4)?)?);
        at = at.checked_add(8)?;
        match &name {
            b"fmt " => format = Format::read(file, at),
            b"data" => return format?.length_of(present(file, at, size)),
            _ => {}
        }
        let size = usize::try_from(size).ok()?;
        at = at.checked_add(size)?.checked_add(size % 2)?;
    }
    None
}

/// Bytes of sound: what the chunk says, but not more than is there. 0 and `u32::MAX` mean that the writer did not know.
fn present(file: &Encoded<'_>, at: usize, size: u32) -> u64 {
    let there = file.len().saturating_sub(at) as u64;
    if size == 0 { there } else { there.min(u64::from(size)) }
}

struct Format {
    rate: u32,
    bytes_per_second: u32,
    block_bytes: u16,
    /// A block is one sample of each channel, as in everything but ADPCM.
    block_is_a_sample: bool,
}

impl Format {
    fn read(file: &Encoded<'_>, at: usize) -> Option<Self> {
        const ADPCM: [u16; 2] = [0x02, 0x11];
        let codec = file.le_u16(at)?;
        Some(Self {
            rate: file.le_u32(at.checked_add(4)?)?,
            bytes_per_second: file.le_u32(at.checked_add(8)?)?,
            block_bytes: file.le_u16(at.checked_add(12)?)?,
            block_is_a_sample: !ADPCM.contains(&codec),
        })
    }

    fn length_of(&self, bytes: u64) -> Option<Length> {
        if self.block_is_a_sample && self.block_bytes > 0 && self.rate > 0 {
            return Some(Length { samples: bytes / u64::from(self.block_bytes), rate: u64::from(self.rate) });
        }
        (self.bytes_per_second > 0).then(|| Length { samples: bytes, rate: u64::from(self.bytes_per_second) })
    }
}
