//! The body of an answer: bytes, pauses, and the ways a connection can end.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::handler::Failure;

#[derive(Debug)]
pub(super) enum Step {
    Data(Bytes),
    Wait(Duration),
    /// The connection closes in the middle of the answer.
    Cut,
}

pub(super) enum AnswerBody {
    Whole(Bytes),
    Steps(Box<Steps>),
}

pub(super) struct Steps {
    coming: std::vec::IntoIter<Step>,
    /// What `content-length` says is still to come; a stream says nothing.
    announced: Option<u64>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl AnswerBody {
    pub(super) fn steps(steps: Vec<Step>, announced: Option<u64>) -> Self {
        Self::Steps(Box::new(Steps { coming: steps.into_iter(), announced, sleep: None }))
    }

    pub(super) fn frames(frames: Vec<Bytes>) -> Self {
        let length = frames.iter().map(|frame| frame.len() as u64).sum();
        Self::steps(frames.into_iter().map(Step::Data).collect(), Some(length))
    }
}

impl From<Vec<u8>> for AnswerBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(bytes.into())
    }
}

/// How a connection is told to end with RST instead of FIN.
pub(super) fn ask_for_reset(reset: &Arc<AtomicBool>) {
    reset.store(true, Ordering::Release);
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Steps(steps) => steps.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Steps(steps) => steps.sleep.is_none() && steps.coming.as_slice().is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let announced = match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Steps(steps) => steps.announced,
        };
        announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Steps {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            if let Some(pause) = &mut self.sleep {
                std::task::ready!(pause.as_mut().poll(cx));
                self.sleep = None;
            }
            match self.coming.next() {
                Some(Step::Data(bytes)) => {
                    let length = bytes.len() as u64;
                    self.announced = self.announced.map(|left| left.saturating_sub(length));
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Wait(pause)) => self.sleep = Some(Box::pin(sleep(pause))),
                Some(Step::Cut) => return Poll::Ready(Some(Err(Failure::Cut))),
                None => return Poll::Ready(None),
            }
        }
    }
}
