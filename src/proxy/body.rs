//! The answer's body on its way to the client: frames pass on as they came while the meter looks on.
//!
//! A stream has four ends: it is complete, it breaks, it goes silent, or the client leaves. Each settles the request, once,
//! and before the client can have the last byte.

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
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    drain::Drainer,
    recorder::{Consumed, Delivered, Ending, Meter},
};
use crate::{
    domain::ledger::Outcome,
    journal::Position,
    openai::{
        error::ApiError,
        sse::{EventScanner, Seen},
    },
};

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
    /// What the end of this stream has to say, if nothing more comes.
    pub(super) fn ending(&self, outcome: Outcome) -> Ending {
        Ending { outcome, status: self.status, consumed: consumed(self.scanner.seen(), outcome) }
    }

    fn settle(&mut self, outcome: Outcome) -> Option<Position> {
        let ending = self.ending(outcome);
        self.meter.settle(ending)
    }
}

fn consumed(seen: &Seen, outcome: Outcome) -> Consumed {
    let delivered = Delivered {
        text_tokens: seen.text_events,
        audio_tokens: seen.audio_base64_bytes.div_ceil(BASE64_PER_AUDIO_TOKEN),
    };
    match seen.usage {
        Some(usage) => Consumed::Reported { usage, model: seen.model.clone(), service_tier: seen.service_tier },
        None if outcome == Outcome::ClientLeft => Consumed::AtLeastEstimate(delivered),
        None => Consumed::Delivered(delivered),
    }
}

/// Complete is a stream that said `[DONE]`, or ended well after its usage or a reason to finish.
fn is_complete(seen: &Seen) -> bool {
    seen.done || seen.usage.is_some() || seen.finished
}

impl MeteredBody {
    pub(super) fn new(upstream: Incoming, stream: Stream, times: StreamTimes, drainer: Arc<Drainer>) -> Self {
        let now = Instant::now();
        Self {
            upstream: Some(upstream),
            stream: Some(stream),
            ready: VecDeque::with_capacity(4),
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
        let Some(stream) = &mut self.stream else { return };
        let ready = &mut self.ready;
        stream.scanner.push(frame, &mut |piece| ready.push_back(piece));
        if stream.scanner.seen().done && !stream.meter.is_settled() {
            let outcome = if stream.scanner.seen().error { Outcome::UpstreamFailed } else { Outcome::Completed };
            self.settle(outcome);
        }
    }

    /// The upstream ended its answer properly.
    fn end(&mut self) {
        self.upstream = None;
        let Some(stream) = &mut self.stream else { return };
        let ready = &mut self.ready;
        stream.scanner.finish(&mut |piece| ready.push_back(piece));
        if is_complete(stream.scanner.seen()) {
            let outcome = if stream.scanner.seen().error { Outcome::UpstreamFailed } else { Outcome::Completed };
            self.settle(outcome);
        } else {
            self.fail("upstream_incomplete", "The upstream ended its answer before it was complete.");
        }
    }

    /// The upstream broke off or went silent. The client gets whole events and then an error event, never a `[DONE]`.
    fn fail(&mut self, code: &'static str, message: &'static str) {
        self.upstream = None;
        if let Some(stream) = &mut self.stream {
            let already_complete = stream.scanner.seen().done;
            if !already_complete && !stream.scanner.seen().error {
                self.ready.push_back(ApiError::upstream(502, code, message).event().into());
            }
            let outcome = if already_complete { Outcome::Completed } else { Outcome::UpstreamFailed };
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
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Ready(None) };
            match Pin::new(upstream).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.silence_armed = false;
                    if let Ok(data) = frame.into_data() {
                        self.take_in(data);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!(%error, "the upstream broke off a stream");
                    self.fail("upstream_connection_lost", "The connection to the upstream was lost during the answer.");
                }
                Poll::Ready(None) => self.end(),
                Poll::Pending if self.timed_out(context) => {
                    self.fail("upstream_timeout", "The upstream stopped sending in the middle of its answer.");
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
            Some(upstream) if stream.scanner.seen().usage.is_none() => self.drainer.read_on(upstream, stream),
            _ => {
                stream.settle(Outcome::ClientLeft);
            }
        }
    }
}
