//! One request: read, decide, write down, wait, answer.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::{
    Options,
    answer::{Answer, Head, completion, stream},
    body::{AnswerBody, ask_for_reset},
    delivery,
    faults::{Fault, HANG, Wish},
    headers::Templates,
    ids::{Ids, Letters},
    log::{Line, Log},
    models,
    refusal::{self, Refusal},
    request::{ChatRequest, Text, check},
    sound::Melody,
    usage::Logged,
};
use crate::{clock::Clock, domain::time::UnixNanos, openai::error::ApiError};

pub(super) const CHAT: &str = "/v1/chat/completions";
const MODELS: &str = "/v1/models";
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
const MAX_SPOILED: usize = 10_000;

pub(super) struct Simulator {
    options: Options,
    clock: Clock,
    ids: Ids,
    log: Option<Log>,
    pub(super) templates: Templates,
    melody: Melody,
    /// Requests that had the fault they wanted only once.
    spoiled: Mutex<HashSet<String>>,
}

/// Why a connection ends without an answer, or in the middle of one.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the answer was cut, as asked for")]
    Cut,
    #[error("the connection was reset, as asked for")]
    Reset,
    #[error("the request was never answered, as asked for")]
    Hung,
    #[error("the request did not arrive whole")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What will be done about a request, and what the log says about it.
pub(super) struct Decision<'a> {
    pub(super) outcome: Outcome,
    pub(super) delay: Duration,
    pub(super) model: Option<Text<'a>>,
    pub(super) streams: bool,
    pub(super) fault: Option<&'static str>,
    pub(super) usage: Option<Logged>,
}

pub(super) enum Outcome {
    Respond(Response<AnswerBody>),
    Hang,
    Reset,
}

