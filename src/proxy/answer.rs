//! From the upstream's answer to ours.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
};
use hyper::body::Incoming;

use super::{
    Call, Proxy,
    body::{MeteredBody, Stream},
    intake::{Intake, Unusable},
    recorder::{Consumed, Delivered, Ending, Meter},
};
use crate::{
    clock::Clock,
    domain::{ledger::Outcome, limits::Headrooms},
    openai::{
        error::{ApiError, Retry},
        headers::{retry_after, upstream_retry_after, upstream_retry_after_ms},
        upstream_error::{self, About},
        usage::{estimate_output, read_answer},
    },
    upstream::{Attempt, UpstreamError, Withheld},
};

/// Our answer to a caller, before `api` adds the headers that every answer has.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: AnswerBody,
    pub headrooms: Headrooms,
    /// How far a soft limit on money is used, once that is worth telling.
    pub budget_percent: Option<u64>,
}

pub enum AnswerBody {
    Whole(Bytes),
    Stream(Box<MeteredBody>),
}

/// Response headers that pass on to the caller; everything else stays here.
const PASSED_ON: [&str; 6] = [
    "cache-control",
    "content-type",
    "openai-processing-ms",
    "openai-version",
    "x-content-type-options",
    "x-should-retry",
];
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Answer {
    pub fn error(error: &ApiError) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
        if error.retry.is_advised_against() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(nanos) = error.retry.wait_nanos() {
            let (seconds, millis) = retry_after(nanos);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
        }
        Self::new(status, headers, AnswerBody::Whole(error.body().into()))
    }

    fn new(status: StatusCode, headers: HeaderMap, body: AnswerBody) -> Self {
        Self { status, headers, body, headrooms: Headrooms::default(), budget_percent: None }
    }

    fn passed_on(response: &Response<Incoming>, body: AnswerBody, clock: &Clock) -> Self {
        // The next larger table has room for 24: hyper keeps it for as long as the answer takes.
        let mut headers = HeaderMap::with_capacity(12);
        for name in PASSED_ON {
            if let Some(value) = response.headers().get(name) {
                headers.insert(HeaderName::from_static(name), value.clone());
            }
        }
        let told = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if let Some(seconds) = told(RETRY_AFTER).and_then(|value| upstream_retry_after(value, clock.now())) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(millis) = told(RETRY_AFTER_MS).and_then(upstream_retry_after_ms) {
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
        }
        if let Some(id) = response.headers().get("x-request-id") {
            headers.insert(UPSTREAM_REQUEST_ID, id.clone());
        }
        Self::new(response.status(), headers, body)
    }
}

/// What came of a call. A stream is settled by its body; anything else ends here.
#[expect(clippy::large_enum_variant, reason = "one for each request, moved once: a box would cost more")]
pub(super) enum Answered {
    Whole(Answer, Ending),
    Stream(Response<Incoming>),
}

impl Proxy {
    /// Sends the call and reads what comes back, up to where it is settled.
    pub(super) async fn answer(&self, call: &Call, intake: &Intake) -> Answered {
        let on_attempt = |attempt| {
            self.metrics.upstream_calls.inc();
            if attempt == Attempt::Second {
                self.metrics.upstream_retries.inc();
            }
        };
        match self.upstream.send(&call.upstream, &call.model, on_attempt).await {
            Err(UpstreamError::Withheld(withheld)) => {
                self.metrics.failing.withheld.inc();
                failed(&withheld_for_now(withheld), Consumed::NotSent)
            }
            Err(error) => {
                tracing::warn!(request_id = %call.request_id(), %error, "the upstream call failed");
                failed(&unreachable(&error), consumed_by(&error))
            }
            Ok(response) if response.status() == StatusCode::OK && is_encoded(&response) => {
                let message = "The upstream has encoded its answer, which it was asked not to.";
                let error = ApiError::upstream(502, "upstream_invalid_response", message);
                failed(&error, Consumed::Delivered(Delivered::default()))
            }
            Ok(response) if response.status() == StatusCode::OK && is(&response, "text/event-stream") => {
                Answered::Stream(response)
            }
            Ok(response) if response.status() == StatusCode::OK && is(&response, "application/json") => {
                self.whole(call, response, intake).await
            }
            Ok(response) => self.refusal(call, response, intake).await,
        }
    }

    pub(super) fn stream(&self, call: &Call, response: Response<Incoming>, meter: Meter) -> Answer {
        let mut answer = Answer::passed_on(&response, AnswerBody::Whole(Bytes::new()), &self.clock);
        let stream = Stream::new(call, response.status(), meter);
        let drainer = std::sync::Arc::clone(&self.drainer);
        let body = MeteredBody::new(response.into_body(), stream, self.options.stream_times, drainer);
        answer.body = AnswerBody::Stream(Box::new(body));
        answer
    }

