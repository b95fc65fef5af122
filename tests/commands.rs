//! The commands as they are typed: what they print, and how they end.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Output, Stdio},
};

fn tollgate(words: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(words).env_clear().envs(env.iter().copied()).stdin(Stdio::null());
    command
}

fn run(words: &[&str], env: &[(&str, &str)]) -> Output {
    tollgate(words, env).output().unwrap()
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn help_is_a_command_too() {
    let output = run(&["help"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("tollgate demo"), "{text}");
    assert!(run(&["help", "keys"], &[]).status.success());
}

#[test]
fn empty_variables_count_as_not_set() {
    let output = run(&["check"], &[("TOLLGATE_CONFIG", ""), ("TOLLGATE_ADMIN_KEY_FILE", "")]);
    assert!(output.status.success(), "{output:?}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap().to_string();
    drop(listener);
    let env = [
        ("TOLLGATE_CONFIG", ""),
        ("TOLLGATE_ADMIN_URL", ""),
        ("TOLLGATE_ADMIN_KEY_FILE", ""),
        ("TOLLGATE_ADMIN_KEY", "sk-admin-of-nobody"),
        ("TOLLGATE_ADMIN_LISTEN", &*free),
    ];
    let output = run(&["keys", "list"], &env);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("cannot reach the gateway at http://{free} ")), "{said}");
}

#[test]
fn a_look_alike_that_cannot_write_its_log_ends_before_it_prints_an_address() {
    let output = run(&["simulate", "--listen", "127.0.0.1:0", "--log", "/does/not/exist/log"], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.starts_with("tollgate: cannot open the log /does/not/exist/log: "), "{said}");
}

#[test]
fn a_look_alike_offers_no_configuration_file_and_takes_none() {
    let help = String::from_utf8(run(&["simulate", "--help"], &[]).stdout).unwrap();
    assert!(help.contains("--delay-ms") && !help.contains("--config"), "{help}");
    for words in [["simulate", "--config", "a.toml"], ["--config", "a.toml", "simulate"]] {
        let output = run(&words, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, "tollgate: simulate reads no configuration file: leave --config out\n", "{words:?}");
    }
}

#[test]
fn a_demo_tells_of_variables_that_it_ignores() {
    let dir = tempfile::tempdir().unwrap();
    let env = [
        ("TOLLGATE_LISTEN", "127.0.0.1:0"),
        ("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0"),
        ("TOLLGATE_DATA_DIR", dir.path().to_str().unwrap()),
        ("TOLLGATE_PORT", "9999"),
    ];
    let child = tollgate(&["demo", "--json"], &env).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut demo = Running(child);
    let mut ready = String::new();
    BufReader::new(demo.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    demo.0.kill().unwrap();
    let mut said = String::new();
    demo.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(ready.starts_with('{') && said.contains("TOLLGATE_PORT is no setting and is ignored"), "{ready}\n{said}");
}

#[test]
fn an_export_into_a_closed_pipe_ends_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let env = [
        ("TOLLGATE_LISTEN", "127.0.0.1:0"),
        ("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0"),
        ("TOLLGATE_DATA_DIR", dir.path().to_str().unwrap()),
    ];
    let child = tollgate(&["demo", "--json"], &env).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut demo = Running(child);
    BufReader::new(demo.0.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let words = ["export", "--from", "2026-01-01", "--to", "2100-01-01", "--format", "csv"];
    let whole = run(&words, &env);
    assert!(whole.status.success() && whole.stdout.starts_with(b"request_id,"), "{whole:?}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output =
        tollgate(&words, &env).stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(1), &b""[..]));
    let parquet = [&words[..5], &["--format", "parquet", "--output", "/dev/null"]].concat();
    let said = String::from_utf8(run(&parquet, &env).stderr).unwrap();
    assert!(said.starts_with("tollgate: there is already a file /dev/null: "), "{said}");
}
