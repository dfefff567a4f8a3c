//! Helpers as containers of the engine.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fleet_core::ids::ContainerId;
use fleet_core::model::VolumeSource;
use fleet_core::model::labels::KIND;
use fleet_core::ports::{ContainerRuntime, PortError, PortErrorKind};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::sync::mpsc;

use super::store::{Connect, Connection};
use crate::engine::DockerEngine;
use crate::volume::exchange::Sha256Hash;

const OP: &str = "start a helper";
/// What its label says.
const HELPER_KIND: &str = "helper";
/// Where the program lies in the helper's image.
const PROGRAM: &str = "/fleet";
/// Repository of the helper's image.
const REPOSITORY: &str = "fleet-helper";
/// Frames on the way between the engine's stream and the thread that reads or writes.
const QUEUE: usize = 16;

/// Starts helpers on an engine.
#[derive(Debug, Clone)]
pub struct DockerHelpers {
    engine: DockerEngine,
    executable: PathBuf,
    /// The hidden subcommand that calls [`super::serve`].
    arguments: Vec<String>,
    image: Arc<OnceCell<String>>,
}

impl DockerHelpers {
    /// Helpers made from this executable, started with these arguments.
    #[must_use]
    pub fn new(engine: DockerEngine, executable: PathBuf, arguments: Vec<String>) -> Self {
        Self {
            engine,
            executable,
            arguments,
            image: Arc::default(),
        }
    }

    /// Makes the image if the engine does not have it; its name.
    async fn image(&self) -> Result<&str, PortError> {
        let made = self.image.get_or_try_init(|| async {
            let path = self.executable.clone();
            let program = tokio::task::spawn_blocking(move || read_static(&path))
                .await
                .map_err(|join| {
                    failed("the thread that read the executable ended").with_source(join)
                })??;
            let hash = Sha256Hash::of(&program).to_string();
            let name = format!("{REPOSITORY}:{}", &hash[..16]);
            self.sweep().await?;
            if !self.engine.has_image(&name).await? {
                let archive = archive(&program)
                    .map_err(|source| failed("its program cannot be packed").with_source(source))?;
                self.engine
                    .import_image(&name, archive, &format!("LABEL {KIND}={HELPER_KIND}"))
                    .await?;
            }
            Ok::<_, PortError>(name)
        });
        Ok(made.await?.as_str())
    }
}

