//! What a request is taken to cost before it is answered.

use super::request::ChatRequest;

/// What an image counts, whatever its size.
const IMAGE_TOKENS: u64 = 765;

/// The tokens that `OpenAI` takes from the bucket before it runs a request (protocol facts c.2, from recorded headers):
/// neither the stated maximum nor audio is in it.
pub fn text_tokens(request: &ChatRequest<'_>) -> u64 {
    let images = image_tokens(request);
    let counts = u64::from(request.messages) + u64::from(request.choices);
    request.text_bytes.div_ceil(4).saturating_add(counts).saturating_add(images)
}

/// Those of [`text_tokens`] that nobody knows before the answer: the same for an image of any size.
pub fn image_tokens(request: &ChatRequest<'_>) -> u64 {
    IMAGE_TOKENS.saturating_mul(u64::from(request.images))
}
