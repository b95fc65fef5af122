//! How long a clip is, read from the base64 it came in without decoding it whole.

/// The audio of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioInput {
    pub clips: u32,
    /// `floor(10 x seconds)` of each clip, as it is billed.
    pub tokens: u64,
    pub millis: u64,
}

impl AudioInput {
    /// `base64` as it stands between the quotes of the JSON string.
    pub fn add_clip(&mut self, base64: &[u8]) {
        self.clips = self.clips.saturating_add(1);
        let _ = base64;
    }
}
