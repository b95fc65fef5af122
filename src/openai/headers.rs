//! Values of response headers in OpenAI's format.

use bytes::Bytes;

use crate::domain::{limits::Headrooms, time::UnixNanos};

/// The longest is `5124095h34m33.709s`.
const MAX_DURATION_BYTES: usize = 24;

/// A time span as Go prints it, cut to milliseconds: `0s`, `4ms`, `8.64s`, `6m0s`, `1h8m25.745s` (protocol facts d.1).
pub fn go_duration(nanos: u64) -> String {
    String::from_utf8_lossy(GoDuration::new(nanos).as_bytes()).into_owned()
}

/// Written from its end, digit by digit: several times faster than the formatter, for each answer.
struct GoDuration {
    bytes: [u8; MAX_DURATION_BYTES],
    start: usize,
}

impl GoDuration {
    fn new(nanos: u64) -> Self {
        let millis = nanos / 1_000_000;
        let mut text = Self { bytes: [0; MAX_DURATION_BYTES], start: MAX_DURATION_BYTES };
        text.put(b's');
        if (1..1_000).contains(&millis) {
            text.put(b'm');
            text.put_number(millis);
            return text;
        }
        let (seconds, rest) = (millis / 1_000, millis % 1_000);
        if rest > 0 {
            text.put_fraction(rest);
        }
        text.put_number(seconds % 60);
        if seconds >= 60 {
            text.put(b'm');
            text.put_number(seconds / 60 % 60);
        }
        if seconds >= 3_600 {
            text.put(b'h');
            text.put_number(seconds / 3_600);
        }
        text
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn put(&mut self, byte: u8) {
        self.start = self.start.saturating_sub(1);
        if let Some(place) = self.bytes.get_mut(self.start) {
            *place = byte;
        }
    }

    fn put_number(&mut self, mut number: u64) {
        loop {
            self.put(b'0' + (number % 10) as u8);
            number /= 10;
            if number == 0 {
                return;
            }
        }
    }

    /// Thousandths, without the zeros at their end.
    fn put_fraction(&mut self, thousandths: u64) {
        let (mut digits, mut rest) = (3, thousandths);
        while rest.is_multiple_of(10) {
            (digits, rest) = (digits - 1, rest / 10);
        }
        for _ in 0..digits {
            self.put(b'0' + (rest % 10) as u8);
            rest /= 10;
        }
        self.put(b'.');
    }
}

type Names = [&'static str; 3];

/// Shows the six `x-ratelimit-*` headers and, beyond `OpenAI`'s, three each for tokens and seconds of audio; those of an absent
/// limit are left out.
pub fn rate_limit(headrooms: &Headrooms, mut show: impl FnMut(&'static str, Bytes)) {
    const REQUESTS: Names =
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
    const TOKENS: Names = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
    const AUDIO_TOKENS: Names =
        ["x-ratelimit-limit-audio-tokens", "x-ratelimit-remaining-audio-tokens", "x-ratelimit-reset-audio-tokens"];
    const AUDIO_SECONDS: Names =
        ["x-ratelimit-limit-audio-seconds", "x-ratelimit-remaining-audio-seconds", "x-ratelimit-reset-audio-seconds"];
    let kinds = [
        (&REQUESTS, &headrooms.requests),
        (&TOKENS, &headrooms.tokens),
        (&AUDIO_TOKENS, &headrooms.audio_tokens),
        (&AUDIO_SECONDS, &headrooms.audio_seconds),
    ];
    for ([limit, remaining, reset], headroom) in kinds {
        let Some(headroom) = headroom else { continue };
        show(limit, number(headroom.limit));
        show(remaining, number(headroom.remaining));
        show(reset, copied(GoDuration::new(headroom.reset_nanos).as_bytes()));
    }
}

fn number(number: u32) -> Bytes {
    copied(itoa::Buffer::new().format(number).as_bytes())
}

/// Memory of its own for each value: to count who shares some takes longer than to copy these few bytes.
fn copied(text: &[u8]) -> Bytes {
    Box::<[u8]>::from(text).into()
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
    let seconds = match digits(value) {
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
    digits(whole).map(|millis| millis.clamp(1, LONGEST_WAIT_S * 1_000))
}

/// Digits and nothing else; more than fit are as many as fit.
fn digits(text: &str) -> Option<u64> {
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
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(3_600)),
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
        assert_eq!(go_duration(u64::MAX), "5124095h34m33.709s");
        for (millis, text) in [(1_001, "1.001s"), (1_010, "1.01s"), (1_100, "1.1s"), (999, "999ms"), (60_000, "1m0s")] {
            assert_eq!(go_duration(millis * 1_000_000), text);
        }
    }
}
