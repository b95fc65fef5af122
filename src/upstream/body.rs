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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_little_room_where_requests_queue() {
        assert!(size_of::<SliceBody>() <= 2 * size_of::<usize>());
    }

    #[test]
    fn slices_go_out_in_order_without_the_empty_ones_and_a_clone_begins_where_it_was_made() {
        let frame = |body: &mut SliceBody| {
            let polled = Pin::new(body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
            match polled {
                Poll::Ready(frame) => frame.map(|frame| frame.unwrap().into_data().unwrap()),
                Poll::Pending => panic!("there is nothing to wait for"),
            }
        };
        let mut body = SliceBody::new([Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")]);
        let mut again = body.clone();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(3), false));
        assert_eq!(frame(&mut body).as_deref(), Some(b"ab".as_slice()));
        assert_eq!((body.size_hint().exact(), again.size_hint().exact()), (Some(1), Some(3)));
        assert_eq!(frame(&mut body).as_deref(), Some(b"c".as_slice()));
        assert_eq!((frame(&mut body), body.is_end_stream()), (None, true));
        assert_eq!(frame(&mut again).as_deref(), Some(b"ab".as_slice()));
    }
}
