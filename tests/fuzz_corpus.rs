//! The corpus of the fuzz targets, and what they once found, through the same checks as theirs: no tool is needed for it.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "in its own place it is a library")]
mod checks;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 8] = [
    ("admin", checks::admin),
    ("audio", checks::audio),
    ("config", checks::config),
    ("journal", checks::journal),
    ("key", checks::key),
    ("request", checks::request),
    ("stream", checks::stream),
    ("usage", checks::usage),
];

/// What stays in the repository is written by hand, and small.
const MAX_CORPUS_BYTES: u64 = 300 * 1024;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_input_of_the_corpus_passes_the_checks_of_its_target() {
    let mut bytes = 0;
    for (target, check) in TARGETS {
        let folder = fuzz().join("corpus").join(target);
        let inputs = names(&folder);
        assert!(inputs.len() >= 5, "{target} has hardly a corpus");
        for name in inputs {
            let input = fs::read(folder.join(&name)).unwrap();
            bytes += input.len() as u64;
            // The name stands before the message of a check that fails.
            eprintln!("{target}/{name}");
            check(&input);
            // Nor does half of it do any harm.
            check(&input[..input.len() / 2]);
        }
    }
    assert!(bytes <= MAX_CORPUS_BYTES, "the corpus has {bytes} bytes");
}

#[test]
fn every_target_has_a_corpus_and_is_built() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let sources = targets.iter().map(|target| format!("{target}.rs")).collect::<BTreeSet<_>>();
    assert_eq!(names(&fuzz().join("fuzz_targets")), sources);
    for target in targets {
        let path = format!("path = \"fuzz_targets/{target}.rs\"");
        assert!(manifest.contains(&path), "fuzz/Cargo.toml does not build {target}");
        let source = fs::read_to_string(fuzz().join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(source.contains(&format!("tollgate_fuzz::{target}(data)")), "{target}.rs calls another check");
    }
}
