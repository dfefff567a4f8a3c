//! The one function that changes the state of a rollout.

use super::countdown::Countdown;
use super::event::{Fact, IllegalTransition, RolloutEvent};
use super::hold::{Hold, HoldKind};
use super::state::{Ending, MemberState, Phase, RolloutState, WavePhase};
use crate::plan::{RolloutKind, RolloutPlan};
use crate::time::Timestamp;

/// Who owns holds and decisions that nobody asked for.
pub(super) const FLEET: &str = "fleet";

/// A new state, and what became known with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The new state.
    pub state: RolloutState,
    /// What became known, in order; empty if nothing did.
    pub facts: Vec<Fact>,
}

/// What a rollout becomes by an event. Total: every pair of state and event has an answer. Events of people may come
/// twice and then change nothing. A wave that is over, and a rollout that is over, end in the same step as their last
/// update, so that no crash comes in between.
///
/// # Errors
/// The event cannot happen in this state; nothing changes.
pub fn next(
    plan: &RolloutPlan,
    state: &RolloutState,
    event: &RolloutEvent,
    now: Timestamp,
) -> Result<Transition, IllegalTransition> {
    let mut step = Step {
        plan,
        now,
        state: state.clone(),
        facts: Vec::new(),
    };
    step.apply(event)?;
    step.settle();
    Ok(Transition {
        state: step.state,
        facts: step.facts,
    })
}

/// A change in the making.
pub(super) struct Step<'a> {
    pub(super) plan: &'a RolloutPlan,
    pub(super) now: Timestamp,
    pub(super) state: RolloutState,
    pub(super) facts: Vec<Fact>,
}

pub(super) type Applied = Result<(), IllegalTransition>;

