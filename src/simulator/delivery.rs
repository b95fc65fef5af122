//! How a written answer leaves: at once, in pieces, or spoiled by a fault.

use std::time::Duration;

use bytes::Bytes;

use super::{
    answer::DONE,
    body::{AnswerBody, Step},
    faults::{Fault, HANG, Wish},
    refusal,
};

/// Lets what was sent leave before the connection goes.
const BEFORE_CUT: Duration = Duration::from_millis(10);
/// Pieces of a slow answer that is not a stream.
const SLOW_PIECES: usize = 10;
/// What a lying `content-length` adds.
const NEVER_SENT: u64 = 64;

/// Whether the client gets to see the end of the answer, and the usage with it.
pub(super) fn ends_whole(wish: &Wish) -> bool {
    !matches!(
        wish.fault(),
        Some(Fault::HangMidstream | Fault::CutBody | Fault::CutEvent | Fault::CutClean | Fault::ErrorEvent)
    )
}

pub(super) fn stream(events: Vec<Bytes>, wish: &Wish) -> AnswerBody {
    let half = (events.len() / 2).max(1);
    let first = || events.iter().take(half).cloned().collect();
    match wish.fault() {
        Some(Fault::HangMidstream) => paced(first(), wish, [Step::Wait(HANG), Step::Cut], None),
        Some(Fault::CutEvent) => {
            let torn = events.get(half).map(|event| Step::Data(event.slice(..event.len() / 2)));
            paced(first(), wish, torn.into_iter().chain([Step::Wait(BEFORE_CUT), Step::Cut]), None)
        }
        Some(Fault::CutBody) => {
            let sent: u64 = events.iter().take(half).map(|event| event.len() as u64).sum();
            paced(first(), wish, [Step::Wait(BEFORE_CUT), Step::Cut], Some(sent + NEVER_SENT))
        }
        Some(Fault::CutClean) => paced(first(), wish, [], None),
        Some(Fault::ErrorEvent) => {
            let before = if wish.bare { Vec::new() } else { first() };
            let error = Step::Data(refusal::server_error().event().into());
            let done = wish.done.then(|| Step::Data(Bytes::from_static(DONE)));
            paced(before, wish, std::iter::once(error).chain(done), None)
        }
        _ => paced(events, wish, [], None),
    }
}

pub(super) fn whole(mut frames: Vec<Bytes>, wish: &Wish) -> AnswerBody {
    match wish.fault() {
        Some(Fault::HangMidstream) => halved(&frames, [Step::Wait(HANG), Step::Cut]),
        Some(Fault::CutBody | Fault::CutEvent) => halved(&frames, [Step::Wait(BEFORE_CUT), Step::Cut]),
        Some(Fault::CutClean) => {
            let all = Bytes::from(frames.concat());
            AnswerBody::steps(vec![Step::Data(all.slice(..all.len() / 2))], None)
        }
        Some(Fault::ErrorEvent) => AnswerBody::from(refusal::server_error().body()),
        Some(Fault::Slow) => {
            let all = Bytes::from(frames.concat());
            let size = all.len().div_ceil(SLOW_PIECES).max(1);
            let pieces = (0..all.len()).step_by(size).map(|at| all.slice(at..all.len().min(at + size))).collect();
            paced(pieces, wish, [], Some(all.len() as u64))
        }
        _ if frames.len() == 1 => AnswerBody::Whole(frames.remove(0)),
        _ => AnswerBody::frames(frames),
    }
}

fn halved(frames: &[Bytes], end: [Step; 2]) -> AnswerBody {
    let all = Bytes::from(frames.concat());
    let length = all.len() as u64;
    let first = Step::Data(all.slice(..all.len() / 2));
    AnswerBody::steps(std::iter::once(first).chain(end).collect(), Some(length))
}

fn paced(frames: Vec<Bytes>, wish: &Wish, end: impl IntoIterator<Item = Step>, announced: Option<u64>) -> AnswerBody {
    let mut steps = Vec::with_capacity(frames.len() * 2 + 2);
    for frame in frames {
        if !wish.gap.is_zero() && !steps.is_empty() {
            steps.push(Step::Wait(wish.gap));
        }
        steps.push(Step::Data(frame));
    }
    steps.extend(end);
    AnswerBody::steps(steps, announced)
}
