//! A person's decision on an update that is frozen.

use super::{Fleet, FleetError, InstanceState};
use crate::ids::InstanceId;
use crate::ports::{JournalWrite, ProgressSink, StoredUpdate};
use crate::record::{EventKind, NewEvent};
use crate::update::{Entry, Observation, Outcome, Phase, Step, UpdateReport, UpdateState};

/// What to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The new release: the update is committed with what is there.
    New,
    /// The old release: the way back is taken again.
    Old,
}

/// An update that waits for a person, with what is there now.
#[derive(Debug)]
pub struct Frozen {
    /// The update.
    pub update: StoredUpdate,
    /// Its state.
    pub state: UpdateState,
    /// `needs_operator` or `diverged`.
    pub instance_state: InstanceState,
    /// What the engine shows.
    pub seen: Observation,
}

impl Fleet {
    /// The frozen update of an instance, with what is there now.
    ///
    /// # Errors
    /// [`FleetError::NotFrozen`]; the engine or the store cannot be asked.
    pub async fn frozen(&self, name: &str) -> Result<Frozen, FleetError> {
        for update in self.ports.update.journal.load_open().await? {
            let state = UpdateState::replay(update.plan.clone(), &update.entries);
            let ours = update
                .plan
                .members
                .iter()
                .any(|member| member.instance.to_string() == name);
            let frozen = matches!(
                state.outcome,
                Some(Outcome::NeedsOperator | Outcome::Diverged)
            );
            if ours && frozen {
                let seen = self.observe(&state).await?;
                return Ok(Frozen {
                    instance_state: InstanceState::of(&state),
                    update,
                    state,
                    seen,
                });
            }
        }
        Err(FleetError::NotFrozen(name.to_owned()))
    }

    /// Ends a frozen update as a person decided.
    ///
    /// # Errors
    /// [`FleetError::NotFrozen`]; [`FleetError::Refused`] if what shall be kept is not there; the run stopped again.
    pub async fn resolve(
        &self,
        name: &str,
        keep: Keep,
        actor: &str,
        progress: &dyn ProgressSink,
    ) -> Result<UpdateReport, FleetError> {
        let frozen = self.frozen(name).await?;
        let mut state = frozen.state;
        let Some(_claim) = self.live.claim(&state.plan) else {
            return Err(Self::busy(name));
        };
        if keep == Keep::New
            && frozen
                .seen
                .members
                .iter()
                .any(|member| member.new.is_none())
        {
            return Err(FleetError::Refused {
                reason: "the new container does not exist any more".to_owned(),
                remedy: "go back with `fleet resolve --keep-old`, then update again".to_owned(),
            });
        }
        let at = self.ports.update.clock.now();
        let phase = Phase::Resolved {
            keep_new: keep == Keep::New,
            actor: actor.to_owned(),
        };
        let entry = Entry {
            at,
            member: 0,
            phase,
        };
        let instance: InstanceId = state.plan.primary().instance.clone();
        let event = NewEvent {
            tenant: Some(state.plan.primary().tenant.clone()),
            instance: Some(instance),
            update: Some(state.plan.id),
            data: serde_json::json!({ "keep": if keep == Keep::New { "new" } else { "old" } }),
            ..NewEvent::new(at, EventKind::InstanceRecovered, actor)
        };
        let write = JournalWrite {
            expected_rows: state.rows,
            entries: vec![entry.clone()],
            events: vec![event],
            ..JournalWrite::default()
        };
        self.ports
            .update
            .journal
            .append(&state.plan.id, write)
            .await?;
        state.apply(&entry);
        let state = self.drive(state, progress).await?;
        self.report_of(&state.plan.id).await
    }
}

/// The commands that show a person what a frozen update left, in the order in which to run them.
#[must_use]
pub(crate) fn commands_to_look(state: &UpdateState) -> Vec<String> {
    let mut commands = Vec::new();
    for (plan, member) in state.plan.members.iter().zip(&state.members) {
        commands.push(format!("docker ps -a --filter name={}", plan.instance.name));
        if let Some(new) = &member.facts.candidate {
            commands.push(format!("docker logs {}", new.short()));
        }
        if member.started.contains(&Step::Snapshot) {
            commands.push(format!("fleet snapshot verify {}", plan.snapshot_id));
        }
        commands.push(format!("fleet resolve {} --keep-old", plan.instance.name));
        commands.push(format!("fleet resolve {} --keep-new", plan.instance.name));
    }
    commands
}

impl Frozen {
    /// The commands with which a person looks and decides.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        commands_to_look(&self.state)
    }
}