impl Simulator {
    pub(super) fn new(options: Options) -> io::Result<Self> {
        let clock = Clock::system();
        Ok(Self {
            log: options.log.as_deref().map(Log::open).transpose()?,
            ids: Ids::starting_at(clock.now().0),
            templates: Templates::new(u64::try_from(options.delay.as_millis()).unwrap_or(u64::MAX)),
            melody: Melody::default(),
            spoiled: Mutex::default(),
            clock,
            options,
        })
    }

    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        reset: Arc<AtomicBool>,
    ) -> Result<Response<AnswerBody>, Failure> {
        let (parts, body) = request.into_parts();
        let mut letters = self.ids.draw();
        let body = read(body).await?;
        let now = self.clock.now();
        let decision = match &body {
            Some(bytes) => self.decide(&parts, bytes, now, &mut letters),
            None => self.refuse(ApiError::too_large(MAX_BODY_BYTES as u64, MAX_BODY_BYTES as u64 + 1), &mut letters),
        };
        if let Err(error) = self.write_down(&parts, &decision, now) {
            // An answer that is not in the log would make the log a liar.
            let message = format!("The simulator cannot write its log: {error}");
            let error = ApiError::new(500, "server_error", message, None, None);
            return Ok(refusal::response(&Refusal::from(error), &self.templates, &mut letters));
        }
        if !decision.delay.is_zero() {
            tokio::time::sleep(decision.delay).await;
        }
        match decision.outcome {
            Outcome::Respond(response) => Ok(response),
            Outcome::Reset => {
                ask_for_reset(&reset);
                Err(Failure::Reset)
            }
            Outcome::Hang => {
                tokio::time::sleep(HANG).await;
                Err(Failure::Hung)
            }
        }
    }

    fn decide<'a>(&self, parts: &Parts, body: &'a [u8], now: UnixNanos, letters: &mut Letters) -> Decision<'a> {
        let path = parts.uri.path();
        let model_id = path.strip_prefix(MODELS).and_then(|rest| rest.strip_prefix('/'));
        match (&parts.method, path, model_id) {
            (&Method::POST, CHAT, _) => self.chat(parts, body, now, letters),
            (&Method::GET, MODELS, _) => self.plain(parts, letters, || Ok(models::list())),
            (&Method::GET, _, Some(id)) => {
                self.plain(parts, letters, || models::find(id).ok_or_else(|| ApiError::no_such_model(id)))
            }
            (method, CHAT | MODELS, _) => self.refuse(ApiError::method_not_allowed(method.as_str(), path), letters),
            (method, _, _) => self.refuse(ApiError::unknown_url(method.as_str(), path), letters),
        }
    }

    fn chat<'a>(&self, parts: &Parts, body: &'a [u8], now: UnixNanos, letters: &mut Letters) -> Decision<'a> {
        let parsed = ChatRequest::read(body);
        let model = parsed.as_ref().ok().and_then(ChatRequest::model);
        let mut wish = Wish::read(&parts.headers, model, &self.options);
        if let Ok(wish) = &mut wish {
            self.spare_the_second(parts, wish);
        }
        let streams = parsed.as_ref().is_ok_and(ChatRequest::streams);
        let mut decision = match (authorize(&parts.headers), wish) {
            (Err(error), _) => self.refuse(error, letters),
            (_, Err(word)) => self.refuse(refusal::unknown_wish(&word), letters),
            (Ok(key), Ok(wish)) => {
                let answered = match self.stand_in(&wish, model, key, letters) {
                    Some(outcome) => Ok((outcome, None)),
                    None => parsed.as_ref().map_err(Clone::clone).and_then(|request| {
                        identity_encoded(&parts.headers)?;
                        self.complete(request, &wish, now, letters)
                    }),
                };
                let mut decision = match answered {
                    Ok((outcome, usage)) => Decision { usage, ..self.respond(outcome) },
                    Err(error) => self.refuse(error, letters),
                };
                decision.fault = wish.fault.map(|(name, _)| name);
                decision.delay = wish.delay;
                decision
            }
        };
        decision.streams = streams;
        decision.model = parsed.ok().and_then(|request| request.model);
        decision
    }

    /// An endpoint without tokens.
    fn plain<'a>(
        &self,
        parts: &Parts,
        letters: &mut Letters,
        body: impl FnOnce() -> Result<Vec<u8>, ApiError>,
    ) -> Decision<'a> {
        let wish = Wish::read(&parts.headers, None, &self.options).map_err(|word| refusal::unknown_wish(&word));
        let answered = authorize(&parts.headers).and_then(|key| {
            let wish = wish?;
            if let Some(outcome) = self.stand_in(&wish, None, key, letters) {
                return Ok(Decision { fault: wish.fault.map(|(name, _)| name), ..self.respond(outcome) });
            }
            let mut response = Response::new(AnswerBody::from(body()?));
            *response.headers_mut() = self.templates.unlimited(letters);
            Ok(self.respond(Outcome::Respond(response)))
        });
        answered.unwrap_or_else(|error| self.refuse(error, letters))
    }

    /// What a fault answers in place of the endpoint; faults that spoil a real answer come later.
    fn stand_in(&self, wish: &Wish, model: Option<&str>, key: &str, letters: &mut Letters) -> Option<Outcome> {
        match wish.fault()? {
            Fault::Hang => Some(Outcome::Hang),
            Fault::Reset => Some(Outcome::Reset),
            fault => {
                let refusal = refusal::for_fault(fault, wish, model.unwrap_or("unknown"), key)?;
                Some(Outcome::Respond(refusal::response(&refusal, &self.templates, letters)))
            }
        }
    }

    fn complete(
        &self,
        request: &ChatRequest<'_>,
        wish: &Wish,
        now: UnixNanos,
        letters: &mut Letters,
    ) -> Result<(Outcome, Option<Logged>), ApiError> {
        let model = request.model().filter(|model| !model.is_empty()).ok_or_else(ApiError::missing_model)?;
        if models::is_unknown(model) {
            return Err(ApiError::unknown_model(model));
        }
        let kind = models::kind(model);
        let prompt = check(request, kind, now.seconds())?;
        let answer = Answer::plan(request, kind, &prompt, wish, letters);
        let head = Head {
            id: completion_id(letters),
            created: now.seconds(),
            model: models::snapshot(model),
            tier: served_tier(request.service_tier.as_deref()),
            kind,
            usage_style: wish.usage_style(request.wants_usage()),
            obfuscation: request.wants_obfuscation(),
        };
        let charge = prompt.charge(answer.choices);
        let (headers, body) = if request.streams() {
            let events = stream(&head, &answer, &self.melody, letters);
            (self.templates.stream(charge, letters), delivery::stream(events, wish))
        } else {
            let frames = completion(&head, &answer, &self.melody, letters);
            (self.templates.json(charge, letters), delivery::whole(frames, wish))
        };
        let mut response = Response::new(body);
        *response.headers_mut() = headers;
        let usage = answer.usage.logged(head.usage_style).filter(|_| delivery::ends_whole(wish));
        Ok((Outcome::Respond(response), usage))
    }

    fn refuse<'a>(&self, error: ApiError, letters: &mut Letters) -> Decision<'a> {
        let response = refusal::response(&Refusal::from(error), &self.templates, letters);
        self.respond(Outcome::Respond(response))
    }

    fn respond<'a>(&self, outcome: Outcome) -> Decision<'a> {
        Decision { outcome, delay: self.options.delay, model: None, streams: false, fault: None, usage: None }
    }

    fn spare_the_second(&self, parts: &Parts, wish: &mut Wish) {
        let Some(id) = request_id(&parts.headers).filter(|_| wish.once) else { return };
        let mut spoiled = self.spoiled.lock().unwrap_or_else(PoisonError::into_inner);
        if spoiled.len() >= MAX_SPOILED {
            spoiled.clear();
        }
        if !spoiled.insert(id.to_owned()) {
            wish.fault = None;
        }
    }

    fn write_down(&self, parts: &Parts, decision: &Decision<'_>, now: UnixNanos) -> io::Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let status = match &decision.outcome {
            Outcome::Respond(response) => Some(response.status().as_u16()),
            Outcome::Hang | Outcome::Reset => None,
        };
        log.append(&Line {
            time_ms: now.millis(),
            request_id: request_id(&parts.headers),
            method: parts.method.as_str(),
            path: parts.uri.path(),
            model: decision.model.as_deref(),
            stream: decision.streams,
            status,
            fault: decision.fault,
            usage: decision.usage,
        })
    }
}

/// The whole body, or `None` when it is too large.
async fn read(body: Incoming) -> Result<Option<Bytes>, Failure> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Ok(None);
    }
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(Some(collected.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(error) => Err(Failure::Body(error)),
    }
}

/// The id the gateway gave the request.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-client-request-id").and_then(|id| id.to_str().ok())
}

/// The presented key.
fn authorize(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = value.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim).filter(|key| !key.is_empty());
    match key {
        None => Err(ApiError::no_key()),
        Some(key) if key.starts_with("sk-wrong") => Err(refusal::wrong_key(key)),
        Some(key) => Ok(key),
    }
}

fn identity_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    let compressed = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if compressed { Err(ApiError::unsupported_encoding()) } else { Ok(()) }
}

fn completion_id(letters: &mut Letters) -> String {
    let mut id = b"chatcmpl-".to_vec();
    letters.text(29, &mut id);
    String::from_utf8(id).unwrap_or_default()
}

/// The tier a request was served in, as `OpenAI` echoes it.
fn served_tier(asked: Option<&str>) -> &'static str {
    match asked {
        Some("flex") => "flex",
        Some("priority" | "fast") => "priority",
        Some("scale") => "scale",
        _ => "default",
    }
}
