//! What to do with an update that a dead process left open: decided from journal and observation, without effects.

use super::program::{Action, next};
use super::{Cause, Direction, Fault, Outcome, Step, UpdateState};
use crate::ids::ContainerId;
use crate::model::Container;
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
    let cause = Cause::new(Fault::Infrastructure, format!("fleet was killed {at}"));
    let therefore = if state.any_started(Step::Stop) {
        "the old container is started again; its volumes were not touched"
    } else {
        "the new container is removed; the old one was never stopped"
    };
    verdict(
        Decision::TurnBack(cause),
        format!("killed {at}, the new container was never started"),
        therefore,
    )
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
