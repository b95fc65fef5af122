//! What a person reads of one request.

use serde_json::value::RawValue;

use super::answer::{Adjustment, Amount, HitLimit, Limit, Line, Refusal, Request, SpendLimit};
use crate::domain::figures::grouped;

/// Paragraphs of lines, columns aligned.
pub(super) fn screen(request: &Request) -> String {
    let mut parts = vec![request.id.clone(), facts(request)];
    match &request.refusal {
        Some(refusal) => parts.push(refused(refusal)),
        None => parts.extend(charged(request)),
    }
    let text = parts.into_iter().map(|part| part.trim_end().to_owned()).collect::<Vec<_>>().join("\n\n");
    printable(&text) + "\n"
}

/// A model's name is the caller's, and must not move the cursor of whoever looks.
pub(in crate::cli) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn facts(request: &Request) -> String {
    let how = if request.stream { "streamed" } else { "not streamed" };
    let mut rows = vec![
        ["  asked".to_owned(), format!(" {} of {}, {how}", request.endpoint, request.requested_model)],
        ["  by".to_owned(), format!(" {} of {}", request.api_key_id, request.project_id)],
    ];
    if let Some(refusal) = &request.refusal {
        let code = refusal.code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
        let at = moment_ms(refusal.refused_at_ms);
        rows.push(["  refused".to_owned(), format!(" {at} with status {}{code}", request.status)]);
    }
    if let Some(admitted_at) = request.admitted_at {
        rows.push(["  admitted".to_owned(), format!(" {}", moment_ms(admitted_at.saturating_mul(1_000)))]);
    }
    if let Some(duration_ms) = request.duration_ms {
        let status = if request.status == 0 {
            "without an answer".to_owned()
        } else {
            format!("with status {}", request.status)
        };
        let after = seconds(duration_ms);
        rows.push(["  ended".to_owned(), format!(" {}, {status}, after {after}", spaced(&request.outcome))]);
    }
    if let (Some(model), Some(tier)) = (&request.model, &request.service_tier) {
        rows.push(["  billed as".to_owned(), format!(" {model}, service tier {tier}")]);
    }
    columns(&rows, [false, false])
}

fn charged(request: &Request) -> Vec<String> {
    let mut parts = vec![limits(request.limits.as_deref()), tokens(request)];
    let since =
        request.prices_from.map_or_else(String::new, |from| format!(", at the prices in force since {}", date(from)));
    parts.push(if request.lines.is_empty() {
        "Charge: nothing was used, so nothing is charged.".to_owned()
    } else {
        let total = ("cost", request.cost_before_adjustments.as_ref());
        format!("Charge{since}\n{}", lines(&request.lines, total))
    });
    if request.priced == Some(false) {
        parts.push(match request.cost {
            Some(_) => "A line has no price: the cost does not hold it.".to_owned(),
            None => "Nothing of this has a price: it is unpriced, which is not free.".to_owned(),
        });
    }
    parts.extend(request.adjustments.iter().map(adjustment));
    if !request.adjustments.is_empty() {
        parts.push(format!("Cost with adjustments: {}", amount(request.cost.as_ref())));
    }
    parts
}

fn limits(limits: Option<&[Limit]>) -> String {
    let Some(limits) = limits else {
        return "Limits: not known, the request is from before they were kept.".to_owned();
    };
    let Some(first) = limits.first() else { return "Limits: none.".to_owned() };
    let mut rows = vec![["", "used before", "reserved", "used after", "settled"].map(str::to_owned)];
    rows.extend(limits.iter().map(|it| {
        let known = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), grouped);
        let before = format!("{} of {}", known(it.used_before), grouped(it.limit));
        let name = format!("  {}: {}", it.scope, spaced(&it.name));
        [name, before, grouped(it.reserved), known(it.used_after), known(it.settled)]
    }));
    let spread: Vec<_> = rows.into_iter().map(|row| row.map(|cell| format!("{cell} "))).collect();
    format!("Limits on {}\n{}", first.limit_group, columns(&spread, [false, true, true, true, true]))
}

/// What was expected, and what it came to.
fn tokens(request: &Request) -> String {
    let mut rows = Vec::new();
    let row = |name: &str, input: u64, output: u64, note: &str| {
        let tokens = [format!("{} tokens in,", grouped(input)), format!("{} out{note}", grouped(output))];
        let [input, output] = tokens;
        [name.to_owned(), input, output]
    };
    if let Some(estimate) = &request.estimate {
        rows.push(row("Estimate:", estimate.input_tokens, estimate.output_tokens, ""));
    }
    if let Some(usage) = &request.usage {
        let note = match usage.basis.as_str() {
            "reported" => ", as the upstream reported",
            _ => ", as estimated: the upstream did not say",
        };
        rows.push(row("Usage:", usage.input_tokens, usage.output_tokens, note));
    }
    columns(&rows, [false, true, false])
}

fn adjustment(it: &Adjustment) -> String {
    let total = ("difference", Some(&it.amount));
    format!("Adjusted on {}: {}\n{}", date(it.adjusted_at), it.reason, lines(&it.lines, total))
}

