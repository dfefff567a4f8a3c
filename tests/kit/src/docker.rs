//! The `docker` program.

use std::cell::RefCell;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

thread_local! {
    /// The engine that this thread's calls go to; none is the machine's own.
    static ENGINE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lets every later call of this thread go to another engine.
pub(crate) fn use_engine(host: &str) {
    ENGINE.set(Some(host.to_owned()));
}

/// The engine that this thread's calls go to, if it is not the machine's own.
pub(crate) fn engine_in_use() -> Option<String> {
    ENGINE.with_borrow(Clone::clone)
}

/// Runs `docker` and gives its standard output, trimmed.
///
/// # Panics
/// When the program is missing or fails.
#[track_caller]
pub fn docker(args: &[&str]) -> String {
    match try_docker(args) {
        Ok(text) => text,
        Err(error) => panic!("docker {}: {error}", args.join(" ")),
    }
}

/// As [`docker`], but a failure is handed back as the text of its standard error.
///
/// # Errors
/// The program ended with another code than 0.
///
/// # Panics
/// When there is no such program.
pub fn try_docker(args: &[&str]) -> Result<String, String> {
    let output = command()
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", missing()));
    answer(&output)
}

/// `docker ARGS` whose output is JSON; `docker inspect` gives the first element of its list.
///
/// # Panics
/// As [`docker`], and when the output is no JSON.
#[track_caller]
pub fn docker_json(args: &[&str]) -> serde_json::Value {
    let text = docker(args);
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Array(mut list)) if list.len() == 1 => list.remove(0),
        Ok(value) => value,
        Err(error) => panic!("docker {}: {error} in {text:?}", args.join(" ")),
    }
}

/// As [`docker`], with bytes on its standard input.
#[track_caller]
pub(crate) fn docker_with_input(args: &[&str], input: &[u8]) -> String {
    let mut child = command()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", missing()));
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(input).expect("docker reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("docker ends");
    match answer(&output) {
        Ok(text) => text,
        Err(error) => panic!("docker {}: {error}", args.join(" ")),
    }
}

fn command() -> Command {
    let mut command = Command::new("docker");
    command.stdin(Stdio::null());
    if let Some(host) = engine_in_use() {
        command.env("DOCKER_HOST", host);
    }
    command
}

fn missing() -> &'static str {
    "tests need the docker program and a running engine; scripts/setup.sh installs and starts both"
}

fn answer(output: &Output) -> Result<String, String> {
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
