//! A chat completion request, read in one pass and without a tree: what must be known to authorise, estimate and meter it.
//!
//! The body is forwarded as it came, so whatever is read here must be read as the upstream will read it: a key that
//! appears twice is refused, because two readers may disagree on which one counts.

mod fields;
mod messages;
mod modalities;
mod splice;
mod values;

use std::borrow::Cow;

pub use self::splice::{UsageSplice, ask_for_usage};
use super::{audio::AudioInput, error::ApiError};
use crate::domain::pricing::ServiceTier;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRequest<'a> {
    pub model: Cow<'a, str>,
    pub stream: bool,
    /// The client itself asked for the usage chunk.
    pub include_usage: bool,
    /// `max_completion_tokens`, else `max_tokens`.
    pub max_output_tokens: Option<u64>,
    /// `n`; every choice is billed.
    pub choices: u32,
    pub messages: u32,
    /// UTF-8 bytes of all string contents and text parts, without escapes.
    pub text_bytes: u64,
    pub images: u32,
    pub audio: AudioInput,
    /// The answer may contain audio.
    pub wants_audio: bool,
    /// Those that may serve it. Where nothing is said it is the default one: so it is unless the upstream's project is set
    /// otherwise, and then its prices are higher than what is expected here.
    pub service_tiers: &'static [ServiceTier],
    /// Where to ask for usage; `None` when the answer carries it anyway.
    pub usage_splice: Option<UsageSplice>,
}

/// Reads `body`, or says what is wrong with it in `OpenAI`'s words.
pub fn scan(body: &[u8]) -> Result<ChatRequest<'_>, ApiError> {
    let body = std::str::from_utf8(body).map_err(|_| ApiError::invalid_json())?;
    fields::Draft::read(body).ok_or_else(ApiError::invalid_json)?.finish(body)
}

/// The model of a body that [`scan`] refused, where it can be read: the answer shows the limits of that model.
pub fn model_of(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        model: String,
    }
    serde_json::from_slice::<Named>(body).ok().map(|named| named.model)
}

#[cfg(test)]
mod tests;
