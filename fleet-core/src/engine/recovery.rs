//! Finishing or undoing what a dead process left.

use super::{Fleet, FleetError};
use crate::ids::{InstanceId, UpdateId};
use crate::model::{Container, labels};
use crate::ports::{JournalWrite, Names, ProgressSink, StoredUpdate};
use crate::record::{EventKind, NewEvent};
use crate::update::{
    Decision, Direction, Entry, Executor, MemberObservation, Observation, Outcome, Phase, Step,
    UpdateReport, UpdateState, Verdict, catch_up, decide,
};

/// One open update that recovery dealt with.
#[derive(Debug)]
pub struct Recovery {
    /// The update.
    pub update: UpdateId,
    /// The instance that it is about.
    pub instance: InstanceId,
    /// What was found, and what follows.
    pub verdict: Verdict,
    /// What came of it.
    pub outcome: RecoveryOutcome,
}

/// What came of a recovery.
#[derive(Debug)]
pub enum RecoveryOutcome {
    /// It has ended, or is frozen.
    Ended(Box<UpdateReport>),
    /// It stopped again; the next recovery goes on.
    Open(FleetError),
}

impl Recovery {
    /// How the update ended, none if it is still open.
    #[must_use]
    pub fn ended(&self) -> Option<Outcome> {
        match &self.outcome {
            RecoveryOutcome::Ended(report) => report.outcome,
            RecoveryOutcome::Open(_) => None,
        }
    }
}

