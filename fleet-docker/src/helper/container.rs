//! Helpers as containers of the engine.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use fleet_core::ids::ContainerId;
use fleet_core::model::VolumeSource;
use fleet_core::model::labels::KIND;
use fleet_core::ports::PortError;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::image::HelperImage;
use super::store::{Access, Connect, Connection};
use crate::engine::DockerEngine;

pub(super) const OP: &str = "start a helper";
/// What its label says.
pub(super) const HELPER_KIND: &str = "helper";
/// Where the program lies in the helper's image.
pub(super) const PROGRAM: &str = "/fleet";
/// Label: which fleet started it, by a name that each process makes anew.
const OWNER: &str = "io.fleet.helper.owner";
/// Label: present on a helper that may write to its volumes.
const WRITES: &str = "io.fleet.helper.writes";
/// Frames on the way between the engine's stream and the thread that reads or writes.
const QUEUE: usize = 16;
/// How often a helper is tried whose image or container goes away before its start.
const TRIES: u32 = 3;
/// Age from which a helper that was not started will not be.
const STALE: Duration = Duration::from_secs(600);
/// Longest wait for helpers to be gone at the end of a command.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// Starts helpers on an engine.
///
/// A helper ends when its input does, so it never outlives the process that asks it for long, and the engine removes
/// what ended. What it was doing at that moment it may still finish: a helper that writes is ended by the next fleet
/// before that works on the same volumes.
#[derive(Debug, Clone)]
pub struct DockerHelpers {
    engine: DockerEngine,
    image: HelperImage,
    /// The hidden subcommand that calls [`super::serve`].
    arguments: Vec<String>,
    owner: String,
    /// Removals of helpers that are under way.
    removals: TaskTracker,
}

impl DockerHelpers {
    /// Helpers made from this executable, started with these arguments.
    #[must_use]
    pub fn new(engine: DockerEngine, executable: PathBuf, arguments: Vec<String>) -> Self {
        Self {
            engine,
            image: HelperImage::of(executable),
            arguments,
            owner: uuid::Uuid::now_v7().simple().to_string(),
            removals: TaskTracker::new(),
        }
    }

    /// Waits until every helper that is not needed any more is gone. To be called when nothing holds a connection.
    pub async fn settle(&self) {
        self.removals.close();
        if tokio::time::timeout(SETTLE_LIMIT, self.removals.wait())
            .await
            .is_err()
        {
            tracing::warn!("helpers are still being removed; the engine does that by itself");
        }
        self.removals.reopen();
    }

    /// Starts a helper with these volumes, in this network.
    pub(super) async fn start(
        &self,
        volumes: &[VolumeSource],
        access: Access,
        network: &str,
    ) -> Result<Connection, PortError> {
        self.sweep().await;
        let mut tries = 1;
        let pipes = loop {
            let image = self.image.on(&self.engine).await?;
            let body = self.body(image, volumes, access, network);
            let id = uuid::Uuid::now_v7().simple().to_string();
            let name = format!("fleet-helper-{}", &id[24..]);
            match self.engine.start_attached(OP, &name, &body).await {
                Ok(pipes) => break pipes,
                // Somebody pruned the image between the look and the making, or the container before its start.
                Err(error) if error.is_not_found() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        };
        let (to, from) = (Outlet(pipes.to), Inlet::new(pipes.from));
        Ok(Connection {
            to: Box::new(to),
            from: Box::new(from),
            keep: Box::new(Keep {
                engine: self.engine.clone(),
                id: pipes.id,
                runtime: tokio::runtime::Handle::current(),
                removals: self.removals.clone(),
            }),
        })
    }

    fn body(&self, image: &str, volumes: &[VolumeSource], access: Access, network: &str) -> Value {
        let mut entrypoint = vec![PROGRAM.to_owned()];
        entrypoint.extend(self.arguments.iter().cloned());
        let options = match access {
            Access::Read | Access::Processes => "ro,nocopy",
            Access::Write => "nocopy",
        };
        let binds: Vec<String> = volumes
            .iter()
            .map(|volume| format!("{}:{}:{options}", volume.name, self.mountpoint(volume)))
            .collect();
        let mut labels = json!({ KIND: HELPER_KIND, OWNER: self.owner });
        if access == Access::Write {
            labels[WRITES] = json!("");
        }
        json!({
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
            "Labels": labels,
            "HostConfig": {
                "Binds": binds,
                "NetworkMode": network,
                "PidMode": if access == Access::Processes { "host" } else { "" },
                "AutoRemove": true,
                "RestartPolicy": { "Name": "no" },
                "SecurityOpt": ["no-new-privileges"],
                "CapAdd": capabilities(volumes, access),
                "LogConfig": { "Type": "none" },
            },
        })
    }

    /// Removes helpers that a fleet made and did not live to start: the engine removes only what has run. That one cannot
    /// be removed keeps nobody from starting another.
    async fn sweep(&self) {
        let made = match self.engine.never_started(HELPER_KIND).await {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!(%error, "old helpers cannot be looked for");
                return;
            }
        };
        let now = SystemTime::now();
        for (id, _) in made.into_iter().filter(|(_, made)| is_stale(*made, now)) {
            tracing::info!(container = %id, "removing a helper that was never started");
            if let Err(error) = self.engine.remove_tool(&id).await {
                tracing::warn!(container = %id, %error, "an old helper could not be removed");
            }
        }
    }

