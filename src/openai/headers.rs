//! Values of response headers in OpenAI's format.

use bytes::Bytes;

use crate::domain::{limits::Headrooms, time::UnixNanos};

/// All six values of `OpenAI`'s, with room to spare.
const USUAL_BYTES: usize = 96;

/// A time span as Go prints it, cut to milliseconds: `0s`, `4ms`, `8.64s`, `6m0s`, `1h8m25.745s` (protocol facts d.1).
pub fn go_duration(nanos: u64) -> String {
    let mut text = Vec::new();
    push_go_duration(nanos, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn push_go_duration(nanos: u64, text: &mut Vec<u8>) {
    let millis = nanos / 1_000_000;
    if (1..1_000).contains(&millis) {
        push_number(millis, text);
        return text.extend_from_slice(b"ms");
    }
    let (seconds, rest) = (millis / 1_000, millis % 1_000);
    if seconds >= 3_600 {
        push_number(seconds / 3_600, text);
        text.extend_from_slice(b"h");
    }
    if seconds >= 60 {
        push_number(seconds / 60 % 60, text);
        text.extend_from_slice(b"m");
    }
    push_number(seconds % 60, text);
    if rest > 0 {
        text.extend_from_slice(b".");
        // The thousand keeps its zeros in front.
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(1_000 + rest).trim_end_matches('0');
        text.extend_from_slice(digits.get(1..).unwrap_or_default().as_bytes());
    }
    text.extend_from_slice(b"s");
}

/// Several times faster than the formatter, for each answer.
fn push_number(number: u64, text: &mut Vec<u8>) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Shows the six `x-ratelimit-*` headers and, beyond `OpenAI`'s, three each for tokens and seconds of audio; those of an absent
/// limit are left out. The values share one buffer.
pub fn rate_limit(headrooms: &Headrooms, mut show: impl FnMut(&'static str, Bytes)) {
    const REQUESTS: [&str; 3] =
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
    const TOKENS: [&str; 3] = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
    const AUDIO_TOKENS: [&str; 3] =
        ["x-ratelimit-limit-audio-tokens", "x-ratelimit-remaining-audio-tokens", "x-ratelimit-reset-audio-tokens"];
    const AUDIO_SECONDS: [&str; 3] =
        ["x-ratelimit-limit-audio-seconds", "x-ratelimit-remaining-audio-seconds", "x-ratelimit-reset-audio-seconds"];
    let mut text = Vec::with_capacity(USUAL_BYTES);
    let mut ends = [[0; 3]; 4];
    let kinds = [
        (&REQUESTS, &headrooms.requests),
        (&TOKENS, &headrooms.tokens),
        (&AUDIO_TOKENS, &headrooms.audio_tokens),
        (&AUDIO_SECONDS, &headrooms.audio_seconds),
    ];
    for ((_, headroom), ends) in kinds.iter().zip(&mut ends) {
        if let Some(headroom) = headroom {
            push_number(headroom.limit.into(), &mut text);
            ends[0] = text.len();
            push_number(headroom.remaining.into(), &mut text);
            ends[1] = text.len();
            push_go_duration(headroom.reset_nanos, &mut text);
            ends[2] = text.len();
        }
    }
    let (text, mut start) = (Bytes::from(text), 0);
    for ((names, headroom), ends) in kinds.iter().zip(ends) {
        if headroom.is_some() {
            for (name, end) in names.iter().zip(ends) {
                show(name, text.slice(start..end));
                start = end;
            }
        }
    }
}

/// `retry-after` in seconds and `retry-after-ms`, rounded up and at least 1: a client that waits as told finds room.
pub const fn retry_after(nanos: u64) -> (u64, u64) {
    const fn at_least_one(units: u64) -> u64 {
        if units == 0 { 1 } else { units }
    }
    (at_least_one(nanos.div_ceil(1_000_000_000)), at_least_one(nanos.div_ceil(1_000_000)))
}

/// The longest time that an upstream may make our callers wait.
const LONGEST_WAIT_S: u64 = 3_600;

/// An upstream's `retry-after`, in seconds from now and between 1 and 3,600, whether it is a number or a date. What is
/// neither is `None`: clients then wait as they think best.
pub fn upstream_retry_after(value: &str, now: UnixNanos) -> Option<u64> {
    let seconds = match number(value) {
        Some(seconds) => seconds,
        None => {
            let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp().as_second();
            u64::try_from(at).unwrap_or(0).saturating_sub(now.seconds())
        }
    };
    Some(seconds.clamp(1, LONGEST_WAIT_S))
}

/// The same for `retry-after-ms`, of which a fraction does not count.
pub fn upstream_retry_after_ms(value: &str) -> Option<u64> {
    let whole = value.trim().split_once('.').map_or(value, |(whole, _)| whole);
    number(whole).map(|millis| millis.clamp(1, LONGEST_WAIT_S * 1_000))
}

/// Digits and nothing else; more than fit are as many as fit.
fn number(text: &str) -> Option<u64> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstreams_advice_to_wait_is_bounded_or_left_out() {
        let now = UnixNanos::from_seconds(784_111_777);
        for (value, expected) in [
            ("1", Some(1)),
            (" 20 ", Some(20)),
            ("0", Some(1)),
            ("1000000000", Some(3_600)),
            ("99999999999999999999999", Some(3_600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(1)),
            ("Sun, 06 Nov 2094 08:49:37 GMT", Some(3_600)),
            ("-5", None),
            ("1e9", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(upstream_retry_after(value, now), expected, "{value}");
        }
        for (value, expected) in [
            ("1500", Some(1_500)),
            ("1500.75", Some(1_500)),
            ("0", Some(1)),
            ("9000000000", Some(3_600_000)),
            ("-1", None),
            ("x", None),
            (".5", None),
        ] {
            assert_eq!(upstream_retry_after_ms(value), expected, "{value}");
        }
    }
    use crate::domain::bucket::Headroom;

    fn shown(headrooms: &Headrooms) -> Vec<String> {
        let mut shown = Vec::new();
        rate_limit(headrooms, |name, value| shown.push(format!("{name}: {}", String::from_utf8_lossy(&value))));
        shown
    }

    #[test]
    fn the_six_headers_are_those_recorded_on_the_seed_model() {
        let headroom =
            |limit, remaining, reset_ms: u64| Some(Headroom { limit, remaining, reset_nanos: reset_ms * 1_000_000 });
        let (requests, tokens) = (headroom(10_000, 9_999, 8_640), headroom(200_000, 199_984, 4));
        let headrooms = Headrooms { requests, tokens, ..Headrooms::default() };
        let headers = shown(&headrooms);
        let expected = [
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-reset-requests", "8.64s"),
            ("x-ratelimit-limit-tokens", "200000"),
            ("x-ratelimit-remaining-tokens", "199984"),
            ("x-ratelimit-reset-tokens", "4ms"),
        ];
        assert_eq!(headers, expected.map(|(name, value)| format!("{name}: {value}")));
        assert_eq!(shown(&Headrooms { requests: None, ..headrooms }), headers[3..]);
        let with_audio = Headrooms { audio_tokens: headroom(600, 531, 6_900), ..headrooms };
        let expected = ["limit-audio-tokens: 600", "remaining-audio-tokens: 531", "reset-audio-tokens: 6.9s"];
        assert_eq!(shown(&with_audio)[6..], expected.map(|header| format!("x-ratelimit-{header}")));
        let with_seconds = Headrooms { audio_seconds: headroom(60, 58, 1_584_000), ..headrooms };
        let expected = ["limit-audio-seconds: 60", "remaining-audio-seconds: 58", "reset-audio-seconds: 26m24s"];
        assert_eq!(shown(&with_seconds)[6..], expected.map(|header| format!("x-ratelimit-{header}")));
        assert_eq!(shown(&Headrooms::default()), [""; 0]);
    }

    #[test]
    fn waiting_times_round_up() {
        assert_eq!(retry_after(0), (1, 1));
        assert_eq!(retry_after(120_000_000), (1, 120));
        assert_eq!(retry_after(8_640_000_001), (9, 8_641));
        assert_eq!(retry_after(u64::MAX), (18_446_744_074, 18_446_744_073_710));
    }

    #[test]
    fn durations_print_as_recorded() {
        for (millis, text) in [
            (0, "0s"),
            (4, "4ms"),
            (120, "120ms"),
            (8_640, "8.64s"),
            (60_198, "1m0.198s"),
            (360_000, "6m0s"),
            (864_000, "14m24s"),
            (4_105_745, "1h8m25.745s"),
            (86_794_000, "24h6m34s"),
        ] {
            assert_eq!(go_duration(millis * 1_000_000), text);
        }
        assert_eq!(go_duration(999_999), "0s");
    }
}
