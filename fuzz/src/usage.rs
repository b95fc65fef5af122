//! What an answer says of itself, of which bills are made.

use serde_json::Value;
use tollgate::{
    domain::{
        money::Money,
        pricing::{Prices, Rates, ServiceTier, charges, cost, cost_of},
        reconcile::Books,
        usage::{LineItem, Usage},
    },
    openai::{
        report::{read_costs, read_usage},
        upstream_error::UpstreamError,
        usage::{estimate_output, read_answer, read_event},
    },
};

use super::is_told;

/// What no JSON reader gets wrong.
const MAX_COUNT: u64 = 1 << 53;

pub fn usage(body: &[u8]) {
    let answer = read_answer(body);
    let event = read_event(body);
    if str::from_utf8(body).is_err() {
        // Broken characters in what is wanted of an answer make it no JSON; of an event the rest is still read.
        assert!(answer.is_err() || event.is_some());
    } else {
        assert_eq!(answer.is_ok(), event.is_some());
    }
    if let (Ok(answer), Some(event)) = (&answer, &event) {
        assert!(answer.usage == event.usage || (answer.usage.is_none() && str::from_utf8(body).is_err()));
        assert_eq!(answer.model, event.model);
        assert_eq!((answer.service_tier, answer.is_error), (event.service_tier, event.is_error));
        assert!(!event.is_usage_chunk || !event.is_error);
    }
    if let Some(usage) = answer.ok().and_then(|answer| answer.usage) {
        is_at_least_what_was_reported(&usage, body);
        is_kept(&usage);
        is_priced(&usage);
    }
    let (text, audio) = estimate_output(body);
    assert!(text <= body.len() as u64 && audio <= body.len() as u64);
    if let Some(error) = UpstreamError::read(body) {
        error.about();
        error.is_about_our_key();
        is_told(&error.into_api_error());
    }
    for read in [read_usage, read_costs] {
        let mut books = Books::default();
        if read(body, &mut books).is_ok() {
            assert!(books.counts.len() + books.costs.len() <= body.len());
        }
    }
}

fn is_at_least_what_was_reported(usage: &Usage, body: &[u8]) {
    let Ok(tree) = serde_json::from_slice::<Value>(body) else { return };
    let count = |name: &str| tree["usage"][name].as_u64().filter(|count| *count <= MAX_COUNT);
    let (prompt, completion, total) = (count("prompt_tokens"), count("completion_tokens"), count("total_tokens"));
    assert!(usage.input_total() >= prompt.unwrap_or(0), "{usage:?} is less than was asked");
    assert!(usage.output_total() >= completion.unwrap_or(0), "{usage:?} is less than was answered");
    assert!(usage.total() >= total.unwrap_or(0), "{usage:?} is less than the total");
    if prompt.or(completion).or(total).is_none() {
        return;
    }
    for (item, detail) in [(LineItem::OutputAudio, "audio_tokens"), (LineItem::OutputImage, "image_tokens")] {
        if let Some(told) = tree["usage"]["completion_tokens_details"][detail].as_u64() {
            assert_eq!(usage.get(item), told.min(MAX_COUNT), "{item:?}");
        }
    }
}

fn is_kept(usage: &Usage) {
    let sum = usage.items().try_fold(0_u64, |sum, (_, quantity)| sum.checked_add(quantity));
    assert_eq!(sum, Some(usage.total()));
    assert_eq!(usage.input_total().checked_add(usage.output_total()), sum);
    let text = serde_json::to_string(usage).expect("a usage can be written");
    assert_eq!(serde_json::from_str::<Usage>(&text).expect("and read"), *usage);
}

/// Amounts are exact products or refused, and never less than nothing.
fn is_priced(usage: &Usage) {
    for price in [1, 150_000, i64::MAX] {
        let mut standard = Rates::default();
        for item in LineItem::ALL {
            standard.set(item, Money::from_pico(price));
        }
        let prices = Prices { standard, ..Prices::default() };
        let exact: i128 = usage.items().map(|(_, quantity)| i128::from(quantity) * i128::from(price)).sum();
        let charged = cost(&charges(usage, Some(&prices), ServiceTier::Default));
        assert_eq!(charged, cost_of(usage, Some(&prices), ServiceTier::Default));
        match charged {
            Ok(cost) => assert_eq!((i128::from(cost.amount.pico()), cost.priced), (exact, true)),
            Err(_) => assert!(exact > i128::from(i64::MAX)),
        }
    }
}
