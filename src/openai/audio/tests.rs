use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;

fn input(file: &[u8]) -> AudioInput {
    let mut audio = AudioInput::default();
    audio.add_clip(STANDARD.encode(file).as_bytes());
    audio
}

fn chunk(name: [u8; 4], size: u32, bytes: &[u8]) -> Vec<u8> {
    [name.as_slice(), &size.to_le_bytes(), bytes].concat()
}

/// 16 kHz, mono, 16 bit; `size` is what the data chunk says about its length.
fn wav(seconds_tenths: usize, size: Option<u32>) -> Vec<u8> {
    let sound = vec![0; seconds_tenths * 3_200];
    let size = size.unwrap_or(u32::try_from(sound.len()).unwrap());
    let mut format = Vec::new();
    for (value, bytes) in [(1_u32, 2), (1, 2), (16_000, 4), (32_000, 4), (2, 2), (16, 2)] {
        format.extend_from_slice(&value.to_le_bytes()[..bytes]);
    }
    let chunks = [chunk(*b"fmt ", 16, &format), chunk(*b"LIST", 3, b"abc\0"), chunk(*b"data", size, &sound)].concat();
    [chunk(*b"RIFF", u32::MAX, b"WAVE"), chunks].concat()
}

/// MPEG1, 44.1 kHz, 128 kbit/s, stereo: 417 bytes and 1152 samples each.
fn mp3_frames(count: usize) -> Vec<u8> {
    [[0xFF, 0xFB, 0x90, 0x00].as_slice(), &[0; 413]].concat().repeat(count)
}

fn mp3_with_tag(name: [u8; 4], at: usize, frames_at: usize, frames: u32) -> Vec<u8> {
    let mut first = mp3_frames(1);
    first[at..at + 4].copy_from_slice(&name);
    first[at + 7] = 1;
    first[at + frames_at..at + frames_at + 4].copy_from_slice(&frames.to_be_bytes());
    first
}

#[test]
fn wav_is_as_long_as_its_data_chunk() {
    assert_eq!(input(&wav(37, None)), AudioInput { clips: 1, tokens: 37, guessed_tokens: 0, millis: 3_700 });
}

#[test]
fn wav_written_to_a_pipe_is_as_long_as_what_is_there() {
    for size in [0, u32::MAX, 1 << 31] {
        assert_eq!(input(&wav(37, Some(size))).tokens, 37);
    }
    assert_eq!(input(&wav(37, Some(3_200))).tokens, 1);
}

#[test]
fn mp3_without_a_tag_is_stepped_through() {
    // 100 x 1152 / 44100 = 2.612 s
    let expected = AudioInput { clips: 1, tokens: 26, guessed_tokens: 0, millis: 2_612 };
    assert_eq!(input(&mp3_frames(100)), expected);
    let id3 = [b"ID3\x04\0\0\0\0\x02\x01".as_slice(), &[0xFF; 257]].concat();
    assert_eq!(input(&[id3, mp3_frames(100)].concat()), expected);
    let with_tag_behind = [mp3_frames(100), [b"TAG".as_slice(), &[b' '; 125]].concat()].concat();
    assert_eq!(input(&with_tag_behind), expected);
}

#[test]
fn frames_told_by_a_tag_are_believed_when_they_can_be() {
    for (name, at, frames_at) in [(*b"Xing", 36, 8), (*b"Info", 36, 8), (*b"VBRI", 36, 14)] {
        let file = [mp3_with_tag(name, at, frames_at, 120), mp3_frames(100)].concat();
        assert_eq!(input(&file).millis, 120 * 1_152_000 / 44_100);
        for lie in [0, 1, u32::MAX] {
            let file = [mp3_with_tag(name, at, frames_at, lie), mp3_frames(100)].concat();
            assert_eq!(input(&file).millis, 2_612, "{lie} frames");
        }
    }
}

#[test]
fn what_is_behind_damage_counts_like_what_is_before() {
    let file = [mp3_frames(50), vec![0; 417 * 50]].concat();
    assert_eq!(input(&file).millis, 2_612);
}

#[test]
fn a_tag_does_not_hide_the_sound_behind_it() {
    let hiding = [mp3_frames(2), b"TAG".to_vec(), mp3_frames(398)].concat();
    assert_eq!(input(&hiding).millis / 10, 400 * 115_200 / 44_100);
}

#[test]
fn unknown_audio_counts_its_bytes_at_16_kbit_per_second() {
    let unknown = [b"fLaC".to_vec(), vec![0; 19_996]].concat();
    assert_eq!(input(&unknown), AudioInput { clips: 1, tokens: 100, guessed_tokens: 100, millis: 10_000 });
    assert_eq!(input(b""), AudioInput { clips: 1, ..AudioInput::default() });
    assert_eq!(input(&wav(5, None)[..30]).millis, 15);
}

#[test]
fn what_is_guessed_of_a_request_is_told_apart_from_what_is_read() {
    let mut audio = AudioInput::default();
    for clip in [wav(37, None), [b"fLaC".to_vec(), vec![0; 19_996]].concat(), mp3_frames(100)] {
        audio.add_clip(STANDARD.encode(clip).as_bytes());
    }
    assert_eq!((audio.clips, audio.tokens, audio.guessed_tokens), (3, 37 + 100 + 26, 100));
}

#[test]
fn clips_round_down_one_by_one() {
    let mut audio = AudioInput::default();
    let clip = STANDARD.encode(&wav(2, None)[..56 + 4_800]);
    audio.add_clip(clip.as_bytes());
    audio.add_clip(clip.as_bytes());
    assert_eq!(audio, AudioInput { clips: 2, tokens: 2, guessed_tokens: 0, millis: 300 });
}

#[test]
fn escaped_slashes_and_data_urls_change_nothing() {
    let text = STANDARD.encode(mp3_frames(100)).replace('/', "\\/");
    assert!(text.contains("\\/"));
    for text in [text.clone(), format!("data:audio\\/mpeg;base64,{text}")] {
        let mut audio = AudioInput::default();
        audio.add_clip(text.as_bytes());
        assert_eq!(audio.millis, 2_612);
    }
}

#[test]
fn of_long_audio_with_escapes_only_the_beginning_is_needed() {
    let (wav, mp3) = (wav(4_000, None), mp3_frames(6_000));
    for (file, millis) in [(wav, 400_000), (mp3, 156_734)] {
        // Escapes in front, so that the text has to be copied, and the padding stays at its end.
        let text = format!("data:audio\\/any;base64,{}", STANDARD.encode(file));
        let mut audio = AudioInput::default();
        audio.add_clip(text.as_bytes());
        assert_eq!(audio.millis, millis);
    }
}

proptest! {
    #[test]
    fn any_bytes_have_a_length(kind in 0_u8..4, bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0_usize..600) {
        let head = match kind {
            0 => wav(1, None),
            1 => mp3_with_tag(*b"Xing", 36, 8, 7),
            2 => b"ID3\x04\0\x10\x7F\x7F\x7F\x7F".to_vec(),
            _ => Vec::new(),
        };
        let mut file = [head, bytes].concat();
        file.truncate(cut);
        let audio = input(&file);
        prop_assert!(audio.tokens <= audio.millis / 100);
    }

    #[test]
    fn any_text_has_a_length(text in "\\PC{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        AudioInput::default().add_clip(text.as_bytes());
        AudioInput::default().add_clip(&bytes);
    }
}
