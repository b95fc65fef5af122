//! What the gateway is made of: `deny.toml` says what may be, the lock files say what is, and no tool is needed to compare.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use serde_json::Value;
use toml::Table;

const LOCK_FILES: [&str; 2] = ["Cargo.lock", "fuzz/Cargo.lock"];
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn table(path: &str) -> Table {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn texts(list: &toml::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// A package of a lock file.
struct Package {
    name: String,
    version: Vec<u64>,
    /// `None`: it lies in this repository.
    source: Option<String>,
    checksum: Option<String>,
}

fn packages(lock_file: &str) -> Vec<Package> {
    let lock = table(lock_file);
    let packages = lock["package"].as_array().unwrap().iter().map(|package| {
        let text = |name: &str| package.get(name).map(|text| text.as_str().unwrap().to_owned());
        Package {
            name: text("name").unwrap(),
            version: numbers(&text("version").unwrap()),
            source: text("source"),
            checksum: text("checksum"),
        }
    });
    packages.collect()
}

/// The three numbers of a version, without what may follow them.
fn numbers(version: &str) -> Vec<u64> {
    let numbers = version.split(['+', '-']).next().unwrap().split('.');
    numbers.map(|number| number.parse().unwrap_or_else(|_| panic!("{version} is no version"))).collect()
}

/// What is banned: a crate altogether, or below a version.
fn bans() -> Vec<(String, Option<Vec<u64>>)> {
    let deny = table("deny.toml");
    let bans = deny["bans"]["deny"].as_array().unwrap().iter().map(|ban| {
        let crate_ = ban["crate"].as_str().unwrap();
        assert!(ban.get("reason").is_some(), "nobody says why {crate_} is banned");
        match crate_.split_once("@<") {
            Some((name, last)) if last.starts_with('=') => {
                let mut below = numbers(&last[1..]);
                *below.last_mut().unwrap() += 1;
                (name.to_owned(), Some(below))
            }
            Some((name, below)) => (name.to_owned(), Some(numbers(below))),
            None => (crate_.to_owned(), None),
        }
    });
    bans.collect()
}

fn is_banned(package: &Package, bans: &[(String, Option<Vec<u64>>)]) -> bool {
    let of_name = bans.iter().filter(|(name, _)| *name == package.name);
    of_name.into_iter().any(|(_, below)| below.as_ref().is_none_or(|below| package.version < *below))
}

#[test]
fn every_package_comes_from_the_registry_with_a_checksum() {
    let registries = texts(&table("deny.toml")["sources"]["allow-registry"]);
    assert_eq!(registries, BTreeSet::from([CRATES_IO.trim_start_matches("registry+").to_owned()]));
    for lock_file in LOCK_FILES {
        let packages = packages(lock_file);
        assert!(packages.len() > 100, "{lock_file} has hardly a package");
        for Package { name, source, checksum, .. } in packages {
            if name.starts_with("tollgate") {
                assert!(source.is_none(), "{lock_file}: {name} is not ours");
                continue;
            }
            assert_eq!(source.as_deref(), Some(CRATES_IO), "{lock_file}: {name}");
            assert_eq!(checksum.map(|checksum| checksum.len()), Some(64), "{lock_file}: {name}");
        }
    }
}

#[test]
fn nothing_that_is_banned_is_in_the_tree() {
    let bans = bans();
    assert!(bans.len() >= 10);
    for lock_file in LOCK_FILES {
        for package in packages(lock_file) {
            assert!(!is_banned(&package, &bans), "{lock_file}: {} {:?} is banned", package.name, package.version);
        }
    }
    let package = |name: &str, version: &str| Package {
        name: name.to_owned(),
        version: numbers(version),
        source: None,
        checksum: None,
    };
    assert!(is_banned(&package("openssl-sys", "0.9.109"), &bans) && is_banned(&package("bytes", "1.9.0"), &bans));
    assert!(!is_banned(&package("bytes", "1.11.1"), &bans) && !is_banned(&package("bytes", "2.0.0"), &bans));
}

/// `A OR B`, `A/B`, `A AND B`, and the same in brackets, as crates write it.
fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let licence = licence.replace('/', " OR ");
    let all = licence.split(" AND ").map(|part| part.trim_matches(['(', ')', ' ']));
    all.into_iter().all(|part| part.split(" OR ").any(|name| allowed.contains(name.trim())))
}

#[test]
fn every_licence_is_one_that_may_be_passed_on() {
    let allowed = texts(&table("deny.toml")["licenses"]["allow"]);
    for (licence, is) in [
        ("MIT OR GPL-3.0", true),
        ("MIT/Unheard-Of", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0", false),
    ] {
        assert_eq!(is_allowed(licence, &allowed), is, "{licence}");
    }
    for package in metadata()["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(is_allowed(licence, &allowed), "{}: {licence}", package["name"]);
    }
}

/// What cargo knows of the packages of this machine's build, without the network: the test itself was built from them.
fn metadata() -> Value {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc is there, it has built this test");
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn no_code_of_ours_may_be_unsafe_or_trust_any_certificate() {
    assert_eq!(table("Cargo.toml")["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    let mut folders = vec![root().join("src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = fs::read_to_string(&path).unwrap_or_default();
            for banned in ["danger_accept", "dangerous()", "disable_verification"] {
                assert!(!text.contains(banned), "{} has {banned}", path.strip_prefix(root()).unwrap().display());
            }
        }
    }
    assert!(files > 100, "the sources were not found");
}

/// Earlier versions may damage a database in WAL mode (sqlite.org/wal.html#walresetbug).
#[tokio::test]
async fn sqlite_is_new_enough() {
    use sqlx::{Connection, SqliteConnection};
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await.unwrap();
    assert!(numbers(&version) >= vec![3, 51, 3], "SQLite is {version}");
}

#[test]
fn the_fuzz_targets_are_built_from_what_the_gateway_is_built_from() {
    let [ours, theirs] = LOCK_FILES.map(|lock_file| {
        let packages = packages(lock_file).into_iter().filter(|package| package.source.is_some());
        packages.map(|package| (package.name, package.version)).collect::<BTreeSet<_>>()
    });
    let only_there: Vec<_> = theirs.difference(&ours).map(|(name, _)| name.as_str()).collect();
    assert_eq!(only_there, ["arbitrary", "jobserver", "libfuzzer-sys"]);
}

/// What `scripts/release` writes down.
fn sbom(name: &str) -> Vec<u8> {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = Command::new(root().join("scripts/release"))
        .arg("--sbom-only")
        .arg(&file)
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(file).unwrap();
    bytes
}

/// Needs Python 3, as the script does.
#[test]
fn a_release_says_what_it_is_made_of_in_the_same_bytes_each_time() {
    let bytes = sbom("first.cdx.json");
    assert!(bytes == sbom("second.cdx.json"), "two runs differ");
    let bill: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        (&bill["bomFormat"], &bill["specVersion"], &bill["version"]),
        (&"CycloneDX".into(), &"1.5".into(), &1.into())
    );
    let serial = bill["serialNumber"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
    assert_eq!(serial.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    let ours = text(&bill["metadata"]["component"]["bom-ref"]);
    assert_eq!(ours, format!("pkg:cargo/tollgate@{}", env!("CARGO_PKG_VERSION")));

    let locked: BTreeSet<(String, Option<String>)> =
        packages("Cargo.lock").into_iter().map(|package| (package.name, package.checksum)).collect();
    let (mut references, mut names) = (BTreeSet::from([ours]), BTreeSet::new());
    for component in bill["components"].as_array().unwrap() {
        let (name, version, reference) =
            (text(&component["name"]), text(&component["version"]), text(&component["bom-ref"]));
        assert_eq!(component["type"], "library", "{name}");
        assert!(["required", "excluded"].contains(&component["scope"].as_str().unwrap()), "{name}");
        assert!(!text(&component["licenses"][0]["expression"]).contains('/'), "{name}");
        assert_eq!(component["purl"], component["bom-ref"]);
        if reference.starts_with("pkg:cargo/") {
            assert_eq!(reference, format!("pkg:cargo/{name}@{version}"));
            let checksum =
                (component["hashes"][0]["alg"] == "SHA-256").then(|| text(&component["hashes"][0]["content"]));
            assert!(locked.contains(&(name.clone(), checksum)), "{name} is not what the lock file says");
        } else {
            assert_eq!(name, "sqlite");
            assert!(numbers(&version) >= vec![3, 51, 3]);
        }
        assert!(references.insert(reference), "{name} is there twice");
        names.insert(name);
    }
    let dependencies = bill["dependencies"].as_array().unwrap();
    assert_eq!(dependencies.iter().map(|entry| text(&entry["ref"])).collect::<BTreeSet<_>>(), references);
    for entry in dependencies {
        for needed in texts_of(&entry["dependsOn"]) {
            assert!(references.contains(&needed), "{needed} is missing");
        }
    }
    let manifest = table("Cargo.toml");
    let listed = |kind: &str| manifest[kind].as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert!(names.is_superset(&listed("dependencies")) && names.contains("sqlite"));
    assert!(!names.contains("criterion") && !names.contains("proptest"), "the tests are no part of the program");
}

fn texts_of(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}
