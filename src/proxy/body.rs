//! The answer's body on its way to the client: frames pass on as they came while the meter looks on.
//!
//! A stream has five ends: it is complete, it breaks, it goes silent, the client leaves, or the gateway stops. Each settles the
//! request, once, and before the client can have the last byte.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Call,
    drain::Drainer,
    recorder::{Consumed, Delivered, Ending, Meter},
};
use crate::{
    domain::{ledger::Outcome, usage::LineItem},
    journal::Position,
    openai::{
        error::ApiError,
        sse::{EventScanner, Seen},
    },
};

/// Bytes of text per token, as `OpenAI`'s own estimate counts (protocol facts c.2).
const BYTES_PER_TOKEN: u64 = 4;
/// With more text than this an event has more than one token in it, on the average.
const BYTES_OF_ONE_TOKEN: u64 = 16;
/// 0.4 seconds of pcm16 are 25,600 characters of base64 and 8 tokens (protocol facts a.3, c.1).
const BASE64_PER_AUDIO_TOKEN: u64 = 3_200;

/// How long a stream may be silent, and how long it may last.
#[derive(Clone, Copy, Debug)]
pub struct StreamTimes {
    pub idle: Duration,
    pub max: Duration,
}

pub struct MeteredBody {
    upstream: Option<Incoming>,
    stream: Option<Stream>,
    /// Pieces that are ready for the client.
    ready: VecDeque<Bytes>,
    pace: Pace,
    /// With `durability = "power"` the last pieces wait until the settlement is on disk.
    settling: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    silence: Pin<Box<Sleep>>,
    silence_armed: bool,
    times: StreamTimes,
    ends_at: Instant,
    drainer: Arc<Drainer>,
}

/// One streamed answer being metered. Shared with the drain, which reads on without a client.
pub(super) struct Stream {
    pub(super) meter: Meter,
    pub(super) scanner: EventScanner,
    pub(super) status: u16,
}

impl Stream {
    pub(super) fn new(call: &Call, status: StatusCode, meter: Meter) -> Self {
        Self { meter, scanner: EventScanner::new(call.hide_usage), status: status.as_u16() }
    }

    /// Settles with what was seen, if nothing more comes. A stream that told of an error failed, however it ended: many
    /// clients leave as soon as they see it.
    pub(super) fn settle(&mut self, outcome: Outcome) -> Option<Position> {
        let seen = self.scanner.seen();
        let outcome = if seen.error { Outcome::UpstreamFailed } else { outcome };
        let consumed = consumed(seen, outcome);
        self.meter.settle(Ending { outcome, status: self.status, consumed })
    }
}

fn consumed(seen: &Seen, outcome: Outcome) -> Consumed {
    let cut_short = matches!(outcome, Outcome::ClientLeft | Outcome::Interrupted) && !seen.done;
    match seen.usage {
        // The error came instead of an answer: as good as an error of HTTP, which is not billed.
        None if seen.error && seen.text_events == 0 && seen.audio_base64_bytes == 0 => Consumed::Nothing,
        Some(usage) if seen.has_final_usage() || !cut_short => {
            Consumed::Reported { usage, model: seen.model.clone(), service_tier: seen.service_tier.unwrap_or_default() }
        }
        _ if cut_short => Consumed::AtLeastEstimate(delivered(seen)),
        _ => Consumed::Delivered(delivered(seen)),
    }
}

/// What came, by our own count, or by the upstream's as far as it got.
fn delivered(seen: &Seen) -> Delivered {
    let reported = seen.usage.unwrap_or_default();
    // One token an event, except from upstreams that put many into one.
    let many = seen.text_bytes / BYTES_OF_ONE_TOKEN > seen.text_events;
    let text_tokens = if many { seen.text_bytes.div_ceil(BYTES_PER_TOKEN) } else { seen.text_events };
    let audio_tokens = seen.audio_base64_bytes.div_ceil(BASE64_PER_AUDIO_TOKEN);
    Delivered {
        text_tokens: text_tokens.max(reported.get(LineItem::OutputText)),
        audio_tokens: audio_tokens.max(reported.get(LineItem::OutputAudio)),
        service_tier: seen.service_tier,
    }
}

/// Complete is a stream that said `[DONE]`, or ended well after its usage or a reason to finish.
const fn is_complete(seen: &Seen) -> bool {
    seen.done || seen.finished || seen.has_final_usage()
}

/// Events that are already there travel together: each time the client's connection finds nothing more to send, it makes a
/// system call. The upstream's connection hands over one event at a time and must be let run in between, so the body
/// steps back before it believes that nothing more is there.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Gathering { bytes: usize, steps_back: u8 },
    HandingOut,
}

/// hyper asks a body twice before it lets another task run.
const STEPS_BACK: u8 = 2;
/// Enough for one write; more would only wait.
const GATHERED_BYTES: usize = 16 << 10;

impl MeteredBody {
    pub(super) fn new(upstream: Incoming, stream: Stream, times: StreamTimes, drainer: Arc<Drainer>) -> Self {
        let now = Instant::now();
        Self {
            upstream: Some(upstream),
            stream: Some(stream),
            ready: VecDeque::with_capacity(4),
            pace: Pace::Gathering { bytes: 0, steps_back: 0 },
            settling: None,
            silence: Box::pin(sleep_until(now + times.idle)),
            silence_armed: false,
            times,
            ends_at: now + times.max,
            drainer,
        }
    }

