//! The state of a fake host: one Docker engine with its containers, images, volumes and networks, a registry, a folder
//! of snapshots. Behaves as engine 20.10 does where that matters for updates.

mod images;
mod life;
mod make;
mod moves;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;

pub use moves::{ForeignMove, Move};

use super::faults::FaultPlan;
use super::rng::SeedRng;
use super::trace::Trace;
use super::workload::{Files, Workload};
use crate::ids::{ContainerId, ImageId, SnapshotId, VolumeName};
use crate::model::{Platform, Release, RestartPolicy, RunState, SnapshotInfo};
use crate::ports::{EngineEvent, PortError, PortErrorKind, WritableLayer};
use crate::time::Timestamp;
use crate::update::Outcome;

/// What happened on a fake host, for checkers: facts, whoever caused them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A container's process began, and by whose hand.
    Started(ContainerId, Hand),
    /// A container's process ended.
    Ended(ContainerId),
    /// Fleet made a container.
    Created {
        /// The container.
        id: ContainerId,
        /// From which image.
        image: ImageId,
        /// It is a guard, no workload.
        guard: bool,
    },
    /// Fleet removed a container.
    Removed(ContainerId),
    /// Fleet asked for a stop of a container.
    StopAsked(ContainerId),
    /// Fleet renamed a container.
    Renamed(ContainerId),
    /// Fleet removed a volume.
    VolumeRemoved(VolumeName),
    /// A snapshot was published; the containers that could write to its volumes at that moment.
    SnapshotTaken(SnapshotId, Vec<ContainerId>),
    /// A restore touched a volume; the containers that ran with it mounted.
    Restoring(VolumeName, Vec<ContainerId>),
    /// A restore of a volume was complete.
    Restored(VolumeName),
    /// A snapshot was removed.
    SnapshotDeleted(SnapshotId),
    /// Something other than fleet made a move.
    Moved(Move),
    /// The journal took an outcome.
    Journalled(Outcome),
}

/// Who does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// Fleet, through a port.
    Fleet,
    /// The engine by itself: a restart policy.
    Engine,
    /// Somebody else.
    Other,
}

/// A container of the fake engine.
#[derive(Debug, Clone)]
pub(super) struct Ctr {
    pub(super) id: ContainerId,
    pub(super) serial: u32,
    pub(super) name: String,
    pub(super) image_id: ImageId,
    pub(super) image: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) state: RunState,
    pub(super) exit_code: Option<i64>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) restart_count: u64,
    pub(super) policy: RestartPolicy,
    pub(super) stop_timeout_secs: Option<u32>,
    pub(super) auto_remove: bool,
    pub(super) mounts: Vec<CtrMount>,
    /// Name and id of each network.
    pub(super) networks: Vec<(String, u64)>,
    pub(super) exposed_ports: Vec<u16>,
    pub(super) host_ports: Vec<u16>,
    pub(super) layer: WritableLayer,
    pub(super) guard: bool,
    /// Stopped through the API since its last start.
    pub(super) stopped_by_hand: bool,
    /// Its process, whatever the engine says of it.
    pub(super) process: Option<Process>,
    /// The engine starts it again then.
    pub(super) restart_at: Option<Duration>,
}

/// A live process of a container.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) since: Duration,
    /// It ends then, with this code.
    pub(super) ends: Option<(Duration, i64)>,
    /// A stop was asked for: no restart, and a start does nothing.
    pub(super) stopping: bool,
    /// The engine does not know of it.
    pub(super) orphan: bool,
}

#[derive(Debug, Clone)]
pub(super) struct CtrMount {
    pub(super) volume: VolumeName,
    pub(super) target: String,
    pub(super) writable: bool,
    pub(super) anonymous: bool,
}

/// An image: what it is made of and what runs in it.
#[derive(Debug, Clone)]
pub(super) struct Img {
    pub(super) platform: Platform,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) workload: Workload,
    /// `VOLUME` paths with what the image has there.
    pub(super) volumes: BTreeMap<String, Files>,
    /// Its other files, as far as anybody reads them.
    pub(super) files: Files,
    pub(super) repo_digests: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Vol {
    pub(super) serial: u32,
    /// It carries fleet's label.
    pub(super) by_fleet: bool,
    pub(super) files: Files,
}

/// One acknowledged write, remembered outside the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) volume: u32,
    pub(super) container: u32,
    pub(super) deed: Deed,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// What a version does to its data when it starts.
    Boot,
    /// One row.
    Row(u64),
}

/// What a registry offers under one digest.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) release: Release,
    pub(super) id: ImageId,
    pub(super) image: Img,
}

/// A snapshot in the fake store.
#[derive(Debug, Clone)]
pub(super) struct Snap {
    pub(super) info: SnapshotInfo,
    pub(super) content: BTreeMap<VolumeName, Files>,
    pub(super) damaged: bool,
}

/// How the engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Engine {
    Up,
    /// Away until then; on its return it starts what its policies say. `killed`: it did not end its containers.
    Down {
        went: Duration,
        until: Duration,
        killed: bool,
    },
}

