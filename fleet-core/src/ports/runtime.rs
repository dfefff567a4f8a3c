//! Containers of one engine.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::PortError;
use crate::ids::{ContainerId, ImageId, InstanceName, RolloutId, UpdateId, VolumeName};
use crate::model::{
    Container, FrozenSpec, Inventory, Platform, RestartPolicy, VolumeSource, labels,
};
use crate::time::Timestamp;

/// One container engine.
///
/// # Guarantees
/// - Mutating calls take the full id and act on that container or none.
/// - Every mutating call sets an absolute state and may be repeated.
/// - An error whose [`PortError::outcome_unknown`] is true says nothing about the effect: look again.
/// - Nothing is removed together with its volumes.
#[async_trait]
pub trait ContainerRuntime: Send + Sync {
    /// What engine this is.
    ///
    /// # Errors
    /// The engine cannot be asked.
    async fn info(&self) -> Result<EngineInfo, PortError>;

    /// Every container, stopped ones included.
    ///
    /// # Errors
    /// The engine cannot be asked. A container that vanishes while listing is left out.
    async fn inventory(&self) -> Result<Inventory, PortError>;

    /// One container, none if there is no such one.
    ///
    /// # Errors
    /// The engine cannot be asked.
    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, PortError>;

    /// The container with exactly this name (never by id prefix), none if there is no such one.
    ///
    /// # Errors
    /// The engine cannot be asked.
    async fn find(&self, name: &str) -> Result<Option<Container>, PortError>;

    /// Everything needed to make this container again, with the config of its image.
    ///
    /// # Errors
    /// `NotFound`: the container or the config of its image is gone. `Unsupported`: it uses something that cannot be
    /// carried over.
    async fn freeze(&self, id: &ContainerId) -> Result<FrozenSpec, PortError>;

    /// What the writable layer holds that a new container would not have (`docker diff`, less mount points, noise and
    /// empty folders).
    ///
    /// # Errors
    /// The engine cannot be asked.
    async fn writable_layer(&self, id: &ContainerId) -> Result<WritableLayer, PortError>;

    /// A volume's place and options, none if there is no such one.
    ///
    /// # Errors
    /// The engine cannot be asked.
    async fn volume(&self, name: &VolumeName) -> Result<Option<VolumeSource>, PortError>;

    /// Removes a volume that fleet made and no container uses. One that is not there is fine.
    ///
    /// # Errors
    /// `Conflict`: a container uses it.
    async fn remove_volume(&self, name: &VolumeName) -> Result<(), PortError>;

    /// Makes a container; never starts it, except the guard, which is running when this returns.
    ///
    /// # Errors
    /// `Conflict`: the name is taken. `Invalid`: the engine refuses the settings. `NotFound`: image or network gone.
    async fn create(&self, request: &CreateRequest) -> Result<Created, PortError>;

