//! What administrators send: bodies of the organization API, and the queries of its reports and lists.

use tollgate::{
    domain::{
        report::{Kind, pieces},
        time::UnixNanos,
    },
    openai::{
        error::ApiError,
        explain::RequestsQuery,
        management::{audit, requests, terms},
        report::{print, read},
    },
};

use super::{choice, is_told};

const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
/// The most buckets that a page may have, which is a day of minutes.
const MAX_BUCKETS: usize = 1_440;

pub fn admin(data: &[u8]) {
    let Some((reader, input)) = choice(data) else { return };
    let query = String::from_utf8_lossy(input);
    match reader {
        0 => body(input, requests::NewProject::parse),
        1 => body(input, requests::ProjectUpdate::parse),
        2 => body(input, requests::NewServiceAccount::parse),
        3 => body(input, requests::ServiceAccountUpdate::parse),
        4 => body(input, requests::NewKey::parse),
        5 => body(input, requests::NewKey::of_account),
        6 => body(input, requests::KeyUpdateRequest::parse),
        7 => body(input, requests::NewAdminKey::parse),
        8 => body(input, requests::overlap_seconds),
        9 => body(input, terms::rate_limit_update),
        10 => body(input, terms::model_permissions),
        11 => body(input, terms::spend_limit),
        12 => told(RequestsQuery::parse(&query)),
        13 => told(audit::AuditQuery::parse(&query)),
        14 => {
            let (after, limit) = query.split_once('&').unwrap_or((&query, "20"));
            if let Ok(page) = requests::PageRequest::parse(Some(after), Some(limit)) {
                assert!((1..=100).contains(&page.limit));
            }
        }
        _ => report(Kind::ALL[usize::from(reader) % Kind::ALL.len()], &query),
    }
}

fn body<T>(body: &[u8], parse: impl Fn(&[u8]) -> Result<T, ApiError>) {
    told(parse(body));
}

fn told<T>(read: Result<T, ApiError>) {
    if let Err(error) = read {
        assert!((400..500).contains(&error.status), "status {}", error.status);
        is_told(&error);
    }
}

/// Buckets follow on one another without a gap, and there are never too many of them.
fn report(kind: Kind, query: &str) {
    let (report, page) = match read(kind, query, NOW) {
        Ok(read) => read,
        Err(error) => return told::<()>(Err(error)),
    };
    assert!(page.buckets.len() <= MAX_BUCKETS);
    for pair in page.buckets.windows(2) {
        assert_eq!(pair[0].end_s, pair[1].start_s);
    }
    assert!(page.buckets.iter().all(|bucket| !bucket.is_empty()));
    if let (Some(next_s), Some(last)) = (page.next_s, page.buckets.last()) {
        assert_eq!(next_s, last.end_s);
    }
    for bucket in &page.buckets {
        let pieces = pieces(*bucket, report.bucket_width);
        assert!(pieces.windows(2).all(|pair| pair[0].range.end_s == pair[1].range.start_s));
    }
    let answer = report.fold(&page, []).expect("nothing adds up to nothing");
    let printed = print(&report, &page, &answer).expect("a page can be printed");
    let printed: serde_json::Value = serde_json::from_slice(&printed).expect("and is JSON");
    // A cursor that was given out is taken.
    if let Some(cursor) = printed["next_page"].as_str() {
        let kept = query.split('&').filter(|pair| !pair.starts_with("page") && !pair.contains('%'));
        let next = kept.chain([format!("page={cursor}").as_str()]).collect::<Vec<_>>().join("&");
        if let Err(error) = read(kind, &next, NOW) {
            assert!(query.contains("page") || query.contains('%'), "{next}: {}", error.message);
        }
    }
}
