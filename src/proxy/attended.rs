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
    body::Stream,
    intake::Intake,
    recorder::{Consumed, Delivered, Ending, Meter},
};

type Work = Pin<Box<dyn Future<Output = (Call, Answered)> + Send>>;

/// Resolves to what came of the call, with the meter that now has to settle it.
pub(super) struct Attended {
    proxy: Arc<Proxy>,
    /// Gone once it is finished, or has panicked: then there is nothing left to go on with.
    open: Option<(Work, Meter)>,
    intake: Arc<Intake>,
}

impl Attended {
    pub(super) fn new(proxy: &Arc<Proxy>, call: Call, mut meter: Meter) -> Self {
        meter.mark_sent();
        let working = Arc::clone(proxy);
        let intake = Arc::new(Intake::up_to(proxy.options.max_answer_bytes));
        let taking_in = Arc::clone(&intake);
        let work = Box::pin(async move {
            let answered = working.answer(&call, &taking_in).await;
            (call, answered)
        });
        Self { proxy: Arc::clone(proxy), open: Some((work, meter)), intake }
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
            go_on_without_client(&self.proxy, work, meter, Arc::clone(&self.intake));
        }
    }
}

/// Reads the answer on where that is allowed, or leaves it and settles at once.
fn go_on_without_client(proxy: &Arc<Proxy>, work: Work, mut meter: Meter, intake: Arc<Intake>) {
    let left = |proxy: &Proxy| {
        let consumed = Consumed::AtLeastEstimate(Delivered::default());
        Ending { outcome: proxy.drainer.outcome(), status: 0, consumed }
    };
    let Some(drain) = proxy.drainer.begin() else {
        drop(work);
        meter.settle(left(proxy));
        return;
    };
    intake.bound_rest(drain.max_bytes);
    let draining = Arc::clone(proxy);
    proxy.drainer.spawn(async move {
        match drain.within_bounds(work).await {
            Some((call, Answered::Stream(response))) => {
                let mut stream = Stream::new(&call, response.status(), meter);
                drain.read_on(response.into_body(), &mut stream).await;
            }
            Some((_, Answered::Whole(_, ending))) if !intake.was_cut_off() => {
                meter.settle(ending.without_client());
            }
            _ => {
                meter.settle(left(&draining));
            }
        }
    });
}
