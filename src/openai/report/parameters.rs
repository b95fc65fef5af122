//! From a query string to a report and the page of it that is asked for.

use std::{collections::BTreeSet, convert::identity};

use super::{
    super::error::ApiError,
    cursor,
    query::{Query, choice, choices},
};
use crate::domain::{
    report::{Filter, Grouping, ImageSource, Kind, LATEST_TIME_S, Page, Report, Width, Zone},
    time::UnixNanos,
};

const IMAGE_SIZES: [&str; 5] = ["256x256", "512x512", "1024x1024", "1792x1792", "1024x1792"];
const CONTEXT_LEVELS: [&str; 3] = ["low", "medium", "high"];

/// Unknown parameters are ignored, as `OpenAI` does.
pub fn read(kind: Kind, query: &str, now: UnixNanos) -> Result<(Report, Page), ApiError> {
    let query = Query::parse(query);
    let report = report(kind, &query)?;
    let rest = match query.text("page")? {
        Some(text) => cursor::read(&report, text)?,
        None => report.range(now),
    };
    let page = report.page(rest, rest.start_s);
    Ok((report, page))
}

fn report(kind: Kind, query: &Query) -> Result<Report, ApiError> {
    let start_s = query.integer("start_time", 0, LATEST_TIME_S)?;
    let start_s = start_s.ok_or_else(|| ApiError::missing_parameter("start_time"))?;
    let end_s = query.integer("end_time", 0, LATEST_TIME_S)?;
    if let Some(end_s) = end_s.filter(|end_s| *end_s <= start_s) {
        return Err(ends_before_it_starts(start_s, end_s));
    }
    let bucket_width = match query.text("bucket_width")? {
        Some(text) => choice("bucket_width", text, kind.widths(), Width::name)?,
        None => Width::Day,
    };
    let timezone = query.text("timezone")?.map(zone).transpose()?;
    let page_limit = kind.page_limit(bucket_width);
    let limit = query.integer("limit", 1, page_limit.max)?.unwrap_or(page_limit.default);
    let group_by = choices(query, "group_by", kind.groupings(), Grouping::name)?.unwrap_or_default();
    let filter = filter(kind, query)?;
    Ok(Report { kind, start_s, end_s, bucket_width, timezone, group_by, filter, limit })
}

/// What cannot be grouped by cannot be filtered by either, as `OpenAI` has it.
fn filter(kind: Kind, query: &Query) -> Result<Filter, ApiError> {
    let mut filter = Filter { project_ids: query.list("project_ids")?, ..Filter::default() };
    for grouping in kind.groupings() {
        match grouping {
            Grouping::UserId => filter.user_ids = query.list("user_ids")?,
            Grouping::ApiKeyId => filter.api_key_ids = query.list("api_key_ids")?,
            // OpenAI filters only usage by model. A bill that took no notice of it would be read as the model's.
            Grouping::Model | Grouping::LineItem => filter.models = query.list("models")?,
            Grouping::Batch => filter.batch = query.boolean("batch")?,
            Grouping::Source => filter.sources = choices(query, "sources", &ImageSource::ALL, ImageSource::name)?,
            Grouping::Size => unrecorded(&mut filter, "sizes", choices(query, "sizes", &IMAGE_SIZES, identity)?),
            Grouping::ContextLevel => {
                let levels = choices(query, "context_levels", &CONTEXT_LEVELS, identity)?;
                unrecorded(&mut filter, "context_levels", levels);
            }
            Grouping::VectorStoreId => unrecorded(&mut filter, "vector_store_ids", query.list("vector_store_ids")?),
            Grouping::ProjectId | Grouping::ServiceTier => {}
        }
    }
    Ok(filter)
}

fn unrecorded<T: Into<String>>(filter: &mut Filter, name: &'static str, values: Option<BTreeSet<T>>) {
    let values = values.map(|values| values.into_iter().map(Into::into).collect());
    filter.unrecorded.extend(values.map(|values| (name, values)));
}

fn zone(name: &str) -> Result<Zone, ApiError> {
    Zone::named(name).ok_or_else(|| {
        let message =
            format!("Invalid value: '{name}'. Expected the IANA name of a time zone, such as 'Europe/Berlin'.");
        ApiError::invalid(message, Some("timezone".into()), Some("invalid_value".into()))
    })
}

