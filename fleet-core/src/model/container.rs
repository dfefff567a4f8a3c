//! Containers as the engine shows them, reduced to what decisions need.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{ContainerId, ImageId, InstanceName, VolumeName};
use crate::time::Timestamp;

/// One container at the moment of looking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Full id.
    pub id: ContainerId,
    /// Name without the leading slash. A dead container still holds its name.
    pub name: String,
    /// The image that it was made from, by id.
    pub image_id: ImageId,
    /// `Config.Image`: what the user wrote, usually `repository:tag`.
    pub image: String,
    /// Labels, those of the image included.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub state: RunState,
    /// Process id on the host, 0 if none.
    pub pid: u32,
    /// Exit code of the last run; 137 means killed. Meaningful once it ran and stopped.
    pub exit_code: Option<i64>,
    /// Start of the current or last run, none if it never started.
    pub started_at: Option<Timestamp>,
    /// End of the last run.
    pub finished_at: Option<Timestamp>,
    /// Restarts by the engine's restart policy.
    pub restart_count: u64,
    /// Restart policy.
    pub restart_policy: RestartPolicy,
    /// State of the image's or the user's HEALTHCHECK, none without one.
    pub health: Option<EngineHealth>,
    /// Grace in seconds before a stop kills, if the container has its own.
    pub stop_timeout_secs: Option<u32>,
    /// `--rm`: the engine removes it, and its anonymous volumes, when it stops.
    pub auto_remove: bool,
    /// Everything mounted.
    pub mounts: Vec<Mount>,
    /// `HostConfig.NetworkMode` as the user gave it.
    pub network_mode: String,
    /// Networks it sits on.
    pub networks: Vec<NetworkAttachment>,
    /// Ports the image or the user exposes (TCP), in ascending order.
    pub exposed_ports: Vec<u16>,
    /// Containers whose namespaces or volumes it uses.
    pub parents: Vec<ParentRef>,
}

impl Container {
    /// Whether a workload process may be alive: running, paused, or about to be restarted.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(
            self.state,
            RunState::Running | RunState::Paused | RunState::Restarting
        ) || self.pid != 0
    }

    /// The name as an instance's name, if it is one the engine would accept.
    #[must_use]
    pub fn instance_name(&self) -> Option<InstanceName> {
        InstanceName::new(self.name.clone()).ok()
    }

    /// Names of the volumes that it may write to, anonymous ones included.
    pub fn writable_volumes(&self) -> impl Iterator<Item = &VolumeName> {
        self.mounts
            .iter()
            .filter(|mount| mount.writable)
            .filter_map(|mount| match &mount.kind {
                MountKind::Volume { name, .. } => Some(name),
                _ => None,
            })
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Made, never started (or its start failed before the process ran).
    Created,
    /// Running.
    Running,
    /// Frozen by `docker pause`.
    Paused,
    /// Between two runs of its restart policy.
    Restarting,
    /// Stopped after a run.
    Exited,
    /// Being removed.
    Removing,
    /// Half removed; still holds its name.
    Dead,
}

/// State of a HEALTHCHECK that the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineHealth {
    /// Not yet decided.
    Starting,
    /// The last check passed.
    Healthy,
    /// Enough checks in a row failed.
    Unhealthy,
}

/// When the engine restarts a container by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Always, also after a stop through the API once the engine restarts.
    Always,
    /// Always, unless it was stopped through the API.
    UnlessStopped,
    /// After a failure, at most so many times (0: without limit).
    OnFailure {
        /// Limit of restarts.
        max_retries: u32,
    },
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Path in the container.
    pub target: String,
    /// Whether the container may write to it.
    pub writable: bool,
}

/// What a mount brings in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum MountKind {
    /// A volume of the engine, named or anonymous.
    Volume {
        /// Name; for an anonymous volume 64 hexadecimal digits.
        name: VolumeName,
        /// Driver, `local` for the engine's own.
        driver: String,
        /// Where the volume lies on the engine's host.
        source: String,
    },
    /// A path of the host.
    Bind {
        /// The path.
        source: String,
    },
    /// Memory.
    Tmpfs,
    /// Anything else (named pipe, cluster volume).
    Other,
}

/// A container's place on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// Name of the network.
    pub network: String,
    /// IPv4 address first, then IPv6, where it has them at the moment.
    pub addresses: Vec<IpAddr>,
}

/// A use of another container's namespace or volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentRef {
    /// What is shared: `network`, `pid`, `ipc` or `volumes_from`.
    pub via: String,
    /// The parent as the container's settings name it: an id or a name.
    pub reference: String,
    /// The parent's full id, none if no such container exists any more.
    pub id: Option<ContainerId>,
}

/// Everything the engine knew about a container before fleet touched it, enough to make it again.
///
/// `engine` is opaque to the core: the adapter that wrote it reads it. It holds the raw inspect answer and the
/// config of the old image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenSpec {
    /// The container as the core sees it.
    pub container: Container,
    /// What the adapter needs for the create call.
    pub engine: serde_json::Value,
    /// Id to which the container's `repository:tag` pointed in the engine at that moment; none if it is not a tag
    /// or the engine does not have it.
    pub tag_image: Option<ImageId>,
}

/// All containers of one engine at one moment. Stale as soon as it is made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// Every container, stopped ones included, in the order of their names.
    pub containers: Vec<Container>,
}

impl Inventory {
    /// The container with exactly this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Container> {
        self.containers
            .iter()
            .find(|container| container.name == name)
    }

    /// The container with this id.
    #[must_use]
    pub fn by_id(&self, id: &ContainerId) -> Option<&Container> {
        self.containers.iter().find(|container| &container.id == id)
    }
}
