//! What to do with an update that a dead process left open: decided from journal and observation, without effects.

use super::program::{Action, next};
use super::{Cause, Direction, Entry, Facts, Fault, Outcome, Phase, Step, UpdateState};
use crate::ids::ContainerId;
use crate::model::{Container, RestartPolicy};
use crate::time::Timestamp;

/// Recoveries of one update before a person is asked.
pub const MAX_RECOVERIES: u32 = 3;

/// What the engine shows of an open update.
#[derive(Debug, Clone)]
pub struct Observation {
    /// One for each member.
    pub members: Vec<MemberObservation>,
    /// Now.
    pub now: Timestamp,
    /// The host's boot id.
    pub boot_id: String,
}

/// What the engine shows of one member.
#[derive(Debug, Clone, Default)]
pub struct MemberObservation {
    /// The old container.
    pub old: Option<Container>,
    /// The new container.
    pub new: Option<Container>,
    /// Who holds the instance's name.
    pub holder: Option<ContainerId>,
    /// A process of the new container that the engine does not know of.
    pub orphan: Option<String>,
}

/// What recovery does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on in the direction it had.
    Continue,
    /// Turn back.
    TurnBack(Cause),
    /// Freeze it and ask a person.
    Freeze(Outcome),
    /// Leave it: a person is asked already.
    Leave,
}

/// A decision with what was found, for people: "found …, therefore …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What recovery does.
    pub decision: Decision,
    /// What was found.
    pub found: String,
    /// What follows.
    pub therefore: String,
}

/// Decides. Pure and total.
#[must_use]
pub fn decide(state: &UpdateState, seen: &Observation) -> Verdict {
    let at = where_it_was(state);
    match state.outcome {
        Some(Outcome::NeedsOperator | Outcome::Diverged) => {
            let therefore = "it waits for `fleet resolve`";
            return verdict(
                Decision::Leave,
                format!("frozen: {}", state.outcome_reason),
                therefore,
            );
        }
        Some(outcome) => {
            let found = format!("outcome {outcome}, clean-up not finished");
            return verdict(Decision::Continue, found, "clean-up goes on");
        }
        None => {}
    }
    if state.recoveries >= MAX_RECOVERIES {
        let found = format!("killed {at}, after {} recoveries", state.recoveries);
        return verdict(
            Decision::Freeze(Outcome::NeedsOperator),
            found,
            "a person is asked",
        );
    }
    if let Some(reason) = foreign(state, seen) {
        return verdict(
            Decision::Freeze(Outcome::Diverged),
            reason,
            "nothing is touched and a person is asked",
        );
    }
    if let Some(orphan) = seen.members.iter().find_map(|member| member.orphan.clone()) {
        let found = format!("a process of the new container lives on without the engine: {orphan}");
        return verdict(
            Decision::Freeze(Outcome::NeedsOperator),
            found,
            "a person is asked",
        );
    }
    if let Some(reason) = ahead_of_the_journal(state, seen) {
        return verdict(
            Decision::Freeze(Outcome::Diverged),
            format!("killed {at}, but {reason}"),
            "nothing is touched and a person is asked; the volumes count as written to",
        );
    }
    if state.direction == Direction::Back {
        return verdict(
            Decision::Continue,
            format!("killed {at}, on the way back"),
            "the way back goes on",
        );
    }
    if state.forced_forward || state.any_started(Step::Arm) {
        return verdict(
            Decision::Continue,
            format!("killed {at}, the gate had passed"),
            "it goes on to the commit",
        );
    }
    if state.any_started(Step::Start) {
        return started(state, seen, &at);
    }
    let therefore = if state.any_started(Step::Stop) {
        "the old container is started again; its volumes were not touched"
    } else {
        "the new container is removed; the old one was never stopped"
    };
    let (fault, what) = match started_by_others(state, seen).next() {
        // Beside the old one, which was never stopped: it is withdrawn.
        Some(_) => (Fault::Foreign, "somebody started the new container"),
        None => (Fault::Infrastructure, "the new container was never started"),
    };
    let cause = match fault {
        Fault::Foreign => format!("fleet was killed {at}, and {what}"),
        _ => format!("fleet was killed {at}"),
    };
    verdict(
        Decision::TurnBack(Cause::new(fault, cause)),
        format!("killed {at}, {what}"),
        therefore,
    )
}

/// New containers that ran although the journal has no start of them, with their members: somebody started them, or the
/// journal is older than what happened.
fn started_by_others<'a>(
    state: &'a UpdateState,
    seen: &'a Observation,
) -> impl Iterator<Item = (usize, &'a Container)> {
    let members = state.members.iter().zip(&seen.members).enumerate();
    members.filter_map(|(member, (known, seen))| {
        let new = seen.new.as_ref()?;
        let ran = new.started_at.is_some() || new.is_up();
        (ran && !known.started.contains(&Step::Start)).then_some((member, new))
    })
}

