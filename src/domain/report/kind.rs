//! What can be asked of each kind of report, as `OpenAI` documents it.

use serde::Serialize;

/// What a report counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Completions,
    Embeddings,
    Moderations,
    Images,
    AudioSpeeches,
    AudioTranscriptions,
    VectorStores,
    CodeInterpreterSessions,
    FileSearchCalls,
    WebSearchCalls,
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
    Size,
    Source,
    VectorStoreId,
    ContextLevel,
}

/// How an image came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    Generation,
    Edit,
    Variation,
}

/// How many buckets a page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    pub default: u64,
    pub max: u64,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Completions,
        Self::Embeddings,
        Self::Moderations,
        Self::Images,
        Self::AudioSpeeches,
        Self::AudioTranscriptions,
        Self::VectorStores,
        Self::CodeInterpreterSessions,
        Self::FileSearchCalls,
        Self::WebSearchCalls,
        Self::Costs,
    ];

    pub const fn widths(self) -> &'static [Width] {
        match self {
            Self::Costs => &[Width::Day],
            _ => &[Width::Minute, Width::Hour, Width::Day],
        }
    }

    pub const fn groupings(self) -> &'static [Grouping] {
        use Grouping::{
            ApiKeyId, Batch, ContextLevel, LineItem, Model, ProjectId, ServiceTier, Size, Source, UserId, VectorStoreId,
        };
        match self {
            Self::Completions => &[ProjectId, UserId, ApiKeyId, Model, Batch, ServiceTier],
            Self::Embeddings | Self::Moderations | Self::AudioSpeeches | Self::AudioTranscriptions => {
                &[ProjectId, UserId, ApiKeyId, Model]
            }
            Self::Images => &[ProjectId, UserId, ApiKeyId, Model, Size, Source],
            Self::VectorStores | Self::CodeInterpreterSessions => &[ProjectId],
            Self::FileSearchCalls => &[ProjectId, UserId, ApiKeyId, VectorStoreId],
            Self::WebSearchCalls => &[ProjectId, UserId, ApiKeyId, Model, ContextLevel],
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

    /// The endpoints, by their names in the ledger, whose calls the report counts; `None` for calls to all of them.
    /// What is stored or run inside other calls has no endpoint, so the ledger knows nothing of it.
    pub const fn endpoints(self) -> Option<&'static [&'static str]> {
        Some(match self {
            Self::Completions => &["chat.completions"],
            Self::Embeddings => &["embeddings"],
            Self::Moderations => &["moderations"],
            Self::Images => &["images.generations", "images.edits", "images.variations"],
            Self::AudioSpeeches => &["audio.speech"],
            Self::AudioTranscriptions => &["audio.transcriptions"],
            Self::VectorStores | Self::CodeInterpreterSessions | Self::FileSearchCalls | Self::WebSearchCalls => &[],
            Self::Costs => return None,
        })
    }
}

impl Width {
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

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
            Self::Size => "size",
            Self::Source => "source",
            Self::VectorStoreId => "vector_store_id",
            Self::ContextLevel => "context_level",
        }
    }
}

impl ImageSource {
    pub const ALL: [Self; 3] = [Self::Generation, Self::Edit, Self::Variation];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Generation => "image.generation",
            Self::Edit => "image.edit",
            Self::Variation => "image.variation",
        }
    }

    /// By its name in the ledger.
    pub const fn endpoint(self) -> &'static str {
        match self {
            Self::Generation => "images.generations",
            Self::Edit => "images.edits",
            Self::Variation => "images.variations",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_source_is_one_of_the_endpoints_for_images() {
        let endpoints = ImageSource::ALL.map(ImageSource::endpoint);
        assert_eq!(Kind::Images.endpoints(), Some(endpoints.as_slice()));
    }

    #[test]
    fn no_endpoint_is_counted_twice() {
        let mut endpoints: Vec<_> = Kind::ALL.iter().filter_map(|kind| kind.endpoints()).flatten().collect();
        let count = endpoints.len();
        endpoints.sort_unstable();
        endpoints.dedup();
        assert_eq!((endpoints.len(), count), (8, 8));
    }
}
