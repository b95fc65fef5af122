//! The shape of the code, as a failing test: which module may use which, how long files and functions are, and who may
//! read the clock or use a float.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const MAX_FILE_LINES: usize = 400;
const MAX_FUNCTION_LINES: usize = 70;

/// What each room may use. A room that is missing here fails the test.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("openai", &["domain"]),
    ("clock", &["domain"]),
    ("config", &["domain"]),
    ("metrics", &["domain"]),
    ("export", &["domain"]),
    ("journal", &["config", "domain"]),
    ("store", &["journal", "domain"]),
    ("upstream", &["domain"]),
    ("secrets", &["store", "domain"]),
    ("accounts", &["store", "secrets", "openai", "domain"]),
    ("proxy", &["journal", "upstream", "metrics", "openai", "config", "clock", "domain"]),
    ("server", &["metrics"]),
    ("telemetry", &["metrics", "config"]),
    ("simulator", &["openai", "clock", "domain"]),
    (
        "app",
        &[
            "server", "proxy", "accounts", "secrets", "journal", "store", "upstream", "metrics", "config", "clock",
            "openai", "domain",
        ],
    ),
    ("api", &["app", "proxy", "accounts", "secrets", "store", "upstream", "openai", "clock", "domain"]),
    (
        "cli",
        &[
            "api",
            "app",
            "export",
            "simulator",
            "config",
            "telemetry",
            "accounts",
            "secrets",
            "clock",
            "openai",
            "domain",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The top-level module a file belongs to.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Tests and comments may name anything.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    code.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Names of top-level modules that `text` uses: `crate::name` and the first words inside `use crate::{..}`.
fn used_rooms(text: &str) -> BTreeSet<String> {
    let code: String = code_lines(text).flat_map(|line| [line, "\n"]).collect();
    let mut used = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let mut depth = 1;
            let mut word = String::new();
            let mut fresh = true;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => fresh = true,
                    _ => {}
                }
                if depth == 1 && fresh && (c.is_alphanumeric() || c == '_') {
                    word.push(c);
                } else if !word.is_empty() {
                    used.insert(std::mem::take(&mut word));
                    fresh = false;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            used.insert(after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    used
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn modules_use_only_what_stands_to_their_right() {
    let mut wrong = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test_file(path)) {
        let room = room(path);
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room {room} has no row in MAY_USE", path.display()));
            continue;
        };
        for used in used_rooms(text) {
            let known = MAY_USE.iter().any(|(name, _)| *name == used);
            if known && used != room && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: {room} must not use {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            wrong.push(format!("{}: {lines} lines, at most {MAX_FILE_LINES}", path.display()));
        }
        for (name, length) in functions(&text) {
            if length > MAX_FUNCTION_LINES {
                wrong.push(format!("{}: fn {name} has {length} lines", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Functions as rustfmt lays them out: from the line with `fn` to the closing brace of the same indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, after)) = code.split_once("fn ") else { continue };
        let declares = before
            .split(' ')
            .all(|word| matches!(word, "" | "pub" | "async" | "const" | "extern") || word.starts_with("pub("));
        if !declares {
            continue;
        }
        let indentation = line.len() - code.len();
        let closing = format!("{}}}", " ".repeat(indentation));
        let length = lines[start..].iter().position(|line| *line == closing).unwrap_or(0) + 1;
        found.push((after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect(), length));
    }
    found
}

#[test]
fn the_pure_rooms_do_no_io_read_no_clock_and_use_no_float() {
    const BANNED: &[&str] = &[
        "std::fs",
        "std::net",
        "std::env",
        "std::io",
        "tokio",
        "SystemTime",
        "Instant",
        "hyper",
        "axum",
        "sqlx",
        "reqwest",
        "f32",
        "f64",
        "getrandom",
    ];
    /// Names that a foreign trait demands; nothing is computed or read with them.
    const DEMANDED: &[&str] = &["fn visit_f64<E>(self, _value: f64)", "type Instant = Nanos;"];
    let mut wrong = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| matches!(room(path).as_str(), "domain" | "openai")) {
        if is_test_file(path) {
            continue;
        }
        for line in code_lines(text).filter(|line| !DEMANDED.iter().any(|demanded| line.contains(demanded))) {
            for banned in BANNED {
                let found = line.match_indices(banned).any(|(at, _)| {
                    let edge = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                    edge(line[..at].chars().next_back()) && edge(line[at + banned.len()..].chars().next())
                });
                if found {
                    wrong.push(format!("{}: {banned}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Whoever gets at the writing connection could change a key or a project without a row in the audit log.
#[test]
fn only_audited_changes_and_the_ledger_write_to_the_database() {
    const WRITERS: &[&str] = &[
        "store/batch_queue.rs",
        "store/change.rs",
        // Copies the database as it is.
        "store/files.rs",
        "store/last_used.rs",
        "store/ledger.rs",
        "store/mod.rs",
        "store/refusals.rs",
        "store/retention.rs",
        "store/rollups.rs",
    ];
    let writes = |path: &Path, text: &str| {
        let code: String = code_lines(text).collect();
        room(path) != "journal" && (code.contains(".writer()") || code.contains(".writer."))
    };
    let mut found = Vec::new();
    for (path, _) in sources().iter().filter(|(path, text)| !is_test_file(path) && writes(path, text)) {
        found.push(path.strip_prefix(root().join("src")).unwrap().display().to_string());
    }
    found.retain(|path| !WRITERS.contains(&path.as_str()));
    assert!(found.is_empty(), "these write to the database past store/change.rs: {found:?}");
    assert!(writes(&root().join("src/store/x.rs"), "store.writer().acquire()"));
}

/// A route past `api/routes.rs` would be on no list, and nobody would ask who may use it.
#[test]
fn every_route_is_on_the_list_of_routes() {
    let past = |text: &str| {
        let code: String = code_lines(text).flat_map(|line| [line, "\n"]).collect();
        ["Router::new()", "axum::routing", "routing::"].into_iter().any(|word| code.contains(word))
    };
    let api = sources().into_iter().filter(|(path, _)| room(path) == "api" && !is_test_file(path));
    let found: Vec<_> = api.filter(|(_, text)| past(text)).map(|(path, _)| path).collect();
    assert_eq!(found, [root().join("src/api/routes.rs")]);
}

#[test]
fn the_checks_of_this_file_can_fail() {
    assert_eq!(
        used_rooms("use crate::{\n    domain::{ids::KeyId, keys},\n    store,\n};\nlet x = crate::proxy::X;"),
        BTreeSet::from(["domain".to_owned(), "store".to_owned(), "proxy".to_owned()])
    );
    let long = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(80));
    assert_eq!(functions(&long), [("long".to_owned(), 82)]);
}
