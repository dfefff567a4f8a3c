//! Debian's `docker-registry` on loopback.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::docker::{docker, try_docker};
use crate::http::get;
use crate::wait::wait_for;

/// A registry of one's own, empty at first; stopped and forgotten on drop.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Registry {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When the program is missing or does not come up.
    #[must_use]
    pub fn start() -> Self {
        // Another process may take the port between the two binds; then the registry ends at once and we try again.
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let mut registry = Self {
                port: free_port(),
                folder,
                child: None,
            };
            if registry.spawn() {
                return registry;
            }
        }
        panic!("no registry came up on any of five ports")
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The reference of a repository and tag in this registry.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Pushes a local image and gives the digest it has there; the engine then no longer has it under that reference,
    /// so that a pull is a real one as soon as the local image is gone too.
    ///
    /// # Panics
    /// When the push fails.
    #[track_caller]
    pub fn push(&self, image: &str, name: &str) -> String {
        let reference = self.reference(name);
        docker(&["tag", image, &reference]);
        let output = docker(&["push", &reference]);
        docker(&["rmi", "--no-prune", &reference]);
        output
            .split_whitespace()
            .find(|word| word.starts_with("sha256:") && word.len() == 71)
            .unwrap_or_else(|| panic!("no digest in {output:?}"))
            .to_owned()
    }

    /// Stops it; its content stays. As if the registry were down.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        self.stop();
        assert!(self.spawn(), "the registry did not come up again");
    }

    fn spawn(&mut self) -> bool {
        let config = self.write_config();
        let log = fs::File::create(self.folder.path().join("log")).expect("the log can be made");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be copied"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("tests need docker-registry; scripts/setup.sh installs it: {error}")
            });
        self.child = Some(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        wait_for("the registry", Duration::from_secs(20), || {
            if self.ended() {
                return Ok(false);
            }
            match get(address, "/v2/", Duration::from_secs(2)) {
                Ok(answer) if answer.status == 200 => Ok(true),
                other => Err(format!("{other:?}: {}", self.log())),
            }
        })
    }

    fn ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn write_config(&self) -> PathBuf {
        let root = self.folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {root:?}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: \"127.0.0.1:{}\"}}\n",
            self.port
        );
        let path = self.folder.path().join("config.yml");
        fs::write(&path, text).expect("the config can be written");
        path
    }

    fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(file) = fs::File::open(self.folder.path().join("log")) {
            // What can be read of the log is all there is to show.
            let _ = file.take(4096).read_to_string(&mut text);
        }
        text
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        forget_images(&format!("127.0.0.1:{}/", self.port));
    }
}

/// Removes every image that the engine has from a registry or under a prefix.
pub(crate) fn forget_images(prefix: &str) {
    let listed = try_docker(&[
        "images",
        "--all",
        "--no-trunc",
        "--format",
        "{{.Repository}} {{.ID}}",
    ]);
    for line in listed.unwrap_or_default().lines() {
        if let Some((repository, id)) = line.split_once(' ')
            && repository.starts_with(prefix)
        {
            // Gone with an earlier line, or used by a container of a failed test: nothing more can be done here.
            let _ = try_docker(&["rmi", "--force", id]);
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .expect("loopback has a free port")
}
