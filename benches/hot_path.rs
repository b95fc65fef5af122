//! What one request costs in the rooms it passes through, each measured alone.
//!
//! `cargo bench` runs all of it, `cargo bench -- journal` one. For the whole gateway under load: `scripts/bench`.

use std::{hint::black_box, num::NonZeroU32, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tollgate::{
    domain::{
        ids::{KeyId, ProjectId, RequestId},
        ledger::{Admission, Hold, Outcome, Settlement, Used},
        limits::{Audio, ByScope, Limits},
        money::Money,
        pricing::{Prices, Rates, ServiceTier, charges, cost},
        time::UnixNanos,
        usage::{Basis, LineItem, Usage},
    },
    journal::{Journal, Options},
    openai::{headers::rate_limit, request, sse::EventScanner, usage::read_answer},
    proxy::limiter::{Asked, Limiter},
};

const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
const MODEL: &str = "gpt-4o-mini-audio-preview";
/// Frames of base64: 5 MB, as a clip of some two minutes has.
const CLIP_CHARACTERS: usize = 5_000_000;
const STREAM_CHUNKS: usize = 64;
/// The journal deletes what the ledger holds; here it is told to after so many requests.
const REQUESTS_KEPT: u64 = 10_000;

fn text_request() -> Vec<u8> {
    br#"{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are brief."},{"role":"user","content":"Say hello to the person who reads this, in a few words."}],"stream":true,"temperature":0.2,"max_completion_tokens":200}"#
        .to_vec()
}

fn audio_request() -> Vec<u8> {
    // The head of a wav file: mono, 16 bits, 24 kHz, as long as it likes; then silence.
    let head = "UklGRv////9XQVZFZm10IBAAAAABAAEAwF0AAIC7AAACABAAZGF0Yf////8A";
    let mut body = br#"{"model":"gpt-4o-mini-audio-preview","messages":[{"role":"user","content":[{"type":"text","text":"What is said here?"},{"type":"input_audio","input_audio":{"format":"wav","data":""#.to_vec();
    body.extend_from_slice(head.as_bytes());
    body.resize(body.len() + CLIP_CHARACTERS, b'A');
    body.extend_from_slice(br#""}}]}]}"#);
    body
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    for (name, body) in [("text", text_request()), ("audio of 5 MB", audio_request())] {
        assert!(request::scan(&body).is_ok(), "{name}");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| request::scan(black_box(&body))));
    }
    group.finish();
}

