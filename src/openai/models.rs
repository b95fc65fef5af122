//! `GET /v1/models`: the catalog as OpenAI lists it, snapshots beside their models.

use std::sync::Arc;

use serde::Serialize;

use crate::domain::catalog::{Catalog, Model, Named, Snapshot};

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shutdown_date: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn of(model: &'a Model, snapshot: Option<&'a Snapshot>) -> Self {
        let own_date = snapshot.and_then(|snapshot| snapshot.shutdown_date.as_deref());
        Self {
            id: snapshot.map_or(&*model.id, |snapshot| &*snapshot.id),
            object: "model",
            created: model.created,
            owned_by: &model.owned_by,
            shutdown_date: own_date.or(model.shutdown_date.as_deref()),
        }
    }
}

/// The body of the list: each model, followed by its snapshots, if `shown` says so of the name and what is under it.
pub fn list(catalog: &Catalog, shown: impl Fn(&str, &Named<'_>) -> bool) -> Vec<u8> {
    let names = catalog.models().iter().flat_map(names);
    let entries = names.map(|named| (named, Entry::of(named.model, named.snapshot)));
    let data = entries.filter(|(named, entry)| shown(entry.id, named)).map(|(_, entry)| entry).collect();
    print(&List { object: "list", data })
}

/// The body about one model or snapshot; `None` when there is none of that name, or `shown` denies it.
pub fn one(catalog: &Catalog, name: &str, shown: impl Fn(&str, &Named<'_>) -> bool) -> Option<Vec<u8>> {
    let named = catalog.resolve(name).filter(|named| shown(name, named))?;
    Some(print(&Entry::of(named.model, named.snapshot)))
}

fn names(model: &Arc<Model>) -> impl Iterator<Item = Named<'_>> {
    let snapshots = std::iter::once(None).chain(model.snapshots.iter().map(Some));
    snapshots.map(move |snapshot| Named { model, snapshot })
}

fn print(value: &impl Serialize) -> Vec<u8> {
    // Serialising strings and integers into memory cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let snapshot = |id: &str, date: Option<&str>| Snapshot {
            id: id.into(),
            shutdown_date: date.map(str::to_owned),
            ..Snapshot::default()
        };
        let model = Model {
            id: "gpt-audio".into(),
            created: 1_756_339_249,
            owned_by: "system".to_owned(),
            snapshots: vec![snapshot("gpt-audio-2025-08-28", Some("2027-01-01")), snapshot("gpt-audio-x", None)],
            ..Model::default()
        };
        Catalog::new(vec![model], vec![]).unwrap()
    }

    #[test]
    fn models_and_snapshots_are_listed_in_openais_shape() {
        let expected = concat!(
            r#"{"object":"list","data":["#,
            r#"{"id":"gpt-audio","object":"model","created":1756339249,"owned_by":"system"},"#,
            r#"{"id":"gpt-audio-2025-08-28","object":"model","created":1756339249,"owned_by":"system","#,
            r#""shutdown_date":"2027-01-01"},"#,
            r#"{"id":"gpt-audio-x","object":"model","created":1756339249,"owned_by":"system"}]}"#
        );
        assert_eq!(String::from_utf8(list(&catalog(), |_, _| true)).unwrap(), expected);
    }

    #[test]
    fn one_model_is_the_same_object() {
        let one = |name| one(&catalog(), name, |_, _| true).map(|body| String::from_utf8(body).unwrap());
        let expected = r#"{"id":"gpt-audio-x","object":"model","created":1756339249,"owned_by":"system"}"#;
        assert_eq!(one("gpt-audio-x").as_deref(), Some(expected));
        assert_eq!(one("gpt-audio-y"), None);
    }

    #[test]
    fn what_the_caller_may_not_use_is_not_there() {
        let only_one = |name: &str, named: &Named<'_>| &*named.model.id == "gpt-audio" && name == "gpt-audio-x";
        let body = String::from_utf8(list(&catalog(), only_one)).unwrap();
        assert!(body.contains("gpt-audio-x") && !body.contains("2025-08-28"), "{body}");
        assert!(one(&catalog(), "gpt-audio-x", only_one).is_some());
        assert_eq!(one(&catalog(), "gpt-audio", only_one), None);
    }
}
