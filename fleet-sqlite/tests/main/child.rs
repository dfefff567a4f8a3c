//! This test binary again, as another process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const ROLE: &str = "FLEET_SQLITE_TEST_ROLE";
const FILE: &str = "FLEET_SQLITE_TEST_FILE";

/// What the child has to say begins with this; the rest is the test harness talking.
const MARK: &str = "said: ";

/// The store's file and the role, if this process is a child.
pub(crate) fn role() -> Option<(String, PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(FILE)?.into()))
}

/// Says something to the parent.
pub(crate) fn say(text: &str) {
    println!("\n{MARK}{text}");
}

/// The test of this name, to be run by `program` in a role.
pub(crate) fn command(program: &Path, test: &str, role: &str, file: &Path) -> Command {
    let mut command = Command::new(program);
    as_child(&mut command, test, role, file);
    command
}

/// Makes a command that runs this binary one that runs a test in a role.
pub(crate) fn as_child(command: &mut Command, test: &str, role: &str, file: &Path) {
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(FILE, file)
        .stdout(Stdio::piped());
}

pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// What a child says, line by line, until it ends.
pub(crate) fn listen(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let out: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
    out.lines()
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix(MARK).map(str::to_owned))
}

/// Runs a child to its end; everything that it said.
pub(crate) fn run(mut command: Command) -> Vec<String> {
    let mut child = command.spawn().unwrap();
    let said = listen(&mut child).collect();
    let status = child.wait().unwrap();
    assert!(
        status.success(),
        "the child failed: {status}; said {said:?}"
    );
    said
}