pub(in crate::openai) fn ends_before_it_starts(start_s: u64, end_s: u64) -> ApiError {
    let message =
        format!("Invalid 'end_time': expected a time after 'start_time' ({start_s}), but got {end_s} instead.");
    ApiError::invalid(message, Some("end_time".into()), Some("invalid_value".into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixNanos = UnixNanos::from_seconds(1_000_030);

    fn refused(kind: Kind, query: &str) -> (String, Option<String>) {
        let error = read(kind, query, NOW).unwrap_err();
        assert_eq!((error.status, error.kind.as_ref(), error.code.is_some()), (400, "invalid_request_error", true));
        (error.message.into_owned(), error.param.map(std::borrow::Cow::into_owned))
    }

    #[test]
    fn only_the_start_is_required() {
        for kind in [Kind::Completions, Kind::Costs] {
            let (report, page) = read(kind, "start_time=950400", NOW).unwrap();
            let expected = Report {
                kind,
                start_s: 950_400,
                end_s: None,
                bucket_width: Width::Day,
                timezone: None,
                group_by: [].into(),
                filter: Filter::default(),
                limit: 7,
            };
            assert_eq!((report, page.buckets.len()), (expected, 1));
            let missing = ("Missing required parameter: 'start_time'.".to_owned(), Some("start_time".to_owned()));
            assert_eq!(refused(kind, "end_time=5"), missing);
        }
    }

    #[test]
    fn every_parameter_is_read() {
        let query = "start_time=5&end_time=900&bucket_width=1m&limit=1440&batch=false&group_by=model,batch&models[]=m\
            &project_ids=proj_a&api_key_ids[]=key_a&api_key_ids[]=key_b&user_ids=user-1&page_size=3&timezone=asia/kolkata";
        let (report, page) = read(Kind::Completions, query, NOW).unwrap();
        let set = |ids: &[&str]| Some(ids.iter().map(|id| (*id).to_owned()).collect());
        let filter = Filter {
            project_ids: set(&["proj_a"]),
            api_key_ids: set(&["key_a", "key_b"]),
            user_ids: set(&["user-1"]),
            models: set(&["m"]),
            batch: Some(false),
            ..Filter::default()
        };
        let group_by = [Grouping::Model, Grouping::Batch].into();
        let expected = Report {
            kind: Kind::Completions,
            start_s: 5,
            end_s: Some(900),
            bucket_width: Width::Minute,
            timezone: Zone::named("Asia/Kolkata"),
            group_by,
            filter,
            limit: 1440,
        };
        assert_eq!((report, page.buckets.len()), (expected, 15));
    }

    #[test]
    fn costs_ignore_what_only_usage_knows() {
        let (report, _) = read(Kind::Costs, "start_time=5&user_ids=u&batch=maybe", NOW).unwrap();
        assert_eq!(report.filter, Filter::default());
    }

    #[test]
    fn costs_can_be_those_of_some_models() {
        let (report, _) = read(Kind::Costs, "start_time=5&models=m&models=n", NOW).unwrap();
        assert_eq!(report.filter.models.unwrap().into_iter().collect::<Vec<_>>(), ["m", "n"]);
    }

    #[test]
    fn each_kind_has_filters_of_its_own_and_ignores_those_of_others() {
        let query = "start_time=5&project_ids=p&user_ids=u&api_key_ids=k&models=m&batch=true&sources=image.edit\
            &sizes=256x256,512x512&vector_store_ids=vs_1&context_levels[]=low";
        let filters = |kind| {
            let filter = read(kind, query, NOW).unwrap().0.filter;
            let all = [
                ("project_ids", filter.project_ids.is_some()),
                ("user_ids", filter.user_ids.is_some()),
                ("api_key_ids", filter.api_key_ids.is_some()),
                ("models", filter.models.is_some()),
                ("batch", filter.batch.is_some()),
                ("sources", filter.sources.is_some()),
            ];
            let recorded = all.into_iter().filter(|(_, given)| *given).map(|(name, _)| name);
            recorded.chain(filter.unrecorded.into_keys()).collect::<Vec<_>>()
        };
        let common = ["project_ids", "user_ids", "api_key_ids", "models"];
        assert_eq!(filters(Kind::Completions), [&common[..], &["batch"]].concat());
        for kind in [Kind::Embeddings, Kind::Moderations, Kind::AudioSpeeches, Kind::AudioTranscriptions] {
            assert_eq!(filters(kind), common, "{kind:?}");
        }
        assert_eq!(filters(Kind::Images), [&common[..], &["sources", "sizes"]].concat());
        assert_eq!(filters(Kind::VectorStores), ["project_ids"]);
        assert_eq!(filters(Kind::CodeInterpreterSessions), ["project_ids"]);
        assert_eq!(filters(Kind::FileSearchCalls), ["project_ids", "user_ids", "api_key_ids", "vector_store_ids"]);
        assert_eq!(filters(Kind::WebSearchCalls), [&common[..], &["context_levels"]].concat());
    }

    #[test]
    fn limits_depend_on_the_width() {
        let limit = |kind, query: &str| read(kind, &format!("start_time=5&{query}"), NOW).map(|it| it.0.limit).ok();
        for (kind, width, default, max) in [
            (Kind::Completions, "1d", 7, 31),
            (Kind::Completions, "1h", 24, 168),
            (Kind::Completions, "1m", 60, 1440),
            (Kind::Embeddings, "1h", 24, 168),
            (Kind::VectorStores, "1d", 7, 31),
            (Kind::Costs, "1d", 7, 180),
        ] {
            assert_eq!(limit(kind, &format!("bucket_width={width}")), Some(default));
            assert_eq!(limit(kind, &format!("bucket_width={width}&limit={max}")), Some(max));
            assert_eq!(limit(kind, &format!("bucket_width={width}&limit={}", max + 1)), None);
        }
    }

    #[test]
    fn bad_values_are_refused_in_openais_words() {
        for (kind, query, message, param) in [
            (
                Kind::Completions,
                "start_time=yesterday",
                "Invalid type for 'start_time': expected an integer, but got a string instead.",
                "start_time",
            ),
            (
                Kind::Completions,
                "start_time=1739096063000",
                "Invalid 'start_time': integer above maximum value. Expected a value <= 253402300799, but got \
                 1739096063000 instead.",
                "start_time",
            ),
            (
                Kind::Costs,
                "start_time=7&end_time=7",
                "Invalid 'end_time': expected a time after 'start_time' (7), but got 7 instead.",
                "end_time",
            ),
            (
                Kind::Completions,
                "start_time=7&bucket_width=1w",
                "Invalid value: '1w'. Supported values are: '1m', '1h', and '1d'.",
                "bucket_width",
            ),
            (
                Kind::Costs,
                "start_time=7&bucket_width=1h",
                "Invalid value: '1h'. Supported values are: '1d'.",
                "bucket_width",
            ),
            (
                Kind::Completions,
                "start_time=7&group_by=model,line_item",
                "Invalid value: 'line_item'. Supported values are: 'project_id', 'user_id', 'api_key_id', 'model', \
                 'batch', and 'service_tier'.",
                "group_by",
            ),
            (
                Kind::Costs,
                "start_time=7&group_by[]=model",
                "Invalid value: 'model'. Supported values are: 'project_id', 'line_item', and 'api_key_id'.",
                "group_by",
            ),
        ] {
            assert_eq!(refused(kind, query), (message.to_owned(), Some(param.to_owned())), "{query}");
        }
        let cursor = "start_time=7&page=page_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(refused(Kind::Costs, cursor).1.as_deref(), Some("page"));
    }

    #[test]
    fn unknown_zones_sizes_sources_and_levels_are_refused_as_well() {
        for (kind, query, message, param) in [
            (
                Kind::Completions,
                "start_time=7&timezone=Mars/Phobos",
                "Invalid value: 'Mars/Phobos'. Expected the IANA name of a time zone, such as 'Europe/Berlin'.",
                "timezone",
            ),
            (
                Kind::Images,
                "start_time=7&sizes=256x256,1x1",
                "Invalid value: '1x1'. Supported values are: '256x256', '512x512', '1024x1024', '1792x1792', and \
                 '1024x1792'.",
                "sizes",
            ),
            (
                Kind::Images,
                "start_time=7&sources[]=image.drawing",
                "Invalid value: 'image.drawing'. Supported values are: 'image.generation', 'image.edit', and \
                 'image.variation'.",
                "sources",
            ),
            (
                Kind::WebSearchCalls,
                "start_time=7&context_levels=huge",
                "Invalid value: 'huge'. Supported values are: 'low', 'medium', and 'high'.",
                "context_levels",
            ),
            (
                Kind::VectorStores,
                "start_time=7&group_by=model",
                "Invalid value: 'model'. Supported values are: 'project_id'.",
                "group_by",
            ),
        ] {
            assert_eq!(refused(kind, query), (message.to_owned(), Some(param.to_owned())), "{query}");
        }
    }

    fn pair() -> impl Strategy<Value = (String, String)> {
        ("(start_time|end_time|limit|page|group_by|batch|timezone|sizes|.{0,4})", "([0-9]{1,20}|Asia/Kolkata|.{0,9})")
    }

    proptest! {
        #[test]
        fn any_query_is_answered_within_its_limits_or_refused(
            pairs in proptest::collection::vec(pair(), 0..5),
            now in any::<u64>(),
        ) {
            let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            for kind in Kind::ALL {
                match read(kind, &query.join("&"), UnixNanos(now)) {
                    Ok((report, page)) => prop_assert!(page.buckets.len() as u64 <= report.limit),
                    Err(error) => prop_assert_eq!(error.status, 400),
                }
            }
        }
    }
}
