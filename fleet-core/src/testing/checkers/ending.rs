//! What must hold when an update is over or frozen.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::host::FakeHost;
use super::super::machine::{Deed, Machine};
use super::super::swarm::THEIR_NAME;
use super::super::workload::ROWS;
use super::super::world::SECRET;
use super::{Checked, Checker, Violation, ensure};
use crate::ids::{ImageId, VolumeName};
use crate::model::{Container, RestartPolicy};
use crate::ports::StoredUpdate;
use crate::record::{Event, EventKind};
use crate::update::{Direction, Outcome, Phase, Step, UpdateState};

impl Checker {
    /// What must hold when the update is over or frozen.
    pub(super) fn at_the_end(
        &self,
        host: &FakeHost,
        events: &[Event],
        stored: Option<&StoredUpdate>,
        state: Option<&UpdateState>,
        volumes: &BTreeSet<VolumeName>,
    ) -> Checked {
        let (Some(stored), Some(state)) = (stored, state) else {
            return match self.pruned_while_down(host) {
                true => Ok(()),
                false => self.untouched(host),
            };
        };
        let outcome = stored
            .outcome
            .ok_or_else(|| Violation::new("I3", "an update without outcome"))?;
        self.events(events, outcome)?;
        self.one_version(host)?;
        self.volumes_stay(host)?;
        match outcome {
            Outcome::NeedsOperator | Outcome::Diverged => return self.frozen(host, state),
            _ if self.pruned_while_down(host) => {}
            Outcome::Committed => self.committed(host)?,
            Outcome::RolledBack => self.rolled_back(host, volumes)?,
            Outcome::Failed | Outcome::Refused | Outcome::Unchanged => self.untouched(host)?,
        }
        if !stored.closed && self.foreign_at.is_some() {
            return Ok(());
        }
        ensure(stored.closed, "I3", || "an update never closed".to_owned())?;
        self.no_leftovers(host, stored)
    }

    /// Exactly one event says how it ended, and no event holds a secret.
    fn events(&self, events: &[Event], outcome: Outcome) -> Checked {
        let kind = match outcome {
            Outcome::Committed => EventKind::UpdateCommitted,
            Outcome::RolledBack => EventKind::UpdateRolledBack,
            Outcome::NeedsOperator | Outcome::Diverged => EventKind::UpdateNeedsOperator,
            Outcome::Failed | Outcome::Refused => EventKind::UpdateRefused,
            Outcome::Unchanged => return Ok(()),
        };
        let count = events.iter().filter(|event| event.event.kind == kind);
        let count = count.count();
        ensure(count == 1, "I21", || {
            format!("{count} events {} instead of one", kind.label())
        })?;
        let leak = events.iter().any(|event| holds(&event.event.data, SECRET));
        ensure(!leak, "I25", || "an event holds a secret".to_owned())
    }

    fn committed(&self, host: &FakeHost) -> Checked {
        if let Some(holder) = self.holder(host, "I4")? {
            ensure(holder.image_id == self.new_image, "I4", || {
                "the instance does not run the new image".to_owned()
            })?;
            self.looks_as_before(host, &holder, "I4")?;
        }
        let machine = host.machine();
        self.tag_is(&machine, Some(&self.new_image), "I4")?;
        ensure(
            self.volumes_before.is_empty() || machine.snapshots.contains_key(&self.snapshot),
            "I11",
            || "the snapshot of a committed update is gone".to_owned(),
        )?;
        self.data(&machine, "I4", &|_, _| true)
    }

    fn rolled_back(&self, host: &FakeHost, volumes: &BTreeSet<VolumeName>) -> Checked {
        if let Some(holder) = self.holder(host, "I5")? {
            ensure(holder.image_id == self.old_image, "I5", || {
                "the instance does not run the old image".to_owned()
            })?;
            let may_be_new = self.pruned || self.theirs.removed;
            ensure(may_be_new || holder.id == self.before.id, "I5", || {
                "the old container was made anew".to_owned()
            })?;
            self.looks_as_before(host, &holder, "I5")?;
        }
        let machine = host.machine();
        if !self.pruned {
            self.tag_is(&machine, self.tag_before.as_ref(), "I5")?;
        }
        let names: BTreeSet<_> = machine.volumes.keys().collect();
        let (own, before): (BTreeSet<_>, BTreeSet<_>) = (
            self.volumes_before.keys().collect(),
            volumes.iter().collect(),
        );
        // Who makes a container may bring volumes with it, and so does who takes one away before its making was answered;
        // who gives one a name of their own keeps its volumes with it.
        let kept: BTreeSet<_> = (machine.containers.iter())
            .filter(|ctr| self.theirs.renamed && ctr.name == THEIR_NAME)
            .flat_map(|ctr| ctr.mounts.iter().map(|mount| &mount.volume))
            .collect();
        let no_more =
            self.theirs.made || self.unanswered_removed || names.is_subset(&(&before | &kept));
        ensure(names.is_superset(&own) && no_more, "I14", || {
            format!("volumes {names:?} instead of {own:?} among {before:?}")
        })?;
        // Where only the container was new, its image does not tell who wrote.
        let again = self.old_image == self.new_image;
        let holder = machine.containers.iter().find(|ctr| ctr.name == self.name);
        let holder = holder.map(|holder| holder.serial);
        self.data(&machine, "I8", &|container, image| {
            let old = container == self.before_serial || holder == Some(container);
            *image == self.old_image && (old || !again)
        })
    }