    /// Ends helpers of a fleet that died which may still write to one of these volumes.
    async fn end_writers(&self, volumes: &[VolumeSource]) -> Result<(), PortError> {
        for volume in volumes {
            for (id, owner) in self
                .engine
                .labelled_at_volume(WRITES, OWNER, &volume.name)
                .await?
            {
                if owner != self.owner {
                    tracing::info!(container = %id, volume = %volume.name, "ending a helper of a fleet that died");
                    self.engine.remove_tool(&id).await?;
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Connect for DockerHelpers {
    async fn connect(
        &self,
        volumes: &[VolumeSource],
        access: Access,
    ) -> Result<Connection, PortError> {
        self.end_writers(volumes).await?;
        self.start(volumes, access, "none").await
    }
}

/// What a helper may do beyond the engine's own choice: without the first it sees no `trusted.*` attributes and loses them, and
/// without the second it cannot take off the flags that keep a file from being removed. One without volumes needs neither.
fn capabilities(volumes: &[VolumeSource], access: Access) -> &'static [&'static str] {
    match access {
        _ if volumes.is_empty() => &[],
        Access::Processes => &[],
        Access::Read => &["SYS_ADMIN"],
        Access::Write => &["SYS_ADMIN", "LINUX_IMMUTABLE"],
    }
}

/// Whether nobody can be about to start what was made in this second.
fn is_stale(made: u64, now: SystemTime) -> bool {
    let made = UNIX_EPOCH + Duration::from_secs(made);
    now.duration_since(made).is_ok_and(|age| age > STALE)
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
    removals: TaskTracker,
}

impl Drop for Keep {
    fn drop(&mut self) {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        let removing = async move {
            if let Err(error) = engine.remove_tool(&id).await {
                tracing::warn!(container = %id, error = %error, "a helper could not be removed");
            }
        };
        self.removals.spawn_on(removing, &self.runtime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_may_only_do_what_its_volumes_need() {
        let volume = VolumeSource {
            name: fleet_core::ids::VolumeName::new("data").unwrap(),
            driver: "local".to_owned(),
            mountpoint: "/data".to_owned(),
            options: std::collections::BTreeMap::new(),
            labels: std::collections::BTreeMap::new(),
        };
        let volumes = [volume];
        assert_eq!(capabilities(&volumes, Access::Read), ["SYS_ADMIN"]);
        let both = ["SYS_ADMIN", "LINUX_IMMUTABLE"];
        assert_eq!(capabilities(&volumes, Access::Write), both);
        assert!(capabilities(&[], Access::Read).is_empty());
    }

    #[test]
    fn only_what_is_old_is_swept() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        assert!(is_stale(9_000, now));
        assert!(!is_stale(9_500, now));
        assert!(!is_stale(10_500, now), "the clock was set back");
    }
}
