//! The length of a clip, which is reserved before anybody has listened to it.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE},
};
use tollgate::openai::audio::AudioInput;

/// Of text with escapes no more than this is looked at.
const MAX_COPIED: usize = 1024 * 1024;

pub fn audio(file: &[u8]) {
    is_sound(&clip(file), file.len());
    let text = STANDARD.encode(file);
    let length = clip(text.as_bytes());
    is_sound(&length, file.len());
    if text.len() > MAX_COPIED {
        return;
    }
    let lines: Vec<_> = text.as_bytes().chunks(60).map(String::from_utf8_lossy).collect();
    for other in [
        STANDARD_NO_PAD.encode(file),
        URL_SAFE.encode(file),
        text.replace('/', "\\/"),
        text.replace('=', "\\u003d"),
        lines.join("\\r\\n"),
        lines.join(" "),
        format!("data:audio/wav;base64,{text}"),
        format!("data:audio\\/mp3;base64,{text}"),
    ] {
        assert_eq!(clip(other.as_bytes()), length, "{}", other.get(..80).unwrap_or(&other));
    }
    let mut both = AudioInput::default();
    both.add_clip(text.as_bytes());
    both.add_clip(text.as_bytes());
    assert_eq!((both.clips, both.tokens, both.millis), (2, 2 * length.tokens, 2 * length.millis));
}

fn clip(text: &[u8]) -> AudioInput {
    let mut audio = AudioInput::default();
    audio.add_clip(text);
    audio
}

/// Ten tokens a second, and no longer than one byte a second.
fn is_sound(audio: &AudioInput, bytes: usize) {
    assert_eq!((audio.clips, audio.tokens), (1, audio.millis / 100));
    assert!(audio.guessed_tokens == 0 || audio.guessed_tokens == audio.tokens);
    assert!(audio.millis <= bytes as u64 * 1_000, "{audio:?} of {bytes} bytes");
}
