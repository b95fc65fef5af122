//! The `error` of an answer, as services write it: mostly OpenAI's object, sometimes only a text.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{error::ApiError, json};

/// More is no message for people.
const MAX_TEXT_BYTES: usize = 2_000;

/// What an error says. Whatever is missing, or is no text, is `None`; a code may be a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamError {
    pub message: Option<String>,
    pub kind: Option<String>,
    pub param: Option<String>,
    pub code: Option<String>,
}

/// What a refusal is about, as far as it is not about the caller's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The key that the gateway presents.
    OurKey,
    /// What that key may use.
    ModelAccess,
    /// Where the gateway is.
    Region,
}

impl UpstreamError {
    /// `None` when `body` is not an object with an `error` that is an object or a text.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut error = None;
        let is_object = json::members(body, |key| key == "error", |_, value| error = Some(value));
        let error = error.filter(|_| is_object)?;
        if let Some(message) = json::text(error) {
            return Some(Self { message: short(&message), ..Self::default() });
        }
        let mut read = Self::default();
        let is_object = json::members(
            error.get().as_bytes(),
            |_| true,
            |key, value| match key {
                "message" => read.message = text(value),
                "type" => read.kind = text(value),
                "param" => read.param = text(value),
                "code" => read.code = text(value),
                _ => {}
            },
        );
        is_object.then_some(read)
    }

    /// What a 401 or 403 is about.
    pub fn about(&self) -> About {
        match self.code.as_deref() {
            Some("model_not_found") => About::ModelAccess,
            Some("unsupported_country_region_territory") => About::Region,
            _ => About::OurKey,
        }
    }

    /// True when it is about the key that the gateway presents: its words are not for callers.
    pub fn is_about_our_key(&self) -> bool {
        let is = |text: &Option<String>, names: &[&str]| text.as_deref().is_some_and(|text| names.contains(&text));
        is(&self.code, &["invalid_api_key", "401", "403"]) || is(&self.kind, &["authentication_error"])
    }

    /// The same error in `OpenAI`'s shape, with a status that says it is one.
    pub fn into_api_error(self) -> ApiError {
        let unsaid = "The upstream failed and did not say why in a way that can be passed on.";
        let message = self.message.map_or(Cow::Borrowed(unsaid), Cow::Owned);
        let mut error =
            ApiError::new(502, "server_error", message, self.param.map(Cow::Owned), self.code.map(Cow::Owned));
        if let Some(kind) = self.kind {
            error.kind = Cow::Owned(kind);
        }
        error
    }
}

fn text(raw: &RawValue) -> Option<String> {
    match json::text(raw) {
        Some(text) => short(&text),
        None if json::is_integer(raw.get()) => short(raw.get()),
        None => None,
    }
}

fn short(text: &str) -> Option<String> {
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    text.get(..end).filter(|text| !text.is_empty()).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_in_every_shape() {
        let read = |body: &str| UpstreamError::read(body.as_bytes());
        let full = read(r#"{"error":{"message":"m","type":"t","param":"p","code":"c","more":[1]}}"#).unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(full, UpstreamError { message: some("m"), kind: some("t"), param: some("p"), code: some("c") });
        let error = full.into_api_error();
        assert_eq!(
            (error.status, error.body()),
            (502, br#"{"error":{"message":"m","type":"t","param":"p","code":"c"}}"#.to_vec())
        );
        assert_eq!(read(r#"{"error":"words"}"#).unwrap().message, some("words"));
        let number = read(r#"{"error":{"code":429,"message":null}}"#).unwrap();
        assert_eq!((&number.code, &number.message), (&some("429"), &None));
        let error = number.into_api_error();
        assert_eq!(
            (error.kind.as_ref(), error.param.is_none(), error.message.is_empty()),
            ("server_error", true, false)
        );
        for none in ["", "[]", "{}", r#"{"error":null}"#, r#"{"error":[1]}"#, r#"{"error":{"#] {
            assert_eq!(read(none), None, "{none}");
        }
        let long = read(&format!(r#"{{"error":"{}"}}"#, "é".repeat(5_000))).unwrap();
        assert_eq!(long.message.map(|message| message.len()), Some(2_000));
    }

    #[test]
    fn what_a_refusal_is_about_stands_in_its_code() {
        let about = |code: &str| UpstreamError { code: Some(code.to_owned()), ..UpstreamError::default() };
        assert_eq!(about("model_not_found").about(), About::ModelAccess);
        assert_eq!(about("unsupported_country_region_territory").about(), About::Region);
        assert_eq!(about("invalid_api_key").about(), About::OurKey);
        assert_eq!((about("401").is_about_our_key(), about("server_error").is_about_our_key()), (true, false));
    }
}
