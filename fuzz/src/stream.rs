//! An event stream on its way through: the same events and the same usage however its bytes are cut.

use bytes::Bytes;
use tollgate::openai::{
    sse::{EventScanner, Seen},
    usage::read_event,
};

use super::choice;

/// What the scanner may hold back of one event.
const MAX_HELD: usize = 64 * 1024;
/// A shorter event is looked at whole, whatever it is.
const ALWAYS_WHOLE: usize = 4 * 1024;
/// Bytes that stand for much text, so that small inputs make large events.
const LONG: [(u8, usize); 2] = [(1, 5_000), (2, 66_000)];
const MAX_STREAM: usize = 140 * 1024;
/// Cutting everywhere takes its time.
const MAX_SINGLE_BYTES: usize = 10_000;

pub fn stream(data: &[u8]) {
    let Some((cuts, text)) = choice(data) else { return };
    let stream = expanded(text);
    let cuts = cuts_of(cuts, stream.len());
    for hide_usage in [false, true] {
        let (whole, of_whole) = pass(&stream, &[], hide_usage);
        let (pieces, of_pieces) = pass(&stream, &cuts, hide_usage);
        let events = events(&stream);
        if events.iter().all(|event| event.len() < ALWAYS_WHOLE) {
            assert_eq!(of_whole, of_pieces);
            assert!(whole == pieces, "the cuts change what the client gets");
            agrees(&stream, &events);
        }
        if !hide_usage {
            assert!(stream.starts_with(&whole) && stream.starts_with(&pieces), "something was changed");
        }
    }
}

fn expanded(text: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for byte in text {
        match LONG.iter().find(|(long, _)| long == byte) {
            Some((_, length)) => stream.resize(stream.len() + length, b'A'),
            None => stream.push(*byte),
        }
        if stream.len() > MAX_STREAM {
            break;
        }
    }
    stream
}

/// Places to cut at, always the same for one seed; the smallest seeds cut everywhere.
fn cuts_of(seed: u8, length: usize) -> Vec<usize> {
    if seed < 8 {
        return (1..length.min(MAX_SINGLE_BYTES)).collect();
    }
    let (mut cuts, mut at, mut state) = (Vec::new(), 0, u64::from(seed));
    loop {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let spread = 1_u64 << (2 + (state >> 60));
        at += 1 + usize::try_from((state >> 33) % spread).unwrap_or(0);
        if at >= length {
            return cuts;
        }
        cuts.push(at);
    }
}

/// What goes on, and what was seen.
fn pass(stream: &[u8], cuts: &[usize], hide_usage: bool) -> (Vec<u8>, Seen) {
    let (mut scanner, mut delivered, mut from) = (EventScanner::new(hide_usage), Vec::new(), 0);
    for to in cuts.iter().copied().chain([stream.len()]) {
        let frame = Bytes::copy_from_slice(&stream[from..to]);
        scanner.push(frame, &mut |bytes| delivered.extend_from_slice(&bytes));
        from = to;
        if !hide_usage {
            assert!(to - delivered.len() <= MAX_HELD, "{} bytes are held back", to - delivered.len());
        }
    }
    scanner.finish(&mut |bytes| delivered.extend_from_slice(&bytes));
    assert!(delivered.len() <= stream.len());
    let seen = scanner.seen().clone();
    assert_eq!(seen.bytes, stream.len() as u64);
    for count in [seen.text_bytes, seen.audio_base64_bytes, seen.events, seen.text_events, seen.usage_chunks] {
        assert!(count <= seen.bytes);
    }
    (delivered, seen)
}

/// The events with their blank lines; the last one may have none.
fn events(stream: &[u8]) -> Vec<&[u8]> {
    let (mut events, mut start, mut at, mut line) = (Vec::new(), 0, 0, 0);
    while at < stream.len() {
        let ends_line = matches!(stream[at], b'\n' | b'\r');
        let length = if stream[at..].starts_with(b"\r\n") { 2 } else { 1 };
        at += length;
        if ends_line && at - length == line {
            events.push(&stream[start..at]);
            start = at;
        }
        if ends_line {
            line = at;
        }
    }
    if start < stream.len() {
        events.push(&stream[start..]);
    }
    events
}

/// The lines of `data` of an event, joined, and whether it is named `error`.
fn data(event: &[u8]) -> (Option<Vec<u8>>, bool) {
    let event = event.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(event);
    let value = |line: &'_ [u8], name: &str| {
        let rest = line.strip_prefix(name.as_bytes())?;
        let value = if rest.is_empty() { rest } else { rest.strip_prefix(b":")? };
        Some(value.strip_prefix(b" ").unwrap_or(value).to_vec())
    };
    let lines = || event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let data: Vec<_> = lines().filter_map(|line| value(line, "data")).collect();
    let is_error = lines().filter_map(|line| value(line, "event")).any(|name| name == b"error");
    ((!data.is_empty()).then(|| data.join(&b'\n')), is_error)
}

/// What is seen of the whole events is what parsing each of them says.
fn agrees(stream: &[u8], events: &[&[u8]]) {
    let is_open = |event: &[u8]| !matches!(event.last(), Some(b'\n' | b'\r'));
    let mut scanner = EventScanner::new(false);
    scanner.push(Bytes::copy_from_slice(stream), &mut |_| {});
    let seen = scanner.seen();
    // An escaped key is the same to a parser, and is not looked for: no service writes them.
    if stream.windows(2).any(|pair| pair == b"\\u") {
        return;
    }
    let mut expected = Seen::default();
    let last_is_open = events.last().is_some_and(|last| is_open(last) || !is_blank_at_end(last));
    let whole = events.len() - usize::from(last_is_open);
    for event in &events[..whole] {
        let (data, is_error) = data(event);
        expected.error |= is_error;
        let Some(data) = data else { continue };
        expected.events += 1;
        if data.trim_ascii() == b"[DONE]" {
            expected.done = true;
            continue;
        }
        let Some(facts) = read_event(&data) else { continue };
        expected.usage = facts.usage.or(expected.usage);
        expected.error |= facts.is_error;
        expected.usage_chunks += u64::from(facts.is_usage_chunk);
        expected.model = expected.model.or(facts.model);
    }
    assert_eq!(
        (seen.usage, seen.usage_chunks, seen.error, seen.done, seen.events, &seen.model),
        (expected.usage, expected.usage_chunks, expected.error, expected.done, expected.events, &expected.model)
    );
}

/// The event ends in an empty line, or is one.
fn is_blank_at_end(event: &[u8]) -> bool {
    let one_less = event.strip_suffix(b"\r\n").or_else(|| event.split_last().map(|(_, rest)| rest));
    one_less.is_some_and(|rest| rest.is_empty() || matches!(rest.last(), Some(b'\n' | b'\r')))
}
