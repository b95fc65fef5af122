use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::domain::usage::LineItem;

const TEXT: &str = r#"data: {"id":"c","model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":{"content":"Hi \"usage\":{"},"finish_reason":null}],"usage":null}"#;
const USAGE: &str =
    r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;
const AZURE_FIRST: &str =
    r#"data: {"choices":[],"created":0,"id":"","model":"","prompt_filter_results":[{"prompt_index":0}]}"#;
const DEEPSEEK_LAST: &str = r#"data: {"choices":[{"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;
const ERROR: &str =
    r#"data: {"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#;
const DONE: &str = "data: [DONE]";

/// The frames that go on to the client when `stream` comes cut at `cuts`, and what was seen.
fn frames(stream: &[u8], cuts: &[usize], hide_usage: bool) -> (Vec<Bytes>, Seen) {
    let (mut scanner, mut delivered, mut from) = (EventScanner::new(hide_usage), Vec::new(), 0);
    for cut in cuts.iter().copied().chain([stream.len()]) {
        scanner.push(Bytes::copy_from_slice(&stream[from..cut]), &mut |bytes| delivered.push(bytes));
        from = cut;
    }
    scanner.finish(&mut |bytes| delivered.push(bytes));
    (delivered, scanner.seen().clone())
}

fn pass(stream: &str, hide_usage: bool) -> (String, Seen) {
    let (delivered, seen) = frames(stream.as_bytes(), &[], hide_usage);
    (String::from_utf8(delivered.concat()).unwrap(), seen)
}

fn stream(events: &[&str]) -> String {
    events.iter().flat_map(|event| [*event, "\n\n"]).collect()
}

#[test]
fn the_usage_chunk_is_taken_out_only_when_it_was_not_asked_for() {
    let all = stream(&[TEXT, USAGE, DONE]);
    let (hidden, seen) = pass(&all, true);
    assert_eq!(hidden, stream(&[TEXT, DONE]));
    assert_eq!(pass(&all, false), (all, seen.clone()));
    let usage = seen.usage.unwrap();
    assert_eq!((usage.get(LineItem::InputText), usage.get(LineItem::OutputText)), (7, 3));
    assert_eq!(seen.model.as_deref(), Some("gpt-4o-2024-08-06"));
    assert_eq!((seen.done, seen.error, seen.finished, seen.events, seen.text_events), (true, false, false, 3, 1));
}

#[test]
fn events_that_only_look_like_the_usage_chunk_stay() {
    let all = stream(&[AZURE_FIRST, TEXT, DEEPSEEK_LAST, DONE]);
    let (delivered, seen) = pass(&all, true);
    assert_eq!(delivered, all);
    assert_eq!((seen.usage.unwrap().total(), seen.finished, seen.text_events), (3, true, 1));
    assert_eq!(seen.model.as_deref(), Some("gpt-4o-2024-08-06"));
}

#[test]
fn usage_need_not_come_last_and_the_last_one_counts() {
    // As in audio streams: usage, then a chunk with neither text nor an end, then the end.
    let tail = r#"data: {"choices":[{"index":0,"delta":{"audio":{"expires_at":1780697157}}}],"usage":null}"#;
    let (hidden, seen) = pass(&stream(&[USAGE, tail, DONE]), true);
    assert_eq!(hidden, stream(&[tail, DONE]));
    assert_eq!((seen.usage.unwrap().total(), seen.finished, seen.text_events), (10, false, 0));
    let growing = |tokens: u64| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{}}}}],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{tokens}}}}}\n\n"
        )
    };
    let (_, seen) = pass(&(growing(1) + &growing(2) + &growing(3)), true);
    assert_eq!(seen.usage.unwrap().total(), 4);
}