pub(super) struct Machine {
    // the world
    pub(super) now: Duration,
    pub(super) wall: Timestamp,
    pub(super) engine: Engine,
    pub(super) live_restore: bool,
    pub(super) containers: Vec<Ctr>,
    /// Containers that were removed while an orphan of theirs lived.
    pub(super) left_behind: Vec<Ctr>,
    pub(super) images: BTreeMap<ImageId, Img>,
    pub(super) tags: BTreeMap<String, ImageId>,
    pub(super) volumes: BTreeMap<VolumeName, Vol>,
    pub(super) networks: BTreeMap<String, u64>,
    pub(super) snapshots: BTreeMap<SnapshotId, Snap>,
    pub(super) unfinished: BTreeSet<SnapshotId>,
    pub(super) free_bytes: u64,
    pub(super) offers: BTreeMap<String, Offer>,
    pub(super) offered_tags: BTreeMap<String, String>,
    // what was seen
    pub(super) acks: Vec<Ack>,
    /// Image of every container that ever wrote, by serial number.
    pub(super) writers: BTreeMap<u32, ImageId>,
    pub(super) facts: Vec<(u64, Fact)>,
    /// Who is doing what happens now.
    pub(super) hand: Hand,
    pub(super) trace: Trace,
    pub(super) watchers: Vec<UnboundedSender<Result<EngineEvent, PortError>>>,
    // what goes wrong
    pub(super) plan: FaultPlan,
    pub(super) calls: u64,
    /// Calls since the host was made.
    pub(super) steps: u64,
    pub(super) sites: u64,
    pub(super) dead: bool,
    // supplies
    pub(super) rng: SeedRng,
    pub(super) next_serial: u32,
    pub(super) next_row: u64,
}

impl Machine {
    pub(super) fn new(seed: u64, wall: Timestamp) -> Self {
        Self {
            now: Duration::ZERO,
            wall,
            engine: Engine::Up,
            live_restore: false,
            containers: Vec::new(),
            left_behind: Vec::new(),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            volumes: BTreeMap::new(),
            networks: BTreeMap::from([("bridge".to_owned(), 0)]),
            snapshots: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            free_bytes: 100 << 30,
            offers: BTreeMap::new(),
            offered_tags: BTreeMap::new(),
            acks: Vec::new(),
            writers: BTreeMap::new(),
            facts: Vec::new(),
            hand: Hand::Engine,
            trace: Trace::default(),
            watchers: Vec::new(),
            plan: FaultPlan::default(),
            calls: 0,
            steps: 0,
            sites: 0,
            dead: false,
            rng: SeedRng::new(seed).child("machine"),
            next_serial: 1,
            next_row: 1,
        }
    }

    /// Remembers a fact for the checkers.
    pub(super) fn fact(&mut self, fact: Fact) {
        self.facts.push((self.steps, fact));
    }

    /// A number that was not given out before.
    pub(super) fn serial(&mut self) -> u32 {
        let serial = self.next_serial;
        self.next_serial += 1;
        serial
    }

    /// Sixty-four hexadecimal digits that differ for each number and look nothing alike.
    pub(super) fn hex64(number: u64) -> String {
        let mut rng = SeedRng::new(number).child("id");
        let mut word = || rng.next_u64();
        format!(
            "{:016x}{:016x}{:016x}{:016x}",
            word(),
            word(),
            word(),
            word()
        )
    }

    pub(super) fn ctr(&self, id: &ContainerId) -> Option<&Ctr> {
        self.containers.iter().find(|ctr| &ctr.id == id)
    }

    pub(super) fn ctr_mut(&mut self, id: &ContainerId) -> Result<&mut Ctr, PortError> {
        self.containers
            .iter_mut()
            .find(|ctr| &ctr.id == id)
            .ok_or_else(|| {
                PortError::new(
                    "find the container",
                    PortErrorKind::NotFound,
                    format!("no such container: {}", id.short()),
                )
            })
    }

    /// The program of an image, also of one that is only in the registry or gone from the engine.
    pub(super) fn workload_of(&self, id: &ImageId) -> Option<&Workload> {
        let offered = || self.offers.values().find(|offer| &offer.id == id);
        let image = self.images.get(id);
        image
            .or_else(|| offered().map(|offer| &offer.image))
            .map(|image| &image.workload)
    }

    /// Whether some container, dead ones included, has this name.
    pub(super) fn name_taken(&self, name: &str) -> bool {
        self.containers.iter().any(|ctr| ctr.name == name)
    }

    /// Containers with a process that the engine does not know of.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &Ctr> {
        self.containers
            .iter()
            .chain(&self.left_behind)
            .filter(|ctr| ctr.process.as_ref().is_some_and(|process| process.orphan))
    }

    /// Containers other than guards whose process is alive and that mount this volume; `writable` asks for writers.
    pub(super) fn users_of(&self, volume: &VolumeName, writable: bool) -> Vec<ContainerId> {
        self.containers
            .iter()
            .chain(&self.left_behind)
            .filter(|ctr| ctr.process.is_some() && !ctr.guard)
            .filter(|ctr| {
                ctr.mounts
                    .iter()
                    .any(|mount| &mount.volume == volume && (mount.writable || !writable))
            })
            .map(|ctr| ctr.id.clone())
            .collect()
    }

    /// The image under a tag, `repository@digest` or id.
    pub(super) fn resolve(&self, reference: &str) -> Option<ImageId> {
        if let Some(id) = self.tags.get(reference) {
            return Some(id.clone());
        }
        if let Ok(id) = ImageId::new(reference) {
            return self.images.contains_key(&id).then_some(id);
        }
        self.images
            .iter()
            .find(|(_, image)| image.repo_digests.contains(reference))
            .map(|(id, _)| id.clone())
    }
}

impl Ctr {
    /// Whether the engine says that it runs.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, RunState::Running | RunState::Paused)
    }

    /// How long its process has been up.
    pub(super) fn up_for(&self, now: Duration) -> Duration {
        self.process
            .as_ref()
            .map_or(Duration::ZERO, |process| now.saturating_sub(process.since))
    }
}

#[cfg(test)]
mod tests;
