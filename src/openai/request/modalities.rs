//! Whether the answer may contain audio.

use serde::de::{DeserializeSeed, SeqAccess};
use serde_json::value::RawValue;

use super::messages::{Any, Place};
use crate::openai::{error::ApiError, json};

const PARAM: &str = "modalities";

pub(super) fn include_audio(raw: &RawValue) -> Result<bool, ApiError> {
    if json::is_null(raw) {
        return Ok(false);
    }
    if json::kind(raw) != "an array" {
        return Err(ApiError::invalid_type(PARAM, "an array of strings", json::kind(raw)));
    }
    let mut words = Words::default();
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    Any(List(&mut words)).deserialize(&mut deserializer).map_err(|_| ApiError::invalid_json())?;
    words.problem.map_or(Ok(words.audio), Err)
}

#[derive(Default)]
struct Words {
    index: usize,
    audio: bool,
    problem: Option<ApiError>,
}

struct List<'w>(&'w mut Words);

impl<'a> Place<'a> for List<'_> {
    fn array<A: SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Any(Word(self.0)))?.is_some() {
            self.0.index += 1;
        }
        Ok(())
    }
}

struct Word<'w>(&'w mut Words);

impl Place<'_> for Word<'_> {
    fn string(self, text: &str) {
        self.0.audio |= text == "audio";
    }

    fn other(self, kind: &'static str) {
        let index = self.0.index;
        self.0.problem.get_or_insert_with(|| ApiError::invalid_type(format!("{PARAM}[{index}]"), "a string", kind));
    }
}
