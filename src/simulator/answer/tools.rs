//! Tool calls.
//!
//! The rule: a named `tool_choice` calls that tool; `required` calls the first; otherwise tools are called when the last message
//! is a user's and mentions a tool's name or the word "weather". Two calls are made when that message contains " and " and
//! `parallel_tool_calls` is not false. Arguments are an example of the tool's schema.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::example::example;
use crate::simulator::{
    ids::Letters,
    request::{ChatRequest, Text},
};

#[derive(Clone, Debug)]
pub(in crate::simulator) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: super::text::Text,
    pub(super) custom: bool,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow)]
    function: Option<Definition<'a>>,
    #[serde(borrow)]
    custom: Option<Definition<'a>>,
}

#[derive(Deserialize)]
struct Definition<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    function: Option<Definition<'a>>,
    #[serde(borrow)]
    custom: Option<Definition<'a>>,
}

/// The calls to make; none is a text answer.
pub(super) fn calls(request: &ChatRequest<'_>, letters: &mut Letters) -> Vec<Call> {
    let tools: Vec<Tool<'_>> =
        request.tools.and_then(|tools| serde_json::from_str(tools.get()).ok()).unwrap_or_default();
    let Some(first) = tools.first() else { return Vec::new() };
    let text = request.last_user_text().unwrap_or("");
    let mentioned = tools.iter().find(|tool| tool.name().is_some_and(|name| text.contains(name)));
    let chosen = match request.tool_choice.map(RawValue::get) {
        Some(r#""none""#) => None,
        Some(r#""required""#) => Some(mentioned.unwrap_or(first)),
        Some(choice) if choice.starts_with('{') => {
            let named = named(choice);
            tools.iter().find(|tool| tool.name() == named.as_deref())
        }
        _ => mentioned.or_else(|| text.to_ascii_lowercase().contains("weather").then_some(first)),
    };
    let twice = text.contains(" and ") && request.parallel_tool_calls != Some(false);
    chosen.into_iter().cycle().take(1 + usize::from(twice)).filter_map(|tool| tool.call(letters)).collect()
}

/// A named choice ends with `stop`, as `OpenAI` documents.
pub(super) fn is_named(request: &ChatRequest<'_>) -> bool {
    request.tool_choice.is_some_and(|choice| choice.get().starts_with('{'))
}

fn named(choice: &str) -> Option<String> {
    let named: Named<'_> = serde_json::from_str(choice).ok()?;
    named.function.or(named.custom).map(|definition| definition.name.to_string())
}

impl Tool<'_> {
    fn name(&self) -> Option<&str> {
        self.function.as_ref().or(self.custom.as_ref()).map(|definition| &*definition.name)
    }

    fn call(&self, letters: &mut Letters) -> Option<Call> {
        let definition = self.function.as_ref().or(self.custom.as_ref())?;
        let schema = definition.parameters.and_then(|schema| serde_json::from_str(schema.get()).ok());
        let custom = self.function.is_none();
        let arguments = match schema {
            _ if custom => "simulated".to_owned(),
            Some(schema) => example(&schema).to_string(),
            None => "{}".to_owned(),
        };
        let mut id = b"call_".to_vec();
        letters.text(24, &mut id);
        Some(Call {
            id: String::from_utf8_lossy(&id).into_owned(),
            name: definition.name.to_string(),
            arguments: super::text::Text::Written(arguments),
            custom,
        })
    }
}
