//! The instances that one update moves together: what concerns one of them goes to its own checker, what concerns all is
//! checked here.

use std::collections::BTreeSet;

use super::super::host::FakeHost;
use super::super::machine::Fact;
use super::super::memory::MemoryStore;
use super::{Checked, Checker, ensure};
use crate::ids::VolumeName;
use crate::ports::StoredUpdate;
use crate::record::Event;
use crate::update::{Phase, Step, UpdatePlan, UpdateState};

/// Follows one update of all its instances.
#[derive(Debug)]
pub(in super::super) struct Together {
    members: Vec<Checker>,
    /// The volumes that there were.
    volumes: BTreeSet<VolumeName>,
    /// Rows of the journal that were looked at.
    rows: usize,
}

impl Together {
    pub(in super::super) fn new(host: &FakeHost, plan: &UpdatePlan) -> Self {
        let members = plan.members.iter();
        Self {
            members: members.map(|member| Checker::new(host, member)).collect(),
            volumes: host.machine().volumes.keys().cloned().collect(),
            rows: 0,
        }
    }

    /// Checks everything that happened since the last time, step by step, and the state that it led to.
    pub(in super::super) fn follow(&mut self, host: &FakeHost, store: &MemoryStore) -> Checked {
        for (call, fact) in host.take_facts() {
            for place in self.concerned(&fact) {
                self.members[place].take(call, fact.clone())?;
            }
        }
        self.journal_is_legal(host, store)?;
        let mut members = self.members.iter();
        members.try_for_each(|member| member.old_image_is_kept(host))
    }

    /// The members that a fact is about; the first where it is about none, who then finds fault with it.
    fn concerned(&self, fact: &Fact) -> Vec<usize> {
        let about = |member: &Checker| match fact {
            Fact::Created { image, .. } => member.runs(image),
            Fact::StopAsked(id) | Fact::Renamed(id) | Fact::Removed(id) => member.knows(id),
            Fact::SnapshotTaken(id, _) | Fact::SnapshotDeleted(id) => member.snapshot == *id,
            Fact::Restoring(name, _) | Fact::Restored(name) => {
                member.volumes_before.contains_key(name)
            }
            Fact::Started(..)
            | Fact::Ended(_)
            | Fact::VolumeRemoved(_)
            | Fact::Moved(_)
            | Fact::Journalled(_) => true,
        };
        let places = 0..self.members.len();
        let about: Vec<_> = places
            .filter(|place| about(&self.members[*place]))
            .collect();
        if about.is_empty() { vec![0] } else { about }
    }

    /// Whether somebody else touched the containers.
    pub(in super::super) fn somebody_interfered(&self) -> bool {
        self.members
            .iter()
            .any(|member| member.foreign_at.is_some())
    }

    /// Every `done` has its `started`, the steps of each direction are in order, and no new version is started before
    /// all are stopped and their data is safe. Rows are never changed, so each is looked at once.
    fn journal_is_legal(&mut self, host: &FakeHost, store: &MemoryStore) -> Checked {
        store.look(|updates, _| {
            let entries = updates.iter().flat_map(|update| &update.entries);
            for entry in entries.skip(self.rows) {
                self.rows += 1;
                // A row may take note of what somebody else started.
                if let Phase::Started {
                    step: Step::Start,
                    input,
                } = &entry.phase
                    && input["started_by_others"] != true
                {
                    let safe = self.members.iter().all(Checker::is_safe);
                    ensure(safe, "I13", || {
                        "a new version was started too early".to_owned()
                    })?;
                }
                self.members[entry.member].row_is_legal(host, entry)?;
            }
            Ok(())
        })
    }

    /// What must hold when the update is over or frozen.
    pub(in super::super) fn at_the_end(
        &self,
        host: &FakeHost,
        events: &[Event],
        stored: Option<&StoredUpdate>,
        state: Option<&UpdateState>,
    ) -> Checked {
        for member in &self.members {
            member.at_the_end(host, events, stored, state, &self.volumes)?;
        }
        Ok(())
    }
}
