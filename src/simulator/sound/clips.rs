//! Answers in compressed formats: short clips of the same melody, made with the usual encoders (see `clips/README.md`).

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

/// A clip and what it costs: 20 tokens for each second it plays.
pub(in crate::simulator) struct Clip {
    format: &'static str,
    pub(in crate::simulator) tokens: u64,
    pub(in crate::simulator) base64: LazyLock<Bytes>,
}

macro_rules! clip {
    ($format:literal, $tokens:literal, $file:literal) => {
        Clip {
            format: $format,
            tokens: $tokens,
            base64: LazyLock::new(|| STANDARD.encode(include_bytes!(concat!("../clips/", $file))).into()),
        }
    };
}

static CLIPS: [Clip; 4] = [
    clip!("mp3", 36, "melody.mp3"),
    clip!("opus", 40, "melody.opus"),
    clip!("flac", 16, "melody.flac"),
    clip!("aac", 64, "melody.aac"),
];

pub(in crate::simulator) fn clip(format: &str) -> Option<&'static Clip> {
    CLIPS.iter().find(|clip| clip.format == format)
}
