//! Calls that ask what would become of them: `x-tollgate-dry-run: true`.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

use super::headers::{show_budget, show_headrooms};
use crate::{
    openai::{admission::AdmissionObject, error::ApiError},
    proxy::DryRun,
};

const DRY_RUN: &str = "x-tollgate-dry-run";

/// Whether a call is only asked about. Anything but one `true` or `false` is refused: a caller who meant either must not get
/// the other.
pub(super) fn is_asked(headers: &HeaderMap) -> Result<bool, ApiError> {
    let mut values = headers.get_all(DRY_RUN).iter();
    let asked = match values.next().map(HeaderValue::as_bytes) {
        None | Some(b"false") => Some(false),
        Some(b"true") => Some(true),
        Some(_) => None,
    };
    asked.filter(|_| values.next().is_none()).ok_or_else(|| {
        let message = "Invalid value for the header 'x-tollgate-dry-run': expected one of 'true' and 'false', once.";
        ApiError::invalid(message, std::borrow::Cow::from(DRY_RUN), std::borrow::Cow::from("invalid_value"))
    })
}

/// A JSON object, whatever was asked of the answer.
pub(super) fn respond(model: &str, dry_run: &DryRun) -> Response {
    let refused = dry_run.refused.as_ref().map(|refused| (&refused.error, &refused.reason));
    let object = AdmissionObject::new(model, dry_run.forecast.as_ref(), refused);
    let Ok(body) = serde_json::to_vec(&object) else { return ApiError::internal().into_response() };
    let mut response = ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response();
    show_headrooms(&dry_run.headrooms, response.headers_mut());
    show_budget(dry_run.budget_percent, response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&'static str]) -> Result<bool, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(DRY_RUN, HeaderValue::from_static(value));
        }
        is_asked(&headers).map_err(|error| error.status)
    }

    #[test]
    fn the_header_is_true_or_false_and_nothing_else() {
        assert_eq!((asked(&[]), asked(&["false"]), asked(&["true"])), (Ok(false), Ok(false), Ok(true)));
        for values in [&["True"][..], &["1"], &[""], &["yes"], &["true,false"], &["true", "true"], &["false", "true"]] {
            assert_eq!(asked(values), Err(400), "{values:?}");
        }
    }
}
