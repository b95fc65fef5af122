//! Where events end. A blank line ends one; a line ends with LF, CRLF or a lone CR.

use memchr::memchr2;

/// Carries the place in the text from one piece to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    /// Nothing on the current line yet.
    at_start: bool,
    /// The last byte was CR: a LF belongs to it.
    after_cr: bool,
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self { at_start: true, after_cr: false }
    }

    /// Whether `piece` begins with the LF of a line end whose CR closed the piece before.
    pub(super) fn takes_line_feed(&mut self, piece: &[u8]) -> bool {
        let Some(first) = piece.first() else { return false };
        std::mem::take(&mut self.after_cr) && *first == b'\n'
    }

    /// The end of the event that `piece` continues, or `None` when the event goes on after `piece`.
    pub(super) fn event_end(&mut self, piece: &[u8]) -> Option<usize> {
        let mut line = usize::from(self.takes_line_feed(piece));
        loop {
            let rest = piece.get(line..).unwrap_or_default();
            let Some(length) = memchr2(b'\n', b'\r', rest) else {
                self.at_start &= rest.is_empty();
                return None;
            };
            let was_blank = self.at_start && length == 0;
            let mut next = line + length + 1;
            if rest.get(length) == Some(&b'\r') {
                match piece.get(next) {
                    Some(b'\n') => next += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            self.at_start = true;
            if was_blank {
                return Some(next);
            }
            line = next;
        }
    }
}
