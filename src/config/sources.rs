//! Where values come from: the environment over the file over the default; each remembers its place for messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use toml::de::{DeInteger, DeTable, DeValue};

use super::{
    problem::{Problems, did_you_mean, line_at, nearest},
    settings::KEYS,
    value::{Check, Kind, Value},
};

const PREFIX: &str = "TOLLGATE_";
/// Read when no file is named, if it exists.
const DEFAULT_FILE: &str = "tollgate.toml";
/// Variables that are ours but no settings: the file's path, the address the admin commands talk to, and the key of the
/// provider that the ledger is compared with.
const OTHER_VARIABLES: [&str; 4] =
    ["TOLLGATE_CONFIG", "TOLLGATE_ADMIN_URL", "TOLLGATE_RECONCILE_KEY", "TOLLGATE_RECONCILE_KEY_FILE"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    File,
    Environment,
}

/// A value as it was written, and where.
#[derive(Clone, Debug)]
struct Found {
    text: String,
    /// `tollgate.toml:12: log_level` or `environment TOLLGATE_LOG_LEVEL`.
    place: String,
    origin: Origin,
}

/// The layers, laid over each other.
#[derive(Debug, Default)]
pub(super) struct Sources {
    found: BTreeMap<&'static str, Found>,
    problems: Problems,
    /// Variables with our prefix that mean nothing to us.
    strangers: Vec<String>,
}

impl Origin {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
        }
    }
}

impl Sources {
    pub(super) fn open(config_path: Option<&Path>, env: &BTreeMap<String, String>) -> Self {
        let mut sources = Self::default();
        if let Some(key) = env.get("OPENAI_API_KEY").filter(|key| !key.is_empty()) {
            sources.put("upstream_key", key, "environment OPENAI_API_KEY", Origin::Environment);
        }
        let named = config_path.map(PathBuf::from);
        let named = named.or_else(|| env.get("TOLLGATE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        match fs::read_to_string(&path) {
            Ok(text) => sources.add_file(&path, &text),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => sources.problems.add(path.display().to_string(), format!("cannot be read: {error}")),
        }
        sources.add_environment(env);
        sources
    }

    pub(super) fn add_file(&mut self, path: &Path, text: &str) {
        let path = path.display();
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = line_at(text, error.span().map_or(0, |span| span.start));
            self.problems.add(format!("{path}:{line}"), error.message());
        }
        if !errors.is_empty() {
            return;
        }
        let mut values = Vec::new();
        for (key, value) in table.into_inner() {
            let (line, name) = (line_at(text, key.span().start), key.into_inner());
            values.push((line, name.into_owned(), value.into_inner()));
        }
        values.sort_by_key(|(line, ..)| *line);
        let given: BTreeSet<String> = values.iter().map(|(_, name, _)| name.clone()).collect();
        for (line, name, value) in values {
            let Some((key, from_file)) = key_of(&name) else {
                let hint = did_you_mean(&name, KEYS.iter().map(|key| key.name));
                self.problems.add(format!("{path}:{line}"), format!("{name}: no such setting{hint}"));
                continue;
            };
            let place = format!("{path}:{line}: {name}");
            match written(&value, key.kind) {
                Ok(text) if from_file => {
                    self.add_secret_file(key.name, &text, place, Origin::File, given.contains(key.name));
                }
                Ok(text) if key.default.is_empty() && text.is_empty() => {}
                Ok(text) => self.put(key.name, &text, &place, Origin::File),
                Err(message) => self.problems.add(place, message),
            }
        }
    }

    fn add_environment(&mut self, env: &BTreeMap<String, String>) {
        let ours = env.iter().filter_map(|(variable, text)| Some((variable, variable.strip_prefix(PREFIX)?, text)));
        for (variable, name, text) in ours {
            if OTHER_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            let place = format!("environment {variable}");
            let name = name.to_ascii_lowercase();
            let upper_case = !variable.bytes().any(|byte| byte.is_ascii_lowercase());
            match key_of(&name).filter(|_| upper_case) {
                Some((key, true)) => {
                    let both = env.get(&variable_of(key.name)).is_some_and(|text| !text.is_empty());
                    self.add_secret_file(key.name, text, place, Origin::Environment, both);
                }
                // Compose files pass a variable that is not set on as an empty one.
                Some((key, false)) if key.default.is_empty() && text.is_empty() => {}
                Some((key, false)) => self.put(key.name, text, &place, Origin::Environment),
                None => self.add_stranger(variable, &name, place),
            }
        }
    }

