//! Faults on request. A model named `sim-<fault>` or the header `x-simulate: <fault>` asks for one; the header wins and works
//! with any model. Parameters follow, separated by `;` or `,`: `x-simulate: 429; retry-after-ms=1500`.
//!
//! | fault | what happens |
//! |---|---|
//! | `400` `401` `403` `404` `429` `500` `502` `503` `504` | the status with `OpenAI`'s error object; `429` knows `retry-after-ms`, `retry-after` (any text), `limit=requests\|tokens\|day\|quota` |
//! | `hang` | reads the request and never answers (ten minutes) |
//! | `hang-midstream` | half of the answer, then silence |
//! | `reset` | RST after the request was read |
//! | `cut-body` | a `content-length` larger than what is sent, then FIN |
//! | `cut-event` | half of the stream, closed in the middle of an event (other answers: in the middle of the body) |
//! | `cut-clean` | the stream ends in good order, without usage and without `[DONE]` |
//! | `slow` | 200 ms before each chunk (`gap-ms`) |
//! | `garbage` | 200 `application/json` that is not JSON |
//! | `html` | 200 `text/html` |
//! | `redirect` | 302 to another host |
//! | `error-event` | half of the stream, then `data: {"error":…}`; `bare` sends no chunk before it, `done` a `[DONE]` after it |
//! | `no-usage` `usage-null` | the answer says nothing about usage |
//! | `usage-on-finish` | usage on the chunk with the finish reason, as `DeepSeek` does |
//! | `usage-groq` | usage only in `x_groq.usage` of the last chunk |
//! | `usage-mistral` | audio tokens on top of `prompt_tokens` |
//! | `usage-azure` | the first chunk has no choices and no usage, only filter results |
//!
//! `once` spares every request after the first with the same `x-client-request-id`, so that a retry succeeds.
//! Parameters without a fault change the answer: `chunks`, `gap-ms`, `delay-ms`, `audio-seconds` (also the header
//! `x-simulate-audio-seconds`), `cached` (cached prompt tokens).

use std::time::Duration;

use http::HeaderMap;

use super::Options;

pub(super) const HANG: Duration = Duration::from_mins(10);
const MAX_CHUNKS: u32 = 100_000;
const MAX_WAIT_MS: u64 = 600_000;
const MAX_AUDIO_MS: u64 = 300_000;
/// One token of audio that a model speaks.
const AUDIO_TOKEN_MS: u64 = 50;
const SLOW_GAP: Duration = Duration::from_millis(200);
const DEFAULT_RETRY_MS: u64 = 1_500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Status(u16),
    Hang,
    HangMidstream,
    Reset,
    CutBody,
    CutEvent,
    CutClean,
    Slow,
    Garbage,
    Html,
    Redirect,
    ErrorEvent,
    NoUsage,
    UsageNull,
    UsageOnFinish,
    UsageGroq,
    UsageMistral,
    UsageAzure,
}

/// Every fault by the name it is asked for.
pub const FAULTS: &[(&str, Fault)] = &[
    ("400", Fault::Status(400)),
    ("401", Fault::Status(401)),
    ("403", Fault::Status(403)),
    ("404", Fault::Status(404)),
    ("429", Fault::Status(429)),
    ("500", Fault::Status(500)),
    ("502", Fault::Status(502)),
    ("503", Fault::Status(503)),
    ("504", Fault::Status(504)),
    ("hang", Fault::Hang),
    ("hang-midstream", Fault::HangMidstream),
    ("reset", Fault::Reset),
    ("cut-body", Fault::CutBody),
    ("cut-event", Fault::CutEvent),
    ("cut-clean", Fault::CutClean),
    ("slow", Fault::Slow),
    ("garbage", Fault::Garbage),
    ("html", Fault::Html),
    ("redirect", Fault::Redirect),
    ("error-event", Fault::ErrorEvent),
    ("no-usage", Fault::NoUsage),
    ("usage-null", Fault::UsageNull),
    ("usage-on-finish", Fault::UsageOnFinish),
    ("usage-groq", Fault::UsageGroq),
    ("usage-mistral", Fault::UsageMistral),
    ("usage-azure", Fault::UsageAzure),
];

/// Where and how an answer says what it consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsageStyle {
    OpenAi,
    Absent,
    Null,
    OnFinish,
    Groq,
    Mistral,
    Azure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    Requests,
    Tokens,
    Day,
    Quota,
}

