//! One result of a usage report: what was used, and what it is grouped by.

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::domain::{
    ids::{KeyId, ProjectId},
    report::{Group, Grouping, Kind, Sums},
    usage::LineItem::{
        self, InputAudio, InputCacheWriteText, InputCachedAudio, InputCachedImage, InputCachedText, InputImage,
        InputText, OutputAudio, OutputImage, OutputText,
    },
};

pub(super) struct UsageResult<'a> {
    pub(super) kind: Kind,
    pub(super) group: &'a Group,
    pub(super) sums: &'a Sums,
}

/// Where a number comes from.
#[derive(Clone, Copy)]
enum Source {
    Requests,
    InputTokens,
    OutputTokens,
    Tokens(&'static [LineItem]),
    /// Not kept in the ledger: `null`, never a number that was not counted.
    Unknown,
}

type Field = (&'static str, Source);

const NUM_MODEL_REQUESTS: Field = ("num_model_requests", Source::Requests);
const INPUT_TOKENS: Field = ("input_tokens", Source::InputTokens);

const COMPLETIONS: &[Field] = &[
    INPUT_TOKENS,
    ("input_cached_tokens", Source::Tokens(&[InputCachedText, InputCachedAudio, InputCachedImage])),
    ("input_cache_write_tokens", Source::Tokens(&[InputCacheWriteText])),
    ("input_uncached_tokens", Source::Tokens(&[InputText, InputAudio, InputImage])),
    ("output_tokens", Source::OutputTokens),
    ("input_text_tokens", Source::Tokens(&[InputText])),
    ("output_text_tokens", Source::Tokens(&[OutputText])),
    ("input_cached_text_tokens", Source::Tokens(&[InputCachedText])),
    ("input_audio_tokens", Source::Tokens(&[InputAudio])),
    ("input_cached_audio_tokens", Source::Tokens(&[InputCachedAudio])),
    ("output_audio_tokens", Source::Tokens(&[OutputAudio])),
    ("input_image_tokens", Source::Tokens(&[InputImage])),
    ("input_cached_image_tokens", Source::Tokens(&[InputCachedImage])),
    ("output_image_tokens", Source::Tokens(&[OutputImage])),
    NUM_MODEL_REQUESTS,
];

/// The `object` of a result, and its numbers.
const fn shape(kind: Kind) -> (&'static str, &'static [Field]) {
    match kind {
        Kind::Completions => ("organization.usage.completions.result", COMPLETIONS),
        Kind::Embeddings => ("organization.usage.embeddings.result", &[INPUT_TOKENS, NUM_MODEL_REQUESTS]),
        Kind::Moderations => ("organization.usage.moderations.result", &[INPUT_TOKENS, NUM_MODEL_REQUESTS]),
        Kind::Images => ("organization.usage.images.result", &[("images", Source::Unknown), NUM_MODEL_REQUESTS]),
        Kind::AudioSpeeches => {
            ("organization.usage.audio_speeches.result", &[("characters", Source::Unknown), NUM_MODEL_REQUESTS])
        }
        Kind::AudioTranscriptions => {
            ("organization.usage.audio_transcriptions.result", &[("seconds", Source::Unknown), NUM_MODEL_REQUESTS])
        }
        Kind::VectorStores => ("organization.usage.vector_stores.result", &[("usage_bytes", Source::Unknown)]),
        Kind::CodeInterpreterSessions => {
            ("organization.usage.code_interpreter_sessions.result", &[("num_sessions", Source::Unknown)])
        }
        Kind::FileSearchCalls => ("organization.usage.file_searches.result", &[("num_requests", Source::Unknown)]),
        Kind::WebSearchCalls => {
            ("organization.usage.web_searches.result", &[NUM_MODEL_REQUESTS, ("num_requests", Source::Unknown)])
        }
        Kind::Costs => ("organization.costs.result", &[]),
    }
}

/// All fields are always there; those that the report is not grouped by are `null`.
impl Serialize for UsageResult<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (object, fields) = shape(self.kind);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("object", object)?;
        for (name, source) in fields {
            map.serialize_entry(name, &self.number(*source))?;
        }
        for grouping in self.kind.groupings() {
            match grouping {
                Grouping::Batch => map.serialize_entry("batch", &self.group.batch)?,
                _ => map.serialize_entry(grouping.name(), &self.name(*grouping))?,
            }
        }
        map.end()
    }
}

impl UsageResult<'_> {
    /// Saturates as the totals of a usage do.
    fn number(&self, source: Source) -> Option<u64> {
        let usage = &self.sums.usage;
        Some(match source {
            Source::Requests => self.sums.requests,
            Source::InputTokens => usage.input_total(),
            Source::OutputTokens => usage.output_total(),
            Source::Tokens(items) => items.iter().fold(0, |sum, item| sum.saturating_add(usage.get(*item))),
            Source::Unknown => return None,
        })
    }

    fn name(&self, grouping: Grouping) -> Option<&str> {
        match grouping {
            Grouping::ProjectId => self.group.project_id.as_ref().map(ProjectId::as_str),
            Grouping::ApiKeyId => self.group.api_key_id.as_ref().map(KeyId::as_str),
            Grouping::Model => self.group.model.as_deref(),
            Grouping::ServiceTier => self.group.service_tier,
            // Keys belong to projects, not to users, and the ledger keeps nothing of the others.
            _ => None,
        }
    }
}
