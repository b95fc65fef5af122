//! What a whole answer without usage delivered, by looking at its choices. Rare, so a tree is good enough.

use serde_json::Value;

/// Bytes of text per token, as OpenAI's own estimate counts (protocol facts c.2).
const BYTES_PER_TOKEN: u64 = 4;
/// Base64 characters of pcm16 per audio token: the densest format, so others are never over-counted.
const BASE64_PER_AUDIO_TOKEN: u64 = 3_200;

/// Output tokens of text and of audio in `body`, estimated.
pub fn estimate_output(body: &[u8]) -> (u64, u64) {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return (0, 0) };
    let choices = answer.get("choices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (mut text_bytes, mut base64_bytes) = (0_u64, 0_u64);
    for message in choices.iter().filter_map(|choice| choice.get("message")) {
        let audio = message.get("audio");
        base64_bytes = base64_bytes.saturating_add(length(audio.and_then(|audio| audio.get("data"))));
        text_bytes = text_bytes.saturating_add(length(audio.and_then(|audio| audio.get("transcript"))));
        for spoken in ["content", "refusal", "reasoning_content"] {
            text_bytes = text_bytes.saturating_add(length(message.get(spoken)));
        }
        let calls = message.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for function in calls.iter().filter_map(|call| call.get("function")) {
            text_bytes = text_bytes.saturating_add(length(function.get("name")));
            text_bytes = text_bytes.saturating_add(length(function.get("arguments")));
        }
    }
    (text_bytes.div_ceil(BYTES_PER_TOKEN), base64_bytes.div_ceil(BASE64_PER_AUDIO_TOKEN))
}

fn length(value: Option<&Value>) -> u64 {
    value.and_then(Value::as_str).map_or(0, |text| text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_calls_and_audio_are_counted() {
        let audio = "A".repeat(6_400);
        let body = format!(
            r#"{{"choices":[{{"message":{{"content":"12345678","tool_calls":[{{"function":{{"name":"f","arguments":"{{}} "}}}}]}}}},
               {{"message":{{"content":null,"audio":{{"data":"{audio}","transcript":"hey"}}}}}}]}}"#
        );
        assert_eq!(estimate_output(body.as_bytes()), (4, 2));
        assert_eq!(estimate_output(b"not json"), (0, 0));
        assert_eq!(estimate_output(br#"{"choices":{}}"#), (0, 0));
    }
}