    /// A slip of the pen is a problem. Anything else is somebody else's: Kubernetes, say, sets `TOLLGATE_PORT` and
    /// `TOLLGATE_SERVICE_HOST` beside a service of our name.
    fn add_stranger(&mut self, variable: &str, name: &str, place: String) {
        match nearest(name, KEYS.iter().map(|key| key.name)) {
            Some(meant) => {
                self.problems.add(place, format!("no such setting (did you mean {:?}?)", variable_of(meant)));
            }
            None => self.strangers.push(variable.to_owned()),
        }
    }

    fn add_secret_file(&mut self, name: &'static str, path: &str, place: String, origin: Origin, both: bool) {
        if path.is_empty() {
            return;
        }
        if both {
            return self.problems.add(place, format!("give either {name} or {name}_file, not both"));
        }
        match fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => self.problems.add(place, format!("the file {path:?} is empty")),
            Ok(text) => self.put(name, text.trim(), &place, origin),
            Err(error) => self.problems.add(place, format!("the file {path:?} cannot be read: {error}")),
        }
    }

    /// A later layer replaces an earlier one.
    fn put(&mut self, name: &'static str, text: &str, place: &str, origin: Origin) {
        self.found.insert(name, Found { text: text.to_owned(), place: place.to_owned(), origin });
    }

    /// The value in force; `None` when it cannot be read, which is then noted.
    pub(super) fn take<T: Value>(
        &mut self,
        name: &'static str,
        default: &'static str,
        checks: &[&dyn Check<T>],
    ) -> Option<T> {
        let text = self.found.get(name).map_or(default, |found| found.text.as_str());
        let better = |message| checks.iter().find_map(|check| check.misread(text)).unwrap_or(message);
        let read = T::parse(text).map_err(better).and_then(|value| {
            checks.iter().try_for_each(|check| check.check(&value))?;
            Ok(value)
        });
        match read {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(name, &message);
                None
            }
        }
    }

    /// A path as it was written, whether or not the other settings can be read.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.found.get(name).map(|found| PathBuf::from(&found.text))
    }

    /// A switch that is off by default, likewise.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.found.get(name).is_some_and(|found| found.text == "true")
    }

    /// Notes a problem with the value in force.
    pub(super) fn problem(&mut self, name: &'static str, message: &str) {
        let place = self.found.get(name).map_or_else(|| format!("default of {name}"), |found| found.place.clone());
        self.problems.add(place, message);
    }

    pub(super) fn origins(&self) -> BTreeMap<&'static str, Origin> {
        self.found.iter().map(|(name, found)| (*name, found.origin)).collect()
    }

    pub(super) fn strangers(&self) -> Vec<String> {
        self.strangers.clone()
    }

    pub(super) fn into_problems(self) -> Problems {
        self.problems.sorted()
    }
}

/// The row for a name, and whether the name is the `_file` form of a secret.
fn key_of(name: &str) -> Option<(&'static super::settings::Key, bool)> {
    let row = |name: &str| KEYS.iter().find(|key| key.name == name);
    row(name).map(|key| (key, false)).or_else(|| {
        let key = row(name.strip_suffix("_file")?)?;
        (key.kind == Kind::Secret).then_some((key, true))
    })
}

fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase())
}

/// The text of a TOML value, if it is of the right type.
fn written(value: &DeValue<'_>, kind: Kind) -> Result<String, String> {
    match (value, kind) {
        (DeValue::String(text), Kind::Text | Kind::Secret) => Ok(text.to_string()),
        (DeValue::Boolean(switch), Kind::Switch) => Ok(switch.to_string()),
        (DeValue::Integer(number), Kind::Number) => decimal(number),
        (other, _) => Err(format!("expected {}, found {}", kind.noun(), type_noun(other))),
    }
}

fn decimal(number: &DeInteger<'_>) -> Result<String, String> {
    let value = i128::from_str_radix(number.as_str(), number.radix());
    value.map(|value| value.to_string()).map_err(|_| format!("{number} is too large"))
}

const fn type_noun(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
