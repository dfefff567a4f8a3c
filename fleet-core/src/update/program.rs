//! The order of the steps, forward and back, and for which members each applies.

use crate::model::EngineHealth;

use super::{Cause, Direction, Fault, Outcome, Step, UpdateState};

/// Steps begun before an update counts as not ending: a group of ten takes about 250 when everything goes wrong once.
pub(crate) const MAX_MOVES: u32 = 500;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Do this step for this member.
    Perform(Step, usize),
    /// Too many moves: freeze it and ask a person.
    GiveUp,
    /// Nothing: it is over, or frozen until a person decides.
    Nothing,
}

/// What to do now, from what the journal says. Pure and total: the same for live work and after a crash.
#[must_use]
pub fn next(state: &UpdateState) -> Action {
    match state.outcome {
        Some(Outcome::NeedsOperator | Outcome::Diverged) => return Action::Nothing,
        None if state.moves > MAX_MOVES => return Action::GiveUp,
        _ => {}
    }
    let todo = program(state)
        .into_iter()
        .find(|&(step, member)| applies(state, step, member) && !state.is_done(step, member));
    match todo {
        Some((step, member)) => Action::Perform(step, member),
        None => Action::Nothing,
    }
}

/// Every step for every member in the order in which they are done, whether they apply or not.
#[must_use]
pub fn program(state: &UpdateState) -> Vec<(Step, usize)> {
    let members = state.plan.members.len();
    match state.direction {
        Direction::Forward => forward(members),
        Direction::Back => back(members),
    }
}

fn forward(members: usize) -> Vec<(Step, usize)> {
    // Three steps for all members together, fifteen for each.
    let mut steps = Vec::with_capacity(3 + 15 * members);
    steps.push((Step::Admit, 0));
    let each = |steps: &mut Vec<_>, step: Step| steps.extend((0..members).map(|m| (step, m)));
    for step in [
        Step::Freeze,
        Step::Pull,
        Step::PreCopy,
        Step::CreateCandidate,
        Step::Guard,
        Step::PreHook,
        Step::Disarm,
    ] {
        each(&mut steps, step);
    }
    steps.extend((0..members).rev().map(|m| (Step::Stop, m)));
    for step in [Step::Snapshot, Step::Park, Step::Promote] {
        each(&mut steps, step);
    }
    steps.extend((0..members).flat_map(|m| [(Step::Start, m), (Step::Gate, m)]));
    each(&mut steps, Step::Arm);
    steps.push((Step::Commit, 0));
    each(&mut steps, Step::PostHook);
    steps.push((Step::CleanUp, 0));
    steps
}

fn back(members: usize) -> Vec<(Step, usize)> {
    let mut steps: Vec<_> = (0..members).rev().map(|m| (Step::StopNew, m)).collect();
    steps.extend((0..members).map(|m| (Step::Evidence, m)));
    steps.extend((0..members).rev().map(|m| (Step::SetAside, m)));
    for step in [Step::Restore, Step::Retag, Step::Reinstate] {
        steps.extend((0..members).map(|m| (step, m)));
    }
    steps.extend(
        (0..members).flat_map(|m| [(Step::StartOld, m), (Step::ArmOld, m), (Step::GateOld, m)]),
    );
    steps.push((Step::RolledBack, 0));
    steps.push((Step::CleanUpBack, 0));
    steps
}

