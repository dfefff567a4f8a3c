//! A daemon under test.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::fleet::Fleet;
use crate::wait::wait_for;

/// Longest time until a daemon is ready or has ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `fleet serve`; killed on drop.
#[derive(Debug)]
pub struct Serving {
    child: Child,
    log: PathBuf,
}

impl Fleet {
    /// Writes the configuration that every later command of this one reads.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, toml: &str) {
        fs::write(self.folder().join("fleet.toml"), toml).expect("the file can be written");
    }

    /// Starts `fleet serve` and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    #[must_use]
    pub fn serve(&self) -> Serving {
        let serving = self.begin_to_serve();
        wait_for("a ready daemon", PATIENCE, || {
            match self.ask("GET", "/readyz", "") {
                Some((200, _)) => Ok(()),
                other => Err(format!("{other:?}: {}", serving.log())),
            }
        });
        serving
    }

    /// Starts `fleet serve`, ready or not.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn begin_to_serve(&self) -> Serving {
        let log = self.folder().join("serve.log");
        let file = File::create(&log).expect("the log can be made");
        let child = self
            .command(&["serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("fleet can be started");
        Serving { child, log }
    }

    /// Asks the daemon over its socket: status and body, none if nobody answers.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let mut socket = UnixStream::connect(self.data_dir().join("fleet.sock")).ok()?;
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// The same for an answer in JSON.
    ///
    /// # Panics
    /// When nobody answers, or not in JSON.
    #[track_caller]
    #[must_use]
    pub fn ask_json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self.ask(method, path, body).expect("the daemon answers");
        let value = serde_json::from_str(&text);
        (
            status,
            value.unwrap_or_else(|error| panic!("{error}: {text}")),
        )
    }
}

impl Serving {
    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal, for instance `TERM`.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name}");
    }

    /// Waits for its end; none if a signal ended it.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        wait_for("the daemon's end", PATIENCE, || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status.code()),
                other => Err(format!("{other:?}")),
            }
        })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
