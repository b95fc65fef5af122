//! Reads pages of usage and costs, our own and those of whoever answers like `OpenAI`: older ones tell fewer counts.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::line_item_words;
use crate::domain::{
    money::Total,
    reconcile::{Books, Count},
    usage::LineItem,
};

const DAY_S: u64 = 86_400;

#[derive(Debug, thiserror::Error)]
pub enum UnreadableReport {
    #[error("not a page of a report: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0:?} is not an amount of dollars")]
    Amount(String),
    #[error("an amount in {0:?}, not in dollars")]
    Currency(String),
    #[error("a result has no {0}: was the report grouped?")]
    Missing(&'static str),
    #[error("a sum is too large")]
    Overflow,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    data: Vec<Bucket<'a>>,
    #[serde(default)]
    has_more: bool,
    next_page: Option<String>,
}

#[derive(Deserialize)]
struct Bucket<'a> {
    start_time: u64,
    #[serde(borrow, default)]
    results: Vec<BTreeMap<String, &'a RawValue>>,
}

#[derive(Deserialize)]
struct Amount<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    currency: Option<String>,
}

/// Adds a page of `usage/completions` by day and model to `books`; returns the next page's cursor.
pub fn read_usage(page: &[u8], books: &mut Books) -> Result<Option<String>, UnreadableReport> {
    let page: Page<'_> = serde_json::from_slice(page)?;
    for bucket in &page.data {
        for result in &bucket.results {
            let model = text(result, "model").ok_or(UnreadableReport::Missing("model"))?;
            let told = books.counts.entry((day(bucket), model)).or_default();
            for (field, count) in counts() {
                let number = result.get(field).and_then(|raw| serde_json::from_str::<Option<u64>>(raw.get()).ok()?);
                if let Some(number) = number {
                    let sum = told.entry(count).or_default();
                    *sum = sum.checked_add(number).ok_or(UnreadableReport::Overflow)?;
                }
            }
        }
    }
    Ok(page.next())
}

/// Adds a page of `costs` by day and line item to `books`; returns the next page's cursor. What has no amount costs nothing
/// as far as anybody knows.
pub fn read_costs(page: &[u8], books: &mut Books) -> Result<Option<String>, UnreadableReport> {
    let page: Page<'_> = serde_json::from_slice(page)?;
    for bucket in &page.data {
        for result in &bucket.results {
            let line_item = text(result, "line_item").ok_or(UnreadableReport::Missing("line_item"))?;
            let amount = result.get("amount").map(|raw| serde_json::from_str::<Option<Amount<'_>>>(raw.get()));
            let amount = match amount.transpose()?.flatten() {
                Some(amount) => amount.dollars()?,
                None => Total::default(),
            };
            let sum = books.costs.entry((day(bucket), line_item)).or_default();
            *sum = sum.checked_add(amount).map_err(|_| UnreadableReport::Overflow)?;
        }
    }
    Ok(page.next())
}

impl Page<'_> {
    fn next(self) -> Option<String> {
        self.next_page.filter(|_| self.has_more)
    }
}

impl Amount<'_> {
    /// From the very digits, which may stand in quotes.
    fn dollars(&self) -> Result<Total, UnreadableReport> {
        if let Some(currency) = self.currency.as_ref().filter(|currency| !currency.eq_ignore_ascii_case("usd")) {
            return Err(UnreadableReport::Currency(currency.clone()));
        }
        let digits = self.value.get().trim_matches('"');
        Total::from_decimal(digits).map_err(|_| UnreadableReport::Amount(digits.to_owned()))
    }
}

/// `OpenAI` cuts the first bucket off where the report begins.
const fn day(bucket: &Bucket<'_>) -> u64 {
    bucket.start_time - bucket.start_time % DAY_S
}

fn text(result: &BTreeMap<String, &RawValue>, field: &str) -> Option<String> {
    serde_json::from_str::<Option<String>>(result.get(field)?.get()).ok()?
}