/// Whether a step is needed for a member.
#[must_use]
pub fn applies(state: &UpdateState, step: Step, member: usize) -> bool {
    let plan = &state.plan.members[member];
    let known = &state.members[member];
    let started = |step: Step| known.started.contains(&step);
    let has_volumes = known
        .facts
        .volumes
        .as_ref()
        .is_some_and(|volumes| !volumes.is_empty());
    match step {
        Step::Admit | Step::Freeze | Step::CreateCandidate | Step::Guard => !state.forced_forward,
        Step::Pull => plan.target.is_some() && !state.forced_forward,
        Step::PreCopy => has_volumes && state.was_running(member) && !state.forced_forward,
        Step::Snapshot => has_volumes && !state.forced_forward,
        Step::PreHook => {
            plan.pre_hook.is_some() && state.was_running(member) && !state.forced_forward
        }
        Step::Stop => state.was_running(member) || state.forced_forward,
        Step::Gate => state.was_running(member) && !state.forced_forward,
        Step::Start => state.was_running(member),
        Step::Disarm | Step::Park | Step::Promote | Step::Arm | Step::Commit | Step::CleanUp => {
            true
        }
        Step::PostHook => {
            plan.post_hook.is_some() && state.was_running(member) && !state.forced_forward
        }
        Step::StopNew | Step::Evidence => started(Step::Start),
        Step::SetAside => started(Step::Promote),
        Step::Restore => has_volumes && state.volumes_dirty(),
        Step::Retag => plan.target.is_some() && started(Step::CreateCandidate),
        // Before the stop the container is where it was; renaming or starting it would touch what others did to it.
        Step::Reinstate => state.any_started(Step::Stop) || started(Step::Park),
        Step::StartOld | Step::GateOld => {
            state.was_running(member) && state.any_started(Step::Stop)
        }
        Step::ArmOld => started(Step::Disarm),
        Step::RolledBack | Step::CleanUpBack => true,
    }
}

/// The outcome of an update that turned back.
#[must_use]
pub fn outcome_of_going_back(state: &UpdateState) -> Outcome {
    let fault = state.cause.as_ref().map(|cause| cause.fault);
    if state.any_started(Step::Stop) || state.any_started(Step::Park) {
        Outcome::RolledBack
    } else if state.unchanged() {
        Outcome::Unchanged
    } else if matches!(fault, Some(Fault::Refusal | Fault::NotNow)) {
        Outcome::Refused
    } else {
        Outcome::Failed
    }
}

/// Why the digest must not be tried again on these instances, if it must not. A release is not blamed for an instance
/// that was unhealthy before: a broken one must not block its own fix.
#[must_use]
pub fn quarantines(state: &UpdateState) -> Option<&Cause> {
    let sick_before = state
        .plan
        .members
        .iter()
        .zip(&state.members)
        .any(|(plan, member)| {
            plan.target.is_some() && member.facts.health_before == Some(EngineHealth::Unhealthy)
        });
    state.cause.as_ref().filter(|cause| {
        cause.fault == Fault::Release && state.any_started(Step::Start) && !sick_before
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these pairs is a sentence of the promise.
    #[test]
    fn the_order_on_which_the_promise_rests() {
        let steps = forward(2);
        let last_of = |step| steps.iter().rposition(|(known, _)| *known == step);
        let first_of = |step| steps.iter().position(|(known, _)| *known == step);
        for (earlier, later) in [
            (Step::Pull, Step::Disarm),
            (Step::CreateCandidate, Step::Guard),
            (Step::Guard, Step::Stop),
            (Step::Disarm, Step::Stop),
            (Step::Stop, Step::Snapshot),
            (Step::Snapshot, Step::Park),
            (Step::Snapshot, Step::Start),
            (Step::Gate, Step::Arm),
            (Step::Arm, Step::Commit),
            (Step::Commit, Step::CleanUp),
        ] {
            assert!(
                last_of(earlier) < first_of(later),
                "{earlier:?} before {later:?}"
            );
        }
        let steps = back(2);
        let last_of = |step| steps.iter().rposition(|(known, _)| *known == step);
        let first_of = |step| steps.iter().position(|(known, _)| *known == step);
        for (earlier, later) in [
            (Step::StopNew, Step::Restore),
            (Step::Restore, Step::StartOld),
            (Step::Reinstate, Step::StartOld),
            (Step::GateOld, Step::RolledBack),
            (Step::RolledBack, Step::CleanUpBack),
        ] {
            assert!(
                last_of(earlier) < first_of(later),
                "{earlier:?} before {later:?}"
            );
        }
    }
}
