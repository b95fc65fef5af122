//! What the operator decides (settings) and what the product knows of models and tiers (the catalog). Everything has a
//! default inside the binary; every problem is reported at once, with its place.

mod catalog;
#[cfg(test)]
mod catalog_tests;
mod limits_file;
mod model_page;
mod page;
mod problem;
mod settings;
#[cfg(test)]
mod settings_tests;
mod sources;
#[doc(hidden)]
pub mod text;
mod tiers;
#[cfg(test)]
mod tiers_tests;
mod types;
mod value;

use std::{collections::BTreeMap, path::Path};

pub use catalog::load_catalog;
pub use limits_file::OtherLimits;
pub use page::first_moment;
pub use problem::{Problem, Problems};
pub use settings::{KEYS, Key, Settings, Shown};
pub use sources::Origin;
pub use types::{
    Durability, ListenAddress, LogFormat, LogLevel, OnClientDisconnect, Reserve, Secret, UpstreamUrl, WebhookUrl,
};
pub use value::Kind;

use self::{catalog::read_catalog, sources::Sources};
use crate::domain::catalog::Catalog;

/// The settings with the models and tiers they lead to, each as far as it could be read.
pub struct Loaded {
    pub settings: Option<Settings>,
    pub catalog: Option<Catalog>,
    /// Empty when both are there.
    pub problems: Problems,
}

/// A bad setting does not hide what is wrong with a model page, nor the other way round.
pub fn load(config_path: Option<&Path>, env: &BTreeMap<String, String>) -> Loaded {
    let sources = Sources::open(config_path, env);
    let (models_dir, tiers_file) = (sources.path("models_dir"), sources.path("tiers_file"));
    let allow_unpriced = sources.is_on("allow_unpriced");
    let settings = Settings::from_sources(sources);
    let catalog = read_catalog(models_dir.as_deref(), tiers_file.as_deref(), allow_unpriced);
    let wrong = |problems: Option<&Problems>| problems.cloned().unwrap_or_default();
    let problems = wrong(settings.as_ref().err()).and(wrong(catalog.as_ref().err()));
    Loaded { settings: settings.ok(), catalog: catalog.ok(), problems }
}

/// The admin address alone, for the commands that call it. What else may be wrong is the gateway's business, unless it hides
/// the address.
pub fn admin_listen(config_path: Option<&Path>, env: &BTreeMap<String, String>) -> Result<ListenAddress, Problems> {
    const NAME: &str = "admin_listen";
    let mut sources = Sources::open(config_path, env);
    let default = KEYS.iter().find(|key| key.name == NAME).map_or("", |key| key.default);
    let address = sources.take::<ListenAddress>(NAME, default, &[]);
    let is_set = sources.origins().contains_key(NAME);
    let problems = sources.into_problems();
    address.filter(|_| is_set || problems.is_empty()).ok_or(problems)
}

impl Loaded {
    pub fn complete(self) -> Result<(Settings, Catalog), Problems> {
        self.settings.zip(self.catalog).ok_or(self.problems)
    }
}

/// The only place that reads the process's environment.
pub fn environment() -> BTreeMap<String, String> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}