    /// Renames. The name it already has is fine.
    ///
    /// # Errors
    /// `Conflict`: another container has that name. `NotFound`: no such container.
    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), PortError>;

    /// Sets the restart policy.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` (`--rm`).
    async fn set_restart_policy(
        &self,
        id: &ContainerId,
        policy: RestartPolicy,
    ) -> Result<(), PortError>;

    /// Starts and looks again: the container was running when looked at, or ran and ended.
    ///
    /// # Errors
    /// `Failed`, `Conflict`, `Invalid`: a live engine refused (port taken, no such binary, network gone): the process
    /// did not run.
    async fn start(&self, id: &ContainerId) -> Result<StartOutcome, PortError>;

    /// Stops with the container's own signal, waits until the process is gone, and looks again. `grace` beats the
    /// container's own. Waits grace and a margin for the engine's answer.
    ///
    /// # Errors
    /// `Timeout`, `Unreachable`: the stop may go on.
    async fn stop(
        &self,
        id: &ContainerId,
        grace: Option<Duration>,
    ) -> Result<StopOutcome, PortError>;

    /// Removes a container that is not running, without its volumes. One that is not there is fine. Guards and helpers
    /// hold nothing: they are killed.
    ///
    /// # Errors
    /// `Conflict`: it runs, and is no guard or helper.
    async fn remove(&self, id: &ContainerId) -> Result<(), PortError>;

    /// Puts a container back on its networks as frozen, where one was pruned and made again.
    ///
    /// # Errors
    /// `NotFound`: a network does not exist under its name.
    async fn reattach(&self, id: &ContainerId, frozen: &FrozenSpec) -> Result<(), PortError>;

    /// The last lines of its log, both streams, oldest first; capped in size.
    ///
    /// # Errors
    /// The engine cannot be asked, or the log driver cannot be read.
    async fn logs_tail(&self, id: &ContainerId, lines: u32) -> Result<String, PortError>;

    /// Runs a command inside a running container and waits, at most `timeout`.
    ///
    /// # Errors
    /// The container does not run, the program does not exist, no end in time.
    async fn exec(
        &self,
        id: &ContainerId,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, PortError>;

    /// A process of that container that lives on although the engine does not say so (an orphan of an engine that was
    /// killed), as text for people; none if there is none, or the engine is on another host whose processes nobody here
    /// sees.
    ///
    /// # Errors
    /// The host cannot be asked.
    async fn orphan(&self, id: &ContainerId) -> Result<Option<String>, PortError>;

    /// Container events from now on. Ends when the engine goes away.
    ///
    /// # Errors
    /// The engine cannot be asked.
    async fn events(&self)
    -> Result<BoxStream<'static, Result<EngineEvent, PortError>>, PortError>;
}

/// What a container's writable layer holds that a new container would not have. Paths in the container, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WritableLayer {
    /// Data: written by its program, or put there by somebody.
    pub data: Vec<String>,
    /// Files with the inline content of configs and secrets, which compose puts there before the first start.
    pub inline: Vec<String>,
}

/// What engine this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// The engine's own id.
    pub engine_id: String,
    /// Version of the engine.
    pub version: String,
    /// API version in use after negotiation.
    pub api_version: String,
    /// Newest API version the engine offers.
    pub api_version_max: String,
    /// Platform of its containers.
    pub platform: Platform,
    /// Storage driver.
    pub storage_driver: String,
    /// Where the engine keeps its data.
    pub root_dir: String,
    /// Whether containers live on while the engine restarts.
    pub live_restore: bool,
    /// `docker` or `podman`.
    pub flavour: String,
}

/// What to make.
#[derive(Debug, Clone)]
pub enum CreateRequest {
    /// The new container of an update.
    Candidate(Box<CandidateRequest>),
    /// The old container again, exactly, because somebody removed it.
    Restore(Box<RestoreRequest>),
    /// The guard: keeps image, volumes and networks from being pruned. Started by the call.
    Guard(Box<GuardRequest>),
}

/// The new container of an update: the frozen spec with the image changed, three-way.
#[derive(Debug, Clone)]
pub struct CandidateRequest {
    /// The update; becomes a label.
    pub update: UpdateId,
    /// Name to create it under.
    pub name: String,
    /// The old container.
    pub frozen: FrozenSpec,
    /// The image that must come out; the call fails with `Conflict`, and removes what it made, if it does not.
    pub image_id: ImageId,
    /// What `Config.Image` shall read: `repository:tag`. The local tag is moved only around the call.
    pub image: String,
    /// References to containers of the same group that are replaced by this update.
    pub repoint: Vec<Repoint>,
}

/// A reference to a container that is being replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repoint {
    /// The container being replaced.
    pub from: ContainerId,
    /// Its name.
    pub from_name: String,
    /// The container that takes its place.
    pub to: ContainerId,
}

/// The old container again, from its frozen spec and its own image.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The update; becomes a label.
    pub update: UpdateId,
    /// Name to create it under.
    pub name: String,
    /// What it was.
    pub frozen: FrozenSpec,
    /// References to containers of the same group that were made again.
    pub repoint: Vec<Repoint>,
}

