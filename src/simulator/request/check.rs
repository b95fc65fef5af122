//! What `OpenAI` refuses, in its words, and what the prompt costs. Sources: protocol facts a.4 and d.6.

use std::borrow::Cow;

use super::{ChatRequest, Content, Message, Part, clip};
use crate::{
    openai::error::ApiError,
    simulator::{models::Kind, sound},
};

/// Every message has a role and its marks.
const TOKENS_PER_MESSAGE: u64 = 4;
/// As the recorded headers charge an image.
const TOKENS_PER_IMAGE: u64 = 765;
const BYTES_PER_TOKEN: u64 = 4;
const MAX_CHOICES: i64 = 128;
const ROLES: &[&str] = &["system", "assistant", "user", "function", "tool", "developer"];
const FORMATS: &[&str] = &["wav", "aac", "mp3", "flac", "opus", "pcm16"];
const VOICES: &[&str] =
    &["alloy", "echo", "fable", "onyx", "nova", "shimmer", "coral", "verse", "ballad", "ash", "sage", "marin", "cedar"];
const TIERS: &[&str] = &["auto", "default", "flex", "scale", "priority", "fast"];

/// What was sent, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::simulator) struct Prompt {
    text_bytes: u64,
    messages: u64,
    images: u64,
    /// Clips at 10 tokens a second, replayed answers at what they cost before.
    pub(in crate::simulator) audio_tokens: u64,
    tool_bytes: u64,
}

impl Prompt {
    pub(in crate::simulator) fn text_tokens(&self) -> u64 {
        self.text_bytes.div_ceil(BYTES_PER_TOKEN)
            + self.tool_bytes.div_ceil(BYTES_PER_TOKEN)
            + self.messages * TOKENS_PER_MESSAGE
    }

    pub(in crate::simulator) const fn image_tokens(&self) -> u64 {
        self.images * TOKENS_PER_IMAGE
    }

    /// What the rate-limit headers take off.
    pub(in crate::simulator) fn charge(&self, choices: u64) -> u64 {
        self.text_bytes.div_ceil(BYTES_PER_TOKEN) + self.messages + choices + self.image_tokens()
    }
}

/// The prompt of a valid request. `now` is in unix seconds.
pub(in crate::simulator) fn check(request: &ChatRequest<'_>, kind: Kind, now: u64) -> Result<Prompt, ApiError> {
    let messages = request.messages.as_deref().ok_or_else(|| ApiError::missing_parameter("messages"))?;
    if messages.is_empty() {
        let message =
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return Err(ApiError::invalid(message, Cow::from("messages"), Cow::from("empty_array")));
    }
    check_numbers(request, kind)?;
    check_words(request)?;
    check_speech(request, kind)?;
    let mut prompt = Prompt {
        messages: messages.len() as u64,
        tool_bytes: request.tools.map_or(0, |tools| tools.get().len() as u64),
        ..Prompt::default()
    };
    for (index, message) in messages.iter().enumerate() {
        add_message(message, index, kind, now, &mut prompt)?;
    }
    let hears = messages.iter().any(|message| message.audio.is_some() || has_clip(message));
    if kind == Kind::Audio && !hears && !request.speaks() {
        let message = "This model requires that either input content or output modality contain audio.";
        return Err(ApiError::invalid(message, Cow::from("model"), Cow::from("invalid_value")));
    }
    Ok(prompt)
}

fn check_numbers(request: &ChatRequest<'_>, kind: Kind) -> Result<(), ApiError> {
    if request.max_tokens.is_some() && kind == Kind::Reasoning {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' \
                       instead.";
        return Err(ApiError::invalid(message, Cow::from("max_tokens"), Cow::from("unsupported_parameter")));
    }
    let fields = [
        ("max_tokens", request.max_tokens),
        ("max_completion_tokens", request.max_completion_tokens),
        ("n", request.n),
    ];
    for (name, value) in fields {
        let Some(value) = value else { continue };
        if value < 1 {
            let message = format!(
                "Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead."
            );
            return Err(ApiError::invalid(message, Cow::from(name), Cow::from("integer_below_min_value")));
        }
        if name == "n" && value > MAX_CHOICES {
            let message = format!(
                "Invalid 'n': integer above maximum value. Expected a value <= {MAX_CHOICES}, but got {value} instead."
            );
            return Err(ApiError::invalid(message, Cow::from(name), Cow::from("integer_above_max_value")));
        }
    }
    Ok(())
}

fn check_words(request: &ChatRequest<'_>) -> Result<(), ApiError> {
    if request.stream_options.is_some() && !request.streams() {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(ApiError::invalid(message, Cow::from("stream_options"), None));
    }
    match request.service_tier.as_deref() {
        Some(tier) if !TIERS.contains(&tier) => {
            Err(ApiError::invalid("Invalid service_tier argument", Cow::from("service_tier"), None))
        }
        _ => Ok(()),
    }
}

