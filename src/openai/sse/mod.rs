//! Looks at an event stream while it passes, and takes out the usage chunk that a client did not ask for.
//!
//! Frames go on as slices of themselves. A frame that ends inside an event is held back until the event is complete,
//! because only then is it known whether the event is the usage chunk. Two kinds of event are not held: one that has shown
//! choices in its first 4 KiB (audio), and one over 64 KiB. Their pieces pass as they come, only their last 4 KiB are
//! remembered, and usage is still found there.

mod event;
mod lines;
mod needles;

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use self::{event::Watch, lines::Lines};
use crate::domain::{pricing::ServiceTier, usage::Usage};

/// An event that is larger goes on in pieces.
const MAX_HELD: usize = 64 * 1024;
/// From this size on an event that has choices goes on in pieces.
const MAX_HELD_WITH_CHOICES: usize = 4 * 1024;

/// What a stream has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The last usage that was not null.
    pub usage: Option<Usage>,
    /// Chunks that came only to tell the usage.
    pub usage_chunks: u64,
    /// The dated name.
    pub model: Option<String>,
    pub service_tier: Option<ServiceTier>,
    /// `[DONE]` came.
    pub done: bool,
    /// An event told of an error.
    pub error: bool,
    /// A choice said why it ended. Audio answers never do.
    pub finished: bool,
    /// Events that brought text, transcript, reasoning or tool calls: about as many as tokens.
    pub text_events: u64,
    /// Length of what they brought, as JSON text: for upstreams that put many tokens into one event.
    pub text_bytes: u64,
    /// Length of the audio that came, as base64.
    pub audio_base64_bytes: u64,
    /// Everything that came from the upstream.
    pub bytes: u64,
    /// Events with data, `[DONE]` included.
    pub events: u64,
}

impl Seen {
    /// There is a usage, and it will not grow any more: some services report what was used so far with every event.
    pub const fn has_final_usage(&self) -> bool {
        self.usage.is_some() && (self.usage_chunks > 0 || self.finished || self.done)
    }
}

/// Where the scanner stands in the current event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The event is kept together.
    Holding,
    /// The beginning of the event is gone to the client already.
    Passing,
}

#[derive(Debug)]
pub struct EventScanner {
    hide_usage: bool,
    mode: Mode,
    lines: Lines,
    /// The last event was taken out: a LF that completes its CR goes too.
    removed_last: bool,
    /// The upstream ended, and the last event had no blank line.
    is_open_at_end: bool,
    /// The beginning of the current event, from earlier frames.
    held: BytesMut,
    watch: Watch,
}

impl EventScanner {
    pub fn new(hide_usage: bool) -> Self {
        Self {
            hide_usage,
            mode: Mode::Holding,
            lines: Lines::new(),
            removed_last: false,
            is_open_at_end: false,
            held: BytesMut::new(),
            watch: Watch::default(),
        }
    }

    pub const fn seen(&self) -> &Seen {
        &self.watch.seen
    }

    /// Takes the next bytes of the upstream, and hands `out` those that may go on to the client, in order.
    pub fn push(&mut self, frame: Bytes, out: &mut impl FnMut(Bytes)) {
        self.watch.count_bytes(frame.len());
        // What lies before `ready` is decided; the current event begins at `start`, or in `held`.
        let (mut ready, mut start) = (0, 0);
        if self.is_between_events() && self.lines.takes_line_feed(&frame) {
            start = 1;
            ready = usize::from(self.removed_last);
        }
        while let Some(length) = self.lines.event_end(rest(&frame, start)) {
            let end = start + length;
            let event = frame.get(start..end).unwrap_or_default();
            if self.held.is_empty() {
                let keep = self.close(event);
                if !keep {
                    emit(&frame, ready..start, out);
                    ready = end;
                }
                self.removed_last = !keep;
            } else {
                self.held.extend_from_slice(event);
                self.let_held_go(out);
                ready = end;
            }
            start = end;
        }
        self.leave(frame, ready, start, out);
    }

    /// The upstream ended cleanly. An event without its blank line goes on if it is whole all the same.
    pub fn finish(&mut self, out: &mut impl FnMut(Bytes)) {
        if self.mode == Mode::Passing {
            self.watch.end_of_pieces();
            self.mode = Mode::Holding;
            self.is_open_at_end = true;
        } else if !self.held.is_empty() && event::is_whole(&self.held) {
            self.let_held_go(out);
            self.is_open_at_end = !self.removed_last;
        }
        self.held.clear();
    }

    /// What has gone on ends inside an event: another one needs a blank line before it.
    pub fn is_inside_event(&self) -> bool {
        self.mode == Mode::Passing || self.is_open_at_end
    }

    fn is_between_events(&self) -> bool {
        self.mode == Mode::Holding && self.held.is_empty()
    }

    /// The event of which `last` is all, or the last piece, is complete. False when it must not go on.
    fn close(&mut self, last: &[u8]) -> bool {
        if self.mode == Mode::Passing {
            self.watch.piece(last);
            self.watch.end_of_pieces();
            self.mode = Mode::Holding;
            return true;
        }
        let is_usage_chunk = self.watch.event(last);
        !(self.hide_usage && is_usage_chunk)
    }

    fn let_held_go(&mut self, out: &mut impl FnMut(Bytes)) {
        let event = self.held.split().freeze();
        let keep = self.close(&event);
        self.removed_last = !keep;
        if keep {
            out(event);
        }
    }

    /// The frame ends inside the event that begins at `start`, or at the end of one. An open event is held back, or begins to
    /// go on in pieces.
    fn leave(&mut self, frame: Bytes, ready: usize, start: usize, out: &mut impl FnMut(Bytes)) {
        let open = rest(&frame, start);
        if open.is_empty() || self.mode == Mode::Passing {
            self.watch.piece(open);
            return emit_rest(frame, ready, out);
        }
        let before = self.held.len();
        if before == 0 && may_pass(before, open) {
            self.watch.first_piece(open);
            self.mode = Mode::Passing;
            return emit_rest(frame, ready, out);
        }
        emit(&frame, ready..start, out);
        self.held.extend_from_slice(open);
        if before > 0 && may_pass(before, &self.held) {
            self.watch.first_piece(&self.held);
            self.mode = Mode::Passing;
            out(self.held.split().freeze());
        }
    }
}

/// Whether the event that begins with `open` need not be held, asked when it has grown from `before` bytes.
fn may_pass(before: usize, open: &[u8]) -> bool {
    let crossed = before < MAX_HELD_WITH_CHOICES && open.len() >= MAX_HELD_WITH_CHOICES;
    open.len() > MAX_HELD || crossed && event::has_choices(open.get(..MAX_HELD_WITH_CHOICES).unwrap_or(open))
}

fn rest(frame: &[u8], start: usize) -> &[u8] {
    frame.get(start..).unwrap_or_default()
}

fn emit(frame: &Bytes, range: Range<usize>, out: &mut impl FnMut(Bytes)) {
    if !range.is_empty() && range.end <= frame.len() {
        out(frame.slice(range));
    }
}

fn emit_rest(frame: Bytes, start: usize, out: &mut impl FnMut(Bytes)) {
    if start == 0 && !frame.is_empty() {
        out(frame);
    } else {
        emit(&frame, start..frame.len(), out);
    }
}

#[cfg(test)]
mod tests;
