//! Every state with every event, and long random lives.

use proptest::prelude::*;

use super::super::event::{Follow, UpdateEnd};
use super::*;
use crate::plan::PlannedWave;
use crate::plan::strategy::{FailureKind, WaveGate};
use crate::testing::conformance::fixtures::{at, rollout, rollout_id, update_id};

fn plan(total: u32) -> RolloutPlan {
    let (mut plan, _) = rollout(1, total);
    plan.budget.canary = None;
    plan.waves = (1..=total)
        .filter(|end| end % 2 == 0 || *end == total)
        .map(|end| PlannedWave {
            end,
            gate: WaveGate::Open,
        })
        .collect();
    for member in &mut plan.members {
        member.unhealthy_before = false;
    }
    plan
}

fn phases() -> Vec<Phase> {
    let (by, child) = (rollout_id(8), rollout_id(9));
    let why = String::new();
    vec![
        Phase::Planned,
        Phase::AwaitingApproval,
        Phase::Scheduled,
        Phase::Running,
        Phase::Superseding { by },
        Phase::Aborting {
            rollback: false,
            why: why.clone(),
        },
        Phase::Aborting {
            rollback: true,
            why: why.clone(),
        },
        Phase::RollingBack { child },
        Phase::Completed,
        Phase::CompletedWithFailures,
        Phase::Aborted { why: why.clone() },
        Phase::RolledBack { child },
        Phase::RollbackIncomplete { child },
        Phase::Superseded { by },
        Phase::Cancelled { why },
    ]
}

fn hold(kind: HoldKind) -> Hold {
    Hold {
        kind,
        by: "ann".to_owned(),
        why: "lunch".to_owned(),
        since: at(0),
    }
}

fn unsuccessful(how: Ending, kind: FailureKind) -> UpdateEnd {
    UpdateEnd::Unsuccessful {
        how,
        kind,
        why: "broken".to_owned(),
    }
}

fn events(place: usize) -> Vec<RolloutEvent> {
    let by = || "ann".to_owned();
    let update = update_id(u8::try_from(place).unwrap());
    let ended = |end, follow| RolloutEvent::Ended {
        place,
        update,
        end,
        follow,
    };
    vec![
        RolloutEvent::TakenUp,
        RolloutEvent::Approved { by: by() },
        RolloutEvent::Denied {
            by: by(),
            why: by(),
        },
        RolloutEvent::Started,
        RolloutEvent::WaveOpened,
        RolloutEvent::Claimed { place, update },
        RolloutEvent::Unclaimed { place, update },
        ended(UpdateEnd::Committed, Follow::Nothing),
        ended(UpdateEnd::Unchanged, Follow::Nothing),
        ended(UpdateEnd::Refused { why: by() }, Follow::Nothing),
        ended(UpdateEnd::NoSpace { why: by() }, Follow::Nothing),
        ended(
            UpdateEnd::Deferred {
                until: at(9),
                why: by(),
            },
            Follow::Nothing,
        ),
        ended(
            unsuccessful(Ending::RolledBack, FailureKind::Release),
            Follow::Nothing,
        ),
        ended(
            unsuccessful(Ending::NeedsOperator, FailureKind::NeedsPerson),
            Follow::Abort,
        ),
        ended(
            unsuccessful(Ending::Failed, FailureKind::Infrastructure),
            Follow::Retry { not_before: at(5) },
        ),
        RolloutEvent::Held(hold(HoldKind::UserPause)),
        RolloutEvent::Held(hold(HoldKind::GlobalPause)),
        RolloutEvent::Held(hold(HoldKind::ManualGate)),
        RolloutEvent::ClockSet { by_millis: -70_000 },
        RolloutEvent::Unheld {
            kind: HoldKind::UserPause,
            by: by(),
        },
        RolloutEvent::Unheld {
            kind: HoldKind::GlobalPause,
            by: by(),
        },
        RolloutEvent::Unheld {
            kind: HoldKind::InfraErrors,
            by: by(),
        },
        RolloutEvent::Promoted { by: by() },
        RolloutEvent::Excluded {
            place,
            by: by(),
            why: None,
        },
        RolloutEvent::Aborted {
            by: by(),
            why: by(),
            rollback: false,
        },
        RolloutEvent::Aborted {
            by: by(),
            why: by(),
            rollback: true,
        },
        RolloutEvent::Superseded { by: rollout_id(8) },
        RolloutEvent::RollbackBegun {
            child: rollout_id(9),
        },
        RolloutEvent::RollbackEnded {
            complete: true,
            taken_back: vec![place],
        },
        RolloutEvent::RollbackEnded {
            complete: false,
            taken_back: vec![],
        },
        RolloutEvent::Looked { working: true },
        RolloutEvent::Looked { working: false },
    ]
}

