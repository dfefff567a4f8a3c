//! What is known of an update: the fold of its journal rows.
//!
//! The same fold serves live work and recovery; nothing that is not in the rows is ever believed after a crash.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Cause, Direction, Entry, Outcome, Phase, Step, UpdatePlan};
use crate::ids::{ContainerId, ImageId, SnapshotId, VolumeName};
use crate::model::{EngineHealth, FrozenSpec, VolumeSource};
use crate::time::Timestamp;

/// An update as its rows tell it.
#[derive(Debug, Clone)]
pub struct UpdateState {
    // inputs
    /// The plan.
    pub plan: UpdatePlan,
    // state
    /// Rows folded so far; the next row has this number.
    pub rows: u32,
    /// Which way it goes.
    pub direction: Direction,
    /// Why it turned back, if it did.
    pub cause: Option<Cause>,
    /// The outcome, if it has one.
    pub outcome: Option<Outcome>,
    /// The reason given with the outcome.
    pub outcome_reason: String,
    /// Steps begun so far, all members together.
    pub moves: u32,
    /// How often a new process took over since a person last looked.
    pub recoveries: u32,
    /// A person chose to keep the new release.
    pub forced_forward: bool,
    /// A person, who was told what is there, chose how it goes on.
    pub decided_by_person: bool,
    /// One for each member of the plan.
    pub members: Vec<MemberState>,
}

/// What is known of one member.
#[derive(Debug, Clone, Default)]
pub struct MemberState {
    /// Steps that began.
    pub started: BTreeSet<Step>,
    /// Steps whose state was seen.
    pub done: BTreeSet<Step>,
    /// What the steps brought.
    pub facts: Facts,
}

/// What the steps of one member brought. Every row carries only what it adds; the fold merges them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The old container, whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<FrozenSpec>,
    /// Whether it ran when it was frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was_running: Option<bool>,
    /// Its health when it was frozen: what the rollback must get back to. None inside: it had no way to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_before: Option<EngineHealth>,
    /// The volumes to copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<VolumeSource>>,
    /// The engine's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_id: Option<String>,
    /// The new image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<ImageId>,
    /// The new container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<ContainerId>,
    /// Volumes that the creation of the new container brought into being.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_volumes: Option<Vec<VolumeName>>,
    /// What the engine warned about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
    /// The guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<ContainerId>,
    /// When the stop was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_sent_at: Option<Timestamp>,
    /// Exit code of the old container at the stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The finished snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotFact>,
    /// A live engine refused to start the new container: it provably never ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_refused: Option<bool>,
    /// Start of the new container's run, as the engine says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Somebody else started the new container: the row of its start is none of fleet's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_by_others: Option<bool>,
    /// Until when the gate may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_deadline: Option<Deadline>,
    /// First probe of the new container that passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_pass_at: Option<Timestamp>,
    /// The old container as it was made again, because somebody had removed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<ContainerId>,
    /// Last lines of the failed container's log, and its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// First sign of life of the old container after a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_at: Option<Timestamp>,
    /// What people should know although the step succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A finished snapshot, as the journal remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFact {
    /// Id.
    pub id: SnapshotId,
    /// SHA-256 of its manifest.
    pub manifest_sha256: String,
    /// Bytes on disk.
    pub archive_bytes: u64,
}

/// An instant that holds across restarts of fleet, and is void after a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The instant.
    pub at: Timestamp,
    /// The host's boot id when it was set.
    pub boot_id: String,
}

impl UpdateState {
    /// An update before its first row.
    #[must_use]
    pub fn new(plan: UpdatePlan) -> Self {
        let members = vec![MemberState::default(); plan.members.len()];
        Self {
            plan,
            rows: 0,
            direction: Direction::Forward,
            cause: None,
            outcome: None,
            outcome_reason: String::new(),
            moves: 0,
            recoveries: 0,
            forced_forward: false,
            decided_by_person: false,
            members,
        }
    }