/// The world went further than the journal tells: a backup of the journal was put back, its last rows were lost, or
/// somebody acted while fleet was dead. What a new container that ran did to the volumes is not known then.
fn ahead_of_the_journal(state: &UpdateState, seen: &Observation) -> Option<String> {
    if state.forced_forward || state.any_started(Step::Arm) {
        return None;
    }
    for (member, new) in started_by_others(state, seen) {
        let old_serves = seen.members[member]
            .old
            .as_ref()
            .is_some_and(Container::is_up);
        // Before the stop what is fleet's is withdrawn from beside the old one, as in live work.
        if state.any_started(Step::Stop) || !old_serves {
            return Some(format!(
                "the new container {} ran, and the journal knows of no start",
                new.id.short()
            ));
        }
    }
    let armed = seen.members.iter().find_map(|member| {
        let new = member.new.as_ref()?;
        (new.restart_policy != RestartPolicy::No).then_some(new)
    });
    armed.map(|new| {
        format!(
            "the new container {} has a restart policy, and the journal knows of no step that gave it one",
            new.id.short()
        )
    })
}

/// The rows with which a journal catches up when it is frozen: what ran may have written to the volumes.
pub(crate) fn catch_up(state: &UpdateState, seen: &Observation) -> Vec<Entry> {
    let row = |(member, new): (usize, &Container)| Entry {
        at: seen.now,
        member,
        phase: Phase::seen_started(new),
    };
    started_by_others(state, seen).map(row).collect()
}

impl Phase {
    /// The row of a start that fleet did not make.
    pub(crate) fn seen_started(new: &Container) -> Self {
        let facts = Facts {
            candidate: Some(new.id.clone()),
            started_at: new.started_at,
            started_by_others: Some(true),
            ..Facts::default()
        };
        Self::Started {
            step: Step::Start,
            input: facts.payload(),
        }
    }
}

/// The new container may have run: go on if it is up and there is time, else back with the data.
fn started(state: &UpdateState, seen: &Observation, at: &str) -> Verdict {
    let in_time = state
        .members
        .iter()
        .all(|member| match &member.facts.gate_deadline {
            Some(deadline) => deadline.boot_id == seen.boot_id && seen.now < deadline.at,
            None => true,
        });
    let begun = |member: usize| state.members[member].started.contains(&Step::Start);
    let up = (0..state.members.len())
        .filter(|&member| begun(member))
        .all(|member| {
            seen.members[member]
                .new
                .as_ref()
                .is_some_and(Container::is_up)
        });
    if up && in_time {
        let found = format!("killed {at}, the new container runs and its deadline has not passed");
        return verdict(Decision::Continue, found, "the health gate goes on");
    }
    let why = if up {
        "its deadline has passed"
    } else {
        "the new container does not run"
    };
    let cause = Cause::new(
        Fault::Infrastructure,
        format!("fleet was killed {at}, and {why}"),
    );
    let therefore = "back to the old container, with the data of the moment of stop";
    verdict(
        Decision::TurnBack(cause),
        format!("killed {at}, {why}"),
        therefore,
    )
}

/// Somebody else's container under the instance's name, or the parked one running.
fn foreign(state: &UpdateState, seen: &Observation) -> Option<String> {
    for (member, observed) in seen.members.iter().enumerate() {
        let plan = &state.plan.members[member];
        let known = &state.members[member];
        if let Some(holder) = &observed.holder {
            let ours = *holder == plan.container
                || known.facts.restored.as_ref() == Some(holder)
                || observed.new.as_ref().is_some_and(|new| new.id == *holder)
                || known.facts.candidate.as_ref() == Some(holder);
            if !ours && state.any_started(Step::Stop) {
                let short = holder.short();
                return Some(format!(
                    "the name {} is held by container {short}, which fleet does not know",
                    plan.instance
                ));
            }
        }
        let parked_runs = known.done.contains(&Step::Stop)
            && !known.started.contains(&Step::StartOld)
            && observed.old.as_ref().is_some_and(Container::is_up);
        if parked_runs && state.any_started(Step::Start) {
            return Some(format!(
                "the parked container of {} was started by somebody else",
                plan.instance
            ));
        }
    }
    None
}

fn where_it_was(state: &UpdateState) -> String {
    match next(state) {
        Action::Perform(step, _)
            if state
                .members
                .iter()
                .any(|member| member.started.contains(&step)) =>
        {
            format!("in step {step}")
        }
        Action::Perform(step, _) => format!("before step {step}"),
        _ => "at its end".to_owned(),
    }
}

fn verdict(decision: Decision, found: impl Into<String>, therefore: impl Into<String>) -> Verdict {
    Verdict {
        decision,
        found: found.into(),
        therefore: therefore.into(),
    }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
