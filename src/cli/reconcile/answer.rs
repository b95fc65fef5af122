//! What `tollgate reconcile` prints: the lines that differ, and the sums.

use std::fmt::{Display, Write as _};

use jiff::Timestamp;
use serde::Serialize;

use super::{super::keys::table, ReconcileArgs};
use crate::{
    domain::{
        money::Total,
        reconcile::{Comparison, Line, Pair},
    },
    openai::report::exact_number,
};

#[derive(Serialize)]
struct Answer<'a> {
    from: String,
    to: String,
    agree: bool,
    compared: usize,
    differences: Vec<Difference<'a>>,
    total_cost: Cost,
}

#[derive(Serialize)]
struct Difference<'a> {
    day: String,
    line_item: &'a str,
    quantity: Option<Quantity>,
    cost: Option<Cost>,
}

#[derive(Serialize)]
struct Quantity {
    ours: u64,
    theirs: u64,
    differs: bool,
}

/// Exact dollars.
#[derive(Serialize)]
struct Cost {
    #[serde(serialize_with = "exact_number")]
    ours: Total,
    #[serde(serialize_with = "exact_number")]
    theirs: Total,
    differs: bool,
}

pub(super) fn json(args: &ReconcileArgs, comparison: &Comparison) -> String {
    let differences = comparison.differences().map(|((day_s, line_item), line)| Difference {
        day: date(*day_s),
        line_item,
        quantity: line.quantity.map(|Pair { ours, theirs }| Quantity { ours, theirs, differs: line.quantity_differs }),
        cost: line.cost.map(|pair| cost(pair, line.cost_differs)),
    });
    let answer = Answer {
        from: date(args.from.seconds()),
        to: date(args.to.seconds()),
        agree: comparison.agrees(),
        compared: comparison.lines.len(),
        differences: differences.collect(),
        total_cost: cost(comparison.cost, comparison.cost_differs),
    };
    // Words and numbers: there is nothing in them that could fail.
    serde_json::to_string_pretty(&answer).unwrap_or_default() + "\n"
}

const fn cost(pair: Pair<Total>, differs: bool) -> Cost {
    Cost { ours: pair.ours, theirs: pair.theirs, differs }
}

pub(super) fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    let lines: Vec<_> = comparison.differences().collect();
    if !lines.is_empty() {
        let head = ["DAY", "LINE ITEM", "OURS", "THEIRS", "OUR COST", "THEIR COST"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(lines.iter().map(row)).collect();
        text.push_str(&table(&rows));
        text.push('\n');
    }
    let Pair { ours, theirs } = comparison.cost;
    writeln!(text, "Cost in all: ours ${ours}, theirs ${theirs}.").ok();
    let compared = comparison.lines.len();
    match lines.len() {
        0 => writeln!(text, "The books agree: {compared} lines compared.").ok(),
        differing => writeln!(text, "{differing} of {compared} lines differ; ! marks the figures that do.").ok(),
    };
    text
}

fn row(((day_s, line_item), line): &(&(u64, String), &Line)) -> [String; 6] {
    let [our_quantity, their_quantity] = shown(line.quantity, line.quantity_differs, "");
    let [our_cost, their_cost] = shown(line.cost, line.cost_differs, "$");
    [date(*day_s), line_item.clone(), our_quantity, their_quantity, our_cost, their_cost]
}

/// The second with a mark when they differ.
fn shown<T: Display>(pair: Option<Pair<T>>, differs: bool, unit: &str) -> [String; 2] {
    let Some(Pair { ours, theirs }) = pair else { return ["-", "-"].map(str::to_owned) };
    [format!("{unit}{ours}"), format!("{unit}{theirs}{}", if differs { " !" } else { "" })]
}

fn date(day_s: u64) -> String {
    let day = i64::try_from(day_s).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    day.map_or_else(|| day_s.to_string(), |day| day.strftime("%Y-%m-%d").to_string())
}