    /// An update with all its rows.
    #[must_use]
    pub fn replay<'a>(plan: UpdatePlan, entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut state = Self::new(plan);
        for entry in entries {
            state.apply(entry);
        }
        state
    }

    /// Takes one more row into account.
    pub fn apply(&mut self, entry: &Entry) {
        self.rows += 1;
        match &entry.phase {
            Phase::Started { step, input } => {
                self.moves += 1;
                self.with_member(entry.member, |member| {
                    member.started.insert(*step);
                    if *step == Step::Start {
                        // What an earlier start proved says nothing of this one.
                        member.facts.start_refused = None;
                    }
                    member.facts.merge(input);
                });
            }
            Phase::Done { step, output } => self.with_member(entry.member, |member| {
                member.started.insert(*step);
                member.done.insert(*step);
                member.facts.merge(output);
            }),
            Phase::Failed { cause, output, .. } => {
                self.with_member(entry.member, |member| member.facts.merge(output));
                self.turn_back(cause.clone());
            }
            Phase::Ended { outcome, reason } => {
                self.outcome = Some(*outcome);
                self.outcome_reason.clone_from(reason);
            }
            Phase::Resolved { keep_new, .. } => self.resolved(*keep_new),
            Phase::Recovered { cause, .. } => {
                self.recoveries += 1;
                if let Some(cause) = cause {
                    self.turn_back(cause.clone());
                }
            }
            Phase::Unknown => {}
        }
    }

    /// Whether the new version may have written to the volumes.
    #[must_use]
    pub fn volumes_dirty(&self) -> bool {
        self.members.iter().any(|member| {
            member.started.contains(&Step::Start) && member.facts.start_refused != Some(true)
        })
    }

    /// Whether no container of an instance is sure to serve, or to come up after a reboot: from the disarming of the old
    /// one until the new one, or on the way back the old one, is armed and well.
    #[must_use]
    pub fn out_of_service(&self) -> bool {
        let ends = match self.direction {
            Direction::Forward => Step::Arm,
            Direction::Back => Step::GateOld,
        };
        self.outcome.is_none() && self.any_started(Step::Disarm) && !self.all_done(ends)
    }

    /// Whether any member began this step.
    #[must_use]
    pub fn any_started(&self, step: Step) -> bool {
        self.members
            .iter()
            .any(|member| member.started.contains(&step))
    }

    /// Whether every member for which the step applies has done it.
    #[must_use]
    pub fn all_done(&self, step: Step) -> bool {
        (0..self.members.len())
            .all(|m| !super::program::applies(self, step, m) || self.is_done(step, m))
    }

    /// Whether a member has done this step.
    #[must_use]
    pub fn is_done(&self, step: Step, member: usize) -> bool {
        self.members[member].done.contains(&step)
    }

    /// The old container of a member: the original, or the one made again in its place.
    #[must_use]
    pub fn old_id(&self, member: usize) -> &ContainerId {
        self.members[member]
            .facts
            .restored
            .as_ref()
            .unwrap_or(&self.plan.members[member].container)
    }

    /// Whether the member was running when it was frozen.
    #[must_use]
    pub fn was_running(&self, member: usize) -> bool {
        self.members[member].facts.was_running.unwrap_or(false)
    }

    /// Whether every image that was asked for is what already runs.
    #[must_use]
    pub fn unchanged(&self) -> bool {
        let mut targets = self
            .plan
            .members
            .iter()
            .zip(&self.members)
            .filter(|(plan, _)| plan.target.is_some())
            .map(|(_, member)| &member.facts)
            .peekable();
        targets.peek().is_some()
            && targets.all(|facts| match (&facts.image_id, &facts.frozen) {
                (Some(new), Some(frozen)) => *new == frozen.container.image_id,
                _ => false,
            })
    }

    fn with_member(&mut self, member: usize, change: impl FnOnce(&mut MemberState)) {
        if let Some(member) = self.members.get_mut(member) {
            change(member);
        }
    }

    fn turn_back(&mut self, cause: Cause) {
        // The commit is the point of no return.
        if self.direction == Direction::Forward && self.outcome != Some(Outcome::Committed) {
            self.direction = Direction::Back;
            self.cause = Some(cause);
        }
    }

    /// A person decided: what was tried on the way back is tried again, and the bounds start anew.
    fn resolved(&mut self, keep_new: bool) {
        self.outcome = None;
        self.outcome_reason.clear();
        self.recoveries = 0;
        self.moves = 0;
        self.forced_forward = keep_new;
        self.decided_by_person = true;
        self.direction = if keep_new {
            Direction::Forward
        } else {
            Direction::Back
        };
        let keep = |step: &Step| {
            // What a rollback may have undone is done again on the way to the new release.
            step.direction() == Direction::Forward && !(keep_new && *step >= Step::Disarm)
        };
        for member in &mut self.members {
            member
                .started
                .retain(|step| step.direction() == Direction::Forward);
            member.done.retain(keep);
        }
    }
}

/// Exit code of a killed process.
const KILLED: i64 = 137;

impl Facts {
    /// Whether the old container's program was killed instead of ending by itself.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.exit_code == Some(KILLED)
    }

    /// Adds what a row carries. A payload that is not facts (written by a newer fleet) adds nothing.
    fn merge(&mut self, payload: &serde_json::Value) {
        if payload.is_null() {
            return;
        }
        let Ok(new) = Self::deserialize(payload) else {
            return;
        };
        macro_rules! take {
            ($($field:ident),* $(,)?) => {
                // The destructuring makes a field that is forgotten here an error of the compiler.
                let Self { $($field),* } = new;
                $(if $field.is_some() { self.$field = $field; })*
            };
        }
        take!(
            frozen,
            was_running,
            health_before,
            volumes,
            engine_id,
            image_id,
            candidate,
            new_volumes,
            warnings,
            guard,
            stop_sent_at,
            exit_code,
            snapshot,
            start_refused,
            started_at,
            started_by_others,
            gate_deadline,
            first_pass_at,
            restored,
            evidence,
            back_at,
            note,
        );
    }

    /// These facts as the payload of a row.
    #[must_use]
    pub fn payload(&self) -> serde_json::Value {
        // Facts are plain data with string keys: they always have a JSON form.
        serde_json::to_value(self).unwrap_or(serde_json::Value::Null)
    }
}