fn answers(criterion: &mut Criterion) {
    let frames: Vec<Bytes> = stream().into_iter().map(Bytes::from).collect();
    let whole = br#"{"id":"chatcmpl-1","object":"chat.completion","created":1790000000,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hello to you who reads this.","refusal":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":8,"total_tokens":32,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}},"service_tier":"default"}"#;
    let mut group = criterion.benchmark_group("answer");
    group.bench_function("usage of a whole answer", |bencher| bencher.iter(|| read_answer(black_box(whole))));
    group.throughput(Throughput::Elements(frames.len() as u64));
    for (name, hide_usage) in [("stream of 64 chunks", false), ("stream of 64 chunks, usage hidden", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || frames.clone(),
                |frames| {
                    let mut scanner = EventScanner::new(hide_usage);
                    for frame in frames {
                        scanner.push(frame, &mut |bytes| {
                            black_box(bytes);
                        });
                    }
                    scanner.finish(&mut |bytes| {
                        black_box(bytes);
                    });
                    scanner
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// One event a frame, as they arrive.
fn stream() -> Vec<String> {
    let chunk = |rest: &str| {
        format!(
            r#"data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1790000000,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_58b2b3ae96",{rest},"obfuscation":"xTf3Lq"}}{}"#,
            "\n\n"
        )
    };
    let word =
        r#""choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null"#;
    let end = r#""choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null"#;
    let usage = r#""choices":[],"usage":{"prompt_tokens":24,"completion_tokens":64,"total_tokens":88,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}"#;
    let mut frames = vec![chunk(word); STREAM_CHUNKS];
    frames.extend([chunk(end), chunk(usage), "data: [DONE]\n\n".to_owned()]);
    frames
}

/// Whole nanoseconds for a unit, as usual limits have, and more than is asked for here.
fn limits() -> Limits {
    Limits {
        requests_per_minute: NonZeroU32::new(10_000_000),
        requests_per_day: NonZeroU32::new(1_000_000_000),
        tokens_per_minute: NonZeroU32::new(1_000_000_000),
        tokens_per_day: NonZeroU32::new(4_000_000_000),
        ..Limits::default()
    }
}

fn limiter(criterion: &mut Criterion) {
    const USED: Used = Used { request: true, tokens: 20, ..Used::NOTHING };
    const KEYS: usize = 100_000;
    let (limiter, project, group) = (Limiter::default(), ProjectId::parse("proj_one").unwrap(), Arc::from(MODEL));
    let keys: Vec<_> = (0..KEYS).map(|n| KeyId::parse(&format!("key_{n}")).unwrap()).collect();
    let found: Vec<_> = keys.iter().map(|key| limiter.buckets(&project, key, &group)).collect();
    let asked = Asked { tokens: NonZeroU32::new(100).unwrap(), audio: Audio::NONE, stream: false };
    let of_project = ByScope { project: limits(), key: Limits::default() };
    let of_both = ByScope { project: limits(), key: limits() };
    // It goes on from one to the next: they share the project's buckets. The next key is never the last one.
    let (mut clock, mut at) = (NOW, 0);
    let mut next = || {
        at = (at + 7_919) % KEYS;
        at
    };
    criterion.bench_function("limiter: find the buckets of one of 100,000 keys", |bencher| {
        bencher.iter(|| limiter.buckets(&project, black_box(&keys[next()]), &group));
    });
    for (name, limits) in [("the project", of_project), ("the project and the key", of_both)] {
        criterion.bench_function(&format!("limiter: reserve on all limits of {name}, headers, settle"), |bencher| {
            bencher.iter(|| {
                // A millisecond for each keeps the buckets from filling up.
                clock = clock.plus_nanos(1_000_000);
                let reservation = found[next()].reserve(&limits, asked, clock).expect("there is room");
                rate_limit(&reservation.headrooms(), |name, value| {
                    black_box((name, value));
                });
                reservation.settle(USED, clock);
            });
        });
    }
}

fn prices() -> Prices {
    let mut standard = Rates::default();
    for (item, dollars) in [
        (LineItem::InputText, "0.15"),
        (LineItem::OutputText, "0.60"),
        (LineItem::InputAudio, "10"),
        (LineItem::OutputAudio, "20"),
    ] {
        standard.set(item, Money::per_million(dollars).unwrap());
    }
    Prices { standard, ..Prices::default() }
}

fn usage() -> Usage {
    let input = Usage::default().with(LineItem::InputText, 22).with(LineItem::InputAudio, 70);
    input.with(LineItem::OutputText, 6).with(LineItem::OutputAudio, 12)
}

fn pricing(criterion: &mut Criterion) {
    let (prices, usage) = (prices(), usage());
    criterion.bench_function("pricing: four lines and their sum", |bencher| {
        bencher.iter(|| cost(&charges(black_box(&usage), Some(&prices), ServiceTier::Default)));
    });
}

fn admission(number: u64) -> Admission {
    let estimate = usage();
    Admission {
        request_id: RequestId::new(NOW.millis(), u128::from(number)),
        admitted_at: NOW,
        key_id: KeyId::parse("key_one").unwrap(),
        endpoint: "chat.completions".into(),
        model: MODEL.into(),
        stream: false,
        estimate,
        charges: charges(&estimate, Some(&prices()), ServiceTier::Default),
        service_tier: ServiceTier::Default,
        billed_model: "gpt-4o-mini-audio-preview-2024-12-17".into(),
        prices_from: Some(UnixNanos::from_seconds(1_700_000_000)),
        hold: Hold {
            project_id: ProjectId::parse("proj_one"),
            limit_group: MODEL.into(),
            limits: ByScope { project: limits(), key: Limits::default() },
            tokens: NonZeroU32::new(110).unwrap(),
            audio: Audio::NONE,
            used_before: ByScope {
                project: [Some(3), Some(80), Some(4_000), Some(90_000), None, None, None, None],
                key: tollgate::domain::ledger::UsedBefore::default(),
            },
        },
    }
}

fn settlement(admission: &Admission) -> Settlement {
    Settlement {
        request_id: admission.request_id,
        settled_at: NOW,
        outcome: Outcome::Completed,
        basis: Basis::Reported,
        status: 200,
        billed_model: Arc::clone(&admission.billed_model),
        service_tier: ServiceTier::Default,
        prices_from: admission.prices_from,
        usage: admission.estimate,
        charges: admission.charges.clone(),
        used: Used::of(true, &admission.estimate),
    }
}

fn journal(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Options::new(directory.path().join("journal")), NOW).unwrap();
    let mut number = 0;
    criterion.bench_function("journal: admit and settle", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                if number % REQUESTS_KEPT == 0 {
                    journal.release(journal.end()).expect("segments can be deleted");
                }
                let admission = admission(number);
                let settlement = settlement(&admission);
                (admission, settlement)
            },
            |(admission, settlement)| {
                let ticket = journal.admit(&admission).expect("there is room");
                journal.settle(ticket, &settlement)
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(hot_path, requests, answers, limiter, pricing, journal);
criterion_main!(hot_path);
