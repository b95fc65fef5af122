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
    for document in ["README.md", "CONTRIBUTING.md", "SECURITY.md"] {
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
