//! OpenAI's error object, and its words for everything we refuse. Sources: protocol facts d.2 to d.7 and the `error-*`
//! recordings. All four keys are always there.

mod limit;
mod retry;
mod spend;

use std::borrow::Cow;

use serde::Serialize;

pub use self::retry::Retry;

type Text = Cow<'static, str>;

const INVALID_REQUEST: &str = "invalid_request_error";

/// What a caller is told: the HTTP status and the body's `error` object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiError {
    #[serde(skip)]
    pub status: u16,
    pub message: Text,
    #[serde(rename = "type")]
    pub kind: Text,
    pub param: Option<Text>,
    pub code: Option<Text>,
    #[serde(skip)]
    pub retry: Retry,
}

impl ApiError {
    /// A 400 with `type: invalid_request_error`.
    pub fn invalid(message: impl Into<Text>, param: impl Into<Option<Text>>, code: impl Into<Option<Text>>) -> Self {
        Self::new(400, INVALID_REQUEST, message, param, code)
    }

    pub fn new(
        status: u16,
        kind: &'static str,
        message: impl Into<Text>,
        param: impl Into<Option<Text>>,
        code: impl Into<Option<Text>>,
    ) -> Self {
        let (message, param, code) = (message.into(), param.into(), code.into());
        Self { status, message, kind: kind.into(), param, code, retry: Retry::Unsaid }
    }

