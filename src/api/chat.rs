//! `POST /v1/chat/completions`.

use std::{num::NonZeroU32, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{
    auth,
    body::{self, BodyLimits, NoBody},
    dry_run,
    headers::{show_budget, show_headrooms},
};
use crate::{
    app::{App, AppState},
    domain::{ids::RequestId, keys::Caller, limits::Headrooms},
    openai::{
        endpoint::Endpoint,
        error::ApiError,
        estimate::{image_tokens, text_tokens},
        request::{self, ChatRequest},
    },
    proxy::{Answer, AnswerBody, Call, estimate::Size},
    upstream::{self, SliceBody},
};

pub(super) async fn create(
    State(AppState(app)): State<AppState>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let caller = match auth::caller(&app.accounts, &head.headers, app.clock.now()) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let limits = BodyLimits { max_bytes: app.body_limits.max_bytes, idle: app.body_limits.idle };
    let body = match body::read(&head.headers, body, &limits).await {
        Ok(body) => body,
        Err(NoBody::Refused(error)) => return invalid(&app, &caller, None, error),
        Err(NoBody::Gone) => return ApiError::request_timeout().into_response(),
    };
    let call = match call(request_id, &head.headers, body) {
        Ok(call) => call,
        Err((model, error)) => return invalid(&app, &caller, model.as_deref(), error),
    };
    match dry_run::is_asked(&head.headers) {
        Ok(false) => {}
        Ok(true) => return dry_run::respond(&call.model, &app.proxy.dry_run(&caller, &call)),
        Err(error) => return invalid(&app, &caller, Some(&call.model), error),
    }
    match app.proxy.forward(&caller, call).await {
        Ok(answer) => respond(answer),
        Err(refused) => refuse(refused.error, &refused.headrooms),
    }
}

/// Reads the request; on an error with the model it named, if it got that far, for the headers of the answer.
fn call(request_id: RequestId, headers: &HeaderMap, body: Bytes) -> Result<Call, (Option<String>, ApiError)> {
    let scanned = request::scan(&body).map_err(|error| (request::model_of(&body), error))?;
    let (size, service_tiers) = (size(&scanned), scanned.service_tiers);
    let (model, stream, hide_usage) = (Arc::from(scanned.model.as_ref()), scanned.stream, !scanned.include_usage);
    let splice = scanned.usage_splice;
    let body = match &splice {
        Some(splice) => SliceBody::new(request::ask_for_usage(&body, splice)),
        None => SliceBody::whole(body),
    };
    let endpoint = Endpoint::ChatCompletions;
    let headers = upstream::forwarded(headers);
    let upstream = upstream::Call { request_id, path: endpoint.upstream_path(), headers, body };
    Ok(Call { endpoint, model, stream, hide_usage, size, service_tiers, upstream })
}

fn size(request: &ChatRequest<'_>) -> Size {
    Size {
        text_tokens: text_tokens(request),
        audio_tokens: request.audio.tokens,
        image_tokens: image_tokens(request),
        guessed_audio_tokens: request.audio.guessed_tokens,
        choices: NonZeroU32::new(request.choices).unwrap_or(NonZeroU32::MIN),
        stated_max_output: request.max_output_tokens,
        model_max_output: None,
        wants_audio: request.wants_audio,
    }
}

fn respond(answer: Answer) -> Response {
    let body = match answer.body {
        AnswerBody::Whole(bytes) => Body::from(bytes),
        AnswerBody::Stream(stream) => Body::new(*stream),
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    // OpenAI shows no limits with a 404 (protocol facts d.1).
    if response.status() != StatusCode::NOT_FOUND {
        show_headrooms(&answer.headrooms, response.headers_mut());
    }
    show_budget(answer.budget_percent, response.headers_mut());
    response
}

fn refuse(error: ApiError, headrooms: &Headrooms) -> Response {
    let mut response = error.into_response();
    show_headrooms(headrooms, response.headers_mut());
    response
}

/// A request that is wrong in itself: nothing is sent, nothing is consumed, and the limits are shown as they are.
fn invalid(app: &App, caller: &Caller, model: Option<&str>, error: ApiError) -> Response {
    app.metrics.invalid.inc();
    let headrooms = model.map(|model| app.proxy.headrooms(caller, model)).unwrap_or_default();
    refuse(error, &headrooms)
}
