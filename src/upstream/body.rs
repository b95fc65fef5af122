//! A request body made of up to three slices: the original around what was spliced in. Nothing is copied, and the length
//! is known, so it is sent with a content-length. As a value it is small: each connection to the upstream keeps room for 32
//! requests in a row.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

#[derive(Clone, Debug, Default)]
pub struct SliceBody {
    slices: Arc<[Bytes; 3]>,
    next: usize,
}

impl SliceBody {
    pub fn new(slices: [Bytes; 3]) -> Self {
        Self { slices: Arc::new(slices), next: 0 }
    }

    pub fn whole(body: Bytes) -> Self {
        Self::new([body, Bytes::new(), Bytes::new()])
    }

    fn rest(&self) -> impl Iterator<Item = &Bytes> {
        self.slices.iter().skip(self.next)
    }
}

impl Body for SliceBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while let Some(slice) = self.slices.get(self.next).cloned() {
            self.next += 1;
            if !slice.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(slice))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.rest().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest().map(|slice| slice.len() as u64).sum())
    }
}
