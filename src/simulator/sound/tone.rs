//! A small melody as 24 kHz mono samples, by integer arithmetic only: sample `i` depends on nothing but `i`.

pub(super) const SAMPLE_RATE: u64 = 24_000;

/// A quarter of a second each.
const NOTE_SAMPLES: u64 = SAMPLE_RATE / 4;
const ATTACK_SAMPLES: u64 = 240;
const LOUDNESS: i64 = 7_000;
/// A pentatonic tune, in hertz; it wanders for four seconds and starts again.
const TUNE: [u64; 16] = [392, 440, 523, 587, 659, 587, 523, 440, 392, 523, 659, 784, 659, 587, 523, 392];

const TURN: u64 = 1 << 16;
const HALF_TURN: i64 = 1 << 15;

pub(super) fn sample(index: u64) -> i16 {
    let (note, at) = (index / NOTE_SAMPLES % TUNE.len() as u64, index % NOTE_SAMPLES);
    let phase = TUNE.get(usize::try_from(note).unwrap_or(0)).copied().unwrap_or(0) * at * TURN / SAMPLE_RATE;
    // An octave and a soft twelfth above make it sound like a bell, not like a telephone.
    let wave = sine(phase) * 6 + sine(phase * 2) * 2 + sine(phase * 3);
    let rise = at.min(ATTACK_SAMPLES);
    let fall = NOTE_SAMPLES - at;
    let envelope = i64::try_from(rise * fall).unwrap_or(0);
    let whole = i64::try_from(ATTACK_SAMPLES * NOTE_SAMPLES).unwrap_or(1);
    i16::try_from(wave * LOUDNESS / 9 / 32_768 * envelope / whole).unwrap_or(0)
}

/// Bhaskara's fraction: a sine from -32768 to 32768 for a turn of 65536, right to a sixth of a percent.
fn sine(phase: u64) -> i64 {
    let turn = i64::try_from(phase % TURN).unwrap_or(0);
    let (half, sign) = if turn < HALF_TURN { (turn, 1) } else { (turn - HALF_TURN, -1) };
    let product = half * (HALF_TURN - half);
    let five_fourths = HALF_TURN * HALF_TURN / 4 * 5;
    sign * (product * 4 * 32_768 / (five_fourths - product))
}