impl Fleet {
    /// Goes on with every open update: first decides from journal and observation, then executes. One that fails does
    /// not keep the others from being finished. Running it twice gives the same as once. What another task of this
    /// process works on is left to that task.
    ///
    /// `told` hears each verdict before it is executed.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn recover(
        &self,
        progress: &dyn ProgressSink,
        told: &(dyn Fn(&StoredUpdate, &Verdict) + Sync),
    ) -> Result<Vec<Recovery>, FleetError> {
        let mut recoveries = Vec::new();
        for update in self.ports.update.journal.load_open().await? {
            if self.live.is_stopping() {
                break;
            }
            let Some(_claim) = self.live.claim(&update.plan) else {
                continue;
            };
            // Whoever had it until now may have brought it further.
            if self.is_as_read(&update).await? {
                recoveries.push(self.recover_one(update, progress, told).await);
            }
        }
        Ok(recoveries)
    }

    async fn is_as_read(&self, read: &StoredUpdate) -> Result<bool, FleetError> {
        let now = self.ports.update.journal.load(&read.plan.id).await?;
        Ok(now.is_some_and(|now| now.entries.len() == read.entries.len()))
    }

    async fn recover_one(
        &self,
        update: StoredUpdate,
        progress: &dyn ProgressSink,
        told: &(dyn Fn(&StoredUpdate, &Verdict) + Sync),
    ) -> Recovery {
        let state = UpdateState::replay(update.plan.clone(), &update.entries);
        let id = state.plan.id;
        let instance = state.plan.primary().instance.clone();
        let unseen = |found: String| Verdict {
            decision: Decision::Leave,
            found,
            therefore: "nothing is done until it can be seen".to_owned(),
        };
        let seen = match self.observe(&state).await {
            Ok(seen) => seen,
            Err(error) => {
                let verdict = unseen(format!("the engine cannot be asked: {error}"));
                told(&update, &verdict);
                return Recovery {
                    update: id,
                    instance,
                    verdict,
                    outcome: RecoveryOutcome::Open(error),
                };
            }
        };
        let verdict = decide(&state, &seen);
        told(&update, &verdict);
        let outcome = match self.execute(state, &seen, &verdict, progress).await {
            Ok(report) => RecoveryOutcome::Ended(Box::new(report)),
            Err(error) => RecoveryOutcome::Open(error),
        };
        Recovery {
            update: id,
            instance,
            verdict,
            outcome,
        }
    }

    async fn execute(
        &self,
        mut state: UpdateState,
        seen: &Observation,
        verdict: &Verdict,
        progress: &dyn ProgressSink,
    ) -> Result<UpdateReport, FleetError> {
        match &verdict.decision {
            Decision::Leave => return self.report_of(&state.plan.id).await,
            Decision::Freeze(outcome) => {
                let mut missing = catch_up(&state, seen);
                let mut known = state.clone();
                missing.iter().for_each(|entry| known.apply(entry));
                let executor = Executor::new(&self.ports.update, progress)
                    .engine_wait(self.options.engine_wait);
                missing.extend(executor.stand_aside(known).await?);
                self.record_freeze(&mut state, *outcome, missing, verdict)
                    .await?;
            }
            Decision::Continue | Decision::TurnBack(_) => {
                if state.outcome.is_none() {
                    self.record_recovery(&mut state, verdict).await?;
                }
                self.drive(state.clone(), progress).await?;
            }
        }
        self.report_of(&state.plan.id).await
    }

    /// Runs an open update to its end.
    pub(super) async fn drive(
        &self,
        state: UpdateState,
        progress: &dyn ProgressSink,
    ) -> Result<UpdateState, FleetError> {
        let stopping = || self.live.is_stopping();
        let executor = Executor::new(&self.ports.update, progress)
            .engine_wait(self.options.engine_wait)
            .stop_when(&stopping);
        let state = executor.run(state).await?;
        if let Some(guard) = &state.plan.shared_guard
            && let Err(error) = self.remove_unused_guard(guard).await
        {
            // It is in nobody's way, and the next look at the rollout takes it.
            tracing::warn!(guard, %error, "a guard could not be removed");
        }
        Ok(state)
    }

    async fn record_recovery(
        &self,
        state: &mut UpdateState,
        verdict: &Verdict,
    ) -> Result<(), FleetError> {
        let cause = match &verdict.decision {
            Decision::TurnBack(cause) => Some(cause.clone()),
            _ => None,
        };
        let forward = cause.is_none() && state.direction == Direction::Forward;
        let phase = Phase::Recovered {
            forward,
            reason: verdict.found.clone(),
            cause,
        };
        let write = JournalWrite::default();
        let kinds = [EventKind::InstanceRecovered];
        self.append(state, phase, write, &kinds, verdict).await
    }

    /// Writes the freeze, and with it the starts that the journal missed: so the volumes count as written to.
    async fn record_freeze(
        &self,
        state: &mut UpdateState,
        outcome: Outcome,
        missing: Vec<Entry>,
        verdict: &Verdict,
    ) -> Result<(), FleetError> {
        let phase = Phase::Ended {
            outcome,
            reason: verdict.found.clone(),
        };
        let write = JournalWrite {
            outcome: Some(outcome),
            volumes_dirty: !missing.is_empty(),
            entries: missing,
            ..JournalWrite::default()
        };
        let kinds = match outcome {
            Outcome::Diverged => &[EventKind::InstanceDiverged, EventKind::UpdateNeedsOperator][..],
            _ => &[EventKind::UpdateNeedsOperator][..],
        };
        self.append(state, phase, write, kinds, verdict).await
    }

    async fn append(
        &self,
        state: &mut UpdateState,
        phase: Phase,
        mut write: JournalWrite,
        kinds: &[EventKind],
        verdict: &Verdict,
    ) -> Result<(), FleetError> {
        let at = self.ports.update.clock.now();
        let entry = Entry {
            at,
            member: 0,
            phase,
        };
        write.expected_rows = state.rows;
        write.entries.push(entry);
        let primary = state.plan.primary();
        let event = |kind: &EventKind| NewEvent {
            tenant: Some(primary.tenant.clone()),
            instance: Some(primary.instance.clone()),
            rollout: state.plan.rollout,
            update: Some(state.plan.id),
            data: serde_json::json!({ "found": verdict.found, "therefore": verdict.therefore }),
            ..NewEvent::new(at, kind.clone(), "fleet")
        };
        write.events = kinds.iter().map(event).collect();
        let entries = write.entries.clone();
        self.ports
            .update
            .journal
            .append(&state.plan.id, write)
            .await?;
        entries.iter().for_each(|entry| state.apply(entry));
        Ok(())
    }

    /// What the engine shows of an open update.
    pub(super) async fn observe(&self, state: &UpdateState) -> Result<Observation, FleetError> {
        let runtime = &self.ports.update.runtime;
        let mut members = Vec::with_capacity(state.members.len());
        for (member, known) in state.members.iter().enumerate() {
            let old = runtime.inspect(state.old_id(member)).await?;
            let name = &state.plan.members[member].instance.name;
            let holder = runtime.find(name.as_str()).await?;
            let new = match &known.facts.candidate {
                Some(id) => runtime.inspect(id).await?,
                // The journal does not know it yet, or not any more: the labels do.
                None => {
                    let candidate = Names::candidate(name, &state.plan.id);
                    let found = runtime.find(&candidate).await?;
                    let restored = known.facts.restored.as_ref();
                    let mut both = found.into_iter().chain(holder.clone());
                    both.find(|it| made_by(it, &state.plan.id) && Some(&it.id) != restored)
                }
            };
            let may_be_orphaned = known.started.contains(&Step::Start) && state.outcome.is_none();
            let orphan = match &new {
                Some(new) if may_be_orphaned && !new.is_up() => runtime.orphan(&new.id).await?,
                _ => None,
            };
            members.push(MemberObservation {
                old,
                new,
                holder: holder.map(|holder| holder.id),
                orphan,
            });
        }
        let clock = &self.ports.update.clock;
        Ok(Observation {
            members,
            now: clock.now(),
            boot_id: clock.boot_id(),
        })
    }
}

/// Whether this update made a container.
fn made_by(container: &Container, update: &UpdateId) -> bool {
    let label = container.labels.get(labels::UPDATE);
    label.is_some_and(|label| *label == update.to_string())
}