/// The fields of a usage result that are compared. Each kind of token is one line item, so no token is in two of them.
fn counts() -> impl Iterator<Item = (&'static str, Count)> {
    let details = LineItem::ALL.into_iter().map(|item| (field(item), Count::detail(line_item_words(item))));
    let totals = [("input_tokens", Count::total("all input")), ("output_tokens", Count::total("all output"))];
    details.chain(totals).chain([("num_model_requests", Count::REQUESTS)])
}

const fn field(item: LineItem) -> &'static str {
    match item {
        LineItem::InputText => "input_text_tokens",
        LineItem::InputCachedText => "input_cached_text_tokens",
        LineItem::InputCacheWriteText => "input_cache_write_tokens",
        LineItem::InputAudio => "input_audio_tokens",
        LineItem::InputCachedAudio => "input_cached_audio_tokens",
        LineItem::InputImage => "input_image_tokens",
        LineItem::InputCachedImage => "input_cached_image_tokens",
        LineItem::OutputText => "output_text_tokens",
        LineItem::OutputAudio => "output_audio_tokens",
        LineItem::OutputImage => "output_image_tokens",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_answer_tells_what_it_knows() {
        let page = br#"{"object": "page", "data": [
            {"object": "bucket", "start_time": 1739096063, "end_time": 1739145600, "results": []},
            {"object": "bucket", "start_time": 1739145600, "end_time": 1739182550, "results": [
                {"input_tokens": 5617, "output_tokens": 494, "num_model_requests": 26, "model": "m", "batch": null,
                 "input_audio_tokens": null}]}], "has_more": true, "next_page": "page_x"}"#;
        let mut books = Books::default();
        assert_eq!(read_usage(page, &mut books).unwrap().as_deref(), Some("page_x"));
        let told = BTreeMap::from([
            (Count::total("all input"), 5_617),
            (Count::total("all output"), 494),
            (Count::REQUESTS, 26),
        ]);
        assert_eq!(books.counts, BTreeMap::from([((1_739_145_600, "m".to_owned()), told)]));
    }

    #[test]
    fn costs_are_read_digit_by_digit_and_summed_up_by_day() {
        let page = br#"{"data": [{"start_time": 86405, "results": [
            {"amount": {"value": 0.29809159056356166, "currency": "usd"}, "line_item": "m, input"},
            {"amount": {"value": "0.06", "currency": "USD"}, "line_item": "m, input"},
            {"amount": null, "line_item": "m, output"}]}], "has_more": false, "next_page": null}"#;
        let mut books = Books::default();
        assert_eq!(read_costs(page, &mut books).unwrap(), None);
        let place = |name: &str| (86_400, name.to_owned());
        let expected = [(place("m, input"), Total::from_pico(358_091_590_564)), (place("m, output"), Total::default())];
        assert_eq!(books.costs, BTreeMap::from(expected));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let result = |result: &str| format!(r#"{{"data": [{{"start_time": 0, "results": [{result}]}}]}}"#);
        let costs = |text: &str| read_costs(text.as_bytes(), &mut Books::default());
        assert!(matches!(costs("{}"), Err(UnreadableReport::Json(_))));
        assert!(matches!(costs(&result(r#"{"line_item": null}"#)), Err(UnreadableReport::Missing("line_item"))));
        let amount = |amount: &str| costs(&result(&format!(r#"{{"line_item": "m", "amount": {amount}}}"#)));
        assert!(matches!(amount(r#"{"value": 1, "currency": "eur"}"#), Err(UnreadableReport::Currency(_))));
        assert!(matches!(amount(r#"{"value": true}"#), Err(UnreadableReport::Amount(_))));
        assert!(matches!(amount("5"), Err(UnreadableReport::Json(_))));
        let usage = read_usage(result(r#"{"input_tokens": 5}"#).as_bytes(), &mut Books::default());
        assert!(matches!(usage, Err(UnreadableReport::Missing("model"))));
    }
}