#[test]
fn errors_inside_a_stream_are_seen_and_passed_on() {
    let named = "event: error\ndata: {\"message\":\"slow down\"}";
    let with_choices =
        r#"data: {"id":"gen","choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"code":502}}"#;
    for event in [ERROR, named, with_choices] {
        let all = stream(&[TEXT, event, DONE]);
        let (delivered, seen) = pass(&all, true);
        assert_eq!(delivered, all);
        assert!(seen.error && seen.done, "{event}");
    }
    let harmless = r#"data: {"error":null,"choices":[{"delta":{"error":"x","content":"\"error\":{}"}}]}"#;
    assert!(!pass(&stream(&[harmless, DONE]), true).1.error);
}

#[test]
fn a_whole_frame_goes_on_as_itself() {
    let mut scanner = EventScanner::new(true);
    let frame = Bytes::from(stream(&[TEXT, TEXT]));
    let mut passed = Vec::new();
    scanner.push(frame.clone(), &mut |bytes| passed.push(bytes));
    assert_eq!(passed.len(), 1);
    assert_eq!((passed[0].as_ptr(), passed[0].len()), (frame.as_ptr(), frame.len()));
}

#[test]
fn a_complete_event_does_not_wait_for_the_next() {
    let mut scanner = EventScanner::new(true);
    for end in ["\n\n", "\r\n\r\n", "\r\r"] {
        for half in [TEXT.len() / 2, TEXT.len() + 1] {
            let event = format!("{TEXT}{end}");
            let mut passed = Vec::new();
            let (first, second) = event.split_at(half);
            scanner.push(Bytes::from(first.to_owned()), &mut |bytes| passed.extend_from_slice(&bytes));
            assert!(passed.is_empty(), "an open event is held");
            scanner.push(Bytes::from(second.to_owned()), &mut |bytes| passed.extend_from_slice(&bytes));
            assert_eq!(passed, event.as_bytes());
        }
    }
}

