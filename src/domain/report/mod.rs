//! Usage and cost reports: what can be asked, which buckets answer it, which rollup rows they are made of, and how the
//! rows become results.

mod fold;
mod layout;
#[cfg(test)]
mod properties;

use std::collections::BTreeSet;

use serde::Serialize;

pub use fold::{Bucket, Group, Line, Overflow, Row, Sums};
pub use layout::{Page, Piece, Range, pieces};

use super::catalog::Catalog;

/// 9999-12-31: a later time is milliseconds by mistake.
pub const LATEST_TIME_S: u64 = 253_402_300_799;

/// Endpoints whose calls the report on completions counts.
const COMPLETIONS: &[&str] = &["chat.completions"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Completions,
    Costs,
}

/// The width of a bucket, and of a rollup row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Width {
    Minute,
    Hour,
    Day,
}

/// What results can be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    ProjectId,
    UserId,
    ApiKeyId,
    Model,
    Batch,
    ServiceTier,
    LineItem,
}

/// How many buckets a page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    pub default: u64,
    pub max: u64,
}

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub kind: Kind,
    pub start_s: u64,
    /// Exclusive; without it the report ends now.
    pub end_s: Option<u64>,
    pub bucket_width: Width,
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
}

/// Which rollup rows a page is made of, and how far they may be summed up on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub pieces: Vec<Piece>,
    pub bucket_width: Width,
    pub by_api_key: bool,
    pub by_model: bool,
    pub by_service_tier: bool,
    pub endpoints: Option<Vec<String>>,
    pub project_ids: Option<Vec<String>>,
    pub api_key_ids: Option<Vec<String>>,
    /// As recorded: model ids are resolved to their snapshots.
    pub models: Option<Vec<String>>,
    pub batch: Option<bool>,
}

impl Kind {
    pub const fn widths(self) -> &'static [Width] {
        match self {
            Self::Completions => &[Width::Minute, Width::Hour, Width::Day],
            Self::Costs => &[Width::Day],
        }
    }

    pub const fn groupings(self) -> &'static [Grouping] {
        use Grouping::{ApiKeyId, Batch, LineItem, Model, ProjectId, ServiceTier, UserId};
        match self {
            Self::Completions => &[ProjectId, UserId, ApiKeyId, Model, Batch, ServiceTier],
            Self::Costs => &[ProjectId, LineItem, ApiKeyId],
        }
    }

    pub const fn page_limit(self, width: Width) -> PageLimit {
        match (self, width) {
            (Self::Costs, _) => PageLimit { default: 7, max: 180 },
            (_, Width::Day) => PageLimit { default: 7, max: 31 },
            (_, Width::Hour) => PageLimit { default: 24, max: 168 },
            (_, Width::Minute) => PageLimit { default: 60, max: 1440 },
        }
    }

    /// `None` for calls to all of them.
    const fn endpoints(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Completions => Some(COMPLETIONS),
            Self::Costs => None,
        }
    }
}

impl Width {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }

    pub const fn seconds(self) -> u64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

impl Grouping {
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProjectId => "project_id",
            Self::UserId => "user_id",
            Self::ApiKeyId => "api_key_id",
            Self::Model => "model",
            Self::Batch => "batch",
            Self::ServiceTier => "service_tier",
            Self::LineItem => "line_item",
        }
    }
}

impl Report {
    /// `None` when no row can match, so that nothing has to be read.
    pub fn selection(&self, page: &Page, catalog: &Catalog) -> Option<Selection> {
        // Keys belong to projects, never to users: nothing is the usage of a given user.
        if self.filter.user_ids.is_some() {
            return None;
        }
        let range = page.range()?;
        let listed = |ids: &BTreeSet<String>| ids.iter().cloned().collect();
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Some(Selection {
            pieces: pieces(range, self.bucket_width),
            bucket_width: self.bucket_width,
            by_api_key: self.is_by(Grouping::ApiKeyId) || self.is_by(Grouping::ProjectId),
            by_model: self.is_by(Grouping::Model) || self.is_by(Grouping::LineItem),
            by_service_tier: self.is_by(Grouping::ServiceTier) || self.is_by(Grouping::Batch),
            endpoints: self.kind.endpoints().map(owned),
            project_ids: self.filter.project_ids.as_ref().map(listed),
            api_key_ids: self.filter.api_key_ids.as_ref().map(listed),
            models: self.filter.models.as_ref().map(|models| recorded_names(models, catalog)),
            batch: self.filter.batch,
        })
    }

    pub fn is_by(&self, grouping: Grouping) -> bool {
        self.group_by.contains(&grouping)
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
            (selection.by_api_key, selection.by_model, selection.by_service_tier)
        };
        assert_eq!(by(&[]), (false, false, false));
        assert_eq!(by(&[Grouping::UserId]), (false, false, false));
        assert_eq!(by(&[Grouping::ProjectId, Grouping::Batch]), (true, false, true));
        assert_eq!(by(&[Grouping::LineItem]), (false, true, false));
    }
}
