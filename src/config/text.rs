//! The configuration's files as text, without the files: tests feed them anything.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    limits_file::OtherLimits, model_page::ModelPage, page::Page, problem::Problems, settings::Settings,
    sources::Sources, tiers::TiersFile,
};
use crate::domain::catalog::{Catalog, Model, Tier};

const FILE: &str = "text.toml";

/// Reads no file but those that the text names for its secrets.
pub fn settings(text: &str) -> Result<Settings, Problems> {
    let mut sources = Sources::default();
    sources.add_file(Path::new(FILE), text);
    Settings::from_sources(sources)
}

pub fn model_page(text: &str) -> Result<Model, Problems> {
    read(text, |page| Some(page.read::<ModelPage>()?.model(page)))
}

/// `names` are those that models may be called by; `None` is any.
pub fn tiers(text: &str, names: Option<&BTreeSet<Arc<str>>>) -> Result<Vec<Tier>, Problems> {
    read(text, |page| Some(page.read::<TiersFile>()?.tiers(names, page)))
}

pub fn limits(text: &str, catalog: &Catalog) -> Result<OtherLimits, Problems> {
    read(text, |page| OtherLimits::of(page, catalog))
}

fn read<T>(text: &str, read: impl FnOnce(&mut Page<'_>) -> Option<T>) -> Result<T, Problems> {
    let mut problems = Problems::default();
    let value = read(&mut Page { file: FILE, text, problems: &mut problems });
    value.filter(|_| problems.is_empty()).ok_or_else(|| problems.sorted())
}
