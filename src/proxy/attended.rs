//! The upstream call, as long as somebody waits for it. It runs in the handler's own future, which is dropped when the
//! client leaves; then, and only then, it moves to a task of its own.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    Call, Proxy,
    answer::Answered,
    recorder::{Consumed, Delivered, Ending, Meter},
};

type Work = Pin<Box<dyn Future<Output = (Call, Answered)> + Send>>;

/// Resolves to what came of the call, with the meter that now has to settle it.
pub(super) struct Attended {
    proxy: Arc<Proxy>,
    /// Gone once it is finished, or has panicked: then there is nothing left to go on with.
    open: Option<(Work, Meter)>,
}

impl Attended {
    pub(super) fn new(proxy: &Arc<Proxy>, call: Call, mut meter: Meter) -> Self {
        meter.mark_sent();
        let working = Arc::clone(proxy);
        let work = Box::pin(async move {
            let answered = working.answer(&call).await;
            (call, answered)
        });
        Self { proxy: Arc::clone(proxy), open: Some((work, meter)) }
    }
}

impl Future for Attended {
    type Output = (Call, Answered, Meter);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((mut work, meter)) = self.open.take() else { return Poll::Pending };
        match work.as_mut().poll(context) {
            Poll::Ready((call, answered)) => Poll::Ready((call, answered, meter)),
            Poll::Pending => {
                self.open = Some((work, meter));
                Poll::Pending
            }
        }
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        if let Some((work, meter)) = self.open.take() {
            go_on_without_client(&self.proxy, work, meter);
        }
    }
}

/// Reads the answer on where that is allowed, or leaves it and settles at once.
fn go_on_without_client(proxy: &Arc<Proxy>, work: Work, mut meter: Meter) {
    let left = |proxy: &Proxy| {
        let consumed = Consumed::AtLeastEstimate(Delivered::default());
        Ending { outcome: proxy.drainer.outcome(), status: 0, consumed }
    };
    let Some(drain) = proxy.drainer.begin() else {
        drop(work);
        meter.settle(left(proxy));
        return;
    };
    let draining = Arc::clone(proxy);
    proxy.drainer.spawn(async move {
        match drain.within_bounds(work).await {
            // Nobody takes it, so the body of the stream reads itself on.
            Some((call, Answered::Stream(response))) => {
                drop(drain);
                drop(draining.stream(&call, response, meter));
            }
            Some((_, Answered::Whole(_, ending))) => {
                meter.settle(ending.without_client());
            }
            None => {
                meter.settle(left(&draining));
            }
        }
    });
}
