//! The binary under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use crate::app::{target_dir, workspace};
use crate::docker::engine_in_use;

/// Path of the binary `fleet`: `$FLEET_BIN` if it is set (`make test` sets it to the static release binary), else a
/// development build.
///
/// # Panics
/// When it does not build.
pub fn fleet_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("FLEET_BIN") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(
                path.is_file(),
                "FLEET_BIN is {}, which is no file: make build",
                path.display()
            );
            path
        }
        None => build(),
    })
}

/// Path of the binary `fleet` with crash points: `$FLEET_CRASH_BIN`, else where `make crash-bin` leaves it.
///
/// # Panics
/// When it is not there: a test that cannot kill anything shows nothing.
pub fn crash_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let path = std::env::var_os("FLEET_CRASH_BIN").map(PathBuf::from);
        let path = path.unwrap_or_else(|| target_dir().join("dist/fleet-crash"));
        assert!(
            path.is_file(),
            "tests that kill need a fleet with crash points, and {} is no file: make crash-bin",
            path.display()
        );
        path
    })
}

fn build() -> PathBuf {
    cargo_build(&[], |_| ());
    target_dir().join("debug/fleet")
}

fn cargo_build(args: &[&str], adjust: impl FnOnce(&mut Command)) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--locked", "--package", "fleet-bin"])
        .args(args)
        .current_dir(workspace());
    adjust(&mut command);
    let output = command.output().expect("cargo can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fleet does not build:\n{errors}");
}

/// Path of a binary `fleet` that needs no shared libraries: `$FLEET_BIN` if it is set, else a static development build.
///
/// # Panics
/// When it does not build.
pub fn static_fleet_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("FLEET_BIN") {
        Some(_) => fleet_binary().to_owned(),
        None => build_static(),
    })
}

fn build_static() -> PathBuf {
    // An explicit target keeps the flags away from build scripts and proc macros, which cannot be static.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo_build(&["--target", &target], |command| {
        command
            .env(
                "RUSTFLAGS",
                "-C target-feature=+crt-static -C strip=symbols",
            )
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
    });
    target_dir().join(target).join("debug/fleet")
}

/// The binary with a data directory of its own.
#[derive(Debug)]
pub struct Fleet {
    folder: tempfile::TempDir,
    docker_host: Option<String>,
    binary: PathBuf,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Exit code; 137 and the like where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Fleet {
    /// With an empty data directory, on the engine that this thread uses.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self {
            folder,
            docker_host: engine_in_use(),
            binary: fleet_binary().to_owned(),
        }
    }

    /// The same as a binary that can be made to die, see [`crash_binary`](crate::crash_binary).
    #[must_use]
    pub fn that_dies() -> Self {
        Self {
            binary: crash_binary().to_owned(),
            ..Self::new()
        }
    }

    /// The same on another engine.
    #[must_use]
    pub fn on(mut self, docker_host: &str) -> Self {
        self.docker_host = Some(docker_host.to_owned());
        self
    }

    /// The same with a configuration file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn configured(self, text: &str) -> Self {
        let file = self.folder.path().join("fleet.toml");
        std::fs::write(file, text).expect("the configuration can be written");
        self
    }

    /// Where its commands run.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its data directory; made by the first command.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command with the data directory and no configuration of this machine's.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .env("FLEET_DATA_DIR", self.data_dir())
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.folder.path())
            .env_remove("FLEET_CONFIG")
            .env("NO_COLOR", "1")
            .current_dir(self.folder.path());
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Runs a command.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().expect("fleet can be started");
        Ran::from(&output)
    }

    /// Runs a command with `--output json`, and gives the exit code and the document.
    ///
    /// # Panics
    /// When the output is no JSON or has another schema.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> (i32, Value) {
        let mut all = vec!["--output", "json"];
        all.extend(args);
        let ran = self.run(&all);
        let document: Value = match serde_json::from_str(&ran.stdout) {
            Ok(document) => document,
            Err(error) => panic!("fleet {}: {error}: {ran:?}", args.join(" ")),
        };
        assert_eq!(document["schema"], 1, "{document}");
        (ran.code, document)
    }

    /// `fleet update INSTANCE --to IMAGE …`: exit code and report.
    ///
    /// # Panics
    /// When there is not exactly one report.
    #[track_caller]
    pub fn update(&self, instance: &str, image: &str, more: &[&str]) -> (i32, Value) {
        let mut args = vec!["update", instance, "--to", image];
        args.extend(more);
        let (code, document) = self.json(&args);
        let reports = document["updates"].as_array().expect("a list of updates");
        assert_eq!(reports.len(), 1, "{document}");
        (code, reports[0].clone())
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&Output> for Ran {
    fn from(output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let status = output.status;
        let signalled = || 128 + status.signal().unwrap_or_default();
        Self {
            code: status.code().unwrap_or_else(signalled),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