/// Whose guard it is; becomes a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardOwner {
    /// That of one update, or of work by hand under such an id.
    Update(UpdateId),
    /// That of several instances which a rollout updates at the same time.
    Rollout(RolloutId),
}

impl GuardOwner {
    /// Name and value of the label.
    #[must_use]
    pub fn label(&self) -> (&'static str, String) {
        match self {
            Self::Update(update) => (labels::UPDATE, update.to_string()),
            Self::Rollout(rollout) => (labels::ROLLOUT, rollout.to_string()),
        }
    }
}

/// A guard.
#[derive(Debug, Clone)]
pub struct GuardRequest {
    /// Whose it is.
    pub owner: GuardOwner,
    /// Name to create it under.
    pub name: String,
    /// The old image, kept by the guard's existence.
    pub image_id: ImageId,
    /// Volumes to keep, mounted read-only.
    pub volumes: Vec<VolumeName>,
    /// User-defined networks to sit on.
    pub networks: Vec<String>,
    /// The old container is on the engine's own default network. No prune takes that, but where its last container
    /// stops, the next one may be slow to be reached: a guard may keep it up.
    pub default_network: bool,
    /// How many containers it stands for: so many may be stopped at the same time.
    pub containers: usize,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Full id.
    pub id: ContainerId,
    /// What the engine warned about.
    pub warnings: Vec<String>,
    /// Volumes that this call brought into being (a new `VOLUME` of the new image).
    pub new_volumes: Vec<VolumeName>,
}

/// What a start led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartOutcome {
    /// Start of this run.
    pub started_at: Option<Timestamp>,
    /// Whether it still ran when looked at.
    pub running: bool,
}

/// What a stop led to. The process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopOutcome {
    /// Exit code; 137 means killed. None if it had never run.
    pub exit_code: Option<i64>,
}

/// What a command inside a container did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Exit code.
    pub exit_code: i64,
    /// Both streams, capped.
    pub output: String,
}

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// What.
    pub kind: EngineEventKind,
    /// To which container.
    pub container: ContainerId,
    /// Its name.
    pub name: String,
    /// Its labels and the event's attributes.
    pub attributes: BTreeMap<String, String>,
    /// When, by the engine's clock.
    pub at: Timestamp,
}

/// Kinds of engine events that fleet looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EngineEventKind {
    /// Created.
    Create,
    /// Started.
    Start,
    /// Its process ended.
    Die,
    /// A signal was sent.
    Kill,
    /// Stopped through the API.
    Stop,
    /// Renamed.
    Rename,
    /// Removed.
    Destroy,
    /// Anything else.
    Other,
}

impl GuardRequest {
    /// The name of the guard of an update.
    #[must_use]
    pub fn name_for(update: &UpdateId) -> String {
        format!("fleet-guard-{}", update.short())
    }

    /// The name of a guard of a rollout, which may have several.
    #[must_use]
    pub fn shared_name(rollout: &RolloutId, number: u32) -> String {
        format!("fleet-guard-{}-w{number}", rollout.short())
    }
}

/// Names that an instance's containers have during an update.
#[derive(Debug, Clone, Copy)]
pub struct Names;

impl Names {
    /// The candidate of an instance.
    #[must_use]
    pub fn candidate(instance: &InstanceName, update: &UpdateId) -> String {
        format!("{instance}.fleet-c-{}", update.short())
    }

    /// The parked old container.
    #[must_use]
    pub fn parked(instance: &InstanceName, update: &UpdateId) -> String {
        format!("{instance}.fleet-p-{}", update.short())
    }

    /// The failed new container.
    #[must_use]
    pub fn failed(instance: &InstanceName, update: &UpdateId) -> String {
        format!("{instance}.fleet-f-{}", update.short())
    }

    /// Of a name that an update gave to one of this instance's containers: which update, by its short id.
    #[must_use]
    pub fn mark<'a>(instance: &InstanceName, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_prefix(instance.as_str())?;
        let marks = [".fleet-c-", ".fleet-p-", ".fleet-f-"];
        let id = marks.into_iter().find_map(|mark| rest.strip_prefix(mark));
        id.filter(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}
