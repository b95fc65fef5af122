//! What a chat completion request asks for, read without building a tree: texts and audio stay borrowed from the body.

mod check;
mod clip;

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use crate::openai::error::ApiError;

pub(super) use self::check::{Prompt, check};

/// A string that is borrowed unless it has escapes.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest<'a> {
    #[serde(borrow)]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) messages: Option<Vec<Message<'a>>>,
    #[serde(default)]
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    #[serde(borrow)]
    pub(super) modalities: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub(super) audio: Option<AudioFormat<'a>>,
    pub(super) max_tokens: Option<i64>,
    pub(super) max_completion_tokens: Option<i64>,
    pub(super) n: Option<i64>,
    #[serde(borrow)]
    pub(super) service_tier: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) reasoning_effort: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) prompt_cache_key: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) tools: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) tool_choice: Option<&'a RawValue>,
    pub(super) parallel_tool_calls: Option<bool>,
    #[serde(borrow)]
    pub(super) response_format: Option<ResponseFormat<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
    pub(super) include_obfuscation: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AudioFormat<'a> {
    #[serde(borrow)]
    pub(super) voice: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) format: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ResponseFormat<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) json_schema: Option<JsonSchema<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct JsonSchema<'a> {
    #[serde(borrow)]
    pub(super) schema: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) role: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) content: Option<Content<'a>>,
    #[serde(borrow)]
    pub(super) audio: Option<Replayed<'a>>,
}

/// An earlier spoken answer, named by its id.
#[derive(Debug, Deserialize)]
pub(super) struct Replayed<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<Part<'a>>),
}

#[derive(Debug, Deserialize)]
pub(super) struct Part<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) refusal: Option<Text<'a>>,
    pub(super) image_url: Option<IgnoredAny>,
    #[serde(borrow)]
    pub(super) input_audio: Option<InputAudio<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct InputAudio<'a> {
    #[serde(borrow)]
    pub(super) data: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) format: Option<Text<'a>>,
}

impl<'a> ChatRequest<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => ApiError::invalid(format!("Invalid type: {error}"), None, Cow::from("invalid_type")),
            Category::Io | Category::Syntax | Category::Eof => ApiError::invalid_json(),
        })
    }

    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether the answer tells its usage: always, unless it is a stream that was not asked to.
    pub(super) fn wants_usage(&self) -> bool {
        !self.streams() || self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
    }

    pub(super) fn wants_obfuscation(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_obfuscation).unwrap_or(true)
    }

    pub(super) fn speaks(&self) -> bool {
        self.modalities.as_ref().is_some_and(|list| list.iter().any(|modality| &**modality == "audio"))
    }

    pub(super) fn format(&self) -> &str {
        self.audio.as_ref().and_then(|audio| audio.format.as_deref()).unwrap_or("")
    }

    /// The tokens one choice may have.
    pub(super) fn max_tokens(&self) -> u64 {
        let stated = self.max_completion_tokens.or(self.max_tokens);
        stated.map_or(u64::MAX, |max| u64::try_from(max).unwrap_or(0))
    }

    pub(super) fn choices(&self) -> u64 {
        self.n.map_or(1, |n| u64::try_from(n).unwrap_or(1))
    }

    /// The text of the last message, when a user wrote it.
    pub(super) fn last_user_text(&self) -> Option<&str> {
        let last = self.messages.as_ref()?.last()?;
        (last.role.as_deref() == Some("user")).then_some(())?;
        match last.content.as_ref()? {
            Content::Text(text) => Some(text),
            Content::Parts(parts) => parts.iter().rev().find_map(|part| part.text.as_deref()),
        }
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of content parts")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Content<'de>, E> {
        Ok(Content::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Content<'de>, E> {
        Ok(Content::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(part) = parts.next_element()? {
            list.push(part);
        }
        Ok(Content::Parts(list))
    }
}
