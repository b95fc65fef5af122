//! The container files agree with the program and with each other, checked without a container engine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What stopping may take after the grace period: cutting answers, settling them, and bringing the ledger up to date.
const AFTER_THE_GRACE_S: u64 = 14;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The program with arguments, and with no settings but those given.
fn tollgate(arguments: &[&str], settings: &[(String, String)]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).env_clear().envs(settings.iter().cloned()).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.stdin(Stdio::null()).output().unwrap()
}

/// Instructions of the Dockerfile as (name, rest), continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
}

fn all<'a>(instructions: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    instructions.iter().filter(|(found, _)| found == name).map(|(_, rest)| rest.as_str()).collect()
}

/// What the Dockerfile copies out of this repository.
fn copied() -> Vec<String> {
    let instructions = instructions();
    let from_here = all(&instructions, "COPY").into_iter().filter(|rest| !rest.contains("--from"));
    let sources = from_here.flat_map(|rest| {
        let words: Vec<&str> = rest.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        words[..words.len() - 1].iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()
    });
    sources.collect()
}

/// The settings that the image starts with.
fn image_settings() -> Vec<(String, String)> {
    let instructions = instructions();
    let words = all(&instructions, "ENV").into_iter().flat_map(str::split_whitespace);
    let pairs = words.map(|word| word.split_once('=').unwrap_or_else(|| panic!("ENV {word} has no value")));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Every setting with its default, from the file that documents them all.
fn settings() -> Vec<(String, String)> {
    let text = read("config/tollgate.toml");
    let lines = text.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(" = "));
    let named = lines.filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    named.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

fn is_setting(variable: &str) -> bool {
    let name = variable.strip_prefix("TOLLGATE_").map(str::to_lowercase);
    name.is_some_and(|name| name == "config" || settings().iter().any(|(setting, _)| *setting == name))
}

/// The values of a key in the compose file: the rest of its line, or the list below it.
fn compose(key: &str) -> Vec<String> {
    let text = read("docker-compose.yml");
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with(&format!("{key}:")));
    let first = lines.next().unwrap_or_else(|| panic!("docker-compose.yml has no {key}"));
    let indentation = first.len() - first.trim_start().len();
    let value = first.split_once(':').unwrap().1.trim();
    if !value.is_empty() {
        return vec![value.to_owned()];
    }
    let below = lines.take_while(|line| line.len() - line.trim_start().len() > indentation).map(str::trim);
    let values = below.filter(|line| !line.starts_with('#'));
    values.map(|line| line.trim_start_matches("- ").trim_matches('"').to_owned()).collect()
}

#[test]
fn everything_that_is_copied_is_there_and_reaches_the_build() {
    let ignore = read(".dockerignore");
    let let_through: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"), "what is not named is kept out");
    let copied = copied();
    assert!(copied.len() >= 7, "{copied:?}");
    for source in &copied {
        assert!(root().join(source).exists(), "COPY {source}: not in the repository");
        let top = Path::new(source).iter().next().unwrap().to_str().unwrap();
        assert!(let_through.contains(&top), "COPY {source}: .dockerignore keeps it out");
    }
    for name in let_through {
        assert!(root().join(name).exists(), ".dockerignore lets {name} through, which is not there");
    }
}

#[test]
fn everything_that_is_built_in_is_copied() {
    let copied = copied();
    let mut found = 0;
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let from_the_root = ["\"$CARGO_MANIFEST_DIR/", "migrate!(\"./"].map(|marker| (marker, root()));
        let from_the_file =
            ["include_str!(\"", "include_bytes!(\""].map(|marker| (marker, path.parent().unwrap().to_owned()));
        for (marker, base) in from_the_root.into_iter().chain(from_the_file) {
            for after in text.split(marker).skip(1) {
                let file = base.join(after.split('"').next().unwrap()).canonicalize().unwrap();
                let inside = file.strip_prefix(root()).unwrap();
                let top = inside.iter().next().unwrap().to_str().unwrap();
                assert!(copied.iter().any(|source| source == top), "{}: {top} is not copied", path.display());
                found += usize::from(top != "src");
            }
        }
    }
    assert!(found >= 2, "models and migrations are built in");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn the_compiler_of_the_image_is_new_enough() {
    let instructions = instructions();
    let image = all(&instructions, "FROM")[0];
    let version = |text: &str| -> Vec<u32> { text.split(['.', '-']).map_while(|part| part.parse().ok()).collect() };
    let manifest = read("Cargo.toml");
    let needed = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let has = version(image.strip_prefix("rust:").unwrap());
    assert!(has >= version(needed.trim_matches('"')), "{image}, but Cargo.toml needs {needed}");
}

