//! What must hold, whatever went wrong: the invariants, checked over the facts of a fake host in their order.
//!
//! The checker never looks at what fleet meant to do, only at what happened to containers, volumes, snapshots, tags and
//! rows. Numbers are those of the invariants in the design (`I1`: one running version, and so on).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::host::FakeHost;
use super::machine::{Deed, Fact, Hand, Machine, Move};
use super::memory::MemoryStore;
use super::swarm::THEIR_NAME;
use super::workload::{Files, ROWS};
use super::world::{NAME, SECRET, Scenario};
use crate::ids::{ContainerId, ImageId, SnapshotId, VolumeName};
use crate::model::{Container, RestartPolicy};
use crate::ports::StoredUpdate;
use crate::record::EventKind;
use crate::update::{Direction, MAX_RECOVERIES, Outcome, Phase, Step, UpdatePlan, UpdateState};

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

/// Follows one update of one instance.
#[derive(Debug)]
pub(super) struct Checker {
    // how it was before
    before: Container,
    old_image: ImageId,
    new_image: ImageId,
    was_running: bool,
    policy: RestartPolicy,
    tag_before: Option<ImageId>,
    volumes_before: BTreeMap<VolumeName, Files>,
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
    /// Somebody else's hand when the update was over.
    foreign_at_last: bool,
    pruned: bool,
    engine_moved: bool,
    engine_moved_at_last: bool,
    starts_of_new: u32,
    outcome: Option<Outcome>,
}

impl Checker {
    pub(super) fn new(host: &FakeHost, plan: &UpdatePlan, scenario: &Scenario) -> Self {
        let before = host.container(NAME).expect("the instance is there");
        let target = plan.primary().target.as_ref().expect("a target");
        let machine = host.machine();
        let offer = &machine.offers[&target.image.by_digest()];
        let volumes = before.writable_volumes();
        let volumes_before = volumes
            .map(|name| (name.clone(), machine.volumes[name].files.clone()))
            .collect();
        let alive = scenario.running.then(|| before.id.clone());
        Self {
            old_image: before.image_id.clone(),
            new_image: offer.id.clone(),
            was_running: scenario.running,
            policy: scenario.policy,
            tag_before: machine.tags.get(&before.image).cloned(),
            volumes_before,
            acks_before: machine.acks.len(),
            snapshot: plan.primary().snapshot_id,
            ours: BTreeSet::from([before.id.clone()]),
            guards: BTreeSet::new(),
            alive: alive.into_iter().collect(),
            half_restored: BTreeSet::new(),
            restoring: None,
            foreign_at: None,
            foreign_at_last: false,
            pruned: false,
            engine_moved: false,
            engine_moved_at_last: false,
            starts_of_new: 0,
            outcome: None,
            before,
        }
    }

    /// Checks everything that happened since the last time, step by step, and the state that it led to.
    pub(super) fn follow(&mut self, host: &FakeHost, store: &MemoryStore) -> Checked {
        for (call, fact) in host.take_facts() {
            self.take(call, fact)?;
        }
        self.journal_is_legal(store)?;
        let machine = host.machine();
        let over = self.outcome.is_some();
        ensure(
            over || self.pruned || machine.images.contains_key(&self.old_image),
            "I10",
            || "the old image is gone while the update is open".to_owned(),
        )
    }

    /// Whether somebody else touched the instance's containers.
    pub(super) fn somebody_interfered(&self) -> bool {
        self.foreign_at.is_some()
    }