/// What must hold of every state that `next` gives.
fn check(plan: &RolloutPlan, state: &RolloutState) {
    assert_eq!(state.members.len(), plan.members.len());
    assert!(state.wave as usize <= plan.waves.len());
    let in_flight = state.claims().count();
    if state.phase.is_terminal() {
        assert_eq!(state.tally().queued, 0, "{:?}", state.phase);
        assert_eq!(in_flight, 0, "{:?}", state.phase);
    }
    if state.phase.is_waiting_to_begin() {
        assert_eq!(in_flight, 0);
    }
    for (place, _) in state.claims() {
        assert_eq!(
            plan.wave_of(place),
            state.wave,
            "a claim outside of the wave at hand"
        );
    }
}

#[test]
fn every_state_has_an_answer_to_every_event() {
    let plan = plan(4);
    for phase in phases() {
        for event in events(1) {
            let mut state = RolloutState {
                phase: phase.clone(),
                ..RolloutState::new(&plan)
            };
            if phase.is_terminal() {
                let over = MemberState::Ended {
                    how: Ending::Cancelled,
                    counts: false,
                    attempts: 0,
                    why: None,
                };
                state.members.fill(over);
            }
            match next(&plan, &state, &event, at(1)) {
                Ok(step) => {
                    assert!(
                        !phase.is_terminal() || step.state.phase == phase,
                        "{phase:?} {event:?}"
                    );
                    let again = next(&plan, &step.state, &event, at(1));
                    let of_a_person = matches!(
                        event,
                        RolloutEvent::Approved { .. }
                            | RolloutEvent::Held(_)
                            | RolloutEvent::Unheld { .. }
                            | RolloutEvent::Excluded { .. }
                    );
                    if of_a_person && !step.state.phase.is_terminal() {
                        let again = again
                            .unwrap_or_else(|error| panic!("{phase:?} twice {event:?}: {error}"));
                        assert_eq!(
                            (again.state, again.facts),
                            (step.state, vec![]),
                            "{phase:?} twice {event:?}"
                        );
                    }
                }
                Err(error) => assert!(error.to_string().contains("expected"), "{error}"),
            }
        }
    }
}

/// Applies events; those that are refused change nothing.
fn live(
    plan: &RolloutPlan,
    events: impl IntoIterator<Item = RolloutEvent>,
) -> (RolloutState, Vec<Fact>) {
    let mut state = RolloutState::new(plan);
    let mut facts = Vec::new();
    for event in events {
        if let Ok(step) = next(plan, &state, &event, at(1)) {
            state = step.state;
            facts.extend(step.facts);
        }
        check(plan, &state);
    }
    (state, facts)
}

fn begun(place: usize) -> Vec<RolloutEvent> {
    let update = update_id(u8::try_from(place).unwrap());
    vec![
        RolloutEvent::TakenUp,
        RolloutEvent::Started,
        RolloutEvent::WaveOpened,
        RolloutEvent::Claimed { place, update },
    ]
}

#[test]
fn a_late_answer_of_another_attempt_is_dropped() {
    let plan = plan(2);
    let (state, _) = live(&plan, begun(0));
    let late = RolloutEvent::Ended {
        place: 0,
        update: update_id(99),
        end: UpdateEnd::Committed,
        follow: Follow::Nothing,
    };
    assert!(next(&plan, &state, &late, at(1)).is_err());
}

