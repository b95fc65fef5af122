//! A page of buckets as `OpenAI` prints it.

use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

use super::{cursor, usage::UsageResult};
use crate::domain::{
    ids::{KeyId, ProjectId},
    money::Total,
    report::{Bucket, Group, Grouping, Kind, Page, Report, Sums},
    usage::LineItem,
};

/// There is one organization; clients of `OpenAI` expect it to have an id.
const ORGANIZATION_ID: &str = "org-tollgate";

#[derive(Serialize)]
struct PageObject<'a> {
    object: &'static str,
    data: Vec<BucketObject<'a>>,
    has_more: bool,
    next_page: Option<String>,
}

#[derive(Serialize)]
struct BucketObject<'a> {
    object: &'static str,
    start_time: u64,
    end_time: u64,
    results: Vec<ResultObject<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ResultObject<'a> {
    Usage(UsageResult<'a>),
    Costs(Box<CostsResult<'a>>),
}

#[derive(Serialize)]
struct CostsResult<'a> {
    object: &'static str,
    /// `null` for what has no price, as clients of `OpenAI` accept it: never zero dollars.
    amount: Option<Amount>,
    line_item: Option<String>,
    project_id: Option<&'a str>,
    api_key_id: Option<&'a str>,
    organization_id: &'static str,
    quantity: Option<u64>,
    quantity_unit: Option<&'static str>,
    /// Requests with something that has no price, which `amount` does not hold. Ours alone; left out when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    unpriced_requests: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(in crate::openai) struct Amount {
    #[serde(serialize_with = "exact_number")]
    value: Total,
    currency: &'static str,
}

impl Amount {
    pub(in crate::openai) const fn of(value: Total) -> Self {
        Self { value, currency: "usd" }
    }
}

pub fn print(report: &Report, page: &Page, buckets: &[Bucket]) -> serde_json::Result<Vec<u8>> {
    let next_page = cursor::print(report, page);
    let data = buckets.iter().map(|bucket| bucket_object(report, bucket)).collect();
    serde_json::to_vec(&PageObject { object: "page", data, has_more: next_page.is_some(), next_page })
}

fn bucket_object<'a>(report: &Report, bucket: &'a Bucket) -> BucketObject<'a> {
    let result = |(group, sums)| match report.kind {
        Kind::Costs => ResultObject::Costs(Box::new(costs_result(report, group, sums))),
        kind => ResultObject::Usage(UsageResult { kind, group, sums }),
    };
    BucketObject {
        object: "bucket",
        start_time: bucket.range.start_s,
        end_time: bucket.range.end_s,
        results: bucket.results.iter().map(result).collect(),
    }
}

fn costs_result<'a>(report: &Report, group: &'a Group, sums: &Sums) -> CostsResult<'a> {
    let is_by_line_item = report.is_by(Grouping::LineItem);
    let line_item = group.line_item.map(|item| match &group.model {
        Some(model) => format!("{model}, {}", line_item_words(item)),
        None => line_item_words(item).to_owned(),
    });
    CostsResult {
        object: "organization.costs.result",
        amount: sums.known_amount().map(Amount::of),
        line_item,
        project_id: group.project_id.as_ref().map(ProjectId::as_str),
        api_key_id: group.api_key_id.as_ref().map(KeyId::as_str),
        organization_id: ORGANIZATION_ID,
        quantity: is_by_line_item.then(|| sums.usage.total()),
        quantity_unit: is_by_line_item.then_some("tokens"),
        unpriced_requests: (sums.unpriced_requests > 0).then_some(sums.unpriced_requests),
    }
}

/// Text goes without saying, as on `OpenAI`'s bills.
pub const fn line_item_words(item: LineItem) -> &'static str {
    match item {
        LineItem::InputText => "input",
        LineItem::InputCachedText => "cached input",
        LineItem::InputCacheWriteText => "cache write",
        LineItem::InputAudio => "audio input",
        LineItem::InputCachedAudio => "cached audio input",
        LineItem::InputImage => "image input",
        LineItem::InputCachedImage => "cached image input",
        LineItem::OutputText => "output",
        LineItem::OutputAudio => "audio output",
        LineItem::OutputImage => "image output",
    }
}

/// All digits of the amount: through a float they would be rounded.
pub fn exact_number<S: Serializer>(amount: &Total, serializer: S) -> Result<S::Ok, S::Error> {
    let digits = RawValue::from_string(amount.to_string()).map_err(S::Error::custom)?;
    digits.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::domain::{
        report::{Line, Row},
        time::UnixNanos,
    };

    const DAY_S: u64 = 86_400;
    const NOW: UnixNanos = UnixNanos::from_seconds(20 * DAY_S);

    /// The decimals after `"value":`, in pico-dollars: digit by digit, for a parser of JSON would make floats of them.
    fn amounts(body: &str) -> Vec<i128> {
        let numbers = body.split("\"value\":").skip(1).map(|rest| rest.split([',', '}']).next().unwrap());
        let amount = |text: &str| -> i128 {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            assert!(fraction.len() <= 12, "{text}");
            format!("{whole}{fraction:0<12}").parse().unwrap()
        };
        numbers.map(amount).collect()
    }

    proptest! {
        /// Whatever the groups, the zone and the amounts: some too large or too fine for a float.
        #[test]
        fn the_printed_buckets_sum_up_to_the_rows_to_the_last_digit(
            entries in vec((0..20 * DAY_S, 0..3_u8, 0..LineItem::COUNT, any::<i64>()), 0..50),
            asked in prop::sample::select(vec![
                "",
                "&group_by=line_item",
                "&group_by=project_id,api_key_id,line_item",
                "&timezone=Asia/Kathmandu",
                "&timezone=America/Sao_Paulo&group_by=api_key_id",
            ]),
        ) {
            let (report, page) = super::super::read(Kind::Costs, &format!("start_time=0&limit=180{asked}"), NOW).unwrap();
            let row = |&(at_s, key, item, pico): &(u64, u8, usize, i64)| Row {
                bucket_start_s: at_s - at_s % 60,
                project_id: ProjectId::parse("proj_a"),
                api_key_id: KeyId::parse(&format!("key_{key}")),
                model: Some("m".into()),
                service_tier: None,
                requests: 1,
                unpriced_requests: 0,
                lines: vec![Line { line_item: LineItem::ALL[item], quantity: 1, amount: Total::from_pico(pico.into()) }],
            };
            let buckets = report.fold(&page, entries.iter().map(row)).unwrap();
            let body = String::from_utf8(print(&report, &page, &buckets).unwrap()).unwrap();
            let expected: i128 = entries.iter().map(|entry| i128::from(entry.3)).sum();
            prop_assert_eq!(amounts(&body).iter().sum::<i128>(), expected);
            prop_assert_eq!(page.next_s, None);
        }
    }
}
