//! The top-level parameters of a chat request.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    ChatRequest,
    messages::{Any, Contents, Messages},
    modalities,
    splice::{StreamOptions, UsageSplice},
    values::{boolean, integer, optional},
};
use crate::{
    domain::pricing::ServiceTier,
    openai::{
        error::ApiError,
        json::{self, Skip, Text},
    },
};

const MAX_MODEL_BYTES: usize = 256;
/// `OpenAI` takes 1 to 128 choices.
const MAX_CHOICES: u64 = 128;
/// No model answers with more; larger numbers are mistakes or attempts to overflow somebody.
const MAX_OUTPUT_TOKENS: u64 = 2_147_483_647;

/// What other gateways read from a body to choose where a request goes and as whom. Here the operator decides that, and what
/// stands behind may be such a gateway.
const ROUTING: [&str; 6] = ["api_base", "base_url", "api_key", "organization", "extra_headers", "custom_llm_provider"];

/// Parameters that decide what is authorised, reserved or metered: each may appear once, spelled exactly.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Messages,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    Choices,
    Modalities,
    Audio,
    ServiceTier,
}

impl Field {
    const ALL: [Self; 10] = [
        Self::Model,
        Self::Messages,
        Self::Stream,
        Self::StreamOptions,
        Self::MaxTokens,
        Self::MaxCompletionTokens,
        Self::Choices,
        Self::Modalities,
        Self::Audio,
        Self::ServiceTier,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Messages => "messages",
            Self::Stream => "stream",
            Self::StreamOptions => "stream_options",
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::Choices => "n",
            Self::Modalities => "modalities",
            Self::Audio => "audio",
            Self::ServiceTier => "service_tier",
        }
    }

    fn named(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == key)
    }

    /// A key that is another spelling of a field for readers that ignore case, as Go's do (`ſ` and the Kelvin sign too).
    fn resembled_by(key: &str) -> bool {
        Self::ALL.into_iter().any(|field| is_spelling_of(key, field.name()))
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

fn is_spelling_of(key: &str, name: &str) -> bool {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).eq(name.chars())
}

fn is_routing(key: &str) -> bool {
    ROUTING.into_iter().any(|name| is_spelling_of(key, name))
}

/// What was found so far. The first thing wrong is kept and told after the whole body has proved to be JSON.
#[derive(Default)]
pub(super) struct Draft<'a> {
    present: u16,
    problem: Option<ApiError>,
    model: Option<Cow<'a, str>>,
    contents: Contents,
    stream: bool,
    stream_options: StreamOptions<'a>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    choices: Option<u64>,
    wants_audio: bool,
    service_tiers: Option<&'static [ServiceTier]>,
}

impl<'a> Draft<'a> {
    /// `None` when `body` is not one JSON object.
    pub(super) fn read(body: &'a str) -> Option<Self> {
        let mut draft = Self::default();
        let mut deserializer = serde_json::Deserializer::from_str(body);
        deserializer.deserialize_map(Body(&mut draft)).ok()?;
        deserializer.end().ok()?;
        Some(draft)
    }

    pub(super) fn finish(self, body: &'a str) -> Result<ChatRequest<'a>, ApiError> {
        if !self.has(Field::Model) {
            return Err(ApiError::missing_model());
        }
        if let Some(problem) = self.problem.or(self.contents.problem) {
            return Err(problem);
        }
        if self.present & Field::Messages.bit() == 0 {
            return Err(ApiError::missing_parameter(Field::Messages.name()));
        }
        if self.contents.messages == 0 {
            return Err(ApiError::empty_array(Field::Messages.name()));
        }
        if self.stream_options.present() && !self.stream {
            return Err(ApiError::stream_options_without_stream());
        }
        let include_usage = self.stream_options.include_usage();
        let splice = || UsageSplice::new(body, &self.stream_options);
        Ok(ChatRequest {
            model: self.model.ok_or_else(ApiError::missing_model)?,
            stream: self.stream,
            include_usage,
            max_output_tokens: self.max_completion_tokens.or(self.max_tokens),
            choices: self.choices.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            messages: self.contents.messages,
            text_bytes: self.contents.text_bytes,
            images: self.contents.images,
            audio: self.contents.audio,
            wants_audio: self.wants_audio,
            service_tiers: self.service_tiers.unwrap_or(&[ServiceTier::Default]),
            usage_splice: (self.stream && !include_usage).then(splice),
        })
    }

    const fn has(&self, field: Field) -> bool {
        self.present & field.bit() != 0
    }

    fn note(&mut self, problem: ApiError) {
        self.problem.get_or_insert(problem);
    }

    fn mark(&mut self, field: Field) {
        if self.has(field) {
            self.note(ApiError::duplicate_parameter(field.name()));
        }
        self.present |= field.bit();
    }

    fn set(&mut self, field: Field, raw: &'a RawValue) {
        if let Err(problem) = self.try_set(field, raw) {
            self.note(problem);
        }
    }

    fn try_set(&mut self, field: Field, raw: &'a RawValue) -> Result<(), ApiError> {
        let param = field.name();
        match field {
            Field::Model => self.model = Some(model(raw)?),
            Field::Stream => self.stream = boolean(param, raw)?.unwrap_or(false),
            Field::StreamOptions => self.stream_options = StreamOptions::read(raw)?,
            Field::MaxTokens => self.max_tokens = integer(param, raw, 1..=MAX_OUTPUT_TOKENS)?,
            Field::MaxCompletionTokens => self.max_completion_tokens = integer(param, raw, 1..=MAX_OUTPUT_TOKENS)?,
            Field::Choices => self.choices = integer(param, raw, 1..=MAX_CHOICES)?,
            Field::Modalities => self.wants_audio = modalities::include_audio(raw)?,
            Field::Audio => optional(param, raw, "an object")?,
            Field::ServiceTier => {
                optional(param, raw, "a string")?;
                self.service_tiers = json::text(raw).map(|text| ServiceTier::asked(&text));
            }
            Field::Messages => {}
        }
        Ok(())
    }
}

fn model(raw: &RawValue) -> Result<Cow<'_, str>, ApiError> {
    let param = Field::Model.name();
    if json::is_null(raw) {
        return Err(ApiError::missing_model());
    }
    if json::kind(raw) != "a string" {
        return Err(ApiError::invalid_type(param, "a string", json::kind(raw)));
    }
    let name = json::text(raw).ok_or_else(ApiError::invalid_json)?;
    if name.is_empty() {
        return Err(ApiError::missing_model());
    }
    if name.len() > MAX_MODEL_BYTES {
        return Err(ApiError::string_above_max(param, MAX_MODEL_BYTES, name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err(ApiError::control_characters(param));
    }
    Ok(name)
}

struct Body<'d, 'a>(&'d mut Draft<'a>);

impl<'a> Visitor<'a> for Body<'_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            let Some(field) = Field::named(&key) else {
                if Field::resembled_by(&key) || is_routing(&key) {
                    self.0.note(ApiError::unknown_parameter(&key));
                }
                map.next_value_seed(Skip)?;
                continue;
            };
            self.0.mark(field);
            if field == Field::Messages {
                map.next_value_seed(Any(Messages(&mut self.0.contents)))?;
            } else {
                self.0.set(field, json::shallow(map.next_value()?)?);
            }
        }
        Ok(())
    }
}
