//! Usage and cost reports: what can be asked, which buckets answer it, which rollup rows they are made of, and how the
//! rows become results.

mod fold;
mod kind;
mod layout;
#[cfg(test)]
mod properties;
mod zone;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use fold::{Bucket, Group, Line, Overflow, Row, Sums};
pub use kind::{Grouping, ImageSource, Kind, PageLimit, Width};
pub use layout::{Page, Piece, Range, pieces};
pub use zone::Zone;

use super::{catalog::Catalog, rollup::Detail};

/// 9999-12-31: a later time is milliseconds by mistake.
pub const LATEST_TIME_S: u64 = 253_402_300_799;

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub kind: Kind,
    pub start_s: u64,
    /// Exclusive; without it the report ends now.
    pub end_s: Option<u64>,
    pub bucket_width: Width,
    /// Whose days buckets of a day are; without it those of UTC. Hours and minutes are the same everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<Zone>,
    pub group_by: BTreeSet<Grouping>,
    pub filter: Filter,
    /// Not part of what is asked: the pages of one report may differ in size.
    #[serde(skip)]
    pub limit: u64,
}

/// `None` lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Filter {
    pub project_ids: Option<BTreeSet<String>>,
    pub api_key_ids: Option<BTreeSet<String>>,
    pub user_ids: Option<BTreeSet<String>>,
    pub models: Option<BTreeSet<String>>,
    pub batch: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<BTreeSet<ImageSource>>,
    /// By what no request in the ledger has, such as the size of an image: nothing is let through.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unrecorded: BTreeMap<&'static str, BTreeSet<String>>,
}

/// Which rollup rows a page is made of, and how far they may be summed up on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub pieces: Vec<Piece>,
    pub bucket_width: Width,
    /// Where buckets do not start at multiples of their width: the starts of all of them.
    pub bucket_starts: Vec<u64>,
    /// Whether rows are of keys, of projects, or of all together.
    pub callers: Detail,
    pub by_model: bool,
    pub by_service_tier: bool,
    pub endpoints: Option<Vec<String>>,
    pub project_ids: Option<Vec<String>>,
    pub api_key_ids: Option<Vec<String>>,
    /// As recorded: model ids are resolved to their snapshots.
    pub models: Option<Vec<String>>,
    pub batch: Option<bool>,
}

impl Report {
    /// `None` when no row can match, so that nothing has to be read.
    pub fn selection(&self, page: &Page, catalog: &Catalog) -> Option<Selection> {
        // Keys belong to projects, never to users: nothing is the usage of a given user.
        if page.buckets.is_empty() || self.filter.user_ids.is_some() || !self.filter.unrecorded.is_empty() {
            return None;
        }
        let endpoints = self.endpoints();
        if endpoints.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        let listed = |ids: &BTreeSet<String>| ids.iter().cloned().collect();
        Some(Selection {
            pieces: page.pieces(self.bucket_width),
            bucket_width: self.bucket_width,
            bucket_starts: self.shifting_zone().map(|_| page.starts()).unwrap_or_default(),
            callers: match (self.is_by(Grouping::ApiKeyId), self.is_by(Grouping::ProjectId)) {
                (true, _) => Detail::Keys,
                (false, true) => Detail::Projects,
                (false, false) => Detail::Together,
            },
            by_model: self.is_by(Grouping::Model) || self.is_by(Grouping::LineItem),
            by_service_tier: self.is_by(Grouping::ServiceTier) || self.is_by(Grouping::Batch),
            endpoints,
            project_ids: self.filter.project_ids.as_ref().map(listed),
            api_key_ids: self.filter.api_key_ids.as_ref().map(listed),
            models: self.filter.models.as_ref().map(|models| recorded_names(models, catalog)),
            batch: self.filter.batch,
        })
    }

    fn endpoints(&self) -> Option<Vec<String>> {
        let named = |name: &&str| (*name).to_owned();
        match &self.filter.sources {
            Some(sources) => Some(sources.iter().map(|source| source.endpoint().to_owned()).collect()),
            None => self.kind.endpoints().map(|names| names.iter().map(named).collect()),
        }
    }

    pub fn is_by(&self, grouping: Grouping) -> bool {
        self.group_by.contains(&grouping)
    }
}

impl Selection {
    /// Which rollups of a width to read: those that tell apart no more than is needed, if they are kept.
    pub fn detail(&self, width: Width) -> Detail {
        let filtered = match (&self.api_key_ids, &self.project_ids) {
            (Some(_), _) => Detail::Keys,
            (None, Some(_)) => Detail::Projects,
            (None, None) => Detail::Together,
        };
        let needed = self.callers.min(filtered);
        if needed.is_kept(width.seconds()) { needed } else { Detail::Keys }
    }

    /// The bucket of a rollup row, by the start of either: that of the first may lie after the row's.
    pub fn bucket_start_s(&self, row_start_s: u64) -> u64 {
        let following = self.bucket_starts.partition_point(|start_s| *start_s <= row_start_s);
        let start_s = self.bucket_starts.get(following.saturating_sub(1));
        start_s.copied().unwrap_or_else(|| self.bucket_width.floor(row_start_s))
    }
}

fn recorded_names(models: &BTreeSet<String>, catalog: &Catalog) -> Vec<String> {
    let names: BTreeSet<_> = models.iter().flat_map(|model| catalog.names_of(model)).collect();
    names.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        catalog::{Model, Snapshot},
        time::UnixNanos,
    };

    fn catalog() -> Catalog {
        let snapshot = |id: &str| Snapshot { id: id.into(), ..Snapshot::default() };
        let model = Model { id: "m".into(), snapshots: vec![snapshot("m-1"), snapshot("m-2")], ..Model::default() };
        Catalog::new(vec![model], vec![]).unwrap()
    }

    fn selection(filter: Filter, group_by: &[Grouping]) -> Option<Selection> {
        let report = Report {
            kind: Kind::Completions,
            start_s: 0,
            end_s: None,
            bucket_width: Width::Day,
            timezone: None,
            group_by: group_by.iter().copied().collect(),
            filter,
            limit: 7,
        };
        let page = report.page(report.range(UnixNanos::from_seconds(90_000)), 0);
        report.selection(&page, &catalog())
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_model_id_matches_its_snapshots_and_a_snapshot_only_itself() {
        let models =
            |names| selection(Filter { models: Some(set(names)), ..Filter::default() }, &[]).unwrap().models.unwrap();
        assert_eq!(models(&["m"]), ["m", "m-1", "m-2"]);
        assert_eq!(models(&["m-2"]), ["m-2"]);
        assert_eq!(models(&["m", "m-2", "gone"]), ["gone", "m", "m-1", "m-2"]);
    }

    #[test]
    fn a_filter_by_users_matches_nothing() {
        assert_eq!(selection(Filter { user_ids: Some(set(&["user-1"])), ..Filter::default() }, &[]), None);
    }

    #[test]
    fn rows_are_told_apart_only_as_far_as_results_are() {
        let by = |group_by: &[Grouping]| {
            let selection = selection(Filter::default(), group_by).unwrap();
            (selection.callers, selection.by_model, selection.by_service_tier)
        };
        assert_eq!(by(&[]), (Detail::Together, false, false));
        assert_eq!(by(&[Grouping::UserId]), (Detail::Together, false, false));
        assert_eq!(by(&[Grouping::ProjectId, Grouping::Batch]), (Detail::Projects, false, true));
        assert_eq!(by(&[Grouping::ApiKeyId]), (Detail::Keys, false, false));
        assert_eq!(by(&[Grouping::LineItem]), (Detail::Together, true, false));
    }
}
