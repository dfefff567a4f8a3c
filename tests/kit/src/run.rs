//! Containers of a test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::docker::{docker, docker_json, docker_with_input, try_docker};
use crate::http::{HttpAnswer, get};
use crate::image::append;
use crate::wait::wait_for;

/// The machine's own engine.
const SOCKET: &str = "/var/run/docker.sock";

/// A container to be run.
#[derive(Debug, Clone)]
pub struct Run {
    name: String,
    options: Vec<String>,
}

impl Run {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            options: Vec::new(),
        }
    }

    /// Adds options of `docker create`, as they are.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options
            .extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(self, name: &str, value: &str) -> Self {
        self.options(&["--label", &format!("{name}={value}")])
    }

    /// Mounts a volume.
    #[must_use]
    pub fn volume(self, volume: &str, target: &str) -> Self {
        self.options(&["--volume", &format!("{volume}:{target}")])
    }

    /// Labels that make it an instance of fleet with a quick HTTP gate on `/health`.
    #[must_use]
    pub fn managed(self) -> Self {
        self.managed_under("fleet.")
    }

    /// The same under another label prefix, for a fleet that shall see nobody else's instances on a shared engine.
    #[must_use]
    pub fn managed_under(self, prefix: &str) -> Self {
        let label =
            |run: Self, name: &str, value: &str| run.label(&format!("{prefix}{name}"), value);
        [
            ("enable", "true"),
            ("source", "local"),
            ("health.path", "/health"),
            ("health.port", "8080"),
            ("health.expect", "{\"status\":\"ok\"}"),
            ("health.timeout", "20s"),
            ("health.interval", "100ms"),
            ("health.min_healthy", "0s"),
        ]
        .into_iter()
        .fold(self, |run, (name, value)| label(run, name, value))
    }

    /// Creates it without starting it.
    #[track_caller]
    #[must_use]
    pub fn create(&self, image: &str) -> Container {
        let mut args = vec!["create", "--name", &self.name];
        args.extend(self.options.iter().map(String::as_str));
        args.push(image);
        let id = docker(&args);
        // A warning of the engine may stand before the id.
        let id = id.lines().next_back().unwrap_or_default().to_owned();
        Container {
            id,
            name: self.name.clone(),
        }
    }

    /// Creates it with the engine's own call, for what the client program does not say to an older engine: its name, its
    /// labels, and the rest of `body`.
    ///
    /// # Panics
    /// When the engine refuses, or `curl` is missing.
    #[track_caller]
    #[must_use]
    pub fn create_by_api(&self, image: &str, mut body: Value) -> Container {
        let labels = self.options.windows(2).filter(|pair| pair[0] == "--label");
        let labels = labels.filter_map(|pair| pair[1].split_once('='));
        body["Labels"] = labels.collect::<BTreeMap<_, _>>().into_iter().collect();
        body["Image"] = Value::from(image);
        let output = Command::new("curl")
            .args(["--silent", "--unix-socket", SOCKET, "--request", "POST"])
            .args(["--header", "Content-Type: application/json"])
            .args(["--data", &body.to_string()])
            .arg(format!(
                "http://localhost/v1.41/containers/create?name={}",
                self.name
            ))
            .output()
            .expect("curl runs");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let id = answer["Id"].as_str();
        Container {
            id: id.unwrap_or_else(|| panic!("{answer}")).to_owned(),
            name: self.name.clone(),
        }
    }

    /// Creates and starts it.
    #[track_caller]
    #[must_use]
    pub fn start(&self, image: &str) -> Container {
        let container = self.create(image);
        docker(&["start", &container.id]);
        container
    }
}

/// A container that was made, known by its full id.
#[derive(Debug, Clone)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// Name that it was made under.
    pub name: String,
}

impl Container {
    /// What the engine says about it, by id.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self) -> Value {
        docker_json(&["container", "inspect", &self.id])
    }

    /// What the engine says about whatever has its name now.
    #[track_caller]
    #[must_use]
    pub fn inspect_by_name(&self) -> Value {
        docker_json(&["container", "inspect", &self.name])
    }

    /// Puts a file into its writable layer with the folders above it, as a client with the engine's archive call does.
    ///
    /// # Panics
    /// When the engine refuses.
    #[track_caller]
    pub fn put_file(&self, path: &str, content: &[u8]) {
        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, path.trim_start_matches('/'), 0o444, content);
        let archive = archive
            .into_inner()
            .expect("writing into memory cannot fail");
        docker_with_input(&["cp", "-", &format!("{}:/", self.id)], &archive);
    }

    /// Where its program listens: the address of whatever has its name now, on its first network.
    #[track_caller]
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self.try_address() {
            Some(address) => address,
            None => panic!("container {} has no address", self.name),
        }
    }

    /// The same, waiting until there is one: in the middle of an update there may be none.
    #[track_caller]
    #[must_use]
    pub fn address_when_there(&self) -> SocketAddr {
        wait_for("an address", Duration::from_secs(30), || {
            self.try_address().ok_or_else(|| "none".to_owned())
        })
    }

    fn try_address(&self) -> Option<SocketAddr> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let text = try_docker(&["container", "inspect", "--format", format, &self.name]);
        let ip = text.ok()?.split_whitespace().next()?.parse().ok()?;
        Some(SocketAddr::new(ip, 8080))
    }

    /// Waits until its program answers.
    #[track_caller]
    pub fn wait_up(&self) {
        wait_for("the program to answer", Duration::from_secs(20), || {
            let address = self.try_address().ok_or("no address")?;
            let answer = get(address, "/version", Duration::from_secs(2));
            answer.map_err(|error| error.to_string())
        });
    }

    /// One GET to its program.
    #[track_caller]
    #[must_use]
    pub fn get(&self, target: &str) -> HttpAnswer {
        match get(self.address(), target, Duration::from_secs(10)) {
            Ok(answer) => answer,
            Err(error) => panic!("GET {target} of {}: {error}", self.name),
        }
    }

    /// Appends a row; the program has synced it when this returns.
    #[track_caller]
    pub fn put(&self, text: &str) {
        let answer = self.get(&format!("/put?{text}"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The rows its program has.
    #[track_caller]
    #[must_use]
    pub fn rows(&self) -> Vec<String> {
        let answer = self.get("/dump");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.lines().map(str::to_owned).collect()
    }
}
