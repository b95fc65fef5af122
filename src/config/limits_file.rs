//! Limits in a file of their own, in place of those in force: for a replay.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use serde::Deserialize;
use toml::Spanned;

use super::{page::Page, problem::Problems};
use crate::domain::{
    catalog::{Catalog, Model},
    limits::Limits,
};

/// Limits of a project on each model. What the file does not speak of stays as it is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherLimits {
    default_limits: Option<Limits>,
    /// By limit group: one model speaks for all that share its buckets.
    groups: HashMap<Arc<str>, Limits>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    /// For models that are not listed.
    default_limits: Option<Limits>,
    #[serde(default)]
    models: BTreeMap<Spanned<String>, Limits>,
}

impl OtherLimits {
    pub fn read(path: &Path, catalog: &Catalog) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let file = path.display().to_string();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                problems.add(file, format!("cannot be read: {error}"));
                return Err(problems);
            }
        };
        let limits = Self::of(&mut Page { file: &file, text: &text, problems: &mut problems }, catalog);
        limits.filter(|_| problems.is_empty()).ok_or_else(|| problems.sorted())
    }

    pub(super) fn of(page: &mut Page<'_>, catalog: &Catalog) -> Option<Self> {
        let LimitsFile { default_limits, models } = page.read()?;
        if default_limits.is_none() && models.is_empty() {
            page.problem(0..0, "it has no limits: write [default_limits], or [models.\"gpt-4o-mini\"] for a model");
        }
        let mut limits = Self { default_limits, groups: HashMap::new() };
        for (name, own) in models {
            match catalog.resolve(name.get_ref()) {
                Some(named) if named.snapshot.is_none() => {
                    let group = &named.model.limit_group;
                    if limits.groups.insert(Arc::clone(group), own).is_some_and(|other| other != own) {
                        let message = format!("{:?} has other limits than a model of its limit group", name.get_ref());
                        page.problem(name.span(), message);
                    }
                }
                Some(named) => {
                    let message =
                        format!("{:?} has the limits of its model: write {:?}", name.get_ref(), named.model.id);
                    page.problem(name.span(), message);
                }
                None => page.problem(name.span(), format!("there is no model {:?} in the catalog", name.get_ref())),
            }
        }
        Some(limits)
    }

    /// `None`: those in force.
    pub fn limits(&self, model: Option<&Model>) -> Option<Limits> {
        model.and_then(|model| self.groups.get(&model.limit_group)).copied().or(self.default_limits)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::catalog::read_catalog;

    fn read(text: &str) -> Result<OtherLimits, String> {
        read_with(&read_catalog(None, None, false).unwrap(), text)
    }

    fn read_with(catalog: &Catalog, text: &str) -> Result<OtherLimits, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let read = OtherLimits::read(file.path(), catalog);
        read.map_err(|problems| problems.to_string().replace(&file.path().display().to_string(), "FILE"))
    }

    #[test]
    fn one_model_speaks_for_its_limit_group_and_two_say_the_same() {
        let model = |id: &str| Model { id: id.into(), limit_group: "g".into(), ..Model::default() };
        let catalog = Catalog::new(vec![model("a"), model("b")], vec![]).unwrap();
        let own = |id: &str, requests: u32| format!("[models.{id}]\nrequests_per_minute = {requests}\n");
        for text in [own("a", 5), own("a", 5) + &own("b", 5)] {
            let limits = read_with(&catalog, &text).unwrap();
            let other = limits.limits(Some(&model("b"))).unwrap();
            assert_eq!(other.requests_per_minute, NonZeroU32::new(5));
        }
        let error = read_with(&catalog, &(own("a", 5) + &own("b", 6))).unwrap_err();
        assert!(error.starts_with("FILE:3: \"b\" has other limits than a model of its limit group"), "{error}");
    }

    #[test]
    fn a_models_limits_go_before_the_default_and_what_is_not_named_stays() {
        let catalog = read_catalog(None, None, false).unwrap();
        let model = |name: &str| catalog.resolve(name).unwrap().model.as_ref();
        let rpm = |limits: &OtherLimits, model: Option<&Model>| {
            limits.limits(model).map(|limits| limits.requests_per_minute.map(NonZeroU32::get))
        };
        let own = "[models.\"gpt-4o-mini\"]\nrequests_per_minute = 5\n";
        let limits = read(own).unwrap();
        assert_eq!(rpm(&limits, Some(model("gpt-4o-mini-2024-07-18"))), Some(Some(5)));
        assert_eq!((rpm(&limits, Some(model("gpt-4o"))), rpm(&limits, None)), (None, None));
        let limits = read(&format!("[default_limits]\ntokens_per_minute = 9\n{own}")).unwrap();
        assert_eq!((rpm(&limits, Some(model("gpt-4o"))), rpm(&limits, None)), (Some(None), Some(None)));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, said) in [
            ("", "FILE:1: it has no limits: write [default_limits]"),
            ("[models.gpt-5000]\nrequests_per_minute = 5\n", "FILE:1: there is no model \"gpt-5000\" in the catalog"),
            ("\n[models.gpt-4o-mini-2024-07-18]\n", "FILE:2: \"gpt-4o-mini-2024-07-18\" has the limits of its model"),
            ("[default_limits]\nrequests_per_hour = 5\n", "FILE:2: unknown field `requests_per_hour`"),
            ("[default_limits]\nrequests_per_minute = 0\n", "FILE:2:"),
            ("[default_limits]\naudio_seconds_per_day = 214748365\n", "FILE:2: invalid value: integer `214748365`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }
}
