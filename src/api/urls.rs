//! What URLs may hold: ids, but no keys, because proxies, browsers and shells write URLs down.

use axum::extract::{self, FromRequestParts};
use http::{Uri, request::Parts};
use serde::de::DeserializeOwned;

use crate::openai::error::ApiError;

/// The ids in a path, as axum reads them; a path that is no text is an unknown URL like any other.
pub(super) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(ApiError::unknown_url(parts.method.as_str(), parts.uri.path())),
        }
    }
}

/// Names under which other services take a key in the query.
const NAMES: [&str; 9] =
    ["api_key", "api-key", "apikey", "key", "token", "access_token", "auth_token", "authorization", "x-api-key"];
/// What every key begins with, ours and `OpenAI`'s, and the length of the shortest.
const PREFIX: &str = "sk-";
const MIN_LENGTH: usize = 20;

/// Whether somebody seems to have put a key into the path or the query.
pub(super) fn carry_key(uri: &Uri) -> bool {
    let named = |name: &str| NAMES.into_iter().any(|known| known.eq_ignore_ascii_case(name));
    let holds_key = |text: &str| {
        form_urlencoded::parse(text.as_bytes())
            .any(|(name, value)| holds_like_key(&name) || holds_like_key(&value) || (named(&name) && !value.is_empty()))
    };
    let path = uri.path();
    holds_like_key(path) || (path.contains('%') && path.split('/').any(holds_key)) || uri.query().is_some_and(holds_key)
}

/// Alone, or behind something that is no letter: `Bearer sk-...`.
fn holds_like_key(text: &str) -> bool {
    text.match_indices(PREFIX).any(|(at, _)| {
        let (before, key) = text.split_at(at);
        let is_of_key = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_whole = before.bytes().next_back().is_none_or(|byte| !is_of_key(&byte));
        is_whole && key.bytes().take_while(is_of_key).count() >= MIN_LENGTH
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_paths_and_queries_and_nothing_else_is_taken_for_one() {
        let key = "sk-tg_abcdefghijkl_0123";
        for url in [
            format!("/v1/models?api_key={key}"),
            "/v1/models?a=1&Key=x".to_owned(),
            "/v1/models?ACCESS_TOKEN=x".to_owned(),
            "/v1/models?authorization=Bearer%20x".to_owned(),
            format!("/v1/models?{key}"),
            format!("/v1/models?a={key}"),
            format!("/v1/models/{key}"),
            format!("/{key}/v1/models"),
            format!("/v1/models?q=Bearer%20{key}"),
            "/v1/models/sk%2Dtg_abcdefghijkl_0123".to_owned(),
            "/v1/models?a=sk%2Dtg_abcdefghijkl_0123".to_owned(),
            "/v1/models?api%5Fkey=x".to_owned(),
        ] {
            assert!(carry_key(&url.parse().unwrap()), "{url}");
        }
        for url in [
            "/v1/models",
            "/v1/models?",
            "/v1/models?key=",
            "/v1/models?key",
            "/v1/models/sk-learn",
            "/v1/models/desk-of-somebody-who-writes-much",
            "/v1/models/100%25",
            "/v1/organization/requests?api_key_ids=key_abcdefghijkl&after=x",
            "/v1/organization/projects/proj_a/api_keys/key_a?limit=1",
        ] {
            assert!(!carry_key(&url.parse().unwrap()), "{url}");
        }
    }
}