#[test]
fn holds_stop_starts_and_nothing_else() {
    let plan = plan(2);
    let (mut state, _) = live(&plan, begun(0));
    let mut step = |event: RolloutEvent| {
        let answer = next(&plan, &state, &event, at(1));
        if let Ok(step) = &answer {
            state = step.state.clone();
        }
        answer.map(|step| step.facts)
    };
    step(RolloutEvent::Held(hold(HoldKind::UserPause))).unwrap();
    step(RolloutEvent::Held(hold(HoldKind::GlobalPause))).unwrap();
    assert!(
        step(RolloutEvent::Claimed {
            place: 1,
            update: update_id(1)
        })
        .is_err()
    );
    let end = UpdateEnd::Committed;
    step(RolloutEvent::Ended {
        place: 0,
        update: update_id(0),
        end,
        follow: Follow::Nothing,
    })
    .unwrap();
    step(RolloutEvent::Unheld {
        kind: HoldKind::GlobalPause,
        by: "fleet".to_owned(),
    })
    .unwrap();
    assert!(
        step(RolloutEvent::Claimed {
            place: 1,
            update: update_id(1)
        })
        .is_err(),
        "the person's pause holds"
    );
    step(RolloutEvent::Unheld {
        kind: HoldKind::UserPause,
        by: "ann".to_owned(),
    })
    .unwrap();
    step(RolloutEvent::Claimed {
        place: 1,
        update: update_id(1),
    })
    .unwrap();
    step(RolloutEvent::Held(hold(HoldKind::UserPause))).unwrap();
    let facts = step(RolloutEvent::Aborted {
        by: "ann".to_owned(),
        why: String::new(),
        rollback: false,
    })
    .unwrap();
    assert!(
        matches!(facts[..], [Fact::Aborted { .. }]),
        "an abort is heard while held"
    );
}

#[test]
fn a_wave_without_success_does_not_open_the_next() {
    let mut plan = plan(4);
    plan.budget.limit = std::num::NonZeroU32::new(9).unwrap();
    let end = || unsuccessful(Ending::Failed, FailureKind::Infrastructure);
    let mut events = begun(0);
    events.push(RolloutEvent::Claimed {
        place: 1,
        update: update_id(1),
    });
    for place in 0..2u8 {
        events.push(RolloutEvent::Ended {
            place: place.into(),
            update: update_id(place),
            end: end(),
            follow: Follow::Nothing,
        });
    }
    let (state, _) = live(&plan, events.clone());
    assert_eq!((state.wave, state.holds[0].kind), (0, HoldKind::WaveFailed));
    events.push(RolloutEvent::Promoted {
        by: "ann".to_owned(),
    });
    let (state, facts) = live(&plan, events);
    assert_eq!((state.wave, state.wave_phase), (1, WavePhase::Open));
    assert!(
        !facts
            .iter()
            .any(|fact| matches!(fact, Fact::WavePassed { .. })),
        "what failed did not pass"
    );
}

#[test]
fn a_wave_with_too_few_successes_waits_for_a_person_and_who_was_taken_out_does_not_count() {
    let check = |percent: u8, excluded: bool, held: bool| {
        let mut plan = plan(4);
        plan.waves[0].end = 3;
        plan.waves.truncate(1);
        plan.waves.push(crate::plan::PlannedWave {
            end: 4,
            gate: crate::plan::strategy::WaveGate::Open,
        });
        plan.budget.limit = std::num::NonZeroU32::new(9).unwrap();
        plan.request.limits.min_success_percent = percent;
        let mut events = begun(0);
        let mut end = |place: usize, update: u8, end| {
            if place > 0 {
                events.push(RolloutEvent::Claimed {
                    place,
                    update: update_id(update),
                });
            }
            events.push(RolloutEvent::Ended {
                place,
                update: update_id(update),
                end,
                follow: Follow::Nothing,
            });
        };
        end(0, 0, UpdateEnd::Committed);
        end(1, 1, unsuccessful(Ending::RolledBack, FailureKind::Release));
        if !excluded {
            end(2, 2, UpdateEnd::Committed);
        } else {
            events.push(RolloutEvent::Excluded {
                place: 2,
                by: "ann".to_owned(),
                why: None,
            });
        }
        let (state, _) = live(&plan, events);
        let found = state
            .holds
            .iter()
            .any(|hold| hold.kind == HoldKind::WaveFailed);
        assert_eq!(
            (found, state.wave),
            (held, u32::from(!held)),
            "{percent} % with one {}",
            if excluded { "taken out" } else { "more" }
        );
    };
    // Two of three, or one of two.
    check(0, false, false);
    check(66, false, false);
    check(67, false, true);
    check(100, false, true);
    check(50, true, false);
    check(51, true, true);
}

