//! The binary under test in a container FROM scratch, with the engine's socket and a volume for its data, nothing else.
//! The engine is that of the thread.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::docker::{docker, docker_with_input, engine_in_use};
use crate::fleet::{Ran, crash_binary, static_fleet_binary};
use crate::image::append;
use crate::lab::Lab;
use crate::run::Container;

/// The engine's socket, on its host and in fleet's container.
const SOCKET: &str = "/var/run/docker.sock";

/// fleet as a container. Its data directory is a volume of the lab, so that one run finds what another left.
#[derive(Debug)]
pub struct ContainedFleet<'a> {
    lab: &'a Lab,
    image: String,
    data: String,
}

impl<'a> ContainedFleet<'a> {
    /// Makes its image, which holds the static binary and nothing else.
    ///
    /// # Panics
    /// When the binary is not there, or the engine does not take it.
    #[must_use]
    pub fn new(lab: &'a Lab) -> Self {
        Self::of(lab, static_fleet_binary())
    }

    /// The same of the binary that can be made to die, see [`crash_binary`](crate::crash_binary).
    ///
    /// # Panics
    /// As [`ContainedFleet::new`].
    #[must_use]
    pub fn that_dies(lab: &'a Lab) -> Self {
        Self::of(lab, crash_binary())
    }

    fn of(lab: &'a Lab, program: &Path) -> Self {
        let image = lab.name("fleet:1");
        let program = fs::read(program).expect("the binary can be read");
        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, "fleet", 0o755, &program);
        let archive = archive
            .into_inner()
            .expect("writing into memory cannot fail");
        let args = [
            "import",
            "--change",
            "ENTRYPOINT [\"/fleet\"]",
            "--change",
            "ENV FLEET_DATA_DIR=/data NO_COLOR=1",
            "-",
            &image,
        ];
        docker_with_input(&args, &archive);
        let data = lab.volume("fleet-data");
        Self { lab, image, data }
    }

    /// The image that it runs from.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Where its data directory lies on the host.
    #[must_use]
    pub fn data_dir(&self) -> std::path::PathBuf {
        Path::new(&self.lab.mountpoint(&self.data)).to_owned()
    }

    /// `docker run`, with more of its options, of a command; to be spawned.
    #[must_use]
    pub fn command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        let host = engine_in_use();
        let socket = host
            .as_deref()
            .and_then(|host| host.strip_prefix("unix://"));
        if let Some(host) = &host {
            command.env("DOCKER_HOST", host);
        }
        command
            .args(["run", "--rm", "--network", "none"])
            .args([
                "--volume",
                &format!("{}:{SOCKET}", socket.unwrap_or(SOCKET)),
            ])
            .args(["--volume", &format!("{}:/data", self.data)])
            .args(options)
            .arg(&self.image)
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When docker cannot be started.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(&[], args).output();
        Ran::from(&output.expect("docker can be started"))
    }

    /// Starts a command that goes on by itself under `name`; it is removed when it ends.
    ///
    /// # Panics
    /// When docker fails.
    #[track_caller]
    pub fn start(&self, name: &str, options: &[&str], args: &[&str]) -> Container {
        let name = self.lab.name(name);
        let mut all = vec!["--detach", "--name", &name];
        all.extend(options);
        let output = self.command(&all, args).output();
        let ran = Ran::from(&output.expect("docker can be started"));
        assert_eq!(ran.code, 0, "{ran:?}");
        let id = ran.stdout.trim().to_owned();
        Container { id, name }
    }

    /// Runs a command with `--output json`, and gives the exit code and the document.
    ///
    /// # Panics
    /// When the output is no JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> (i32, Value) {
        let mut all = vec!["--output", "json"];
        all.extend(args);
        let ran = self.run(&all);
        match serde_json::from_str(&ran.stdout) {
            Ok(document) => (ran.code, document),
            Err(error) => panic!("fleet {}: {error}: {ran:?}", args.join(" ")),
        }
    }

    /// `fleet update INSTANCE --to IMAGE`: exit code and report.
    ///
    /// # Panics
    /// When there is no report.
    #[track_caller]
    pub fn update(&self, instance: &str, image: &str) -> (i32, Value) {
        let (code, document) = self.json(&["update", instance, "--to", image]);
        let report = document["updates"][0].clone();
        assert!(report.is_object(), "{document}");
        (code, report)
    }
}

/// Names of fleet's own containers of a kind (`helper` or `guard`), running or not, that mount a volume.
#[must_use]
pub fn tools_at(kind: &str, volume: &str) -> Vec<String> {
    let (kind, volume) = (
        format!("label=io.fleet.kind={kind}"),
        format!("volume={volume}"),
    );
    let args = [
        "ps",
        "--all",
        "--filter",
        &kind,
        "--filter",
        &volume,
        "--format",
        "{{.Names}}",
    ];
    docker(&args).lines().map(str::to_owned).collect()
}