    /// Takes in one frame; settles as soon as the stream has said it is done.
    fn take_in(&mut self, frame: Bytes) {
        if let Pace::Gathering { bytes, .. } = self.pace {
            let bytes = bytes + frame.len();
            let enough = bytes > GATHERED_BYTES;
            self.pace = if enough { Pace::HandingOut } else { Pace::Gathering { bytes, steps_back: 0 } };
        }
        let Some(stream) = &mut self.stream else { return };
        let ready = &mut self.ready;
        stream.scanner.push(frame, &mut |piece| ready.push_back(piece));
        if stream.scanner.seen().done && !stream.meter.is_settled() {
            self.settle(Outcome::Completed);
        }
    }

    /// The upstream ended its answer properly.
    fn end(&mut self) {
        self.upstream = None;
        let Some(stream) = &mut self.stream else { return };
        let ready = &mut self.ready;
        stream.scanner.finish(&mut |piece| ready.push_back(piece));
        if is_complete(stream.scanner.seen()) {
            self.settle(Outcome::Completed);
        } else {
            self.fail_upstream("upstream_incomplete", "The upstream ended its answer before it was complete.");
        }
    }

    /// The upstream broke off or went silent.
    fn fail_upstream(&mut self, code: &'static str, message: &'static str) {
        self.fail(&ApiError::upstream(502, code, message), Outcome::UpstreamFailed);
    }

    /// The client gets whole events and then an error event, never a `[DONE]`; an event that was passing in pieces is closed
    /// first, so that the two do not run into each other.
    fn fail(&mut self, error: &ApiError, outcome: Outcome) {
        self.upstream = None;
        if let Some(stream) = &mut self.stream {
            let already_complete = stream.scanner.seen().done;
            if !already_complete && !stream.scanner.seen().error {
                if stream.scanner.is_inside_event() {
                    self.ready.push_back(Bytes::from_static(b"\n\n"));
                }
                self.ready.push_back(error.event().into());
            }
            let outcome = if already_complete { Outcome::Completed } else { outcome };
            self.settle(outcome);
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        let Some(stream) = &mut self.stream else { return };
        if let Some(position) = stream.settle(outcome) {
            let journal = Arc::clone(stream.meter.journal());
            self.settling = Some(Box::pin(async move {
                if let Err(error) = journal.durable(position).await {
                    tracing::error!(%error, "a settlement may not survive a loss of power");
                }
            }));
        }
    }

    /// The time to finish is over and the client has only whole events, so that it can be told why no more come.
    fn is_to_be_cut(&self) -> bool {
        self.drainer.is_stopped()
            && self.ready.is_empty()
            && self.stream.as_ref().is_some_and(|stream| !stream.scanner.is_inside_event())
    }

    /// True once the stream has been silent or open for too long.
    fn timed_out(&mut self, context: &mut Context<'_>) -> bool {
        if !self.silence_armed {
            // Set once per wait, not per frame: a busy stream never touches the timer.
            self.silence.as_mut().reset((Instant::now() + self.times.idle).min(self.ends_at));
            self.silence_armed = true;
        }
        self.silence.as_mut().poll(context).is_ready()
    }
}

impl Body for MeteredBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(settling) = &mut self.settling {
                ready!(settling.as_mut().poll(context));
                self.settling = None;
            }
            if let Pace::HandingOut = self.pace {
                if let Some(piece) = self.ready.pop_front() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                self.pace = Pace::Gathering { bytes: 0, steps_back: 0 };
            }
            if self.upstream.is_some() && self.is_to_be_cut() {
                self.fail(&ApiError::overloaded(), Outcome::Interrupted);
            }
            let Some(upstream) = &mut self.upstream else {
                if self.ready.is_empty() {
                    return Poll::Ready(None);
                }
                self.pace = Pace::HandingOut;
                continue;
            };
            match Pin::new(upstream).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.silence_armed = false;
                    if let Ok(data) = frame.into_data() {
                        self.take_in(data);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!(%error, "the upstream broke off a stream");
                    let message = "The connection to the upstream was lost during the answer.";
                    self.fail_upstream("upstream_connection_lost", message);
                }
                Poll::Ready(None) => self.end(),
                Poll::Pending if !self.ready.is_empty() => match self.pace {
                    Pace::Gathering { bytes, steps_back } if steps_back < STEPS_BACK => {
                        self.pace = Pace::Gathering { bytes, steps_back: steps_back + 1 };
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    _ => self.pace = Pace::HandingOut,
                },
                Poll::Pending if self.timed_out(context) => {
                    let message = if Instant::now() >= self.ends_at {
                        "The answer took longer than the gateway allows."
                    } else {
                        "The upstream stopped sending in the middle of its answer."
                    };
                    self.fail_upstream("upstream_timeout", message);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for MeteredBody {
    /// The client left, or everything was delivered and there is nothing to do.
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take().filter(|stream| !stream.meter.is_settled()) else { return };
        match self.upstream.take() {
            Some(upstream) => self.drainer.read_on(upstream, stream),
            None => {
                stream.settle(Outcome::ClientLeft);
            }
        }
    }
}
