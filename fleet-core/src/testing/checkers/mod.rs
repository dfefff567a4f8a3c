//! What must hold, whatever went wrong: the invariants, checked over the facts of a fake host in their order.
//!
//! The checker never looks at what fleet meant to do, only at what happened to containers, volumes, snapshots, tags and
//! rows. Numbers are those of the invariants in the design (`I1`: one running version, and so on).

mod ending;
mod hands;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hands::Hands;
pub(super) use together::Together;

use super::host::FakeHost;
use super::machine::{Fact, ForeignMove, Hand, Move};
use super::workload::Files;
use crate::ids::{ContainerId, ImageId, SnapshotId, VolumeName};
use crate::model::{Container, RestartPolicy};
use crate::update::{Entry, MAX_RECOVERIES, MemberPlan, Outcome, Phase, Step};

/// Somebody who interferes between a look and the act that follows it cannot be seen: for so many calls after a move of
/// somebody else, two running versions are theirs.
const BLIND_CALLS: u64 = 6;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which, for instance `I1`.
    pub invariant: &'static str,
    /// What was found.
    pub found: String,
}

impl Violation {
    pub(super) fn new(invariant: &'static str, found: impl Into<String>) -> Self {
        Self {
            invariant,
            found: found.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not hold: {}", self.invariant, self.found)
    }
}

impl std::error::Error for Violation {}

type Checked = Result<(), Violation>;

fn ensure(holds: bool, invariant: &'static str, found: impl FnOnce() -> String) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(Violation::new(invariant, found()))
    }
}

/// Follows an update with an eye on one instance of it.
#[derive(Debug)]
struct Checker {
    // how it was before
    name: String,
    before: Container,
    before_serial: u32,
    old_image: ImageId,
    new_image: ImageId,
    was_running: bool,
    policy: RestartPolicy,
    tag_before: Option<ImageId>,
    volumes_before: BTreeMap<VolumeName, Files>,
    volume_serials: BTreeMap<VolumeName, u32>,
    acks_before: usize,
    snapshot: SnapshotId,
    // what happened since
    ours: BTreeSet<ContainerId>,
    guards: BTreeSet<ContainerId>,
    alive: BTreeSet<ContainerId>,
    half_restored: BTreeSet<VolumeName>,
    /// When the last act of a restore was seen, and when that restore began.
    restoring: Option<(u64, u64)>,
    foreign_at: Option<u64>,
    /// What somebody else's moves touched.
    theirs: Hands,
    /// Somebody else's hand when the update was over.
    foreign_at_last: bool,
    /// Somebody removed a container before fleet knew what was made.
    unanswered_removed: bool,
    pruned: bool,
    engine_moved: bool,
    /// The call in which the engine went away, as long as nothing happened in a later one.
    engine_moved_in: Option<u64>,
    /// The engine went away when the update was over, or in the very call that said so.
    engine_moved_at_last: bool,
    starts_of_new: u32,
    outcome: Option<Outcome>,
    /// Steps of the instance that the journal begins and ends.
    begun: BTreeSet<Step>,
    done: BTreeSet<Step>,
}

impl Checker {
    fn new(host: &FakeHost, member: &MemberPlan) -> Self {
        let name = member.instance.name.to_string();
        let before = host.container(&name).expect("the instance is there");
        let machine = host.machine();
        let new_image = match &member.target {
            Some(target) => machine.offers[&target.image.by_digest()].id.clone(),
            None => before.image_id.clone(),
        };
        let serial = machine.containers.iter().find(|ctr| ctr.id == before.id);
        let before_serial = serial.expect("the instance is there").serial;
        let volumes = || before.writable_volumes();
        let volumes_before = volumes()
            .map(|name| (name.clone(), machine.volumes[name].files.clone()))
            .collect();
        let volume_serials = volumes()
            .map(|name| (name.clone(), machine.volumes[name].serial))
            .collect();
        let was_running = before.is_up();
        let alive = was_running.then(|| before.id.clone());
        Self {
            old_image: before.image_id.clone(),
            new_image,
            was_running,
            policy: before.restart_policy,
            tag_before: machine.tags.get(&before.image).cloned(),
            volumes_before,
            volume_serials,
            acks_before: machine.acks.len(),
            snapshot: member.snapshot_id,
            ours: BTreeSet::from([before.id.clone()]),
            guards: BTreeSet::new(),
            alive: alive.into_iter().collect(),
            half_restored: BTreeSet::new(),
            restoring: None,
            foreign_at: None,
            theirs: Hands::default(),
            foreign_at_last: false,
            unanswered_removed: false,
            pruned: false,
            engine_moved: false,
            engine_moved_in: None,
            engine_moved_at_last: false,
            starts_of_new: 0,
            outcome: None,
            begun: BTreeSet::new(),
            done: BTreeSet::new(),
            before_serial,
            before,
            name,
        }
    }

