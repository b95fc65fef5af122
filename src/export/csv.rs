//! CSV as RFC 4180 has it, for programs and for spreadsheets.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use super::{
    WriteError,
    columns::{COLUMNS, Value, rfc3339},
};
use crate::domain::export::ExportedEntry;

pub(super) struct Csv<W> {
    out: W,
    /// Written in one go.
    line: String,
}

impl<W: Write> Csv<W> {
    pub(super) fn begin(out: W) -> io::Result<Self> {
        let mut csv = Self { out, line: String::new() };
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name.as_str()).collect();
        csv.line = names.join(",");
        csv.end_line()?;
        Ok(csv)
    }

    pub(super) fn write(&mut self, entry: &ExportedEntry) -> Result<(), WriteError> {
        for (index, column) in COLUMNS.iter().enumerate() {
            if index > 0 {
                self.line.push(',');
            }
            self.line.push_str(&cell(column.value(entry)?));
        }
        Ok(self.end_line()?)
    }

    fn end_line(&mut self) -> io::Result<()> {
        self.line.push_str("\r\n");
        self.out.write_all(self.line.as_bytes())?;
        self.line.clear();
        Ok(())
    }

    pub(super) fn finish(self) -> W {
        self.out
    }
}

/// Nothing is an empty cell. Numbers are our own and stay as they are.
fn cell(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::Text(text) => quoted(harmless(text)),
        Value::Time(time) => time.map(rfc3339).unwrap_or_default().into(),
        Value::Whole(number) => number.to_string().into(),
        Value::Money(money) => money.map(|money| money.to_string()).unwrap_or_default().into(),
        Value::Flag(flag) => if flag { "true" } else { "false" }.into(),
    }
}

/// Names of projects, keys and models are chosen by callers. A spreadsheet runs a cell that begins with one of these as a
/// formula, wide forms included; behind an apostrophe it is text.
fn harmless(text: Cow<'_, str>) -> Cow<'_, str> {
    const DANGEROUS: &[char] = &['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    if text.starts_with(DANGEROUS) { format!("'{text}").into() } else { text }
}

fn quoted(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")).into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        export::{
            Adjusted,
            samples::{exported, unpriced},
        },
        money::Total,
    };

    fn lines(entries: &[ExportedEntry]) -> Vec<String> {
        let mut csv = Csv::begin(Vec::new()).unwrap();
        for entry in entries {
            csv.write(entry).unwrap();
        }
        let text = String::from_utf8(csv.finish()).unwrap();
        assert!(text.ends_with("\r\n"));
        text.split_terminator("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_line_has_a_cell_for_each_column() {
        let [head, line] = lines(&[exported(1)]).try_into().unwrap();
        assert_eq!(
            head,
            "request_id,settled_at,admitted_at,duration_ms,project_id,project_name,api_key_id,api_key_name,endpoint,model,\
             requested_model,service_tier,outcome,basis,status,stream,input_text,input_cached_text,input_cache_write_text,\
             input_audio,input_cached_audio,input_image,input_cached_image,output_text,output_audio,output_image,\
             input_text_usd,input_cached_text_usd,input_cache_write_text_usd,input_audio_usd,input_cached_audio_usd,\
             input_image_usd,input_cached_image_usd,output_text_usd,output_audio_usd,output_image_usd,prices_from,\
             adjustment_usd,cost_usd,priced"
        );
        let id = exported(1).request_id;
        assert_eq!(
            line,
            format!(
                "{id},2026-09-21T14:13:20.901Z,2026-09-21T14:13:20.001Z,900,proj_a,Search,key_a,worker,chat.completions,\
                 m-1-2026-01-01,m-1,default,completed,reported,200,false,3,0,0,0,0,0,0,0,7,0,0.000000000015,0,0,0,0,0,0,0,\
                 0.00014,0,2026-01-01T00:00:00.000Z,0,0.000140000015,true"
            )
        );
    }

    #[test]
    fn what_is_not_known_is_an_empty_cell_and_not_a_zero() {
        let [_, line] = lines(&[unpriced(1)]).try_into().unwrap();
        assert!(line.ends_with(",7,0,,0,0,0,0,0,0,0,,0,,0,,false"), "{line}");
    }

    #[test]
    fn no_text_of_a_caller_begins_a_formula() {
        for (name, cell) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("\n=1", "\"'\n=1\""),
            ("＝1", "'＝1"),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
            ("a=b", "a=b"),
            ("'=1", "'=1"),
            ("", ""),
        ] {
            let entry = ExportedEntry { project_name: name.to_owned(), ..exported(1) };
            let [_, line] = lines(&[entry]).try_into().unwrap();
            assert!(line.contains(&format!(",proj_a,{cell},key_a,")), "{name:?}: {line}");
            for entry in [
                ExportedEntry { api_key_name: name.to_owned(), ..exported(1) },
                ExportedEntry { requested_model: name.to_owned(), ..exported(1) },
            ] {
                let [_, line] = lines(&[entry]).try_into().unwrap();
                assert!(line.contains(&format!(",{cell},")), "{name:?}: {line}");
            }
        }
    }

    #[test]
    fn commas_quotes_and_ends_of_lines_stay_within_their_cell() {
        let entry = ExportedEntry { project_name: "a,b \"c\"\r\nd".to_owned(), ..exported(1) };
        let mut csv = Csv::begin(Vec::new()).unwrap();
        csv.write(&entry).unwrap();
        let text = String::from_utf8(csv.finish()).unwrap();
        assert!(text.contains(",proj_a,\"a,b \"\"c\"\"\r\nd\",key_a,"), "{text}");
    }

    #[test]
    fn our_own_negative_numbers_stay_numbers() {
        let adjusted = Some(Adjusted { amount: Total::from_pico(-1_000_000_000_001), priced_since: false });
        let entry = ExportedEntry { adjusted, ..exported(1) };
        let [_, line] = lines(&[entry]).try_into().unwrap();
        assert!(line.ends_with(",-1.000000000001,-0.999859999986,true"), "{line}");
    }
}
