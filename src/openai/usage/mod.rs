//! What an answer says about itself: usage, model, service tier, failure. Read from a whole body or from one event of a
//! stream, without building a tree.

mod count;
mod delivered;
mod split;

use serde_json::value::RawValue;

pub use self::delivered::estimate_output;
use super::json;
use crate::domain::{pricing::ServiceTier, usage::Usage};

/// Longer names are no model names; they are not kept.
const MAX_MODEL_BYTES: usize = 256;

/// The facts of a whole body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub usage: Option<Usage>,
    /// The dated name.
    pub model: Option<String>,
    pub service_tier: Option<ServiceTier>,
    /// There is an `error`, and it is not null or empty.
    pub is_error: bool,
}

/// The body is not one JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a JSON object")]
pub struct NotJson;

/// The facts of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFacts {
    pub usage: Option<Usage>,
    pub model: Option<String>,
    pub service_tier: Option<ServiceTier>,
    pub is_error: bool,
    /// Usage and no choices, nor anything else that says something: the chunk that exists only because usage was asked
    /// for. Azure's first chunk has no usage, `DeepSeek`'s last one has choices.
    pub is_usage_chunk: bool,
}

/// Reads a whole answer that is not a stream.
pub fn read_answer(body: &[u8]) -> Result<Answer, NotJson> {
    let found = Found::read(body, false).ok_or(NotJson)?;
    Ok(Answer {
        usage: found.usage().or_else(|| usage_of_choice(member(body, "choices")?)),
        model: found.model(),
        service_tier: found.service_tier(),
        is_error: found.error,
    })
}

/// Reads the data of one event; `None` when it is not a JSON object.
pub fn read_event(data: &[u8]) -> Option<EventFacts> {
    // Half a character in a text, as services cut it, must not hide the usage beside it.
    let data = String::from_utf8_lossy(data);
    let found = Found::read(data.as_bytes(), true)?;
    let has_usage = found.usage.is_some_and(json::is_object);
    let has_choices =
        found.choices.is_some_and(|choices| !json::is_null(choices) && !json::is_empty_container(choices));
    Some(EventFacts {
        usage: found.usage().or_else(|| usage_of_choice(found.choices?)),
        model: found.model(),
        service_tier: found.service_tier(),
        is_error: found.error,
        is_usage_chunk: has_usage && !has_choices && !found.says_more && !found.error,
    })
}

/// The last resort: some services put the usage into the first choice.
fn usage_of_choice(choices: &RawValue) -> Option<Usage> {
    let choices: Vec<&RawValue> = serde_json::from_str(choices.get()).ok()?;
    member(choices.first()?.get().as_bytes(), "usage").and_then(split::usage)
}

fn member<'a>(json: &'a [u8], name: &str) -> Option<&'a RawValue> {
    let mut found = None;
    json::members(json, |key| key == name, |_, value| found = Some(value)).then_some(found)?
}

/// The usage object that `json` begins with, whatever follows it.
pub(super) fn read_usage_prefix(json: &[u8]) -> Option<Usage> {
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<&RawValue>();
    values.next()?.ok().and_then(split::usage)
}

/// The members that say something, still as text.
#[derive(Default)]
struct Found<'a> {
    usage: Option<&'a RawValue>,
    /// Groq's own extension, which carries the usage of its streams.
    groq: Option<&'a RawValue>,
    model: Option<&'a RawValue>,
    service_tier: Option<&'a RawValue>,
    choices: Option<&'a RawValue>,
    error: bool,
    /// Another member than those every chunk has, and not null or empty.
    says_more: bool,
}

impl<'a> Found<'a> {
    /// Of a whole body only what is wanted of it is kept: its choices are large.
    fn read(body: &'a [u8], is_event: bool) -> Option<Self> {
        let mut found = Self::default();
        let wanted = |key: &str| match key {
            "usage" | "x_groq" | "model" | "service_tier" | "error" => true,
            "id" | "object" | "created" | "system_fingerprint" | "obfuscation" => false,
            _ => is_event,
        };
        let is_object = json::members(body, wanted, |key, value| match key {
            "usage" => found.usage = (!json::is_null(value)).then_some(value),
            "x_groq" => found.groq = Some(value),
            "model" => found.model = Some(value),
            "service_tier" => found.service_tier = Some(value),
            "choices" => found.choices = Some(value),
            "error" => found.error = is_truthy(value),
            _ => found.says_more |= is_truthy(value),
        });
        is_object.then_some(found)
    }

    fn usage(&self) -> Option<Usage> {
        self.usage.and_then(split::usage).or_else(|| {
            let mut usage = None;
            json::members(self.groq?.get().as_bytes(), |key| key == "usage", |_, value| usage = split::usage(value));
            usage
        })
    }

    fn model(&self) -> Option<String> {
        let name = json::text(self.model?)?;
        (!name.is_empty() && name.len() <= MAX_MODEL_BYTES).then(|| name.into_owned())
    }

    fn service_tier(&self) -> Option<ServiceTier> {
        json::text(self.service_tier?).map(|tier| ServiceTier::from_wire(&tier))
    }
}

/// As the SDKs decide whether an `error` member is an error.
fn is_truthy(value: &RawValue) -> bool {
    !matches!(value.get(), "null" | "false" | "0" | "\"\"") && !json::is_empty_container(value)
}

#[cfg(test)]
mod tests;
