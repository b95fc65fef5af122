//! Values of response headers in OpenAI's format.

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

#[cfg(test)]
mod tests {
    use super::*;

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
