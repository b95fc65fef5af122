//! The body of a chat request: what is read without a tree is what a tree holds.

use bytes::Bytes;
use tollgate::{
    domain::pricing::ServiceTier,
    openai::{
        audio::AudioInput,
        request::{ChatRequest, ask_for_usage, model_of, scan},
    },
};

use super::{is_told, json::Json};

const READ: [&str; 10] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "modalities",
    "audio",
    "service_tier",
];

pub fn request(body: &[u8]) {
    model_of(body);
    let request = match scan(body) {
        Ok(request) => request,
        Err(error) => return is_told(&error),
    };
    let tree = match Json::read(body) {
        Ok(tree) => tree,
        Err(error) => return is_passed_on_unread(&error.to_string()),
    };
    each_parameter_is_there_once(&tree);
    parameters_agree(&request, &tree);
    messages_agree(&request, &tree);
    usage_is_asked_for(&request, &tree, body);
}

/// A tree cannot hold a lone half of a surrogate pair, nor a number beyond a float's; what nobody reads here may have both.
fn is_passed_on_unread(error: &str) {
    let known = ["number out of range", "lone leading surrogate", "unexpected end of hex escape"];
    assert!(known.iter().any(|known| error.starts_with(known)), "this is no JSON: {error}");
}

fn each_parameter_is_there_once(tree: &Json) {
    for name in READ {
        assert!(tree.all(name).count() <= 1, "{name} is there twice");
    }
    for (key, _) in tree.members() {
        let folded: String = key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
        assert!(!READ.contains(&folded.as_str()) || READ.contains(&key.as_str()), "{key} resembles a parameter");
    }
}

fn parameters_agree(request: &ChatRequest<'_>, tree: &Json) {
    assert_eq!(Some(&*request.model), tree.last("model").text());
    assert!(!request.model.is_empty() && request.model.len() <= 256);
    assert_eq!(request.stream, *tree.last("stream") == Json::Bool(true));
    let include_usage = tree.last("stream_options").last("include_usage");
    assert_eq!(request.include_usage, *include_usage == Json::Bool(true));
    let [first, second] = ["max_completion_tokens", "max_tokens"].map(|name| tree.last(name).integer());
    assert_eq!(request.max_output_tokens, first.or(second));
    assert_eq!(u64::from(request.choices), tree.last("n").integer().unwrap_or(1));
    assert!((1..=128).contains(&request.choices));
    let wants_audio = tree.last("modalities").items().iter().any(|word| word.text() == Some("audio"));
    assert_eq!(request.wants_audio, wants_audio);
    let tiers = tree.last("service_tier").text().map_or(&[ServiceTier::Default][..], ServiceTier::asked);
    assert_eq!(request.service_tiers, tiers);
    assert!(matches!(tree.last("audio"), Json::Null | Json::Object(_)));
}

fn messages_agree(request: &ChatRequest<'_>, tree: &Json) {
    let messages = tree.last("messages").items();
    assert_eq!(request.messages as usize, messages.len());
    assert!(!messages.is_empty() && messages.iter().all(|message| matches!(message, Json::Object(_))));
    let (mut text_bytes, mut images, mut clips, mut audio) = (0, 0, 0, Some(AudioInput::default()));
    let length = |value: &Json| value.text().map_or(0, str::len);
    for content in messages.iter().flat_map(|message| message.all("content")) {
        text_bytes += length(content);
        for part in content.items() {
            text_bytes += part.all("text").chain(part.all("refusal")).map(length).sum::<usize>();
            images += part.all("image_url").count();
            for data in part.all("input_audio").flat_map(|clip| clip.all("data")).filter_map(Json::text) {
                clips += 1;
                audio = audio.and_then(|audio| with_clip(audio, data));
            }
        }
    }
    assert_eq!(request.text_bytes, text_bytes as u64);
    assert_eq!((request.images as usize, request.audio.clips as usize), (images, clips));
    if let Some(audio) = audio {
        assert_eq!(request.audio, audio);
    }
}

/// The clip as it is without JSON's escapes; `None` for text that has more in it than base64 ever has.
fn with_clip(mut audio: AudioInput, data: &str) -> Option<AudioInput> {
    if !data.is_ascii() || data.contains('\\') {
        return None;
    }
    let without_space: String = data.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    audio.add_clip(without_space.as_bytes());
    Some(audio)
}

/// What is sent asks for usage, says nothing else that is new, and is read as the original was.
fn usage_is_asked_for(request: &ChatRequest<'_>, tree: &Json, body: &[u8]) {
    let Some(splice) = &request.usage_splice else {
        return assert!(!request.stream || request.include_usage);
    };
    let sent = ask_for_usage(&Bytes::copy_from_slice(body), splice).concat();
    let again = scan(&sent).expect("what is sent can be read");
    let expected = ChatRequest { include_usage: true, usage_splice: None, ..request.clone() };
    assert_eq!(again, expected);
    let without = |tree: &Json, left_out: &str| {
        let kept = tree.members().iter().filter(|(key, _)| key != left_out);
        kept.cloned().collect::<Vec<_>>()
    };
    let sent = Json::read(&sent).expect("what is sent is JSON");
    assert_eq!(without(&sent, "stream_options"), without(tree, "stream_options"));
    let options = |tree: &Json| without(tree.last("stream_options"), "include_usage");
    assert_eq!(options(&sent), options(tree));
}
