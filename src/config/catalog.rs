//! From model pages and tiers, built in or the operator's own, to the catalog.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use include_dir::{Dir, include_dir};

use super::{model_page::ModelPage, page::Page, problem::Problems, settings::Settings, tiers::TiersFile};
use crate::domain::{
    catalog::{Catalog, CatalogError, Model, Tier},
    projects::TierId,
};

static BUILT_IN_PAGES: Dir = include_dir!("$CARGO_MANIFEST_DIR/config/models");
const BUILT_IN_TIERS: &str = include_str!("../../config/tiers.toml");

/// A model and the file it came from.
struct Sourced {
    file: String,
    model: Model,
}

/// All models and tiers in force, or everything that is wrong with them.
pub fn load_catalog(settings: &Settings) -> Result<Catalog, Problems> {
    read_catalog(settings.models_dir.as_deref(), settings.tiers_file.as_deref(), settings.allow_unpriced)
}

/// With `allow_unpriced` a model needs no page, and a tier may allow any name.
pub(super) fn read_catalog(
    models_dir: Option<&Path>,
    tiers_file: Option<&Path>,
    allow_unpriced: bool,
) -> Result<Catalog, Problems> {
    let mut problems = Problems::default();
    let mut built_in = built_in_models(&mut problems);
    let own = models_dir.map(|folder| own_models(folder, &mut problems)).unwrap_or_default();
    built_in.retain(|built_in| own.iter().all(|own| own.model.id != built_in.model.id));
    // A page that cannot be read may have any name.
    let names_are_known = problems.is_empty() && !allow_unpriced;
    let names = names_are_known.then(|| built_in.iter().chain(&own).flat_map(names).cloned().collect());
    let tiers = tiers(tiers_file, names.as_ref(), &mut problems);
    if tiers_file.is_some() {
        // The operator's tiers need not be ours, and nobody can edit the built-in pages.
        let is_tier = |id: &TierId| tiers.iter().any(|tier| tier.id == *id);
        for built_in in &mut built_in {
            built_in.model.limits.retain(|tier, _| is_tier(tier));
        }
    }
    let models: Vec<_> = built_in.into_iter().chain(own).collect();
    let files = files_of_names(&models);
    let catalog = Catalog::new(models.into_iter().map(|sourced| sourced.model).collect(), tiers);
    match catalog {
        Ok(catalog) if problems.is_empty() => Ok(catalog),
        Ok(_) => Err(problems.sorted()),
        Err(errors) => {
            for error in errors {
                problems.add(place(&error, &files), error.to_string());
            }
            Err(problems.sorted())
        }
    }
}

fn built_in_models(problems: &mut Problems) -> Vec<Sourced> {
    let pages = BUILT_IN_PAGES.files().filter_map(|page| Some((page.path(), page.contents_utf8()?)));
    let mut pages: Vec<_> = pages.collect();
    pages.sort_unstable();
    let file = |path: &Path| format!("config/models/{}", path.display());
    pages.into_iter().filter_map(|(path, text)| model(file(path), text, problems)).collect()
}

fn own_models(folder: &Path, problems: &mut Problems) -> Vec<Sourced> {
    let paths = match toml_files(folder) {
        Ok(paths) => paths,
        Err(error) => {
            problems.add(folder.display().to_string(), format!("models_dir cannot be read: {error}"));
            return Vec::new();
        }
    };
    let pages = paths.into_iter().filter_map(|path| {
        let file = path.display().to_string();
        let text = read(&path, problems)?;
        model(file, &text, problems)
    });
    pages.collect()
}

fn toml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn model(file: String, text: &str, problems: &mut Problems) -> Option<Sourced> {
    let mut page = Page { file: &file, text, problems };
    let model = page.read::<ModelPage>()?.model(&mut page);
    Some(Sourced { file, model })
}

fn tiers(own: Option<&Path>, names: Option<&BTreeSet<Arc<str>>>, problems: &mut Problems) -> Vec<Tier> {
    let (file, text) = match own {
        None => ("config/tiers.toml".to_owned(), BUILT_IN_TIERS.to_owned()),
        Some(path) => match read(path, problems) {
            Some(text) => (path.display().to_string(), text),
            None => return Vec::new(),
        },
    };
    let mut page = Page { file: &file, text: &text, problems };
    page.read::<TiersFile>().map(|tiers| tiers.tiers(names, &mut page)).unwrap_or_default()
}

fn read(path: &Path, problems: &mut Problems) -> Option<String> {
    fs::read_to_string(path)
        .map_err(|error| problems.add(path.display().to_string(), format!("cannot be read: {error}")))
        .ok()
}

/// The files that use each model or snapshot name.
fn files_of_names(models: &[Sourced]) -> BTreeMap<String, Vec<String>> {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for model in models {
        for name in names(model) {
            files.entry(name.to_string()).or_default().push(model.file.clone());
        }
    }
    files
}

/// What the model may be called by: its own name and those of its snapshots.
fn names(Sourced { model, .. }: &Sourced) -> impl Iterator<Item = &Arc<str>> {
    std::iter::once(&model.id).chain(model.snapshots.iter().map(|snapshot| &snapshot.id))
}

fn place(error: &CatalogError, files: &BTreeMap<String, Vec<String>>) -> String {
    let files_of = |name: &String| files.get(name).map(|files| files.join(", ")).unwrap_or_default();
    match error {
        CatalogError::DuplicateName(name) => files_of(name),
        CatalogError::UnknownTier { model, .. } | CatalogError::UnknownDefaultSnapshot { model, .. } => files_of(model),
        CatalogError::LimitsDiffer { model, other, .. } => [other, model].map(files_of).join(", "),
        CatalogError::DuplicateTier(_) => "tiers".to_owned(),
    }
}
