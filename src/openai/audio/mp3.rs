//! The length of an mp3 file: from the number of frames its first one tells, else by stepping over the frames.

use super::{Length, encoded::Encoded};

/// How much may stand before the first frame, or in a tag behind the last one.
const MAX_JUNK: usize = 64 * 1024;
const MAX_TAGS: usize = 8;
/// What follows after so many frames (13 minutes) is taken to be like what came before.
const MAX_STEPS: u64 = 30_000;
/// No frame is smaller or larger, so a number of frames outside is a lie.
const FRAME_BYTES: std::ops::RangeInclusive<u64> = 24..=1_729;

pub(super) fn length(file: &Encoded<'_>) -> Option<Length> {
    let start = after_tags(file);
    let end = start.saturating_add(MAX_JUNK).min(file.len());
    let (at, first) = (start..end).find_map(|at| Some((at, Frame::first(file, at)?)))?;
    let (tag_frames, walk_from) = match Tag::read(file, at, first) {
        Some(tag) => (tag.frames, at.checked_add(first.bytes)?),
        None => (None, at),
    };
    let bytes = file.len().saturating_sub(walk_from) as u64;
    let told = tag_frames
        .map(u64::from)
        .filter(|frames| bytes.checked_div(*frames).is_some_and(|mean| FRAME_BYTES.contains(&mean)));
    let samples = match told {
        Some(frames) => frames.checked_mul(first.samples)?,
        None => walk(file, walk_from, first),
    };
    (samples > 0).then_some(Length { samples, rate: first.rate })
}

/// The end of the `ID3v2` tags in front, which may hold a cover picture.
fn after_tags(file: &Encoded<'_>) -> usize {
    let mut at = 0_usize;
    for _ in 0..MAX_TAGS {
        let Some([b'I', b'D', b'3', _, _, flags, a, b, c, d]) = file.bytes::<10>(at) else { break };
        let size = [a, b, c, d].into_iter().fold(0_usize, |size, byte| size << 7 | usize::from(byte & 0x7F));
        let footer = if flags & 0x10 == 0 { 0 } else { 10 };
        at = at.saturating_add(10 + footer).saturating_add(size);
    }
    at
}

/// Samples in the frames from `start` on.
fn walk(file: &Encoded<'_>, start: usize, first: Frame) -> u64 {
    let (mut at, mut frames) = (start, 0_u64);
    while frames < MAX_STEPS {
        let Some(frame) = Frame::read(file, at).filter(|frame| frame.continues(first)) else { break };
        frames += 1;
        at = at.saturating_add(frame.bytes);
    }
    let (walked, rest) = (at.saturating_sub(start) as u64, file.len().saturating_sub(at) as u64);
    let is_tag = matches!(file.bytes::<3>(at), Some([b'T', b'A', b'G'] | [b'A', b'P', b'E']));
    let rest = if is_tag && rest <= MAX_JUNK as u64 { 0 } else { rest };
    let samples = frames.saturating_mul(first.samples);
    let more = u128::from(samples) * u128::from(rest) / u128::from(walked.max(1));
    samples.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
}

/// The header of a frame of MPEG layer III.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    version: u8,
    rate: u64,
    samples: u64,
    bytes: usize,
    mono: bool,
}

impl Frame {
    /// A header that is followed by another one or by the end: four bytes alone may be chance.
    fn first(file: &Encoded<'_>, at: usize) -> Option<Self> {
        let frame = Self::read(file, at)?;
        let next = at.checked_add(frame.bytes)?;
        let confirmed = next >= file.len() || Self::read(file, next).is_some_and(|next| next.continues(frame));
        confirmed.then_some(frame)
    }

    fn read(file: &Encoded<'_>, at: usize) -> Option<Self> {
        const MPEG1: u8 = 3;
        const RATES: [u64; 3] = [44_100, 48_000, 32_000];
        /// Kilobits per second.
        const MPEG1_BITRATES: [u64; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
        const MPEG2_BITRATES: [u64; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
        let [0xFF, kind, numbers, mode] = file.bytes::<4>(at)? else { return None };
        let (version, layer) = (kind >> 3 & 3, kind >> 1 & 3);
        if kind < 0xE0 || layer != 1 {
            return None;
        }
        let (bitrates, samples, halvings) = match version {
            MPEG1 => (MPEG1_BITRATES, 1_152, 0),
            2 => (MPEG2_BITRATES, 576, 1),
            0 => (MPEG2_BITRATES, 576, 2),
            _ => return None,
        };
        let bitrate = *bitrates.get(usize::from(numbers >> 4).checked_sub(1)?)?;
        let rate = *RATES.get(usize::from(numbers >> 2 & 3))? >> halvings;
        let padding = u64::from(numbers >> 1 & 1);
        let bytes = usize::try_from(samples / 8 * bitrate * 1_000 / rate + padding).ok()?;
        Some(Self { version, rate, samples, bytes, mono: mode >> 6 == 3 })
    }

    fn continues(self, first: Self) -> bool {
        self.version == first.version && self.rate == first.rate
    }

    /// Where a Xing or Info tag stands in the frame: after the side information.
    const fn tag_offset(self) -> usize {
        match (self.samples, self.mono) {
            (1_152, false) => 36,
            (1_152, true) | (_, false) => 21,
            _ => 13,
        }
    }
}

/// The first frame when it holds no sound but facts about the file.
struct Tag {
    frames: Option<u32>,
}

impl Tag {
    fn read(file: &Encoded<'_>, at: usize, first: Frame) -> Option<Self> {
        let xing = at.checked_add(first.tag_offset())?;
        if matches!(&file.bytes::<4>(xing)?, b"Xing" | b"Info") {
            let has_frames = file.be_u32(xing.checked_add(4)?)? & 1 == 1;
            return Some(Self { frames: if has_frames { file.be_u32(xing.checked_add(8)?) } else { None } });
        }
        let vbri = at.checked_add(36)?;
        let frames = || file.be_u32(vbri.checked_add(14)?);
        (file.bytes::<4>(vbri)? == *b"VBRI").then(|| Self { frames: frames() })
    }
}
