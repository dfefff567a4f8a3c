//! Rows: how a run writes what it is about to do, what it did, and how it ended.

use serde_json::json;

use super::super::program::{outcome_of_going_back, quarantines};
use super::super::{Cause, Direction, Entry, Facts, Fault, Outcome, Phase, Step};
use super::error::StepError;
use super::{RETRY_PAUSE, Run, SagaError, UNKNOWN_TRIES, is_clean_up};
use crate::model::Container;
use crate::ports::{Deployed, Quarantined};
use crate::record::{EventKind, NewEvent};

impl Run<'_> {
    /// Writes that a step is about to act, together with what happened since the last write.
    pub(super) async fn intend(&mut self, step: Step, member: usize) -> Result<(), SagaError> {
        let input = match step {
            // The downtime begins when the stop is sent; a crash must not lose that.
            Step::Stop if self.state.members[member].facts.stop_sent_at.is_none() => Facts {
                stop_sent_at: Some(self.ports.clock.now()),
                ..Facts::default()
            }
            .payload(),
            Step::Gate => self.gate_deadline(member),
            _ => serde_json::Value::Null,
        };
        self.push(member, Phase::Started { step, input });
        if step == Step::Start {
            self.pending.volumes_dirty = true;
        }
        if acts(step) {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Notes what a step brought. Written with the next intent, or at once where nothing follows.
    pub(super) async fn done(
        &mut self,
        step: Step,
        member: usize,
        facts: Facts,
    ) -> Result<(), SagaError> {
        self.push(
            member,
            Phase::Done {
                step,
                output: facts.payload(),
            },
        );
        self.unrecorded.push(step);
        let mut event = self.event(EventKind::UpdateStep);
        event.instance = Some(self.state.plan.members[member].instance.clone());
        event.data = json!({ "step": step.label() });
        self.pending.events.push(event);
        match step {
            Step::Commit => self.committed(),
            Step::RolledBack => self.went_back(),
            _ if is_clean_up(step) => self.pending.close = true,
            _ => return Ok(()),
        }
        self.flush().await
    }

    /// Notes that a step failed. Forward: the update turns back. On the way back: a person is needed.
    pub(super) async fn failed(
        &mut self,
        step: Step,
        member: usize,
        cause: Cause,
    ) -> Result<(), SagaError> {
        if step.direction() == Direction::Back || self.state.forced_forward {
            let reason = format!("step {step} failed: {}", cause.reason);
            return self.end(Outcome::NeedsOperator, &reason).await;
        }
        tracing::warn!(update = %self.state.plan.id, step = step.label(), reason = cause.reason, "the update turns back");
        let refused = step == Step::Start && self.start_refused && !self.engine_lost;
        let output = Facts {
            start_refused: refused.then_some(true),
            ..Facts::default()
        }
        .payload();
        self.push(
            member,
            Phase::Failed {
                step,
                cause,
                output,
            },
        );
        self.flush().await
    }

    /// Ends an update whose containers somebody else changed: frozen, unless nothing was stopped yet.
    pub(super) async fn diverged(&mut self, step: Step, reason: &str) -> Result<(), SagaError> {
        if !self.state.any_started(Step::Stop) && step.direction() == Direction::Forward {
            // Nothing of the user's was stopped: withdraw what is fleet's, and leave theirs as it is.
            let mut event = self.event(EventKind::InstanceDiverged);
            event.data = json!({ "step": step.label(), "reason": reason });
            self.pending.events.push(event);
            let cause = Cause::new(Fault::Foreign, reason);
            self.push(
                0,
                Phase::Failed {
                    step,
                    cause,
                    output: serde_json::Value::Null,
                },
            );
            return self.flush().await;
        }
        self.end(Outcome::Diverged, reason).await
    }

    /// Takes note of a start of the new container that fleet did not make; written with the next row.
    pub(super) fn note_start_by_others(&mut self, member: usize, new: &Container) {
        self.push(member, Phase::seen_started(new));
        self.pending.volumes_dirty = true;
    }

    /// Stops the new container where the old one, or somebody else's, runs beside it, trying again while that fails.
    pub(super) async fn stand_aside(&mut self) -> Result<(), SagaError> {
        for _ in 0..UNKNOWN_TRIES {
            match self.stop_ours_beside_theirs().await {
                Err(StepError::Unknown(error)) => {
                    self.wait_for_engine(Step::StopNew, &error).await?;
                }
                Err(StepError::Abort(error)) => return Err(error),
                Err(StepError::Failed(_)) => self.ports.clock.sleep(RETRY_PAUSE).await,
                _ => break,
            }
        }
        Ok(())
    }

    /// Gives the update an outcome that freezes it. What is fleet's and runs beside another version is stopped first.
    pub(super) async fn end(&mut self, outcome: Outcome, reason: &str) -> Result<(), SagaError> {
        self.stand_aside().await?;
        tracing::error!(update = %self.state.plan.id, %outcome, reason, "the update is frozen until a person decides");
        self.push(
            0,
            Phase::Ended {
                outcome,
                reason: reason.to_owned(),
            },
        );
        self.pending.outcome = Some(outcome);
        let kinds = match outcome {
            Outcome::Diverged => &[EventKind::InstanceDiverged, EventKind::UpdateNeedsOperator][..],
            _ => &[EventKind::UpdateNeedsOperator][..],
        };
        for kind in kinds {
            let mut event = self.event(kind.clone());
            event.data = json!({ "reason": reason });
            self.pending.events.push(event);
        }
        self.flush().await
    }

    /// The rows of the commit: outcome, what now runs where, event.
    fn committed(&mut self) {
        self.push(
            0,
            Phase::Ended {
                outcome: Outcome::Committed,
                reason: String::new(),
            },
        );
        self.pending.outcome = Some(Outcome::Committed);
        self.pending.deployed = self.deployed();
        let downtime = super::super::report::downtime(&self.state).map(|d| d.as_millis() as u64);
        let mut event = self.event(EventKind::UpdateCommitted);
        event.data = json!({ "downtime_ms": downtime });
        self.pending.events.push(event);
    }

    /// The rows of the end of a way back: outcome, quarantine where the release is at fault, event.
    fn went_back(&mut self) {
        let outcome = outcome_of_going_back(&self.state);
        let reason = self
            .state
            .cause
            .as_ref()
            .map(|cause| cause.reason.clone())
            .unwrap_or_default();
        self.push(
            0,
            Phase::Ended {
                outcome,
                reason: reason.clone(),
            },
        );
        self.pending.outcome = Some(outcome);
        if outcome == Outcome::Unchanged {
            self.pending.deployed = self.deployed();
        }
        if let Some(cause) = quarantines(&self.state) {
            let at = self.ports.clock.now();
            self.pending.quarantine = self
                .state
                .plan
                .members
                .iter()
                .filter_map(|member| member.target.as_ref().map(|target| (member, target)))
                .map(|(member, target)| Quarantined {
                    instance: member.instance.clone(),
                    digest: target.image.digest.clone(),
                    reason: cause.reason.clone(),
                    at,
                })
                .collect();
        }
        let kind = match outcome {
            Outcome::RolledBack => EventKind::UpdateRolledBack,
            _ => EventKind::UpdateRefused,
        };
        let mut event = self.event(kind);
        event.data = json!({ "outcome": outcome.label(), "reason": reason });
        self.pending.events.push(event);
    }

    fn deployed(&self) -> Vec<Deployed> {
        let at = self.ports.clock.now();
        let members = self.state.plan.members.iter().zip(&self.state.members);
        members
            .filter_map(|(plan, member)| {
                let target = plan.target.as_ref()?;
                Some(Deployed {
                    instance: plan.instance.clone(),
                    image: target.image.image.clone(),
                    digest: target.image.digest.clone(),
                    image_id: member.facts.image_id.clone()?,
                    at,
                })
            })
            .collect()
    }

    /// Adds a row to what is to be written, and to the state.
    fn push(&mut self, member: usize, phase: Phase) {
        let entry = Entry {
            at: self.ports.clock.now(),
            member,
            phase,
        };
        if self.pending.entries.is_empty() {
            self.pending.expected_rows = self.state.rows;
        }
        self.state.apply(&entry);
        self.pending.entries.push(entry);
    }

    /// Writes what is pending in one transaction.
    pub(super) async fn flush(&mut self) -> Result<(), SagaError> {
        if self.pending.entries.is_empty() {
            return Ok(());
        }
        let write = std::mem::take(&mut self.pending);
        self.ports
            .journal
            .append(&self.state.plan.id, write)
            .await?;
        for step in std::mem::take(&mut self.unrecorded) {
            self.crash_point(step, "recorded")?;
        }
        Ok(())
    }

    fn event(&self, kind: EventKind) -> NewEvent {
        let plan = &self.state.plan;
        let primary = plan.primary();
        NewEvent {
            tenant: Some(primary.tenant.clone()),
            instance: Some(primary.instance.clone()),
            rollout: plan.rollout,
            update: Some(plan.id),
            ..NewEvent::new(self.ports.clock.now(), kind, plan.actor.clone())
        }
    }
}

/// Whether a step changes the world, so that its intent must be durable first.
fn acts(step: Step) -> bool {
    !matches!(
        step,
        Step::Admit | Step::Freeze | Step::Evidence | Step::Commit | Step::RolledBack
    )
}
