use super::*;
use crate::domain::usage::LineItem;

const USAGE_CHUNK: &str =
    r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;

/// What goes on to the client when `stream` comes in frames cut at `cuts`, and what was seen.
fn pass(stream: &[u8], cuts: &[usize], hide_usage: bool) -> (Vec<u8>, Seen) {
    let mut scanner = EventScanner::new(hide_usage);
    let mut delivered = Vec::new();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([stream.len()]) {
        let frame = Bytes::copy_from_slice(&stream[from..cut.max(from)]);
        scanner.push(frame, &mut |bytes| delivered.extend_from_slice(&bytes));
        from = cut.max(from);
    }
    scanner.finish(&mut |bytes| delivered.extend_from_slice(&bytes));
    (delivered, scanner.seen().clone())
}

fn pass_text(stream: &str, hide_usage: bool) -> (String, Seen) {
    let (delivered, seen) = pass(stream.as_bytes(), &[], hide_usage);
    (String::from_utf8(delivered).unwrap(), seen)
}

#[test]
fn the_usage_chunk_is_taken_out_only_when_it_was_not_asked_for() {
    let stream = format!("data: {{\"choices\":[{{}}],\"usage\":null}}\n\n{USAGE_CHUNK}\n\ndata: [DONE]\n\n");
    let (hidden, seen) = pass_text(&stream, true);
    assert_eq!(hidden, "data: {\"choices\":[{}],\"usage\":null}\n\ndata: [DONE]\n\n");
    let (shown, same) = pass_text(&stream, false);
    assert_eq!((shown, &same), (stream, &seen));
    let usage = seen.usage.unwrap();
    assert_eq!((usage.get(LineItem::InputText), usage.get(LineItem::OutputText)), (7, 3));
    assert!(seen.done && !seen.error && seen.events == 3);
}
