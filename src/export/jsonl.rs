//! One JSON object a line. Amounts are numbers with all their digits: whoever reads them as binary floats rounds them, whoever
//! reads them as decimals does not.

use std::io::Write;

use super::{
    WriteError,
    columns::{COLUMNS, Value, rfc3339},
};
use crate::domain::export::ExportedEntry;

pub(super) struct Jsonl<W> {
    out: W,
    /// Written in one go.
    line: String,
}

impl<W: Write> Jsonl<W> {
    pub(super) const fn begin(out: W) -> Self {
        Self { out, line: String::new() }
    }

    pub(super) fn write(&mut self, entry: &ExportedEntry) -> Result<(), WriteError> {
        self.line.clear();
        for column in COLUMNS.iter() {
            self.line.push(if self.line.is_empty() { '{' } else { ',' });
            self.line.push('"');
            self.line.push_str(&column.name);
            self.line.push_str("\":");
            self.line.push_str(&member(&column.value(entry)?));
        }
        self.line.push_str("}\n");
        Ok(self.out.write_all(self.line.as_bytes())?)
    }

    pub(super) fn finish(self) -> W {
        self.out
    }
}

fn member(value: &Value<'_>) -> String {
    const NOTHING: &str = "null";
    match value {
        Value::Text(text) => serde_json::Value::from(&**text).to_string(),
        Value::Time(time) => time.map_or_else(|| NOTHING.to_owned(), |time| format!("\"{}\"", rfc3339(time))),
        Value::Whole(number) => number.to_string(),
        Value::Money(money) => money.map_or_else(|| NOTHING.to_owned(), |money| money.to_string()),
        Value::Flag(flag) => flag.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    use super::*;
    use crate::domain::{
        export::{
            Adjusted,
            samples::{exported, unpriced},
        },
        money::Total,
    };

    fn line(entry: &ExportedEntry) -> BTreeMap<String, Box<RawValue>> {
        let mut jsonl = Jsonl::begin(Vec::new());
        jsonl.write(entry).unwrap();
        let text = String::from_utf8(jsonl.finish()).unwrap();
        assert_eq!(text.find('\n'), Some(text.len() - 1));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn amounts_are_numbers_with_every_digit() {
        let adjusted =
            Some(Adjusted { amount: Total::from_pico(9_007_199_254_740_993_000_000_000_001), priced_since: false });
        let line = line(&ExportedEntry { adjusted, ..exported(1) });
        assert_eq!(line.len(), COLUMNS.len());
        assert_eq!(line["input_text_usd"].get(), "0.000000000015");
        assert_eq!(line["adjustment_usd"].get(), "9007199254740993.000000000001");
        assert_eq!(line["cost_usd"].get(), "9007199254740993.000140000016");
        assert_eq!((line["priced"].get(), line["stream"].get(), line["status"].get()), ("true", "false", "200"));
        assert_eq!(line["settled_at"].get(), "\"2026-09-21T14:13:20.901Z\"");
    }

    #[test]
    fn what_is_not_known_is_null() {
        let line = line(&unpriced(1));
        let known = ["cost_usd", "input_text_usd", "prices_from", "input_image_usd"].map(|name| line[name].get());
        assert_eq!(known, ["null", "null", "null", "0"]);
    }

    #[test]
    fn a_name_stays_within_its_line_and_is_what_it_was() {
        let name = "=1 \"quoted\"\n\u{2028}\u{7}";
        let line = line(&ExportedEntry { project_name: name.to_owned(), ..exported(1) });
        assert_eq!(serde_json::from_str::<String>(line["project_name"].get()).unwrap(), name);
    }
}