impl Step<'_> {
    fn apply(&mut self, event: &RolloutEvent) -> Applied {
        match event {
            RolloutEvent::TakenUp => self.taken_up(event),
            RolloutEvent::Approved { by } => self.approved(event, by),
            RolloutEvent::Denied { by, why } => self.denied(event, by, why),
            RolloutEvent::Started => self.started(event),
            RolloutEvent::WaveOpened => self.wave_opened(event),
            RolloutEvent::Claimed { place, update } => self.claimed(event, *place, *update),
            RolloutEvent::Unclaimed { place, update } => self.unclaimed(event, *place, *update),
            RolloutEvent::Ended {
                place,
                update,
                end,
                follow,
            } => self.ended(event, *place, *update, end, *follow),
            RolloutEvent::Held(hold) => self.held(event, hold),
            RolloutEvent::Unheld { kind, by } => self.unheld(event, *kind, by),
            RolloutEvent::Promoted { by } => self.promoted(event, by),
            RolloutEvent::Excluded { place, by, why } => {
                self.excluded(event, *place, by, why.as_deref())
            }
            RolloutEvent::Aborted { by, why, rollback } => self.aborted(event, by, why, *rollback),
            RolloutEvent::Superseded { by } => self.superseded(event, *by),
            RolloutEvent::RollbackBegun { child } => match self.state.phase {
                Phase::Aborting { rollback: true, .. } if self.state.claims().next().is_none() => {
                    self.state.phase = Phase::RollingBack { child: *child };
                    Ok(())
                }
                _ => Err(self.illegal(
                    event,
                    "one that is aborting with a rollback and has nothing in flight",
                )),
            },
            RolloutEvent::RollbackEnded {
                complete,
                taken_back,
            } => self.rollback_ended(event, *complete, taken_back),
            RolloutEvent::Looked { working } => self.looked(event, *working),
            RolloutEvent::ClockSet { by_millis } => self.clock_set(event, *by_millis),
        }
    }

    pub(super) fn illegal(
        &self,
        event: &RolloutEvent,
        expected: impl Into<String>,
    ) -> IllegalTransition {
        IllegalTransition {
            event: event.label(),
            state: self.state.phase.label(),
            expected: expected.into(),
        }
    }

    fn taken_up(&mut self, event: &RolloutEvent) -> Applied {
        if self.state.phase != Phase::Planned {
            return Err(self.illegal(event, "planned"));
        }
        if self.plan.request.needs_approval {
            self.state.phase = Phase::AwaitingApproval;
            self.facts.push(Fact::AwaitsApproval);
        } else {
            self.state.phase = Phase::Scheduled;
        }
        Ok(())
    }

    fn approved(&mut self, event: &RolloutEvent, by: &str) -> Applied {
        match self.state.phase {
            Phase::AwaitingApproval | Phase::Planned if self.approval_expired() => {
                Err(self.illegal(event, "one whose time for an approval is not over"))
            }
            Phase::AwaitingApproval | Phase::Planned => {
                self.state.phase = Phase::Scheduled;
                self.facts.push(Fact::Approved { by: by.to_owned() });
                Ok(())
            }
            Phase::Scheduled | Phase::Running => Ok(()),
            _ => Err(self.illegal(event, "awaiting_approval")),
        }
    }

    fn approval_expired(&self) -> bool {
        let ends_at = self.plan.approval_ends_at();
        ends_at.is_some_and(|ends_at| self.now >= ends_at)
    }

    fn denied(&mut self, event: &RolloutEvent, by: &str, why: &str) -> Applied {
        if self.state.phase.is_waiting_to_begin() {
            self.cancel(by, why);
            Ok(())
        } else {
            Err(self.illegal(event, "one that has not begun (abort stops a running one)"))
        }
    }

    fn cancel(&mut self, by: &str, why: &str) {
        self.state.phase = Phase::Cancelled {
            why: why.to_owned(),
        };
        self.cancel_queued("the rollout was cancelled");
        self.facts.push(Fact::Aborted {
            by: by.to_owned(),
            why: why.to_owned(),
        });
    }

    fn started(&mut self, event: &RolloutEvent) -> Applied {
        if self.state.phase != Phase::Scheduled || !self.state.holds.is_empty() {
            return Err(self.illegal(event, "scheduled, without holds"));
        }
        self.state.phase = Phase::Running;
        self.facts.push(Fact::Started);
        Ok(())
    }

    fn wave_opened(&mut self, event: &RolloutEvent) -> Applied {
        let pending = self.state.wave_phase == WavePhase::Pending;
        if self.state.phase != Phase::Running || !pending || !self.state.holds.is_empty() {
            return Err(self.illegal(event, "running, without holds, at a wave that is not open"));
        }
        self.open_wave();
        Ok(())
    }

    fn open_wave(&mut self) {
        self.state.wave_phase = WavePhase::Open;
        self.state.promoted = false;
        self.state.worked = Countdown::default();
        self.facts.push(Fact::WaveOpened {
            wave: self.state.wave,
        });
    }

    pub(super) fn stop(&mut self, by: &str, why: &str, rollback: bool) {
        self.state.phase = Phase::Aborting {
            rollback,
            why: why.to_owned(),
        };
        self.cancel_queued("the rollout was stopped");
        self.facts.push(Fact::Aborted {
            by: by.to_owned(),
            why: why.to_owned(),
        });
    }

    pub(super) fn cancel_queued(&mut self, why: &str) {
        for member in &mut self.state.members {
            if let MemberState::Queued {
                attempts, failed, ..
            } = *member
            {
                let why = Some(why.to_owned());
                *member = MemberState::Ended {
                    how: Ending::Cancelled,
                    counts: failed,
                    attempts,
                    why,
                };
            }
        }
    }

    pub(super) fn hold(&mut self, kind: HoldKind, why: String) {
        let hold = Hold {
            kind,
            by: FLEET.to_owned(),
            why,
            since: self.now,
        };
        self.facts.push(Fact::Held(hold.clone()));
        self.state.holds.push(hold);
    }

    fn held(&mut self, event: &RolloutEvent, hold: &Hold) -> Applied {
        if self.state.phase.is_terminal() {
            return Err(self.illegal(event, "one that is not over"));
        }
        let known = self
            .state
            .holds
            .iter()
            .any(|known| known.kind == hold.kind && known.by == hold.by);
        if !known {
            self.facts.push(Fact::Held(hold.clone()));
            self.state.holds.push(hold.clone());
        }
        Ok(())
    }

    fn unheld(&mut self, event: &RolloutEvent, kind: HoldKind, by: &str) -> Applied {
        if self.state.phase.is_terminal() {
            return Err(self.illegal(event, "one that is not over"));
        }
        self.lift(|hold| hold.kind == kind, by);
        if kind == HoldKind::InfraErrors {
            self.state.infra_in_a_row = 0;
        }
        Ok(())
    }

    fn lift(&mut self, which: impl Fn(&Hold) -> bool, by: &str) -> bool {
        let (lifted, kept): (Vec<Hold>, Vec<Hold>) =
            self.state.holds.drain(..).partition(|hold| which(hold));
        self.state.holds = kept;
        let any = !lifted.is_empty();
        self.facts
            .extend(lifted.into_iter().map(|hold| Fact::Unheld {
                hold,
                by: by.to_owned(),
            }));
        any
    }

    fn promoted(&mut self, event: &RolloutEvent, by: &str) -> Applied {
        if self.state.phase != Phase::Running {
            return Err(self.illegal(event, "running"));
        }
        let wave_failed = self
            .state
            .holds
            .iter()
            .any(|hold| hold.kind == HoldKind::WaveFailed);
        let lifted = self.lift(|hold| hold.kind.lifted_by_promotion(), by);
        self.state.worked = Countdown::default();
        if wave_failed {
            self.pass_wave();
        }
        let pending = self.state.wave_phase == WavePhase::Pending;
        if pending && self.state.holds.is_empty() {
            self.open_wave();
        } else if pending {
            self.state.promoted = true;
        } else if !lifted {
            return Err(self.illegal(
                event,
                "a gate, a pause between waves, a failed wave or a deadline to pass",
            ));
        }
        Ok(())
    }

    fn aborted(&mut self, event: &RolloutEvent, by: &str, why: &str, rollback: bool) -> Applied {
        if rollback && self.plan.kind == RolloutKind::Rollback {
            return Err(self.illegal(event, "no way back from a way back (abort it without)"));
        }
        match &self.state.phase {
            phase if phase.is_waiting_to_begin() => self.cancel(by, why),
            Phase::Running | Phase::Superseding { .. } => self.stop(by, why, rollback),
            Phase::Aborting {
                rollback: false,
                why,
            } if rollback => {
                self.state.phase = Phase::Aborting {
                    rollback: true,
                    why: why.clone(),
                };
            }
            Phase::Aborting { .. } | Phase::RollingBack { .. } => {}
            _ => return Err(self.illegal(event, "one that is not over")),
        }
        Ok(())
    }

    fn superseded(&mut self, event: &RolloutEvent, by: crate::ids::RolloutId) -> Applied {
        match self.state.phase {
            Phase::Planned | Phase::AwaitingApproval | Phase::Scheduled => {
                self.state.phase = Phase::Superseded { by };
            }
            Phase::Running => self.state.phase = Phase::Superseding { by },
            Phase::Superseding { by: known } if known == by => return Ok(()),
            _ => return Err(self.illegal(event, "one that is not over and not being stopped")),
        }
        self.cancel_queued("a newer release took the rollout's place");
        self.facts.push(Fact::Superseded { by });
        Ok(())
    }

    fn rollback_ended(
        &mut self,
        event: &RolloutEvent,
        complete: bool,
        taken_back: &[usize],
    ) -> Applied {
        let Phase::RollingBack { child } = self.state.phase else {
            return Err(self.illegal(event, "rolling_back"));
        };
        for &place in taken_back {
            if let Some(
                member @ MemberState::Ended {
                    how: Ending::Committed,
                    ..
                },
            ) = self.state.members.get_mut(place)
            {
                let why = Some(format!("taken back by {child}"));
                *member = MemberState::Ended {
                    how: Ending::RolledBack,
                    counts: false,
                    attempts: 1,
                    why,
                };
            }
        }
        self.state.phase = if complete {
            Phase::RolledBack { child }
        } else {
            Phase::RollbackIncomplete { child }
        };
        self.facts.push(Fact::Finished(self.state.phase.label()));
        Ok(())
    }

    /// What was counted from an instant before the jump is counted from one that is as long ago as it was.
    fn clock_set(&mut self, event: &RolloutEvent, by_millis: i64) -> Applied {
        if self.state.phase.is_terminal() {
            return Err(self.illegal(event, "one that is not over"));
        }
        let moved =
            |at: Timestamp| Timestamp::from_millis(at.as_millis().saturating_add(by_millis));
        let queued = self
            .state
            .members
            .iter_mut()
            .filter_map(|member| match member {
                MemberState::Queued { not_before, .. } => not_before.as_mut(),
                _ => None,
            });
        let mut any = false;
        for instant in queued.chain(self.state.passed_at.as_mut()) {
            *instant = moved(*instant);
            any = true;
        }
        if any {
            self.facts.push(Fact::ClockSet { by_millis });
        }
        Ok(())
    }

    fn looked(&mut self, event: &RolloutEvent, working: bool) -> Applied {
        if self.state.phase.is_terminal() {
            return Err(self.illegal(event, "one that is not over"));
        }
        if self.state.phase == Phase::AwaitingApproval && self.approval_expired() {
            let waited = self.plan.request.limits.approval_expires;
            let waited = crate::plan::human(waited.unwrap_or_default());
            self.cancel(FLEET, &format!("nobody approved it within {waited}"));
            return Ok(());
        }
        self.state.worked = self.state.worked.looked(self.now, working);
        let deadline = self.plan.request.limits.wave_deadline;
        let held = self
            .state
            .holds
            .iter()
            .any(|hold| hold.kind == HoldKind::Deadline);
        if self.state.phase == Phase::Running && !held && self.state.worked.reached(deadline) {
            let why = format!(
                "wave {} is not over after {}",
                self.state.wave + 1,
                crate::plan::human(deadline)
            );
            self.hold(HoldKind::Deadline, why);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "next_tests.rs"]
mod tests;