/// `input  1,204 tokens x $0.15 per 1M = $0.0001806`, and their sum.
fn lines(lines: &[Line], (name, total): (&str, Option<&Amount>)) -> String {
    let mut rows: Vec<[String; 4]> = lines
        .iter()
        .map(|line| {
            let words = line.description.rsplit_once(", ").map_or(line.description.as_str(), |(_, words)| words);
            let price = match (&line.price, line.quantity) {
                (Some(price), _) => format!("x {} per 1M", dollars(&price.per_million)),
                (None, Some(_)) => "without a price".to_owned(),
                // One amount for the whole line.
                (None, None) => String::new(),
            };
            [
                format!("  {words} "),
                line.quantity.map_or_else(String::new, |quantity| format!("{} tokens", grouped(quantity))),
                price,
                line.amount.as_ref().map_or_else(String::new, |amount| format!("= {}", dollars(&amount.value))),
            ]
        })
        .collect();
    rows.push([format!("  {name} "), String::new(), String::new(), format!("= {}", amount(total))]);
    columns(&rows, [false, true, false, false])
}

fn refused(refusal: &Refusal) -> String {
    if let Some(limit) = &refusal.limit {
        return over_limit(limit);
    }
    if let Some(limit) = &refusal.spend_limit {
        return over_spend_limit(limit);
    }
    let why = match refusal.reason.as_str() {
        "unknown_model" => "No model of the catalog has this name.".to_owned(),
        "model_not_allowed" => "The key or its project may not use this model.".to_owned(),
        "wrong_endpoint" => "The model does not answer on this endpoint.".to_owned(),
        "unpriced_model" => "The model has no price, and what cannot be billed is not sent.".to_owned(),
        "not_recorded" => "The gateway could not record the request: see its log.".to_owned(),
        other => format!("The reason was {other}."),
    };
    format!("{why}\nNothing was sent, and nothing is charged.")
}

fn over_spend_limit(limit: &SpendLimit) -> String {
    let amount = |amount: &Amount| dollars(&amount.value);
    let (whose, may_spend) = match limit.of.as_str() {
        "tier" => ("project", "its tier allows"),
        whose => (whose, "it may spend"),
    };
    let is_held = limit.held.value.get().bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    let (under_way, or_earlier) = if is_held {
        let (held, requested) = (amount(&limit.held), amount(&limit.requested));
        let under_way = format!("\n  requests under way held {held}, and this one was expected to cost {requested}");
        (under_way, ", once those under way cost less")
    } else {
        (String::new(), "")
    };
    format!(
        "The {whose} had spent {} of the {} that {may_spend} in a {interval}{under_way}\n  would have been admitted at {}, \
         when the {interval} is over{or_earlier}, or once an administrator raises the limit\nNothing was sent, and nothing is \
         charged.",
        amount(&limit.spent),
        amount(&limit.threshold),
        moment_ms(limit.admissible_at_ms),
        interval = limit.interval,
    )
}

fn over_limit(limit: &HitLimit) -> String {
    let HitLimit { used, requested, .. } = limit;
    let when = match limit.admissible_at_ms.zip(limit.wait_ms) {
        Some((at, wait)) => format!("would have been admitted at {}, {} later", moment_ms(at), seconds(wait)),
        None => {
            "is larger than the whole limit: waiting does not help, only a smaller request or a larger limit".to_owned()
        }
    };
    format!(
        "Over the {}'s limit of {} on {}\n  used {} of {}, requested {}\n  {when}\nNothing was sent, and nothing is charged.",
        limit.scope,
        spaced(&limit.name),
        limit.limit_group,
        grouped(*used),
        grouped(limit.limit),
        grouped(*requested)
    )
}

fn amount(amount: Option<&Amount>) -> String {
    amount.map_or_else(|| "unpriced".to_owned(), |amount| dollars(&amount.value))
}

/// Digits as they came.
fn dollars(number: &RawValue) -> String {
    match number.get().strip_prefix('-') {
        Some(magnitude) => format!("-${magnitude}"),
        None => format!("${}", number.get()),
    }
}

/// `1.834 s`
fn seconds(millis: u64) -> String {
    format!("{}.{:03} s", grouped(millis / 1_000), millis % 1_000)
}

fn spaced(name: &str) -> String {
    name.replace('_', " ")
}

fn date(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds);
    time.map_or_else(|_| seconds.to_string(), |time| time.strftime("%Y-%m-%d").to_string())
}

fn moment_ms(millis: i64) -> String {
    let format = if millis % 1_000 == 0 { "%Y-%m-%d %H:%M:%S UTC" } else { "%Y-%m-%d %H:%M:%S%.3f UTC" };
    let time = jiff::Timestamp::from_millisecond(millis);
    time.map_or_else(|_| millis.to_string(), |time| time.strftime(format).to_string())
}

/// Columns as wide as their widest cell, those of numbers aligned to the right.
pub(in crate::cli) fn columns<const COLUMNS: usize>(rows: &[[String; COLUMNS]], right: [bool; COLUMNS]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).zip(right);
        let cells = cells
            .map(|((cell, width), right)| if right { format!("{cell:>width$}") } else { format!("{cell:width$}") });
        text.push_str(cells.collect::<Vec<_>>().join(" ").trim_end());
        text.push('\n');
    }
    text
}
