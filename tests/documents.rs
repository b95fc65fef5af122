//! What the README says of settings, commands and files is so.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use tollgate::{
    config::KEYS,
    domain::limits::{Dimension, Limits},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let readme = read("README.md");
    let rows: Vec<&str> = readme.lines().skip_while(|line| !line.starts_with("| setting |")).skip(2).collect();
    let rows: Vec<&str> = rows.into_iter().take_while(|line| line.starts_with('|')).collect();
    let expected: Vec<String> = KEYS
        .iter()
        .map(|key| {
            let default = if key.default.is_empty() { "not set".to_owned() } else { format!("`{}`", key.default) };
            format!("| `{}` | {default} | {} |", key.name, key.help.trim_end_matches('.'))
        })
        .collect();
    assert_eq!(rows, expected, "\nthe table should be:\n{}\n", expected.join("\n"));
}

#[test]
fn every_limit_is_in_the_readme_and_in_the_example_of_the_tiers() {
    let tiers = read("config/tiers.toml");
    let example: Vec<&str> = tiers.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let limits: Limits = toml::from_str(&example.join("\n")).unwrap();
    let readme = read("README.md");
    for dimension in Dimension::ALL {
        assert!(limits.ceiling(dimension).is_some(), "{} is not in the example", dimension.name());
        assert!(readme.contains(dimension.name()), "{} is not in the README", dimension.name());
    }
    assert!(limits.batch_queue_tokens.is_some());
}

#[test]
fn files_that_the_documents_name_are_there() {
    let mut wrong = Vec::new();
    for document in ["README.md", "CONTRIBUTING.md", "SECURITY.md", "TRUST.md", BOUNDS] {
        for quoted in read(document).split('`').skip(1).step_by(2) {
            let roots = ["src/", "tests/", "config/", "scripts/", "migrations/", "benches/", "docs/", ".ci/"];
            let placeholder = quoted.contains(['*', '<', ' ', '{']);
            if roots.iter().any(|root| quoted.starts_with(root)) && !placeholder && !root().join(quoted).exists() {
                wrong.push(format!("{document}: {quoted}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not there: {wrong:#?}");
}

/// The page of all time-outs and caps.
const BOUNDS: &str = "docs/limits-and-timeouts.md";

/// Settings that bound nothing: addresses, files, keys, and what is to be done.
const NO_BOUNDS: [&str; 18] = [
    "listen",
    "admin_listen",
    "data_dir",
    "upstream_url",
    "upstream_key",
    "admin_key",
    "pepper",
    "log_level",
    "log_format",
    "on_client_disconnect",
    "reserve",
    "allow_unpriced",
    "models_dir",
    "tiers_file",
    "promote_projects",
    "budget_webhook_url",
    "budget_webhook_secret",
    "durability",
];

/// The first two cells of the page's tables, without their quotes.
fn bounds(page: &str) -> Vec<(String, String)> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells[1].replace('`', ""), cells[2].replace('`', ""))
    })
    .collect()
}

/// The value of a constant as the page writes it, read from its source: `64 << 10`, `8_192`, `Duration::from_secs(10)`.
fn constant(file: &str, name: &str) -> Option<String> {
    let source = read(file);
    let head = format!("const {name}: ");
    let line = source.lines().find(|line| line.trim_start().trim_start_matches("pub ").starts_with(&head))?;
    let value = line.split_once(" = ")?.1.trim_end_matches(';').replace('_', "");
    if let Some(time) = value.strip_prefix("Duration::from") {
        let (unit, number) = time.trim_end_matches(')').split_once('(')?;
        return Some(format!("{number} {}", if unit == "millis" { "ms" } else { &unit[..1] }));
    }
    let numbers = |operator| value.split_once(operator).map(|(left, right)| [left, right].map(str::parse::<u64>));
    match (numbers(" << "), numbers(" * ")) {
        (Some([Ok(left), Ok(right)]), _) => Some((left << right).to_string()),
        (_, Some([Ok(left), Ok(right)])) => Some((left * right).to_string()),
        _ => value.parse::<u64>().ok().map(|value| value.to_string()),
    }
}

#[test]
fn the_page_of_bounds_has_every_bound_with_its_value() {
    let page = read(BOUNDS);
    let (mut wrong, mut settings) = (Vec::new(), Vec::new());
    for (name, value) in bounds(&page) {
        let actual = match name.split_once(" in ") {
            Some((name, file)) => constant(file, name),
            None => {
                settings.push(name.clone());
                KEYS.iter().find(|key| key.name == name).map(|key| key.default.to_owned())
            }
        };
        if actual.as_ref() != Some(&value) {
            wrong.push(format!("{name} is {actual:?} and not {value}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for key in KEYS {
        let (is_there, is_none) = (settings.iter().any(|name| name == key.name), NO_BOUNDS.contains(&key.name));
        assert!(is_there != is_none, "{} is to be on the page, or among what bounds nothing", key.name);
    }
}

#[test]
fn time_outs_and_caps_of_the_way_of_a_request_are_all_on_the_page() {
    // Neither bounds a request: the shape of an estimate, a pace, and what is kept of a name.
    const OTHERS: [&str; 2] = ["MAX_BELIEVED_TOKENS", "MAX_MODEL_BYTES"];
    let page = read(BOUNDS);
    let folders = ["src/server.rs", "src/server", "src/api", "src/proxy", "src/upstream"];
    let files = folders.iter().flat_map(|folder| {
        let path = root().join(folder);
        let entries = if path.is_dir() {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
        } else {
            vec![path]
        };
        entries.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
    });
    let (mut missing, mut found) = (Vec::new(), 0);
    for path in files {
        let file = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        for line in read(&file).lines().map(|line| line.trim_start().trim_start_matches("pub ")) {
            let Some((name, rest)) = line.strip_prefix("const ").and_then(|rest| rest.split_once(": ")) else {
                continue;
            };
            let is_bound = rest.starts_with("Duration") || name.starts_with("MAX_") || name == "MOST_WAITING";
            if is_bound && !OTHERS.contains(&name) {
                found += 1;
                if !page.contains(&format!("`{name}` in `{file}`")) {
                    missing.push(format!("{name} in {file}"));
                }
            }
        }
    }
    assert!(missing.is_empty() && found >= 10, "{found} bounds; not on the page: {missing:#?}");
}

/// As a shell takes a command apart: what stands in quotes is one word.
fn words(command: &str) -> Vec<&str> {
    let parts = command.split('"').enumerate();
    parts.flat_map(|(at, part)| if at % 2 == 0 { part.split_whitespace().collect() } else { vec![part] }).collect()
}

#[test]
fn commands_that_the_readme_shows_are_understood() {
    let readme = read("README.md");
    let mut tried = 0;
    for line in readme.lines().filter_map(|line| line.strip_prefix("tollgate ")) {
        let command = line.split(" #").next().unwrap();
        // Asking for help checks the command's name and options without doing anything.
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(words(command))
            .arg("--help")
            .stdin(Stdio::null())
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "tollgate {command}: {}", String::from_utf8_lossy(&output.stderr));
        tried += 1;
    }
    assert!(tried >= 4, "only {tried} commands were found");
}