    fn take(&mut self, call: u64, fact: Fact) -> Checked {
        match fact {
            Fact::Started(id, hand) => self.started(call, id, hand)?,
            Fact::Ended(id) => {
                self.alive.remove(&id);
            }
            Fact::Created { id, image, guard } => {
                ensure(
                    image == self.old_image || image == self.new_image,
                    "I19",
                    || format!("a container was made from image {}", image.short()),
                )?;
                let set = if guard {
                    &mut self.guards
                } else {
                    &mut self.ours
                };
                set.insert(id);
            }
            Fact::StopAsked(id) | Fact::Renamed(id) | Fact::Removed(id) => ensure(
                self.ours.contains(&id) || self.guards.contains(&id),
                "I15",
                || format!("somebody else's container {} was touched", id.short()),
            )?,
            Fact::VolumeRemoved(name) => {
                ensure(!self.volumes_before.contains_key(&name), "I6", || {
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
                self.outcome = Some(outcome);
            }
        }
        Ok(())
    }

    fn moved(&mut self, call: u64, what: &Move) {
        match what {
            Move::EngineRestart { .. } | Move::EngineKill { .. } | Move::Reboot { .. } => {
                self.engine_moved = true;
                self.engine_moved_at_last |= self.outcome.is_some();
            }
            Move::Prune => self.pruned = true,
            Move::Foreign(_) => {
                self.foreign_at = Some(call);
                self.foreign_at_last |= self.outcome.is_some();
            }
            Move::ClockJump { .. } | Move::FreeBytes(_) => {}
        }
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
                let theirs = hand == Hand::Other || self.foreign_at.is_some() && self.blind(call);
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

    /// Every `done` has its `started`, the steps of each direction are in order, and the new version is started only
    /// with the old one stopped and its data safe.
    fn journal_is_legal(&self, store: &MemoryStore) -> Checked {
        for update in store.updates() {
            let mut started = BTreeSet::new();
            let mut done = BTreeSet::new();
            for entry in &update.entries {
                match &entry.phase {
                    Phase::Started { step, .. } => {
                        if *step == Step::Start {
                            let need = |step| done.contains(&step);
                            let volumes = !self.volumes_before.is_empty();
                            ensure(
                                need(Step::Disarm)
                                    && need(Step::Stop)
                                    && (need(Step::Snapshot) || !volumes),
                                "I13",
                                || "the new version was started too early".to_owned(),
                            )?;
                        }
                        started.insert(*step);
                    }
                    Phase::Done { step, .. } => {
                        ensure(started.contains(step), "I13", || {
                            format!("step {step} is done and never began")
                        })?;
                        done.insert(*step);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What must hold when the update is over or frozen.
    pub(super) fn at_the_end(
        &self,
        host: &FakeHost,
        store: &MemoryStore,
        stored: Option<&StoredUpdate>,
        state: Option<&UpdateState>,
    ) -> Checked {
        let (Some(stored), Some(state)) = (stored, state) else {
            return match self.foreign_at {
                None if self.pruned_while_down(host) => Ok(()),
                None => self.untouched(host),
                Some(_) => Ok(()),
            };
        };
        let outcome = stored
            .outcome
            .ok_or_else(|| Violation::new("I3", "an update without outcome"))?;
        self.events(store, outcome)?;
        self.one_version(host)?;
        self.volumes_stay(host)?;
        match outcome {
            Outcome::NeedsOperator | Outcome::Diverged => return self.frozen(host, state),
            // What somebody else made of the instance meanwhile is theirs.
            _ if self.foreign_at.is_some() || self.pruned_while_down(host) => {}
            Outcome::Committed => self.committed(host)?,
            Outcome::RolledBack => self.rolled_back(host)?,
            Outcome::Failed | Outcome::Refused | Outcome::Unchanged => self.untouched(host)?,
        }
        if !stored.closed && self.foreign_at.is_some() {
            return Ok(());
        }
        ensure(stored.closed, "I3", || "an update never closed".to_owned())?;
        self.no_leftovers(host, stored)
    }

    /// Exactly one event says how it ended, and no event holds a secret.
    fn events(&self, store: &MemoryStore, outcome: Outcome) -> Checked {
        let kind = match outcome {
            Outcome::Committed => EventKind::UpdateCommitted,
            Outcome::RolledBack => EventKind::UpdateRolledBack,
            Outcome::NeedsOperator | Outcome::Diverged => EventKind::UpdateNeedsOperator,
            Outcome::Failed | Outcome::Refused => EventKind::UpdateRefused,
            Outcome::Unchanged => return Ok(()),
        };
        let events = store.events();
        let count = events.iter().filter(|event| event.event.kind == kind);
        let count = count.count();
        ensure(count == 1, "I21", || {
            format!("{count} events {} instead of one", kind.label())
        })?;
        let leak = events
            .iter()
            .any(|event| event.event.data.to_string().contains(SECRET));
        ensure(!leak, "I25", || "an event holds a secret".to_owned())
    }

    fn committed(&self, host: &FakeHost) -> Checked {
        let holder = self.holder(host, "I4")?;
        ensure(holder.image_id == self.new_image, "I4", || {
            "the instance does not run the new image".to_owned()
        })?;
        self.looks_as_before(host, &holder, "I4")?;
        let machine = host.machine();
        let tag = machine.tags.get(&self.before.image);
        ensure(tag == Some(&self.new_image), "I4", || {
            "the local tag is not on the new image".to_owned()
        })?;
        ensure(
            self.volumes_before.is_empty() || machine.snapshots.contains_key(&self.snapshot),
            "I11",
            || "the snapshot of a committed update is gone".to_owned(),
        )?;
        self.data(&machine, "I4", &|_| true)
    }

    fn rolled_back(&self, host: &FakeHost) -> Checked {
        let holder = self.holder(host, "I5")?;
        ensure(holder.image_id == self.old_image, "I5", || {
            "the instance does not run the old image".to_owned()
        })?;
        ensure(self.pruned || holder.id == self.before.id, "I5", || {
            "the old container was made anew".to_owned()
        })?;
        self.looks_as_before(host, &holder, "I5")?;
        let machine = host.machine();
        let tag = machine.tags.get(&self.before.image);
        ensure(self.pruned || tag == self.tag_before.as_ref(), "I5", || {
            "the local tag is not where it was".to_owned()
        })?;
        let names: BTreeSet<_> = machine.volumes.keys().collect();
        let before: BTreeSet<_> = self.volumes_before.keys().collect();
        ensure(names == before, "I14", || {
            format!("volumes {names:?} instead of {before:?}")
        })?;
        self.data(&machine, "I8", &|image| *image == self.old_image)
    }

    /// The old container was never stopped.
    fn untouched(&self, host: &FakeHost) -> Checked {
        let holder = self.holder(host, "I5")?;
        ensure(
            holder.id == self.before.id || self.pruned && !self.was_running,
            "I5",
            || "another container has the instance's name".to_owned(),
        )?;
        ensure(
            self.engine_moved || holder.started_at == self.before.started_at,
            "I5",
            || "the old container was restarted".to_owned(),
        )?;
        let orphaned = host.machine().orphans().any(|ctr| ctr.id == self.before.id);
        if !orphaned {
            self.looks_as_before(host, &holder, "I5")?;
        }
        let machine = host.machine();
        let tag = machine.tags.get(&self.before.image);
        ensure(tag == self.tag_before.as_ref(), "I5", || {
            "the local tag is not where it was".to_owned()
        })?;
        self.data(&machine, "I8", &|image| *image == self.old_image)
    }

    /// A person is asked: nothing was lost, and at most one version runs.
    fn frozen(&self, host: &FakeHost, state: &UpdateState) -> Checked {
        let machine = host.machine();
        let dirty = state.volumes_dirty() && !self.volumes_before.is_empty();
        let kept = machine.snapshots.contains_key(&self.snapshot);
        let before_snapshot = !state.any_started(Step::Start);
        ensure(!dirty || kept || before_snapshot, "I11", || {
            "the snapshot that a person needs is gone".to_owned()
        })
    }

    /// However it ended, at most one version runs: what others start beside it, fleet's own makes room for. Only who
    /// starts one when the update is over has two.
    fn one_version(&self, host: &FakeHost) -> Checked {
        let machine = host.machine();
        let up = machine.containers.iter().filter(|ctr| {
            self.ours.contains(&ctr.id) && ctr.process.as_ref().is_some_and(|p| !p.orphan)
        });
        let up = up.count();
        ensure(up <= 1 || self.foreign_at_last, "I1", || {
            format!("{up} versions run at the end")
        })
    }

    /// Whatever others did to the containers, the volumes are there; only a prune takes those that nothing holds.
    fn volumes_stay(&self, host: &FakeHost) -> Checked {
        let machine = host.machine();
        let mut names = self.volumes_before.keys();
        let gone = names.find(|name| !machine.volumes.contains_key(*name));
        ensure(gone.is_none() || self.pruned, "I6", || {
            format!("volume {gone:?} is gone")
        })
    }

    /// A container that is down without fleet's doing is anybody's to prune.
    fn pruned_while_down(&self, host: &FakeHost) -> bool {
        let down = self.engine_moved || !self.was_running;
        self.pruned && down && host.container(NAME).is_none()
    }

    fn holder(&self, host: &FakeHost, invariant: &'static str) -> Result<Container, Violation> {
        host.container(NAME)
            .ok_or_else(|| Violation::new(invariant, "nobody has the instance's name"))
    }

    /// Policy, networks, mounts and running-or-stopped are what they were.
    fn looks_as_before(
        &self,
        host: &FakeHost,
        holder: &Container,
        invariant: &'static str,
    ) -> Checked {
        ensure(holder.restart_policy == self.policy, invariant, || {
            format!("the restart policy is {:?}", holder.restart_policy)
        })?;
        // An engine restart after the end may have left it down, as its policy says; a kill of the engine then may have
        // made an orphan of it, and what the engine takes for never started it does not bring up.
        let orphaned = || {
            let lost = host.machine().orphans().any(|ctr| ctr.id == holder.id);
            lost || holder.started_at.is_none()
        };
        let excused = self.engine_moved && self.policy != RestartPolicy::Always
            || self.engine_moved_at_last && orphaned();
        let up = holder.is_up();
        ensure(
            up == self.was_running || excused || self.engine_moved && !self.was_running,
            invariant,
            || format!("expected running: {}, found {up}", self.was_running),
        )?;
        let networks = |container: &Container| {
            container
                .networks
                .iter()
                .map(|n| n.network.clone())
                .collect()
        };
        let (now, before): (Vec<_>, Vec<_>) = (networks(holder), networks(&self.before));
        ensure(now == before, invariant, || {
            format!("networks {now:?} instead of {before:?}")
        })?;
        let missing = self
            .before
            .mounts
            .iter()
            .find(|mount| !holder.mounts.contains(mount));
        ensure(missing.is_none(), invariant, || {
            format!("mount {missing:?} is missing")
        })
    }

    /// Every volume holds exactly what the programs of these images wrote, in order: nothing lost, nothing added.
    fn data(
        &self,
        machine: &Machine,
        invariant: &'static str,
        by: &dyn Fn(&ImageId) -> bool,
    ) -> Checked {
        for (name, before) in &self.volumes_before {
            let Some(volume) = machine.volumes.get(name) else {
                return Err(Violation::new("I6", format!("volume {name} is gone")));
            };
            let mut expected = before.clone();
            for ack in &machine.acks[self.acks_before..] {
                let Some(writer) = machine.writers.get(&ack.container) else {
                    continue;
                };
                if ack.volume != volume.serial || !by(writer) {
                    continue;
                }
                match ack.deed {
                    Deed::Boot => {
                        if let Some(program) = machine.workload_of(writer) {
                            program.migrate(&mut expected);
                        }
                    }
                    Deed::Row(row) => expected
                        .entry(ROWS.to_owned())
                        .or_default()
                        .extend_from_slice(&row.to_le_bytes()),
                }
            }
            ensure(volume.files == expected, invariant, || {
                format!("volume {name} does not hold what was acknowledged")
            })?;
        }
        Ok(())
    }

    /// Nothing of fleet's stays behind.
    fn no_leftovers(&self, host: &FakeHost, stored: &StoredUpdate) -> Checked {
        let foreign = self.foreign_at.is_some();
        for container in host.containers() {
            let made = self.ours.contains(&container.id) || self.guards.contains(&container.id);
            // Others may give a workload a name of their own.
            let theirs = container.id == self.before.id || container.name == THEIR_NAME;
            let renamed = foreign && theirs;
            ensure(!made || renamed || container.name == NAME, "I14", || {
                format!("container {} stayed behind", container.name)
            })?;
        }
        let machine = host.machine();
        let mut keep = machine.tags.keys().filter(|tag| tag.starts_with("fleet-"));
        ensure(keep.next().is_none(), "I14", || {
            "a keep tag stayed behind".to_owned()
        })?;
        ensure(machine.unfinished.is_empty(), "I27", || {
            "an unfinished snapshot stayed behind".to_owned()
        })?;
        let back = stored.entries.iter().any(|entry| {
            matches!(&entry.phase, Phase::Done { step, .. } if step.direction() == Direction::Back)
        });
        ensure(
            !back || stored.outcome != Some(Outcome::Committed),
            "I13",
            || "a committed update went back".to_owned(),
        )
    }
}