    /// Whether a container is one of the instance's, or a guard of its update.
    fn knows(&self, id: &ContainerId) -> bool {
        self.ours.contains(id) || self.guards.contains(id)
    }

    /// Whether the instance may be made from an image.
    fn runs(&self, image: &ImageId) -> bool {
        *image == self.old_image || *image == self.new_image
    }

    fn old_image_is_kept(&self, host: &FakeHost) -> Checked {
        let over = self.outcome.is_some();
        ensure(
            over || self.pruned || host.machine().images.contains_key(&self.old_image),
            "I10",
            || "the old image is gone while the update is open".to_owned(),
        )
    }

    fn take(&mut self, call: u64, fact: Fact) -> Checked {
        self.engine_moved_in = self.engine_moved_in.filter(|moved| *moved == call);
        match fact {
            Fact::Started(id, hand) => self.started(call, id, hand)?,
            Fact::Ended(id) => {
                self.alive.remove(&id);
            }
            Fact::Created { id, image, guard } => {
                ensure(self.runs(&image), "I19", || {
                    format!("a container was made from image {}", image.short())
                })?;
                let set = if guard {
                    &mut self.guards
                } else {
                    &mut self.ours
                };
                set.insert(id);
            }
            Fact::StopAsked(id) | Fact::Renamed(id) | Fact::Removed(id) => {
                ensure(self.knows(&id), "I15", || {
                    format!("somebody else's container {} was touched", id.short())
                })?;
            }
            Fact::VolumeRemoved(name) => {
                // One that a prune took before is made again with the new container, and is fleet's then.
                let known = self.volumes_before.contains_key(&name);
                ensure(!known || self.could_be_pruned(), "I6", || {
                    format!("fleet removed volume {name}")
                })?;
            }
            Fact::SnapshotTaken(id, writers) => {
                // Containers of others that write to the volume are caught before a restore, not here.
                let foreign = self.foreign_at.is_some();
                let ours = writers.iter().any(|id| self.ours.contains(id));
                let excused = foreign && (!ours || self.blind(call));
                ensure(writers.is_empty() || excused, "I8", || {
                    format!("snapshot {id} was taken while the volume was written to")
                })?;
            }
            Fact::Restoring(name, users) => {
                // One restore is one act, whatever the number of volumes: fleet looks before it, not in the middle.
                let began = match self.restoring {
                    Some((last, began)) if call <= last + 1 => began,
                    _ => call,
                };
                self.restoring = Some((call, began));
                ensure(users.is_empty() || self.blind(began), "I7", || {
                    format!("volume {name} was restored under a running container")
                })?;
                ensure(self.outcome != Some(Outcome::Committed), "I9", || {
                    format!("volume {name} was restored after the commit")
                })?;
                self.half_restored.insert(name);
            }
            Fact::Restored(name) => {
                self.restoring = self.restoring.map(|(_, began)| (call, began));
                self.half_restored.remove(&name);
            }
            Fact::SnapshotDeleted(id) => {
                let over = matches!(
                    self.outcome,
                    Some(outcome) if outcome != Outcome::NeedsOperator && outcome != Outcome::Diverged
                );
                let last_good = id == self.snapshot && self.outcome == Some(Outcome::Committed);
                ensure(over && !last_good, "I11", || {
                    format!("snapshot {id} was deleted while it was needed")
                })?;
            }
            Fact::Moved(what) => self.moved(call, &what),
            Fact::Journalled(outcome) => {
                ensure(
                    self.outcome.is_none_or(|before| before == outcome),
                    "I13",
                    || format!("the outcome {:?} became {outcome:?}", self.outcome),
                )?;
                // Who starts something just before it is over cannot be seen either.
                self.foreign_at_last |= self.blind(call);
                // The journal does not ask the engine: one that goes away in this call was there at the last look.
                self.engine_moved_at_last |= self.engine_moved_in.is_some();
                self.outcome = Some(outcome);
            }
        }
        Ok(())
    }

