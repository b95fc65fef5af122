//! Where the next page starts, as an opaque word. It holds the end of the report too, so that a report which ends "now"
//! does not grow from page to page, and a digest of what was asked, so that it fits no other report.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::super::error::ApiError;
use crate::domain::report::{Page, Range, Report};

const PREFIX: &str = "page_";

/// Start and end of what is left, and the first bytes of the digest over both and the report.
const LENGTH: usize = 3 * size_of::<u64>();

pub(super) fn print(report: &Report, page: &Page) -> Option<String> {
    let rest = Range { start_s: page.next_s?, end_s: page.report_end_s };
    Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes(report, rest))))
}

/// What is left of `report` from the cursor on.
pub(super) fn read(report: &Report, text: &str) -> Result<Range, ApiError> {
    let encoded = text.strip_prefix(PREFIX).and_then(|word| URL_SAFE_NO_PAD.decode(word).ok());
    let rest = encoded.as_deref().and_then(|bytes| checked(report, bytes));
    rest.ok_or_else(|| {
        let message = "Invalid 'page': not a cursor of this query. Send the 'next_page' of the previous response, and \
            otherwise the same parameters.";
        ApiError::invalid(message, Some("page".into()), Some("invalid_value".into()))
    })
}

fn checked(report: &Report, encoded: &[u8]) -> Option<Range> {
    let (start_s, others) = encoded.split_first_chunk()?;
    let (end_s, _) = others.split_first_chunk()?;
    let rest = Range { start_s: u64::from_be_bytes(*start_s), end_s: u64::from_be_bytes(*end_s) };
    let whole = Range { start_s: report.start_s, end_s: rest.end_s };
    (bytes(report, rest) == encoded && report.is_inner_edge(whole, rest.start_s)).then_some(rest)
}

fn bytes(report: &Report, rest: Range) -> Vec<u8> {
    let (start_s, end_s) = (rest.start_s.to_be_bytes(), rest.end_s.to_be_bytes());
    // Serialising plain words and numbers cannot fail.
    let asked = serde_json::to_vec(report).unwrap_or_default();
    let digest = Sha256::new().chain_update(start_s).chain_update(end_s).chain_update(asked).finalize();
    start_s.into_iter().chain(end_s).chain(digest).take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::{
        report::{Filter, Grouping, Kind, Width, Zone},
        time::UnixNanos,
    };

    fn report() -> Report {
        Report {
            kind: Kind::Completions,
            start_s: 100,
            end_s: None,
            bucket_width: Width::Minute,
            timezone: None,
            group_by: BTreeSet::new(),
            filter: Filter::default(),
            limit: 2,
        }
    }

    fn cursor(report: &Report) -> String {
        let range = report.range(UnixNanos::from_seconds(500));
        print(report, &report.page(range, range.start_s)).unwrap()
    }

    #[test]
    fn a_cursor_holds_the_rest_of_its_report() {
        let text = cursor(&report());
        assert_eq!(read(&report(), &text), Ok(Range { start_s: 180, end_s: 500 }));
        assert_eq!(read(&Report { limit: 9, ..report() }, &text), Ok(Range { start_s: 180, end_s: 500 }));
        assert_eq!(text.len(), "page_".len() + 32);
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let range = report().range(UnixNanos::from_seconds(500));
        assert_eq!(print(&report(), &report().page(range, 480)), None);
    }

    #[test]
    fn a_cursor_of_another_query_is_refused() {
        let text = cursor(&report());
        let models = Filter { models: Some(["m".to_owned()].into()), ..Filter::default() };
        for other in [
            Report { start_s: 101, ..report() },
            Report { end_s: Some(500), ..report() },
            Report { bucket_width: Width::Hour, ..report() },
            Report { timezone: Zone::named("Europe/Berlin"), ..report() },
            Report {
                filter: Filter { unrecorded: [("sizes", BTreeSet::new())].into(), ..Filter::default() },
                ..report()
            },
            Report { filter: Filter { sources: Some(BTreeSet::new()), ..Filter::default() }, ..report() },
            Report { group_by: [Grouping::Model].into(), ..report() },
            Report { filter: models, ..report() },
            Report { kind: Kind::Costs, ..report() },
        ] {
            assert_eq!(read(&other, &text).unwrap_err().param.as_deref(), Some("page"), "{other:?}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let text = cursor(&report());
        let flipped = text.replace("page_A", "page_B");
        for bad in
            ["", "page_", "garbage", "page_AAAA", text.trim_start_matches(PREFIX), &text[..text.len() - 2], &flipped]
        {
            assert_eq!(read(&report(), bad).unwrap_err().status, 400, "{bad}");
        }
        assert_eq!(read(&report(), &format!("{text}AAAA")).unwrap_err().status, 400);
        for start_s in [60, 100, 181, 500, u64::MAX] {
            let forged = bytes(&report(), Range { start_s, end_s: 500 });
            assert_eq!(checked(&report(), &forged), None, "{start_s}");
        }
    }
}