#[test]
fn the_image_runs_as_nobody_with_settings_that_exist() {
    let instructions = instructions();
    let user = all(&instructions, "USER").pop().expect("a USER");
    let ids: Vec<u32> = user.split(':').map(|id| id.parse().expect("a number, which needs no user list")).collect();
    assert!(ids.iter().all(|id| *id >= 1_000), "USER {user}");
    let data = all(&instructions, "COPY").into_iter().find(|rest| rest.ends_with(" /data"));
    assert!(data.is_some_and(|rest| rest.contains(&format!("--chown={user}"))), "/data belongs to {user}");
    assert_eq!(all(&instructions, "VOLUME"), ["/data"]);
    let settings = image_settings();
    for (name, _) in &settings {
        assert!(is_setting(name), "ENV {name}: no such setting");
    }
    let value = |wanted: &str| settings.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    assert_eq!(value("TOLLGATE_DATA_DIR"), Some("/data"));
    let ports: Vec<&str> = all(&instructions, "EXPOSE")[0].split_whitespace().collect();
    for (name, port) in [("TOLLGATE_LISTEN", ports[0]), ("TOLLGATE_ADMIN_LISTEN", ports[1])] {
        assert_eq!(value(name), Some(format!("0.0.0.0:{port}").as_str()), "{name}");
    }
}

#[test]
fn the_program_understands_how_the_image_calls_it() {
    let instructions = instructions();
    let program = all(&instructions, "ENTRYPOINT")[0].trim_matches(['[', ']', '"']);
    let installed = all(&instructions, "COPY").into_iter().any(|rest| rest.ends_with(&format!(" {program}")));
    assert!(installed, "{program} is not in the image");
    let (_, check) = all(&instructions, "HEALTHCHECK")[0].split_once("CMD ").unwrap();
    let words: Vec<&str> =
        check.split('"').filter(|word| word.starts_with(|c: char| c.is_alphanumeric() || c == '/')).collect();
    assert_eq!(words, [program, "healthcheck"]);
    let help = tollgate(&["healthcheck", "--help"], &[]);
    assert!(help.status.success(), "{}", String::from_utf8_lossy(&help.stderr));

    // With the settings of the image it starts to look for the gateway, finds none, and says so with 1.
    let settings = image_settings().into_iter().filter(|(name, _)| name != "TOLLGATE_CONFIG");
    let mut settings: Vec<_> = settings.filter(|(name, _)| name != "TOLLGATE_LISTEN").collect();
    settings.push(("TOLLGATE_LISTEN".to_owned(), "0.0.0.0:1".to_owned()));
    let checked = tollgate(&["healthcheck"], &settings);
    assert_eq!(checked.status.code(), Some(1), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn compose_gives_the_container_nothing_it_does_not_need() {
    assert_eq!(compose("read_only"), ["true"]);
    assert_eq!(compose("cap_drop"), ["ALL"]);
    assert_eq!(compose("security_opt"), ["no-new-privileges:true"]);
    assert_eq!(compose("tmpfs"), ["/tmp"]);
    let volume = compose("volumes");
    assert_eq!(volume, ["data:/data"]);
    let text = read("docker-compose.yml");
    assert!(text.contains("\nvolumes:\n  data:"), "a named volume");
    assert!(!text.contains("privileged: true") && !text.contains("network_mode"));
}

#[test]
fn compose_publishes_the_ports_of_the_image_on_the_loopback_only() {
    let instructions = instructions();
    let exposed: Vec<&str> = all(&instructions, "EXPOSE")[0].split_whitespace().collect();
    let published = compose("ports");
    let expected: Vec<String> = exposed.iter().map(|port| format!("127.0.0.1:{port}:{port}")).collect();
    assert_eq!(published, expected);
}

#[test]
fn compose_waits_longer_than_stopping_takes() {
    let grace: u64 = compose("stop_grace_period")[0].trim_end_matches('s').parse().unwrap();
    let (_, default) = settings().into_iter().find(|(name, _)| name == "shutdown_grace_s").unwrap();
    let stopping = default.parse::<u64>().unwrap() + AFTER_THE_GRACE_S;
    assert!(grace > stopping, "{grace} s, but stopping may take {stopping} s");
}

#[test]
fn compose_sets_settings_that_exist_and_insists_on_the_upstream_key() {
    let environment = compose("environment");
    assert!(!environment.is_empty());
    for line in &environment {
        let (name, _) = line.split_once(": ").unwrap();
        assert!(name == "OPENAI_API_KEY" || is_setting(name), "{name}: no such setting");
    }
    assert!(environment.iter().any(|line| line.starts_with("OPENAI_API_KEY: ${OPENAI_API_KEY:?")), "{environment:?}");
    assert!(!read("docker-compose.yml").contains("sk-proj-"), "no secret in the file");
}

#[test]
fn compose_itself_agrees_where_it_is_installed() {
    let compose = |key: Option<&str>| {
        let mut command = Command::new("docker");
        command.args(["compose", "config", "--quiet"]).current_dir(root()).stdin(Stdio::null());
        command.env_remove("OPENAI_API_KEY").envs(key.map(|key| ("OPENAI_API_KEY", key)));
        command.output()
    };
    let version = Command::new("docker").args(["compose", "version"]).stdin(Stdio::null()).output();
    if !version.is_ok_and(|output| output.status.success()) {
        eprintln!("docker compose is not installed: not checked");
        return;
    }
    let with_key = compose(Some("sk-test")).unwrap();
    assert!(with_key.status.success(), "{}", String::from_utf8_lossy(&with_key.stderr));
    let without = compose(None).unwrap();
    assert!(!without.status.success() && String::from_utf8_lossy(&without.stderr).contains("OPENAI_API_KEY"));
}