#[test]
fn a_wave_that_takes_too_long_is_held_and_waiting_does_not_count() {
    let mut plan = plan(2);
    plan.request.limits.wave_deadline = std::time::Duration::from_secs(60);
    let (mut state, _) = live(&plan, begun(0));
    let look = |state: &mut RolloutState, second, working| {
        *state = next(&plan, state, &RolloutEvent::Looked { working }, at(second))
            .unwrap()
            .state;
        state.holds.len()
    };
    assert_eq!(look(&mut state, 0, true), 0);
    assert_eq!(look(&mut state, 30, false), 0);
    assert_eq!(look(&mut state, 80, true), 0);
    assert_eq!(look(&mut state, 105, true), 0);
    assert_eq!(look(&mut state, 110, true), 1);
    assert_eq!(state.holds[0].kind, HoldKind::Deadline);
    let promoted = next(
        &plan,
        &state,
        &RolloutEvent::Promoted {
            by: "ann".to_owned(),
        },
        at(111),
    )
    .unwrap()
    .state;
    assert!(promoted.holds.is_empty() && promoted.worked == Countdown::default());
}

#[test]
fn what_was_taken_back_is_shown_as_taken_back() {
    let plan = plan(2);
    let mut events = begun(0);
    events.extend([
        RolloutEvent::Ended {
            place: 0,
            update: update_id(0),
            end: UpdateEnd::Committed,
            follow: Follow::Nothing,
        },
        RolloutEvent::Aborted {
            by: "ann".to_owned(),
            why: String::new(),
            rollback: true,
        },
        RolloutEvent::RollbackBegun {
            child: rollout_id(9),
        },
        RolloutEvent::RollbackEnded {
            complete: true,
            taken_back: vec![0],
        },
    ]);
    let (state, _) = live(&plan, events);
    let tally = state.tally();
    assert_eq!(
        (
            state.phase.label(),
            tally.committed,
            tally.rolled_back,
            tally.failures
        ),
        ("rolled_back", 0, 1, 0)
    );
}

proptest! {
    #[test]
    fn whatever_happens_the_state_stays_sound(total in 1u32..7, choices in prop::collection::vec((0usize..30, 0usize..7), 0..80)) {
        let plan = plan(total);
        let lively = [RolloutEvent::TakenUp, RolloutEvent::Started, RolloutEvent::WaveOpened];
        let chosen = choices.into_iter().flat_map(|(event, place)| {
            let mut list = events(place % total as usize);
            // Most lives would end before they begin: every event is followed by what the daemon would try.
            let event = list.swap_remove(event % list.len());
            std::iter::once(event).chain(lively.clone())
        });
        let (state, facts) = live(&plan, chosen);
        let count = |which: fn(&Fact) -> bool| facts.iter().filter(|fact| which(fact)).count();
        let started = count(|fact| matches!(fact, Fact::Started));
        let aborted = count(|fact| matches!(fact, Fact::Aborted { .. }));
        let finished = count(|fact| matches!(fact, Fact::Finished(_)));
        prop_assert!(started <= 1 && aborted <= 1 && finished <= 1, "{:?}", facts);
        let stored = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<RolloutState>(&stored).unwrap(), state);
    }
}