    fn moved(&mut self, call: u64, what: &Move) {
        match what {
            Move::EngineRestart { .. } | Move::EngineKill { .. } | Move::Reboot { .. } => {
                self.engine_moved = true;
                self.engine_moved_in = Some(call);
                self.engine_moved_at_last |= self.outcome.is_some();
            }
            Move::Prune => self.pruned = true,
            Move::Foreign(what) => {
                self.theirs.add(what);
                let unanswered = !self.done.contains(&Step::CreateCandidate);
                self.unanswered_removed |= unanswered && matches!(what, ForeignMove::Remove(_));
                self.foreign_at = Some(call);
                self.foreign_at_last |= self.outcome.is_some();
            }
            Move::ClockJump { .. } | Move::FreeBytes(_) => {}
        }
    }

    /// Whether somebody pruned while the container may have been down without fleet's doing.
    fn could_be_pruned(&self) -> bool {
        self.pruned && (self.engine_moved || !self.was_running || self.theirs.ran)
    }

    /// Whether fleet could not have seen what somebody else just did.
    fn blind(&self, call: u64) -> bool {
        self.foreign_at
            .is_some_and(|at| call.saturating_sub(at) <= BLIND_CALLS)
    }

    fn started(&mut self, call: u64, id: ContainerId, hand: Hand) -> Checked {
        if self.ours.contains(&id) {
            let mut others = self.alive.iter().filter(|other| **other != id);
            let beside = others.find(|other| self.ours.contains(*other));
            if let Some(beside) = beside {
                // What the engine starts by itself beside it is not fleet's doing, but that of whoever started the one.
                let theirs = match hand {
                    Hand::Other => true,
                    Hand::Engine => self.theirs.ran || self.blind(call),
                    Hand::Fleet => self.blind(call),
                };
                ensure(theirs, "I1", || {
                    format!("{} was started beside {}", id.short(), beside.short())
                })?;
            }
            ensure(
                self.half_restored.is_empty() || hand != Hand::Fleet,
                "I7",
                || format!("{} was started on a half-restored volume", id.short()),
            )?;
            if id != self.before.id && hand == Hand::Fleet {
                self.starts_of_new += 1;
                // Each process may start it, and once more after an incident of the engine.
                let most = (MAX_RECOVERIES + 1) * 2;
                ensure(self.starts_of_new <= most, "I18", || {
                    format!("the new release was started {} times", self.starts_of_new)
                })?;
            }
        }
        self.alive.insert(id);
        Ok(())
    }

    /// The instance is stopped and its data safe: as far as it goes the new version may be started.
    fn is_safe(&self) -> bool {
        let need = |step| self.done.contains(&step);
        let volumes = !self.volumes_before.is_empty();
        // One that does not run is not stopped.
        let stopped = need(Step::Stop) || !self.was_running || self.theirs.ran || self.engine_moved;
        need(Step::Disarm) && stopped && (need(Step::Snapshot) || !volumes)
    }

    fn row_is_legal(&mut self, host: &FakeHost, entry: &Entry) -> Checked {
        match &entry.phase {
            Phase::Started { step, .. } => {
                self.begun.insert(*step);
            }
            Phase::Done { step, .. } => {
                ensure(self.begun.contains(step), "I13", || {
                    format!("step {step} is done and never began")
                })?;
                self.done.insert(*step);
                // What an engine that died forgot was down before fleet took note of how it was.
                if *step == Step::Freeze && self.engine_moved {
                    let old = host.containers().into_iter();
                    let mut old = old.filter(|container| container.id == self.before.id);
                    self.was_running &= old.next().is_some_and(|old| old.started_at.is_some());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