    /// The old container was never stopped.
    fn untouched(&self, host: &FakeHost) -> Checked {
        let Some(holder) = self.holder(host, "I5")? else {
            return Ok(());
        };
        let down = !self.was_running || self.theirs.ran;
        ensure(
            holder.id == self.before.id || self.pruned && down,
            "I5",
            || "another container has the instance's name".to_owned(),
        )?;
        ensure(
            self.engine_moved || self.theirs.ran || holder.started_at == self.before.started_at,
            "I5",
            || "the old container was restarted".to_owned(),
        )?;
        // A kill of the engine makes an orphan of it, and what the engine then takes for never started no restart of it, or
        // of the host, brings up.
        let orphaned = host.machine().orphans().any(|ctr| ctr.id == self.before.id);
        let forgotten = self.engine_moved && holder.started_at.is_none();
        if !orphaned && !forgotten {
            self.looks_as_before(host, &holder, "I5")?;
        }
        let machine = host.machine();
        self.tag_is(&machine, self.tag_before.as_ref(), "I5")?;
        self.data(&machine, "I8", &|_, image| *image == self.old_image)
    }

    fn tag_is(
        &self,
        machine: &Machine,
        expected: Option<&ImageId>,
        invariant: &'static str,
    ) -> Checked {
        let found = machine.tags.get(&self.before.image);
        // Nothing keeps the image of an instance that somebody removed from a prune.
        let gone = self.pruned && self.theirs.removed && found.is_none();
        ensure(gone || found == expected, invariant, || {
            format!("the local tag is on {found:?}, expected {expected:?}")
        })
    }

    /// A person is asked: nothing was lost, and at most one version runs.
    fn frozen(&self, host: &FakeHost, state: &UpdateState) -> Checked {
        let machine = host.machine();
        let dirty = state.volumes_dirty() && !self.volumes_before.is_empty();
        let kept = machine.snapshots.contains_key(&self.snapshot);
        // What somebody else started before there was a snapshot, nobody can take back; fleet starts nothing before.
        let taken = self.done.contains(&Step::Snapshot);
        ensure(!dirty || kept || !taken, "I11", || {
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
        let holder = host.container(&self.name);
        self.could_be_pruned() && holder.is_none_or(|holder| !self.ours.contains(&holder.id))
    }

    /// The instance's container, under whatever name somebody gave to it. None where it is not fleet's to answer for: a
    /// container of somebody else's has the name, or somebody took it away.
    fn holder(
        &self,
        host: &FakeHost,
        invariant: &'static str,
    ) -> Result<Option<Container>, Violation> {
        let found = host.container(&self.name);
        let found = match found {
            // Where they took others away, it may be any of fleet's that they gave the name to.
            None if self.theirs.renamed && !self.theirs.removed => host.container(THEIR_NAME),
            found => found,
        };
        match found {
            Some(holder) if self.ours.contains(&holder.id) => Ok(Some(holder)),
            _ if self.theirs.made || self.theirs.removed => Ok(None),
            Some(_) => Err(Violation::new(
                invariant,
                "a container that nobody made has the instance's name",
            )),
            None => Err(Violation::new(invariant, "nobody has the instance's name")),
        }
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
        let excused = self.theirs.ran
            || self.engine_moved && self.policy != RestartPolicy::Always
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
        by: &dyn Fn(u32, &ImageId) -> bool,
    ) -> Checked {
        // A container that somebody else started wrote as well, before the snapshot or after it.
        if self.theirs.wrote {
            return Ok(());
        }
        for (name, before) in &self.volumes_before {
            let Some(volume) = machine.volumes.get(name) else {
                return Err(Violation::new("I6", format!("volume {name} is gone")));
            };
            let mut expected = before.clone();
            for ack in &machine.acks[self.acks_before..] {
                let Some(writer) = machine.writers.get(&ack.container) else {
                    continue;
                };
                // One that somebody removed comes back as another, with the data of the moment of stop.
                let first = self.volume_serials.get(name) == Some(&ack.volume);
                if !first && ack.volume != volume.serial || !by(ack.container, writer) {
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
            ensure(
                !made || renamed || container.name == self.name,
                "I14",
                || format!("container {} stayed behind", container.name),
            )?;
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

/// Whether a text stands anywhere in a value.
fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found.contains(text),
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, field)| name.contains(text) || holds(field, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