/// What one request wants: a fault or none, and the options as it changes them.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) fault: Option<(&'static str, Fault)>,
    pub(super) delay: Duration,
    pub(super) chunks: u32,
    pub(super) gap: Duration,
    pub(super) audio_tokens: Option<u64>,
    pub(super) cached: Option<u64>,
    pub(super) retry_after_ms: u64,
    pub(super) retry_after: Option<String>,
    pub(super) exceeded: Exceeded,
    pub(super) bare: bool,
    pub(super) done: bool,
    pub(super) once: bool,
}

impl Wish {
    /// `Err` is the word that was not understood.
    pub(super) fn read(headers: &HeaderMap, model: Option<&str>, options: &Options) -> Result<Self, String> {
        let mut wish = Self::plain(options);
        if let Some(name) = model.and_then(|model| model.strip_prefix("sim-")) {
            wish.fault = find(name);
        }
        if let Some(seconds) = headers.get("x-simulate-audio-seconds") {
            wish.set("audio-seconds", seconds.to_str().unwrap_or_default())?;
        }
        if let Some(value) = headers.get("x-simulate") {
            for word in value.to_str().unwrap_or_default().split([';', ',']).map(str::trim) {
                wish.take(word)?;
            }
        }
        if matches!(wish.fault, Some((_, Fault::Slow))) && wish.gap.is_zero() {
            wish.gap = SLOW_GAP;
        }
        Ok(wish)
    }

    fn plain(options: &Options) -> Self {
        Self {
            fault: None,
            delay: options.delay,
            chunks: options.chunks.min(MAX_CHUNKS),
            gap: options.chunk_gap,
            audio_tokens: None,
            cached: None,
            retry_after_ms: DEFAULT_RETRY_MS,
            retry_after: None,
            exceeded: Exceeded::Requests,
            bare: false,
            done: false,
            once: false,
        }
    }

    fn take(&mut self, word: &str) -> Result<(), String> {
        match (word, word.split_once('=')) {
            ("", _) => {}
            ("bare", _) => self.bare = true,
            ("done", _) => self.done = true,
            ("once", _) => self.once = true,
            (_, Some((name, value))) => self.set(name.trim(), value.trim())?,
            (name, None) => self.fault = Some(find(name).ok_or_else(|| name.to_owned())?),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|_| format!("{name}={value}"));
        let millis = || number().map(|millis| Duration::from_millis(millis.min(MAX_WAIT_MS)));
        match name {
            "chunks" => self.chunks = u32::try_from(number()?).unwrap_or(MAX_CHUNKS).min(MAX_CHUNKS),
            "gap-ms" => self.gap = millis()?,
            "delay-ms" => self.delay = millis()?,
            "cached" => self.cached = Some(number()?),
            "audio-seconds" => {
                let millis = milliseconds(value).ok_or_else(|| format!("{name}={value}"))?;
                self.audio_tokens = Some(millis.min(MAX_AUDIO_MS) / AUDIO_TOKEN_MS);
            }
            "retry-after-ms" => self.retry_after_ms = number()?,
            "retry-after" => self.retry_after = Some(value.to_owned()),
            "limit" => {
                self.exceeded = match value {
                    "requests" => Exceeded::Requests,
                    "tokens" => Exceeded::Tokens,
                    "day" => Exceeded::Day,
                    "quota" => Exceeded::Quota,
                    _ => return Err(format!("{name}={value}")),
                }
            }
            _ => return Err(name.to_owned()),
        }
        Ok(())
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.map(|(_, fault)| fault)
    }

    /// `asked` is false for a stream whose client did not ask for usage.
    pub(super) fn usage_style(&self, asked: bool) -> UsageStyle {
        match self.fault() {
            Some(Fault::NoUsage) => UsageStyle::Absent,
            Some(Fault::UsageNull) => UsageStyle::Null,
            Some(Fault::UsageOnFinish) => UsageStyle::OnFinish,
            Some(Fault::UsageGroq) => UsageStyle::Groq,
            Some(Fault::UsageMistral) if asked => UsageStyle::Mistral,
            Some(Fault::UsageAzure) if asked => UsageStyle::Azure,
            _ if asked => UsageStyle::OpenAi,
            _ => UsageStyle::Absent,
        }
    }
}

fn find(name: &str) -> Option<(&'static str, Fault)> {
    FAULTS.iter().find(|(known, _)| *known == name).copied()
}

/// `12` or `0.95` seconds as milliseconds.
fn milliseconds(seconds: &str) -> Option<u64> {
    let (whole, part) = seconds.split_once('.').unwrap_or((seconds, "0"));
    if part.is_empty() || part.len() > 3 || !part.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths: u64 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(thousandths)
}
