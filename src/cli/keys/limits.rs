//! What a key can narrow: as options, in the body of a request, and in a table.

use clap::{Args, builder::RangedU64ValueParser};
use serde_json::{Map, Value, json};

use crate::domain::limits::MAX_AUDIO_SECONDS;

/// With the word for it in a table.
const LIMITS: [(&str, &str); 8] = [
    ("requests_per_minute", "RPM"),
    ("requests_per_day", "RPD"),
    ("tokens_per_minute", "TPM"),
    ("tokens_per_day", "TPD"),
    ("audio_tokens_per_minute", "audio TPM"),
    ("audio_seconds_per_day", "audio seconds a day"),
    ("concurrent_requests", "requests at once"),
    ("concurrent_streams", "streams at once"),
];

/// Narrower limits than the tier's, for each model.
#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Narrower than the tier's limit
    #[arg(long, value_name = "N", value_parser = rate())]
    requests_per_minute: Option<u64>,
    /// Narrower than the tier's limit
    #[arg(long, value_name = "N", value_parser = rate())]
    requests_per_day: Option<u64>,
    /// Narrower than the tier's limit
    #[arg(long, value_name = "N", value_parser = rate())]
    tokens_per_minute: Option<u64>,
    /// Narrower than the tier's limit
    #[arg(long, value_name = "N", value_parser = rate())]
    tokens_per_day: Option<u64>,
    /// Tokens of audio in a minute, input and output
    #[arg(long, value_name = "N", value_parser = rate())]
    audio_tokens_per_minute: Option<u64>,
    /// Seconds of audio in a day, input and output
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_AUDIO_SECONDS.into()))]
    audio_seconds_per_day: Option<u64>,
    /// Requests that are under way at one time
    #[arg(long, value_name = "N", value_parser = rate())]
    concurrent_requests: Option<u64>,
    /// Streams that are under way at one time
    #[arg(long, value_name = "N", value_parser = rate())]
    concurrent_streams: Option<u64>,
}

fn rate() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=u32::MAX.into())
}

impl LimitArgs {
    pub(super) fn to_json(&self) -> Value {
        let limits = [
            self.requests_per_minute,
            self.requests_per_day,
            self.tokens_per_minute,
            self.tokens_per_day,
            self.audio_tokens_per_minute,
            self.audio_seconds_per_day,
            self.concurrent_requests,
            self.concurrent_streams,
        ];
        let set = LIMITS.iter().zip(limits).filter_map(|((name, _), limit)| Some(((*name).to_owned(), json!(limit?))));
        Value::Object(set.collect::<Map<_, _>>())
    }
}

/// `60 RPM, 1000 TPM`: where the key is narrower than its tier.
pub(super) fn shown(narrowed: &Value) -> String {
    let all = LIMITS.iter().filter_map(|(name, short)| Some(format!("{} {short}", narrowed[name].as_u64()?)));
    let all: Vec<_> = all.collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}
