//! `GET /v1/organization/requests`: which requests are asked for.

use std::{collections::BTreeSet, convert::identity};

use crate::{
    domain::{ids::RequestId, ledger::Outcome, report::LATEST_TIME_S},
    openai::{
        error::ApiError,
        management::requests::{DEFAULT_PAGE_LENGTH, MAX_PAGE_LENGTH, no_such_cursor},
        report::{
            ends_before_it_starts,
            query::{Query, choices},
        },
    },
};

/// What a refused request has for an outcome: it never became one of the ledger's.
pub(super) const REFUSED: &str = "refused";
const NAMES: [&str; 8] = ["project_id", "api_key_ids", "model", "outcome", "start_time", "end_time", "limit", "after"];

/// An empty list is no filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestsQuery {
    pub project_ids: Vec<String>,
    pub api_key_ids: Vec<String>,
    /// As requested or as billed.
    pub models: Vec<String>,
    /// Of finished requests; empty with `finished` is all of them.
    pub outcomes: Vec<Outcome>,
    pub finished: bool,
    pub refused: bool,
    /// By the time of arrival: the first id that is shown, and the first that is not.
    pub from: RequestId,
    pub before: RequestId,
    pub limit: usize,
}

impl RequestsQuery {
    /// Lists in each spelling that the reports take; a parameter with another name is refused.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let query = Query::parse(query);
        query.only(&NAMES)?;
        let list = |name| query.list(name).map(|values| values.unwrap_or_default().into_iter().collect());
        let [completed, left, failed, interrupted] = Outcome::ALL.map(Outcome::name);
        let outcomes = choices(&query, "outcome", &[completed, left, failed, interrupted, REFUSED], identity)?;
        let (start_s, end_s) =
            (query.integer("start_time", 0, LATEST_TIME_S)?, query.integer("end_time", 0, LATEST_TIME_S)?);
        if let Some((start_s, end_s)) = start_s.zip(end_s).filter(|(start_s, end_s)| end_s <= start_s) {
            return Err(ends_before_it_starts(start_s, end_s));
        }
        let limit = query.integer("limit", 1, MAX_PAGE_LENGTH as u64)?;
        let arrived = |seconds: u64| RequestId::earliest(seconds.saturating_mul(1_000));
        let last = arrived(LATEST_TIME_S.saturating_add(1));
        let before = end_s.map_or(last, arrived);
        let is_asked = |name: &str| outcomes.as_ref().is_none_or(|outcomes| outcomes.contains(name));
        let asked: Vec<_> = Outcome::ALL.into_iter().filter(|outcome| is_asked(outcome.name())).collect();
        Ok(Self {
            project_ids: list("project_id")?,
            api_key_ids: list("api_key_ids")?,
            models: list("model")?,
            finished: !asked.is_empty(),
            refused: is_asked(REFUSED),
            outcomes: if outcomes.as_ref().is_some_and(names_some) { asked } else { Vec::new() },
            from: start_s.map_or(RequestId::earliest(0), arrived),
            before: after(&query)?.map_or(before, |after| after.min(before)),
            limit: limit.map_or(DEFAULT_PAGE_LENGTH, |limit| usize::try_from(limit).unwrap_or(MAX_PAGE_LENGTH)),
        })
    }
}

fn names_some(outcomes: &BTreeSet<&str>) -> bool {
    !outcomes.is_empty()
}

/// Ids are in the order of the list, so that a page goes on even behind a refusal that is no longer kept.
fn after(query: &Query) -> Result<Option<RequestId>, ApiError> {
    let Some(text) = query.text("after")? else { return Ok(None) };
    RequestId::parse(text).map(Some).ok_or_else(|| no_such_cursor("after", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str) -> (u16, String) {
        let error = RequestsQuery::parse(query).unwrap_err();
        (error.status, error.param.unwrap().into_owned())
    }

    #[test]
    fn nothing_asked_is_everything() {
        let query = RequestsQuery::parse("").unwrap();
        assert_eq!((query.limit, query.finished, query.refused), (20, true, true));
        assert_eq!((query.project_ids.len(), query.models.len(), query.outcomes.len()), (0, 0, 0));
        assert!(query.from <= RequestId::earliest(0) && query.before > RequestId::earliest(LATEST_TIME_S * 1_000));
    }

    #[test]
    fn lists_are_read_in_each_spelling() {
        for text in ["api_key_ids[]=a&api_key_ids[]=b", "api_key_ids=a&api_key_ids=b", "api_key_ids=a,b"] {
            assert_eq!(RequestsQuery::parse(text).unwrap().api_key_ids, ["a", "b"], "{text}");
        }
        let query = RequestsQuery::parse("project_id=p&model=m&model=n").unwrap();
        assert_eq!((query.project_ids, query.models), (vec!["p".to_owned()], vec!["m".to_owned(), "n".to_owned()]));
    }

    #[test]
    fn outcomes_choose_the_ledger_the_refusals_or_both() {
        let read = |text| RequestsQuery::parse(text).map(|it| (it.outcomes, it.finished, it.refused)).unwrap();
        assert_eq!(read("outcome=refused"), (vec![], false, true));
        assert_eq!(read("outcome=completed"), (vec![Outcome::Completed], true, false));
        let both = vec![Outcome::ClientLeft, Outcome::Interrupted];
        assert_eq!(read("outcome=refused,client_left&outcome[]=interrupted"), (both, true, true));
    }

    #[test]
    fn times_and_the_cursor_become_bounds_of_ids() {
        let bounds = |text: &str| RequestsQuery::parse(text).map(|it| (it.from, it.before)).unwrap();
        let (at_5, at_9) = (RequestId::earliest(5_000), RequestId::earliest(9_000));
        assert_eq!(bounds("start_time=5&end_time=9"), (at_5, at_9));
        let cursor = RequestId::new(7_000, 7);
        assert_eq!(bounds(&format!("start_time=5&end_time=9&after={cursor}")), (at_5, cursor));
        let later = RequestId::new(10_000, 7);
        assert_eq!(bounds(&format!("start_time=5&end_time=9&after={later}")), (at_5, at_9));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (query, param) in [
            ("project_ids=a", "project_ids"),
            ("outcomes=completed", "outcomes"),
            ("outcome=lost", "outcome"),
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("start_time=x", "start_time"),
            ("start_time=9&end_time=9", "end_time"),
            ("after=req_1", "after"),
            ("model=", "model"),
        ] {
            let said = if param == "model" { "model".to_owned() } else { param.to_owned() };
            assert_eq!(refused(query), (400, said), "{query}");
        }
    }
}