    /// A JSON answer is read whole before its first byte goes on: its usage stands at its end, and a broken body can
    /// still become an error.
    async fn whole(&self, call: &Call, response: Response<Incoming>, intake: &Intake) -> Answered {
        let (mut answer, body) = self.read(response, intake).await;
        let body = match body {
            Ok(body) => body,
            Err(unusable) => return failed(&broken(call, &unusable), Consumed::Delivered(Delivered::default())),
        };
        let Ok(facts) = read_answer(&body) else {
            tracing::warn!(request_id = %call.request_id(), bytes = body.len(), "the upstream's answer is not JSON");
            let error =
                ApiError::upstream(502, "upstream_invalid_response", "The upstream's answer is not valid JSON.");
            return failed(&error, Consumed::Delivered(Delivered::default()));
        };
        let consumed = match facts.usage {
            Some(usage) => {
                Consumed::Reported { usage, model: facts.model, service_tier: facts.service_tier.unwrap_or_default() }
            }
            None => {
                let (text_tokens, audio_tokens) = estimate_output(&body);
                let nothing_came = text_tokens == 0 && audio_tokens == 0;
                if nothing_came && let Some(error) = upstream_error::UpstreamError::read(&body) {
                    return error_instead_of_an_answer(call, error);
                }
                Consumed::Delivered(Delivered { text_tokens, audio_tokens, service_tier: facts.service_tier })
            }
        };
        let outcome = if facts.is_error { Outcome::UpstreamFailed } else { Outcome::Completed };
        let ending = Ending { outcome, status: answer.status.as_u16(), consumed };
        answer.body = AnswerBody::Whole(body);
        Answered::Whole(answer, ending)
    }

    /// Anything but a good answer. An error in `OpenAI`'s shape passes on as it came, except that the upstream's word about
    /// *our* key never looks like a word about the caller's.
    async fn refusal(&self, call: &Call, response: Response<Incoming>, intake: &Intake) -> Answered {
        let status = response.status();
        if !is_callers_fault(status) {
            tracing::warn!(request_id = %call.request_id(), status = status.as_u16(), "the upstream refused or failed");
        }
        match status.as_u16() {
            401 | 407 => failed(&refused(About::OurKey), Consumed::Nothing),
            403 => {
                let body = self.read(response, intake).await.1.unwrap_or_default();
                let about = upstream_error::UpstreamError::read(&body).map_or(About::OurKey, |error| error.about());
                failed(&refused(about), Consumed::Nothing)
            }
            300..=399 => {
                let message = "The upstream answered with a redirect, which is not followed.";
                let error = ApiError::upstream(502, "upstream_redirect", message).with_retry(Retry::No);
                failed(&error, Consumed::Nothing)
            }
            400..=599 => self.upstreams_own_error(call, response, intake).await,
            _ => {
                let message = "The upstream's answer is neither JSON nor an event stream.";
                let error = ApiError::upstream(502, "upstream_invalid_response", message);
                failed(&error, Consumed::Delivered(Delivered::default()))
            }
        }
    }

    async fn upstreams_own_error(&self, call: &Call, response: Response<Incoming>, intake: &Intake) -> Answered {
        let status = response.status();
        if let (mut answer, Ok(body)) = self.read(response, intake).await
            && read_answer(&body).is_ok_and(|facts| facts.is_error)
        {
            let outcome = if is_callers_fault(status) {
                let code = upstream_error::UpstreamError::read(&body).and_then(|error| error.code);
                tracing::debug!(request_id = %call.request_id(), status = status.as_u16(), code, "the upstream refused");
                Outcome::Completed
            } else {
                Outcome::UpstreamFailed
            };
            answer.body = AnswerBody::Whole(body);
            return Answered::Whole(answer, Ending { outcome, status: status.as_u16(), consumed: Consumed::Nothing });
        }
        let status = if status.is_server_error() { status.as_u16() } else { 502 };
        let message = "The upstream failed and did not say why in a way that can be passed on.";
        failed(&ApiError::upstream(status, "upstream_error", message), Consumed::Nothing)
    }

    async fn read(&self, response: Response<Incoming>, intake: &Intake) -> (Answer, Result<Bytes, Unusable>) {
        let answer = Answer::passed_on(&response, AnswerBody::Whole(Bytes::new()), &self.clock);
        let body = intake.collect(response.into_body(), self.options.stream_times).await;
        (answer, body)
    }
}