    #[must_use]
    pub const fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// `{"error":{"message":…,"type":…,"param":…,"code":…}}`
    pub fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: &'a ApiError,
        }
        // Serialising strings into memory cannot fail.
        serde_json::to_vec(&Envelope { error: self }).unwrap_or_default()
    }

    /// The error as an event of a stream whose status is already sent. No `[DONE]` follows: the answer is not complete.
    pub fn event(&self) -> Vec<u8> {
        [b"data: ", self.body().as_slice(), b"\n\n"].concat()
    }

    pub fn no_key() -> Self {
        let message = "You didn't provide an API key. You need to provide your API key in an Authorization header using \
            Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're \
            accessing the API from your browser and are prompted for a username and password. You can obtain an API key \
            from https://platform.openai.com/account/api-keys.";
        Self::new(401, INVALID_REQUEST, message, None, None)
    }

    /// `redacted` is the presented key with stars, see [`crate::domain::keys::redact`].
    pub fn wrong_key(redacted: &str) -> Self {
        let message = format!(
            "Incorrect API key provided: {redacted}. You can find your API key at \
             https://platform.openai.com/account/api-keys."
        );
        Self::new(401, INVALID_REQUEST, message, None, Text::from("invalid_api_key"))
    }

    pub fn invalid_json() -> Self {
        let message = "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your \
            HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you \
            have trouble figuring out how to fix this, please contact us through our help center at help.openai.com.)";
        Self::invalid(message, None, None)
    }

    pub fn missing_model() -> Self {
        Self::invalid("you must provide a model parameter", None, None)
    }

    pub fn missing_parameter(param: &'static str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::invalid(message, Text::from(param), Text::from("missing_required_parameter"))
    }

    pub fn duplicate_parameter(param: &'static str) -> Self {
        let message = format!("Duplicate parameter: '{param}' appears more than once in the request body.");
        Self::invalid(message, Text::from(param), Text::from("duplicate_parameter"))
    }

    pub fn unknown_parameter(param: &str) -> Self {
        let message = format!("Unknown parameter: '{param}'.");
        Self::invalid(message, Text::from(param.to_owned()), Text::from("unknown_parameter"))
    }

    /// `expected` and `got` with their article: `an integer`, `a string`.
    pub fn invalid_type(param: impl Into<Text>, expected: &str, got: &str) -> Self {
        let param = param.into();
        let message = format!("Invalid type for '{param}': expected {expected}, but got {got} instead.");
        Self::invalid(message, param, Text::from("invalid_type"))
    }

    pub fn empty_array(param: &'static str) -> Self {
        let message = format!(
            "Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
        );
        Self::invalid(message, Text::from(param), Text::from("empty_array"))
    }

    /// `got` as the caller wrote it.
    pub fn integer_below_min(param: &'static str, min: u64, got: &str) -> Self {
        let message = format!(
            "Invalid '{param}': integer below minimum value. Expected a value >= {min}, but got {} instead.",
            shortened(got)
        );
        Self::invalid(message, Text::from(param), Text::from("integer_below_min_value"))
    }

    pub fn integer_above_max(param: &'static str, max: u64, got: &str) -> Self {
        let message = format!(
            "Invalid '{param}': integer above maximum value. Expected a value <= {max}, but got {} instead.",
            shortened(got)
        );
        Self::invalid(message, Text::from(param), Text::from("integer_above_max_value"))
    }

    pub fn string_above_max(param: &'static str, max: usize, got: usize) -> Self {
        let message = format!(
            "Invalid '{param}': string too long. Expected a string with maximum length {max}, but got a string with length \
             {got} instead."
        );
        Self::invalid(message, Text::from(param), Text::from("string_above_max_length"))
    }

    pub fn control_characters(param: &'static str) -> Self {
        let message = format!("Invalid '{param}': expected a string without control characters.");
        Self::invalid(message, Text::from(param), Text::from("invalid_value"))
    }

    pub fn stream_options_without_stream() -> Self {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        Self::invalid(message, Text::from("stream_options"), None)
    }

    pub fn unknown_model(model: &str) -> Self {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        Self::new(404, INVALID_REQUEST, message, None, Text::from("model_not_found"))
    }

    /// The model exists, and answers elsewhere.
    pub fn not_a_chat_model() -> Self {
        let message = "This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean \
            to use v1/completions?";
        Self::new(404, INVALID_REQUEST, message, Text::from("model"), None)
    }

    /// `GET /v1/models/{id}` says it in other words (recording error-404_model-get).
    pub fn no_such_model(model: &str) -> Self {
        let message = format!("The model '{model}' does not exist");
        Self::new(404, INVALID_REQUEST, message, Text::from("model"), Text::from("model_not_found"))
    }

    /// The caller is known, and so is the model, but one is not for the other (protocol facts d.4).
    pub fn model_not_allowed(project: &str, model: &str) -> Self {
        let message = format!("Project `{project}` does not have access to model `{model}`");
        Self::new(403, INVALID_REQUEST, message, None, Text::from("model_not_found"))
    }

    pub fn unpriced_model(model: &str) -> Self {
        let message = format!(
            "The model `{model}` has no price on this gateway, so it cannot be billed. Ask the gateway's administrator to \
             add its price, or to set allow_unpriced = true."
        );
        Self::invalid(message, Text::from("model"), Text::from("model_not_priced"))
    }

    pub fn unknown_url(method: &str, path: &str) -> Self {
        Self::new(404, INVALID_REQUEST, format!("Invalid URL ({method} {path})"), None, None)
    }

    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("Not allowed to {method} on {path}");
        Self::new(405, INVALID_REQUEST, message, None, Text::from("method_not_supported"))
    }

    pub fn too_large(limit_bytes: u64, read_bytes: u64) -> Self {
        let message = format!("Maximum content size limit ({limit_bytes}) exceeded ({read_bytes} bytes read)");
        Self::new(413, "server_error", message, None, None).with_retry(Retry::No)
    }

    /// The body stopped arriving.
    pub fn request_timeout() -> Self {
        let message = "Timed out while waiting for the rest of the request body.";
        Self::new(408, INVALID_REQUEST, message, None, Text::from("request_timeout"))
    }

    pub fn unsupported_encoding() -> Self {
        let message = "Compressed request bodies are not supported: send the body without a Content-Encoding header.";
        Self::new(415, INVALID_REQUEST, message, None, Text::from("unsupported_encoding"))
    }

    /// Our own fault; the log knows more, under the request id that the answer's header carries.
    pub fn internal() -> Self {
        let message = "The server had an error processing your request. Sorry about that! You can retry your request, or \
            contact the gateway's administrator if you keep seeing this error. (Please include the request ID from the \
            x-request-id header.)";
        Self::new(500, "server_error", message, None, None)
    }

    /// New requests cannot be recorded (the journal's disk is full, say), so they are not taken.
    pub fn storage_unavailable() -> Self {
        let message = "The gateway cannot record requests at the moment and therefore does not take new ones. Please retry \
            later.";
        Self::new(503, "service_unavailable_error", message, None, Text::from("storage_unavailable"))
    }

    pub fn overloaded() -> Self {
        let message = "The gateway is overloaded or shutting down. Please retry later.";
        Self::new(503, "service_unavailable_error", message, None, Text::from("server_is_overloaded"))
    }

    /// A 502 or 504 about the service behind us. `code` names what happened, `message` says it for people.
    pub fn upstream(status: u16, code: &'static str, message: &'static str) -> Self {
        Self::new(status, "server_error", message, None, Text::from(code))
    }

    pub fn admin_key_required() -> Self {
        let message = "This endpoint needs an admin key: send it as `Authorization: Bearer <admin key>`. API keys of \
            projects are not accepted here.";
        Self::new(401, INVALID_REQUEST, message, None, Text::from("invalid_api_key"))
    }

    /// A project's API key, valid, at a door for admins.
    pub fn insufficient_permissions() -> Self {
        let message = "You have insufficient permissions for this operation. Missing scopes: api.management.read, \
            api.management.write. API keys of projects do not have them: use an admin key.";
        Self::new(403, INVALID_REQUEST, message, None, None)
    }

    /// Two credentials in one request: which of them is meant is not for us to guess.
    pub fn conflicting_credentials() -> Self {
        let message = "The request carries more than one credential. Send one Authorization header, and no x-api-key \
            header that differs from it.";
        Self::invalid(message, None, Text::from("conflicting_credentials"))
    }

    pub fn key_in_url() -> Self {
        let message = "The URL of the request carries an API key. Send it in the Authorization header instead, and replace \
            the key: URLs are written down in many places.";
        Self::invalid(message, None, Text::from("api_key_in_url"))
    }

    pub fn no_such(object: &str, id: &str) -> Self {
        let message = format!("No such {object} object: {id}");
        Self::new(404, INVALID_REQUEST, message, Text::from("id"), None)
    }
}

/// The beginning of a number that may have a million digits.
fn shortened(number: &str) -> &str {
    number.get(..40).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_all_four_keys() {
        let body = String::from_utf8(ApiError::unknown_model("x").body()).unwrap();
        assert_eq!(
            body,
            r#"{"error":{"message":"The model `x` does not exist or you do not have access to it.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#
        );
    }
}