impl DockerHelpers {
    /// Removes helpers that ended because the fleet that had started them was killed. They hold nothing.
    async fn sweep(&self) -> Result<(), PortError> {
        for container in self.engine.inventory().await?.containers {
            let kind = container.labels.get(KIND).map(String::as_str);
            if kind == Some(HELPER_KIND) && !container.is_up() {
                self.engine.remove_tool(&container.id).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Connect for DockerHelpers {
    async fn connect(&self, volumes: &[VolumeSource]) -> Result<Connection, PortError> {
        self.start(volumes, "none").await
    }
}

impl DockerHelpers {
    /// Starts a helper with these volumes, in this network.
    pub(super) async fn start(
        &self,
        volumes: &[VolumeSource],
        network: &str,
    ) -> Result<Connection, PortError> {
        let image = self.image().await?;
        let mut entrypoint = vec![PROGRAM.to_owned()];
        entrypoint.extend(self.arguments.iter().cloned());
        let binds: Vec<String> = volumes
            .iter()
            .map(|volume| format!("{}:{}:nocopy", volume.name, self.mountpoint(volume)))
            .collect();
        let body = json!({
            "Image": image,
            "Entrypoint": entrypoint,
            "Cmd": [],
            "User": "0:0",
            "WorkingDir": "/",
            "AttachStdin": true,
            "AttachStdout": true,
            "AttachStderr": true,
            "OpenStdin": true,
            "StdinOnce": true,
            "Tty": false,
            "StopSignal": "SIGKILL",
            "Labels": { KIND: HELPER_KIND },
            "HostConfig": {
                "Binds": binds,
                "NetworkMode": network,
                "RestartPolicy": { "Name": "no" },
                "SecurityOpt": ["no-new-privileges"],
                "LogConfig": { "Type": "none" },
            },
        });
        let name = format!(
            "fleet-helper-{}",
            &uuid::Uuid::now_v7().simple().to_string()[24..]
        );
        let pipes = self.engine.start_attached(OP, &name, &body).await?;
        let (to, from) = (Outlet(pipes.to), Inlet::new(pipes.from));
        Ok(Connection {
            to: Box::new(to),
            from: Box::new(from),
            keep: Box::new(Keep {
                engine: self.engine.clone(),
                id: pipes.id,
                runtime: tokio::runtime::Handle::current(),
            }),
        })
    }
}

/// The pipes of an attached container.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) id: ContainerId,
    pub(crate) to: mpsc::Sender<Bytes>,
    pub(crate) from: mpsc::Receiver<io::Result<Bytes>>,
}

impl Pipes {
    /// The ends for the container, and the ends for the engine's streams.
    pub(crate) fn new(
        id: ContainerId,
    ) -> (Self, mpsc::Receiver<Bytes>, mpsc::Sender<io::Result<Bytes>>) {
        let (to, input) = mpsc::channel(QUEUE);
        let (output, from) = mpsc::channel(QUEUE);
        (Self { id, to, from }, input, output)
    }
}

/// Writes to the container from a thread that may block.
struct Outlet(mpsc::Sender<Bytes>);

impl Write for Outlet {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Bytes::copy_from_slice(data))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads from the container on a thread that may block.
struct Inlet {
    from: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Inlet {
    fn new(from: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        let rest = Bytes::new();
        Self { from, rest }
    }
}

impl Read for Inlet {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.from.blocking_recv() {
                Some(bytes) => self.rest = bytes?,
                None => return Ok(0),
            }
        }
        let count = buf.len().min(self.rest.len());
        buf[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// Removes the container when nobody needs it any more.
struct Keep {
    engine: DockerEngine,
    id: ContainerId,
    runtime: tokio::runtime::Handle,
}

impl Drop for Keep {
    fn drop(&mut self) {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        self.runtime.spawn(async move {
            if let Err(error) = engine.remove_tool(&id).await {
                tracing::warn!(container = %id, error = %error, "a helper could not be removed");
            }
        });
    }
}

/// The executable, if it can run in an image that holds nothing else.
fn read_static(path: &Path) -> Result<Vec<u8>, PortError> {
    let program = std::fs::read(path).map_err(|source| {
        failed(format!("the executable {} cannot be read", path.display())).with_source(source)
    })?;
    if is_static(&program) {
        return Ok(program);
    }
    let message = format!(
        "{} needs shared libraries, so no helper can be made from it; use the static build",
        path.display()
    );
    Err(PortError::new(OP, PortErrorKind::Unsupported, message))
}

/// Whether a 64-bit little-endian ELF file names no interpreter.
fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, len: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(len)?)?;
        let value = bytes
            .iter()
            .rev()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let headers = || -> Option<bool> {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for index in 0..count {
            let at = table.checked_add(index.checked_mul(size)?)?;
            if number(at, 4)? == INTERPRETER as usize {
                return Some(false);
            }
        }
        Some(true)
    };
    program.starts_with(b"\x7fELF\x02\x01") && headers().unwrap_or(false)
}

fn failed(message: impl Into<String>) -> PortError {
    PortError::new(OP, PortErrorKind::Failed, message)
}

fn archive(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, PROGRAM.trim_start_matches('/'), program)?;
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_without_an_interpreter_are_static() {
        let guard = crate::guard::program("amd64").expect("a program");
        assert!(is_static(&guard));
        let shell = std::fs::read("/bin/sh").expect("a shell");
        assert!(!is_static(&shell));
        assert!(!is_static(b"#!/bin/sh"));
        assert!(!is_static(&guard[..60]));
    }
}