fn check_speech(request: &ChatRequest<'_>, kind: Kind) -> Result<(), ApiError> {
    let can_speak = matches!(kind, Kind::Audio | Kind::Anything);
    if request.modalities.is_some() && !can_speak {
        let message = "Unknown parameter: 'modalities'.";
        return Err(ApiError::invalid(message, Cow::from("modalities"), Cow::from("unknown_parameter")));
    }
    let schema = request.response_format.as_ref().is_some_and(|format| &*format.kind == "json_schema");
    if schema && kind == Kind::Audio {
        let message = "'response_format' of type 'json_schema' is not supported with this model";
        return Err(ApiError::invalid(message, Cow::from("response_format"), None));
    }
    if !request.speaks() {
        return Ok(());
    }
    let audio = request.audio.as_ref().ok_or_else(|| ApiError::missing_parameter("audio"))?;
    let voice = audio.voice.ok_or_else(|| ApiError::missing_parameter("audio.voice"))?.get();
    let format = audio.format.as_deref().ok_or_else(|| ApiError::missing_parameter("audio.format"))?;
    // A custom voice is an object with an id; any is accepted.
    let name = voice.trim_matches('"');
    if !voice.starts_with('{') && !VOICES.contains(&name) {
        return Err(invalid_value(name, VOICES, "audio.voice"));
    }
    if !FORMATS.contains(&format) {
        return Err(invalid_value(format, FORMATS, "audio.format"));
    }
    if request.streams() && format != "pcm16" {
        let message = format!(
            "Unsupported value: 'audio.format' does not support '{format}' when stream=true. Supported values are: 'pcm16'."
        );
        return Err(ApiError::invalid(message, Cow::from("audio.format"), Cow::from("unsupported_value")));
    }
    Ok(())
}

fn add_message(message: &Message<'_>, index: usize, kind: Kind, now: u64, prompt: &mut Prompt) -> Result<(), ApiError> {
    match message.role.as_deref() {
        None => return Err(missing(format!("messages[{index}].role"))),
        Some(role) if !ROLES.contains(&role) => {
            return Err(invalid_value(role, ROLES, format!("messages[{index}].role")));
        }
        Some(_) => {}
    }
    if let Some(replayed) = &message.audio {
        let tokens = sound::replayed_tokens(&replayed.id, now);
        prompt.audio_tokens += tokens.ok_or_else(|| audio_not_found(&replayed.id, index))?;
    }
    match &message.content {
        None => {}
        Some(Content::Text(text)) => prompt.text_bytes += text.len() as u64,
        Some(Content::Parts(parts)) => {
            for (place, part) in parts.iter().enumerate() {
                add_part(part, (index, place), kind, prompt)?;
            }
        }
    }
    Ok(())
}

fn add_part(part: &Part<'_>, (index, place): (usize, usize), kind: Kind, prompt: &mut Prompt) -> Result<(), ApiError> {
    let path = |field| format!("messages[{index}].content[{place}].{field}");
    match part.kind.as_deref().ok_or_else(|| missing(path("type")))? {
        "text" => prompt.text_bytes += part.text.as_ref().ok_or_else(|| missing(path("text")))?.len() as u64,
        "refusal" => prompt.text_bytes += part.refusal.as_ref().map_or(0, |text| text.len() as u64),
        "image_url" => {
            part.image_url.as_ref().ok_or_else(|| missing(path("image_url")))?;
            prompt.images += 1;
        }
        "input_audio" if matches!(kind, Kind::Audio | Kind::Anything) => {
            let audio = part.input_audio.as_ref().ok_or_else(|| missing(path("input_audio")))?;
            let data = audio.data.as_deref().ok_or_else(|| missing(path("input_audio.data")))?;
            let format = audio.format.as_deref().ok_or_else(|| missing(path("input_audio.format")))?;
            prompt.audio_tokens += clip::tokens(data, format).ok_or_else(unsupported_format)?;
        }
        "file" => {}
        _ => {
            let param = format!("messages[{index}]");
            let message =
                format!("Invalid '{param}'. Content blocks are expected to be either text or image_url type.");
            return Err(ApiError::invalid(message, Cow::from(param), Cow::from("invalid_value")));
        }
    }
    Ok(())
}

fn has_clip(message: &Message<'_>) -> bool {
    matches!(&message.content, Some(Content::Parts(parts)) if parts.iter().any(|part| part.input_audio.is_some()))
}

fn missing(param: String) -> ApiError {
    let message = format!("Missing required parameter: '{param}'.");
    ApiError::invalid(message, Cow::from(param), Cow::from("missing_required_parameter"))
}

fn audio_not_found(id: &str, index: usize) -> ApiError {
    let param = format!("content.messages[{index}].audio.id");
    ApiError::invalid(format!("Assistant audio {id} not found."), Cow::from(param), Cow::from("audio_not_found"))
}

fn unsupported_format() -> ApiError {
    let message = "This model does not support the format you provided.";
    ApiError::invalid(message, Cow::from("messages"), Cow::from("unsupported_format"))
}

fn invalid_value(value: &str, supported: &[&str], param: impl Into<Cow<'static, str>>) -> ApiError {
    let (last, others) = supported.split_last().unwrap_or((&"", &[]));
    let others = others.join("', '");
    let message = format!("Invalid value: '{value}'. Supported values are: '{others}', and '{last}'.");
    ApiError::invalid(message, param.into(), Cow::from("invalid_value"))
}
