//! What the operator decides (settings) and what the product knows of models and tiers (the catalog). Everything has a
//! default inside the binary; every problem is reported at once, with its place.

mod catalog;
#[cfg(test)]
mod catalog_tests;
mod model_page;
mod page;
mod problem;
mod settings;
#[cfg(test)]
mod settings_tests;
mod sources;
mod tiers;
mod types;
mod value;

use std::collections::BTreeMap;

pub use catalog::load_catalog;
pub use page::first_moment;
pub use problem::{Problem, Problems};
pub use settings::{KEYS, Key, Settings, Shown};
pub use sources::Origin;
pub use types::{Durability, ListenAddress, LogFormat, LogLevel, OnClientDisconnect, Reserve, Secret, UpstreamUrl};
pub use value::Kind;

/// The only place that reads the process's environment.
pub fn environment() -> BTreeMap<String, String> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}
