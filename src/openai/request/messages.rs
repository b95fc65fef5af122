//! What the messages hold: text, images and audio, counted while the parser passes over them.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::openai::{
    audio::AudioInput,
    error::ApiError,
    json::{self, Skip, Text},
};

#[derive(Default)]
pub(super) struct Contents {
    pub(super) messages: u32,
    pub(super) text_bytes: u64,
    pub(super) images: u32,
    pub(super) audio: AudioInput,
    pub(super) problem: Option<ApiError>,
}

/// A place in the body that looks at some kinds of value and skips the others.
pub(super) trait Place<'a>: Sized {
    fn string(self, _text: &str) {}

    /// `kind` as in OpenAI's error messages.
    fn other(self, _kind: &'static str) {}

    fn array<A: SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Skip)?.is_some() {}
        self.other("an array");
        Ok(())
    }

    fn object<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_key::<Text<'_>>()?.is_some() {
            members.next_value_seed(Skip)?;
        }
        self.other("an object");
        Ok(())
    }
}

/// Any JSON value at a place.
pub(super) struct Any<P>(pub(super) P);

impl<'a, P: Place<'a>> DeserializeSeed<'a> for Any<P> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a, P: Place<'a>> Visitor<'a> for Any<P> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.other("null");
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        self.0.other("a boolean");
        Ok(())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<(), E> {
        self.0.other("an integer");
        Ok(())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<(), E> {
        self.0.other("an integer");
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        self.0.other("a decimal number");
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.string(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, items: A) -> Result<(), A::Error> {
        self.0.array(items)
    }

    fn visit_map<A: MapAccess<'a>>(self, members: A) -> Result<(), A::Error> {
        self.0.object(members)
    }
}

/// The value of `messages`.
pub(super) struct Messages<'c>(pub(super) &'c mut Contents);

impl<'a> Place<'a> for Messages<'_> {
    fn string(self, _text: &str) {
        self.other("a string");
    }

    fn other(self, kind: &'static str) {
        self.0.problem.get_or_insert_with(|| ApiError::invalid_type("messages", "an array of objects", kind));
    }

    fn array<A: SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Any(Message(self.0)))?.is_some() {
            self.0.messages = self.0.messages.saturating_add(1);
        }
        Ok(())
    }
}

struct Message<'c>(&'c mut Contents);

impl<'a> Place<'a> for Message<'_> {
    fn string(self, _text: &str) {
        self.other("a string");
    }

    fn other(self, kind: &'static str) {
        let index = self.0.messages;
        let problem = || ApiError::invalid_type(format!("messages[{index}]"), "an object", kind);
        self.0.problem.get_or_insert_with(problem);
    }

    /// A repeated key counts each time: more than the upstream may see, never less.
    fn object<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = members.next_key()? {
            match &*key {
                "content" => members.next_value_seed(Any(Content(self.0)))?,
                _ => members.next_value_seed(Skip)?,
            }
        }
        Ok(())
    }
}

/// A message's content: a string, or parts.
struct Content<'c>(&'c mut Contents);

impl<'a> Place<'a> for Content<'_> {
    fn string(self, text: &str) {
        count_text(self.0, text);
    }

    fn array<A: SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Any(Part(self.0)))?.is_some() {}
        Ok(())
    }
}

/// One part, told by the member it carries: its `type` may come later, or lie.
struct Part<'c>(&'c mut Contents);

impl<'a> Place<'a> for Part<'_> {
    fn object<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = members.next_key()? {
            match &*key {
                "text" | "refusal" => members.next_value_seed(Any(PlainText(self.0)))?,
                "image_url" => {
                    members.next_value_seed(Skip)?;
                    self.0.images = self.0.images.saturating_add(1);
                }
                "input_audio" => members.next_value_seed(Any(InputAudio(self.0)))?,
                _ => members.next_value_seed(Skip)?,
            }
        }
        Ok(())
    }
}

struct PlainText<'c>(&'c mut Contents);

impl Place<'_> for PlainText<'_> {
    fn string(self, text: &str) {
        count_text(self.0, text);
    }
}

struct InputAudio<'c>(&'c mut Contents);

impl<'a> Place<'a> for InputAudio<'_> {
    fn object<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = members.next_key()? {
            if key != "data" {
                members.next_value_seed(Skip)?;
                continue;
            }
            let data: &RawValue = json::shallow(members.next_value()?)?;
            let quoted = data.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            if let Some(base64) = quoted {
                self.0.audio.add_clip(base64.as_bytes());
            }
        }
        Ok(())
    }
}

fn count_text(contents: &mut Contents, text: &str) {
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    contents.text_bytes = contents.text_bytes.saturating_add(bytes);
}