#[test]
fn audio_is_not_held_and_its_length_is_known() {
    let audio = "A".repeat(25_600);
    let event = format!(r#"data: {{"choices":[{{"index":0,"delta":{{"audio":{{"data":"{audio}"}}}}}}],"usage":null}}"#);
    let all = stream(&[&event, &event, USAGE, DONE]);
    for cuts in [vec![], vec![5_000], vec![5_000, 6_000, 30_000, 40_000], vec![10, 4_000, 4_100, 25_600]] {
        let (delivered, seen) = frames(all.as_bytes(), &cuts, true);
        assert_eq!(delivered.concat(), stream(&[&event, &event, DONE]).as_bytes());
        assert_eq!((seen.audio_base64_bytes, seen.text_events, seen.events), (51_200, 0, 4), "{cuts:?}");
        if cuts == [5_000] {
            assert_eq!(delivered[0].len(), 5_000);
        }
    }
}

#[test]
fn an_event_past_64_kib_goes_on_in_pieces_and_its_usage_is_found_at_its_end() {
    let padding = "x".repeat(100_000);
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":1}"#;
    let large = format!(r#"data: {{"padding":"{padding}","choices":[],{usage}}}"#) + "\n\n";
    let cuts: Vec<_> = (1..100).map(|piece| piece * 1_000).collect();
    let (delivered, seen) = frames(large.as_bytes(), &cuts, true);
    assert_eq!(delivered.concat(), large.as_bytes());
    assert!(delivered[0].len() <= MAX_HELD + 1_000 && delivered[1..].iter().all(|piece| piece.len() <= 1_100));
    assert_eq!(seen.usage.unwrap().total(), 2);
    let endless = vec![b'x'; 1 << 20];
    let mut scanner = EventScanner::new(true);
    for piece in endless.chunks(100) {
        scanner.push(Bytes::copy_from_slice(piece), &mut drop);
        assert!(scanner.held.len() <= MAX_HELD);
    }
    assert_eq!(scanner.seen().bytes, 1 << 20);
}

#[test]
fn an_unterminated_tail_goes_on_only_when_it_is_whole() {
    for tail in [DONE, "data: [DONE]\n", "data: [DONE]\r\n", TEXT, ": end\n", "data:{}"] {
        assert_eq!(pass(&(stream(&[TEXT]) + tail), true).0, stream(&[TEXT]) + tail);
    }
    for tail in ["data: [DO", &TEXT[..TEXT.len() - 1], "da", "data: {\"choices\":"] {
        assert_eq!(pass(&(stream(&[TEXT]) + tail), true).0, stream(&[TEXT]), "{tail}");
    }
    let (delivered, seen) = pass(&(stream(&[TEXT]) + USAGE), true);
    assert_eq!((delivered, seen.usage.unwrap().total()), (stream(&[TEXT]), 10));
    assert!(pass(DONE, true).1.done);
}

#[test]
fn forms_of_events_that_the_standard_allows_are_understood() {
    let of_two_lines = "data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}";
    let named = format!("id: 7\nevent: message\n: comment\n{USAGE}");
    let without_space = USAGE.replacen("data: ", "data:", 1);
    let spaced = "data: { \"choices\" : [ ] , \"usage\" : { \"prompt_tokens\" : 7 , \"completion_tokens\" : 3 } }";
    let marked = format!("\u{feff}{USAGE}");
    for event in [of_two_lines, &named, &without_space, spaced, &marked] {
        for end in ["\n", "\r\n", "\r"] {
            let all = format!("{event}\n\n{DONE}\n\n").replace('\n', end);
            let (delivered, seen) = pass(&all, true);
            assert_eq!(delivered, format!("{DONE}\n\n").replace('\n', end), "{event}");
            assert_eq!(seen.usage.unwrap().total(), 10);
        }
    }
}

#[test]
fn the_line_feed_after_a_removed_event_goes_with_it() {
    let all = format!("{TEXT}\r\n\r\n{USAGE}\r\n\r\n{DONE}\r\n\r\n");
    for cut in 0..all.len() {
        let (delivered, _) = frames(all.as_bytes(), &[cut], true);
        assert_eq!(delivered.concat(), format!("{TEXT}\r\n\r\n{DONE}\r\n\r\n").as_bytes(), "cut at {cut}");
    }
}

#[test]
fn text_is_counted_wherever_models_put_it() {
    for (delta, bytes) in [
        (r#"{"role":"assistant","content":""}"#, None),
        (r#"{"content":"caf\u00e9"}"#, Some(9)),
        (r#"{"content": "two words"}"#, Some(9)),
        (r#"{"content":null,"reasoning_content":"hm"}"#, Some(2)),
        (r#"{"audio":{"id":"audio_1","transcript":"Hello"}}"#, Some(5)),
        (r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}"#, Some(0)),
        (r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"a"}}]}"#, Some(4)),
        (r#"{"refusal":"No"}"#, Some(2)),
        ("{}", None),
    ] {
        let event = format!("data: {{\"choices\":[{{\"delta\":{delta},\"finish_reason\":null}}]}}");
        let seen = pass(&stream(&[&event]), true).1;
        assert_eq!((seen.text_events, seen.text_bytes), (u64::from(bytes.is_some()), bytes.unwrap_or(0)), "{delta}");
    }
}

/// Events with one kind of line end, and whether each is the usage chunk.
fn events() -> impl Strategy<Value = Vec<(String, bool)>> {
    let audio = format!(r#"data: {{"choices":[{{"delta":{{"audio":{{"data":"{}"}}}}}}]}}"#, "QUFB".repeat(1_500));
    let large = format!("data: {{\"padding\":\"{}\"}}", "é".repeat(35_000));
    let block = prop_oneof![
        8 => prop::sample::select(vec![TEXT, AZURE_FIRST, DEEPSEEK_LAST, ERROR, ": keep-alive", "data", "retry: 5\nid"])
            .prop_map(|event| (event.to_owned(), false)),
        3 => Just((USAGE.to_owned(), true)),
        1 => Just((format!(": note\nevent: x\n{USAGE}"), true)),
        2 => Just((audio, false)),
        1 => Just((large, false)),
        1 => "[^\\r\\n]{0,30}".prop_map(|text| (format!(":{text}"), false)),
    ];
    (vec(block, 0..8), prop::sample::select(vec!["\n", "\r\n", "\r"])).prop_map(|(blocks, end)| {
        let blocks = blocks.into_iter().chain([(DONE.to_owned(), false)]);
        blocks.map(|(block, is_usage)| (format!("{block}\n\n").replace('\n', end), is_usage)).collect()
    })
}

proptest! {
    #[test]
    fn any_chunking_delivers_the_input_without_the_removed_events(
        events in events(),
        cuts in vec(any::<Index>(), 0..40),
        hide_usage in any::<bool>(),
    ) {
        let all: String = events.iter().map(|(event, _)| event.as_str()).collect();
        let kept = events.iter().filter(|(_, is_usage)| !(hide_usage && *is_usage));
        let expected: String = kept.map(|(event, _)| event.as_str()).collect();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.index(all.len() + 1)).collect();
        cuts.sort_unstable();
        let (delivered, seen) = frames(all.as_bytes(), &cuts, hide_usage);
        prop_assert!(delivered.concat() == expected.as_bytes(), "cut at {:?}", cuts);
        prop_assert_eq!(seen, frames(all.as_bytes(), &[], hide_usage).1);
    }

    #[test]
    fn single_bytes_are_as_good_as_frames(events in events()) {
        let all: String = events.iter().take(3).map(|(event, _)| event.as_str()).filter(|event| event.len() < 9_000).collect();
        let cuts: Vec<_> = (0..all.len()).collect();
        let (delivered, seen) = frames(all.as_bytes(), &cuts, false);
        prop_assert!(delivered.concat() == all.as_bytes());
        prop_assert_eq!(seen, frames(all.as_bytes(), &[], false).1);
    }

    #[test]
    fn any_bytes_pass_when_nothing_is_hidden(
        bytes in vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'"'), Just(b':'), any::<u8>()], 0..300),
        cuts in vec(any::<Index>(), 0..10),
    ) {
        let stream = [b"data".as_slice(), &bytes, b"\n\n"].concat();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(frames(&stream, &cuts, false).0.concat(), stream);
    }
}

#[test]
fn what_went_on_of_an_event_that_never_ended_is_known() {
    let audio = format!(r#"data: {{"choices":[{{"delta":{{"audio":{{"data":"{}"#, "A".repeat(10_000));
    let is_inside = |stream: &str, finish: bool| {
        let mut scanner = EventScanner::new(true);
        scanner.push(Bytes::from(stream.to_owned()), &mut drop);
        if finish {
            scanner.finish(&mut drop);
        }
        scanner.is_inside_event()
    };
    let event = format!("{TEXT}\n\n");
    for (stream, at_cut, at_end) in [
        (event.clone(), false, false),
        // Held, so nothing of it has gone on; at the end it goes on if it is whole.
        (format!("{event}{TEXT}"), false, true),
        (format!("{event}{}", &TEXT[..50]), false, false),
        (format!("{event}{USAGE}"), false, false),
        (format!("{event}{audio}"), true, true),
    ] {
        assert_eq!((is_inside(&stream, false), is_inside(&stream, true)), (at_cut, at_end), "{stream}");
    }
}

#[test]
fn a_usage_that_may_still_grow_is_not_final() {
    let growing = r#"data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let is_final = |events: &[&str]| pass(&stream(events), true).1.has_final_usage();
    assert!(!is_final(&[TEXT]) && !is_final(&[growing]) && !is_final(&[TEXT, growing]));
    assert!(is_final(&[growing, USAGE]) && is_final(&[DEEPSEEK_LAST]) && is_final(&[growing, DONE]));
    assert!(!is_final(&[TEXT, DONE]));
}
