//! Values of response headers in OpenAI's format.

use crate::domain::{bucket::Headroom, limits::Headrooms};

/// A time span as Go prints it, cut to milliseconds: `0s`, `4ms`, `8.64s`, `6m0s`, `1h8m25.745s` (protocol facts d.1).
pub fn go_duration(nanos: u64) -> String {
    let millis = nanos / 1_000_000;
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let (hours, minutes, seconds, rest) =
        (millis / 3_600_000, millis / 60_000 % 60, millis / 1_000 % 60, millis % 1_000);
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:03}").trim_end_matches('0').to_owned() };
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, _) => format!("{minutes}m{seconds}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

/// The six `x-ratelimit-*` headers and, beyond `OpenAI`'s, three each for tokens and seconds of audio; those of an absent limit
/// are left out.
pub fn rate_limit(headrooms: &Headrooms) -> impl Iterator<Item = (&'static str, String)> {
    const REQUESTS: [&str; 3] =
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
    const TOKENS: [&str; 3] = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
    const AUDIO_TOKENS: [&str; 3] =
        ["x-ratelimit-limit-audio-tokens", "x-ratelimit-remaining-audio-tokens", "x-ratelimit-reset-audio-tokens"];
    const AUDIO_SECONDS: [&str; 3] =
        ["x-ratelimit-limit-audio-seconds", "x-ratelimit-remaining-audio-seconds", "x-ratelimit-reset-audio-seconds"];
    let headers = |names: [&'static str; 3], headroom: Headroom| {
        let Headroom { limit, remaining, reset_nanos } = headroom;
        names.into_iter().zip([limit.to_string(), remaining.to_string(), go_duration(reset_nanos)])
    };
    let requests = headrooms.requests.map(|headroom| headers(REQUESTS, headroom));
    let tokens = headrooms.tokens.map(|headroom| headers(TOKENS, headroom));
    let audio_tokens = headrooms.audio_tokens.map(|headroom| headers(AUDIO_TOKENS, headroom));
    let audio_seconds = headrooms.audio_seconds.map(|headroom| headers(AUDIO_SECONDS, headroom));
    requests.into_iter().chain(tokens).chain(audio_tokens).chain(audio_seconds).flatten()
}

/// `retry-after` in seconds and `retry-after-ms`, rounded up and at least 1: a client that waits as told finds room.
pub const fn retry_after(nanos: u64) -> (u64, u64) {
    const fn at_least_one(units: u64) -> u64 {
        if units == 0 { 1 } else { units }
    }
    (at_least_one(nanos.div_ceil(1_000_000_000)), at_least_one(nanos.div_ceil(1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_six_headers_are_those_recorded_on_the_seed_model() {
        let headroom =
            |limit, remaining, reset_ms: u64| Some(Headroom { limit, remaining, reset_nanos: reset_ms * 1_000_000 });
        let (requests, tokens) = (headroom(10_000, 9_999, 8_640), headroom(200_000, 199_984, 4));
        let headrooms = Headrooms { requests, tokens, ..Headrooms::default() };
        let headers: Vec<_> = rate_limit(&headrooms).collect();
        let expected = [
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-reset-requests", "8.64s"),
            ("x-ratelimit-limit-tokens", "200000"),
            ("x-ratelimit-remaining-tokens", "199984"),
            ("x-ratelimit-reset-tokens", "4ms"),
        ];
        assert_eq!(headers, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(rate_limit(&Headrooms { requests: None, ..headrooms }).count(), 3);
        let with_audio = Headrooms { audio_tokens: headroom(600, 531, 6_900), ..headrooms };
        let shown: Vec<_> = rate_limit(&with_audio).skip(6).map(|(name, value)| format!("{name}: {value}")).collect();
        let expected = ["limit-audio-tokens: 600", "remaining-audio-tokens: 531", "reset-audio-tokens: 6.9s"];
        assert_eq!(shown, expected.map(|header| format!("x-ratelimit-{header}")));
        let with_seconds = Headrooms { audio_seconds: headroom(60, 58, 1_584_000), ..headrooms };
        let shown: Vec<_> = rate_limit(&with_seconds).skip(6).map(|(name, value)| format!("{name}: {value}")).collect();
        let expected = ["limit-audio-seconds: 60", "remaining-audio-seconds: 58", "reset-audio-seconds: 26m24s"];
        assert_eq!(shown, expected.map(|header| format!("x-ratelimit-{header}")));
        assert_eq!(rate_limit(&Headrooms::default()).count(), 0);
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
