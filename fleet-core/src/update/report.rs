//! What an update came to, for people and scripts.

use std::time::Duration;

use super::{Entry, Fault, Outcome, Phase, Refusal, Step, UpdateState};
use crate::ids::{InstanceId, UpdateId};
use crate::time::Timestamp;

/// The report of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateReport {
    /// The update; none if it was refused before it began.
    pub id: Option<UpdateId>,
    /// The instance.
    pub instance: InstanceId,
    /// How it ended; none while it is open.
    pub outcome: Option<Outcome>,
    /// What the instance ran before: the digest fleet or the registry knows it by, else the image id.
    pub from_digest: Option<String>,
    /// What it was to run.
    pub to_digest: Option<String>,
    /// Why it ended so, where there is something to say.
    pub reason: Option<String>,
    /// Whose fault it was that it did not succeed.
    pub fault: Option<Fault>,
    /// The refusal, if it was refused before it began.
    pub refusal: Option<Refusal>,
    /// From the stop being sent to the first passing probe of what runs now.
    pub downtime: Option<Duration>,
    /// From the first row to the last.
    pub duration: Duration,
    /// Bytes of the snapshot on disk.
    pub snapshot_bytes: u64,
    /// Steps in the order in which they began.
    pub steps: Vec<StepReport>,
    /// What people should know although it went well.
    pub notes: Vec<String>,
}

/// One step of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    /// Which.
    pub step: Step,
    /// The instance, in a group.
    pub instance: InstanceId,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took; none if it did not end.
    pub duration: Option<Duration>,
}

impl UpdateReport {
    /// The report of an update from its rows.
    #[must_use]
    pub fn new(state: &UpdateState, entries: &[Entry], from_digest: Option<String>) -> Self {
        let plan = state.plan.primary();
        let first = entries.first().map(|entry| entry.at);
        let last = entries.last().map(|entry| entry.at);
        let reason = if state.outcome_reason.is_empty() {
            state.cause.as_ref().map(|cause| cause.reason.clone())
        } else {
            Some(state.outcome_reason.clone())
        };
        Self {
            id: Some(state.plan.id),
            instance: plan.instance.clone(),
            outcome: state.outcome,
            from_digest,
            to_digest: plan
                .target
                .as_ref()
                .map(|target| target.image.digest.to_string()),
            reason,
            fault: state.cause.as_ref().map(|cause| cause.fault),
            refusal: None,
            downtime: downtime(state),
            duration: first
                .zip(last)
                .map_or(Duration::ZERO, |(first, last)| last.since(first)),
            snapshot_bytes: snapshot_bytes(state),
            steps: steps(state, entries),
            notes: notes(state),
        }
    }
}

/// From the first stop being sent to the last first pass; of the old container after a rollback.
#[must_use]
pub fn downtime(state: &UpdateState) -> Option<Duration> {
    let stopped = state
        .members
        .iter()
        .filter_map(|member| member.facts.stop_sent_at)
        .min()?;
    let back = state
        .members
        .iter()
        .filter_map(|member| member.facts.back_at)
        .max();
    let passed = state
        .members
        .iter()
        .filter_map(|member| member.facts.first_pass_at)
        .max();
    Some(back.or(passed)?.since(stopped))
}

fn snapshot_bytes(state: &UpdateState) -> u64 {
    state
        .members
        .iter()
        .filter_map(|member| member.facts.snapshot.as_ref())
        .map(|fact| fact.archive_bytes)
        .sum()
}

fn steps(state: &UpdateState, entries: &[Entry]) -> Vec<StepReport> {
    let mut steps: Vec<StepReport> = Vec::new();
    for entry in entries {
        let Some(plan) = state.plan.members.get(entry.member) else {
            continue;
        };
        match &entry.phase {
            Phase::Started { step, .. } => steps.push(StepReport {
                step: *step,
                instance: plan.instance.clone(),
                started_at: entry.at,
                duration: None,
            }),
            Phase::Done { step, .. } | Phase::Failed { step, .. } => {
                let open = steps
                    .iter_mut()
                    .rev()
                    .find(|open| open.step == *step && open.instance == plan.instance);
                if let Some(open) = open {
                    open.duration = Some(entry.at.since(open.started_at));
                }
            }
            _ => {}
        }
    }
    steps
}

fn notes(state: &UpdateState) -> Vec<String> {
    let members = state.members.iter().zip(&state.plan.members);
    members
        .flat_map(|(member, plan)| {
            let facts = &member.facts;
            let killed = facts.was_running == Some(true) && facts.was_killed();
            let killed = killed.then(|| killed_note(&plan.instance));
            let said = facts.note.iter().chain(facts.warnings.iter().flatten());
            killed.into_iter().chain(said.cloned())
        })
        .filter(|note| !note.is_empty())
        .collect()
}

fn killed_note(instance: &InstanceId) -> String {
    format!(
        "{instance} was killed at the stop (exit code 137), so its snapshot counts as unclean; if the grace was too \
         short, the label fleet.stop.timeout gives more"
    )
}