fn is(response: &Response<Incoming>, media_type: &str) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(media_type))
}

/// Usage cannot be read from an answer that is compressed.
fn is_encoded(response: &Response<Incoming>) -> bool {
    let mut encodings = response.headers().get_all(CONTENT_ENCODING).iter();
    encodings.any(|encoding| !encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// A request that failed, answered with `error`.
fn failed(error: &ApiError, consumed: Consumed) -> Answered {
    let ending = Ending { outcome: Outcome::UpstreamFailed, status: error.status, consumed };
    Answered::Whole(Answer::error(error), ending)
}

/// An error where an answer should be, under a status that says otherwise. The upstream bills nothing for it.
fn error_instead_of_an_answer(call: &Call, error: upstream_error::UpstreamError) -> Answered {
    tracing::warn!(request_id = %call.request_id(), code = error.code, "the upstream answered 200 with an error");
    let error = if error.is_about_our_key() { refused(About::OurKey) } else { error.into_api_error() };
    failed(&error, Consumed::Nothing)
}

/// The upstream's refusals that the request itself has brought about; those of our key, of our use, and failures are not.
fn is_callers_fault(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 407 | 408 | 429)
}

/// None of these changes when the same is sent again.
fn refused(about: About) -> ApiError {
    let (code, message) = match about {
        About::OurKey => (
            "upstream_auth_error",
            "The upstream refused the gateway's own credentials. This is not about your API key: tell the gateway's \
             administrator.",
        ),
        About::ModelAccess => (
            "upstream_model_access",
            "The gateway's own account with the upstream has no access to this model. This is not about your API key: tell \
             the gateway's administrator.",
        ),
        About::Region => (
            "upstream_region_unsupported",
            "The upstream does not serve the country, region or territory that the gateway calls from. Tell the gateway's \
             administrator.",
        ),
    };
    ApiError::upstream(502, code, message).with_retry(Retry::No)
}

const fn consumed_by(error: &UpstreamError) -> Consumed {
    if error.nothing_was_sent() {
        Consumed::NotSent
    } else {
        // It may have been processed: the input is charged, flagged as estimated, never silently nothing.
        Consumed::Delivered(Delivered { text_tokens: 0, audio_tokens: 0, service_tier: None })
    }
}

fn unreachable(error: &UpstreamError) -> ApiError {
    match error {
        UpstreamError::Withheld(withheld) => withheld_for_now(*withheld),
        UpstreamError::NotReached(_) | UpstreamError::Closed(_) => ApiError::upstream(
            502,
            "upstream_unavailable",
            "The gateway cannot reach the upstream. Please retry later.",
        ),
        UpstreamError::ConnectTimedOut(_) => {
            ApiError::upstream(504, "upstream_timeout", "The upstream did not accept the connection in time.")
        }
        UpstreamError::TimedOut(_) => {
            ApiError::upstream(504, "upstream_timeout", "The upstream did not answer in time.")
        }
        UpstreamError::Broken(_) => ApiError::upstream(
            502,
            "upstream_connection_lost",
            "The connection to the upstream was lost before it answered.",
        ),
    }
}

/// Others have learnt in vain what this call would learn.
fn withheld_for_now(withheld: Withheld) -> ApiError {
    let message = if withheld.unreachable {
        "The gateway cannot reach the upstream and does not try for a moment. Please retry later."
    } else {
        "The upstream does not answer for this model, and the gateway does not ask it for a moment. Please retry later."
    };
    let nanos = u64::try_from(withheld.wait.as_nanos()).unwrap_or(u64::MAX);
    ApiError::upstream(503, "upstream_unavailable", message).with_retry(Retry::After { nanos })
}

fn broken(call: &Call, unusable: &Unusable) -> ApiError {
    let (status, code, message) = match unusable {
        Unusable::TooLarge => {
            (502, "upstream_answer_too_large", "The upstream's answer is larger than the gateway takes.")
        }
        Unusable::Silent => (504, "upstream_timeout", "The upstream stopped sending in the middle of its answer."),
        Unusable::Broken(error) => {
            tracing::warn!(request_id = %call.request_id(), %error, "the upstream broke off its answer");
            (502, "upstream_connection_lost", "The connection to the upstream was lost during the answer.")
        }
    };
    ApiError::upstream(status, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_request_brought_about_is_the_callers_fault() {
        let is = |status| is_callers_fault(StatusCode::from_u16(status).unwrap());
        assert!([400, 404, 413, 415, 422].into_iter().all(is));
        assert!(![302, 401, 403, 407, 408, 429, 500, 503].into_iter().any(is));
    }
}
