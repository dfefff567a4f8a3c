//! The table of what recovery decides, for every step in which a process can die.

use serde_json::Value;

use super::*;
use crate::ids::{ContainerId, InstanceId, InstanceName, SnapshotId, TenantId, UpdateId};
use crate::model::{HealthSpec, RestartPolicy, RunState, SnapshotChoice};
use crate::testing::{FakeHost, image, instance};
use crate::update::{Deadline, Entry, Facts, MemberPlan, Phase, UpdatePlan};

const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn container() -> Container {
    let host = FakeHost::new(1);
    host.load(image("app:1"));
    host.run(instance("web"));
    host.container("web").unwrap()
}

fn plan(container: &Container) -> UpdatePlan {
    let host = FakeHost::new(1);
    UpdatePlan {
        saga: UpdatePlan::SAGA,
        id: UpdateId::new(AT, [1; 10]),
        actor: "test".to_owned(),
        rollout: None,
        members: vec![MemberPlan {
            instance: InstanceId::local(InstanceName::new("web").unwrap()),
            tenant: TenantId::new("web").unwrap(),
            container: container.id.clone(),
            target: Some(host.publish(image("app:2"))),
            image: "app:2".to_owned(),
            health: HealthSpec::default(),
            stop_grace: None,
            snapshot: SnapshotChoice::All,
            snapshot_id: SnapshotId::new(AT, [2; 10]),
            pre_hook: None,
            post_hook: None,
            before: None,
            discard_writable_layer: false,
        }],
        keep_snapshots: 3,
        snapshot_max_age: None,
        shared_guard: None,
    }
}

fn entry(phase: Phase) -> Entry {
    Entry {
        at: AT,
        member: 0,
        phase,
    }
}

/// The state of an update that died right after it began this step; everything before it is done.
fn died_in(step: Step, container: &Container) -> UpdateState {
    let mut state = UpdateState::new(plan(container));
    let facts = Facts {
        was_running: Some(true),
        volumes: Some(Vec::new()),
        candidate: Some(new_id()),
        gate_deadline: Some(Deadline {
            at: Timestamp::from_millis(60_000),
            boot_id: "boot".to_owned(),
        }),
        ..Facts::default()
    };
    let output = facts.payload();
    state.apply(&entry(Phase::Done {
        step: Step::Freeze,
        output,
    }));
    for &before in Step::ALL
        .iter()
        .filter(|&&other| other.direction() == step.direction() && other < step)
    {
        state.apply(&entry(Phase::Done {
            step: before,
            output: Value::Null,
        }));
    }
    state.apply(&entry(Phase::Started {
        step,
        input: Value::Null,
    }));
    state
}

fn new_id() -> ContainerId {
    ContainerId::new("b".repeat(64)).unwrap()
}

/// What the engine shows: the old container down, the new one as given.
fn seen(old: &Container, new_runs: bool) -> Observation {
    let mut down = old.clone();
    (down.state, down.pid) = (RunState::Exited, 0);
    let mut new = old.clone();
    (new.id, new.restart_policy) = (new_id(), RestartPolicy::No);
    if !new_runs {
        (new.state, new.pid) = (RunState::Exited, 0);
    }
    let member = MemberObservation {
        old: Some(down),
        new: Some(new),
        holder: None,
        orphan: None,
    };
    Observation {
        members: vec![member],
        now: AT,
        boot_id: "boot".to_owned(),
    }
}

/// The same with a new container that nobody started.
fn seen_unstarted(old: &Container) -> Observation {
    let mut seen = seen(old, false);
    if let Some(new) = &mut seen.members[0].new {
        (new.state, new.started_at) = (RunState::Created, None);
    }
    seen
}

#[test]
fn a_new_container_that_ran_without_a_start_in_the_journal_asks_a_person() {
    let container = container();
    for &step in Step::ALL
        .iter()
        .filter(|&&step| step > Step::Freeze && step < Step::Start)
    {
        let state = died_in(step, &container);
        if !crate::update::applies(&state, step, 0) {
            continue;
        }
        for new_runs in [true, false] {
            let mut world = seen(&container, new_runs);
            let frozen = Decision::Freeze(Outcome::Diverged);
            assert_eq!(decide(&state, &world).decision, frozen, "{step}");
            let mut after = state.clone();
            for entry in catch_up(&state, &world) {
                after.apply(&entry);
            }
            assert!(!state.volumes_dirty() && after.volumes_dirty(), "{step}");

            world.members[0].old = None;
            assert_eq!(decide(&state, &world).decision, frozen, "{step}, old gone");

            world.members[0].old = Some(container.clone());
            let verdict = decide(&state, &world);
            if state.any_started(Step::Stop) {
                assert_eq!(verdict.decision, frozen, "{step}, both up");
            } else {
                // Beside the old one, which serves: withdrawn.
                let Decision::TurnBack(cause) = verdict.decision else {
                    panic!("{step}: {verdict:?}")
                };
                assert_eq!(cause.fault, Fault::Foreign, "{step}");
            }
        }
    }
}

#[test]
fn a_new_container_that_was_armed_without_an_arm_in_the_journal_asks_a_person() {
    let container = container();
    for step in [Step::Start, Step::Gate] {
        let state = died_in(step, &container);
        let mut late = seen(&container, true);
        late.now = Timestamp::from_millis(60_001);
        if let Some(new) = &mut late.members[0].new {
            new.restart_policy = RestartPolicy::Always;
        }
        let decision = decide(&state, &late).decision;
        assert_eq!(decision, Decision::Freeze(Outcome::Diverged), "{step}");
    }
}

#[test]
fn before_the_start_it_turns_back_without_blaming_the_release() {
    let container = container();
    for &step in Step::ALL
        .iter()
        .filter(|&&step| step > Step::Freeze && step < Step::Start)
    {
        let state = died_in(step, &container);
        if !crate::update::applies(&state, step, 0) {
            continue;
        }
        let verdict = decide(&state, &seen_unstarted(&container));
        let Decision::TurnBack(cause) = verdict.decision else {
            panic!("{step}: {verdict:?}")
        };
        assert_eq!(cause.fault, Fault::Infrastructure, "{step}");
        assert!(verdict.found.contains(step.label()), "{}", verdict.found);
    }
}

#[test]
fn after_the_start_it_goes_on_if_the_new_one_runs_in_time_and_else_back() {
    let container = container();
    for step in [Step::Start, Step::Gate] {
        let state = died_in(step, &container);
        assert_eq!(
            decide(&state, &seen(&container, true)).decision,
            Decision::Continue,
            "{step}"
        );
        assert!(
            matches!(
                decide(&state, &seen(&container, false)).decision,
                Decision::TurnBack(_)
            ),
            "{step}"
        );
        let mut late = seen(&container, true);
        late.now = Timestamp::from_millis(60_001);
        assert!(
            matches!(decide(&state, &late).decision, Decision::TurnBack(_)),
            "{step}"
        );
        let mut rebooted = seen(&container, true);
        rebooted.boot_id = "another".to_owned();
        assert!(
            matches!(decide(&state, &rebooted).decision, Decision::TurnBack(_)),
            "{step}"
        );
    }
}

#[test]
fn from_the_arm_on_it_goes_forward_whatever_is_seen() {
    let container = container();
    for step in [Step::Arm, Step::Commit] {
        let state = died_in(step, &container);
        for runs in [true, false] {
            assert_eq!(
                decide(&state, &seen(&container, runs)).decision,
                Decision::Continue,
                "{step}"
            );
        }
    }
}

#[test]
fn on_the_way_back_it_goes_on_back() {
    let container = container();
    for &step in Step::ALL
        .iter()
        .filter(|step| step.direction() == Direction::Back)
    {
        let mut state = died_in(Step::Gate, &container);
        let cause = Cause::new(Fault::Release, "unhealthy");
        state.apply(&entry(Phase::Failed {
            step: Step::Gate,
            cause,
            output: Value::Null,
        }));
        state.apply(&entry(Phase::Started {
            step,
            input: Value::Null,
        }));
        let verdict = decide(&state, &seen(&container, false));
        assert_eq!(verdict.decision, Decision::Continue, "{step}");
    }
}

#[test]
fn an_orphan_a_foreign_hand_and_too_many_recoveries_ask_a_person() {
    let container = container();
    let state = died_in(Step::Start, &container);
    let mut orphaned = seen(&container, false);
    orphaned.members[0].orphan = Some("pid 7".to_owned());
    assert_eq!(
        decide(&state, &orphaned).decision,
        Decision::Freeze(Outcome::NeedsOperator)
    );

    let mut taken = seen(&container, true);
    taken.members[0].holder = Some(ContainerId::new("c".repeat(64)).unwrap());
    assert_eq!(
        decide(&state, &taken).decision,
        Decision::Freeze(Outcome::Diverged)
    );

    let mut both_run = seen(&container, true);
    both_run.members[0].old = Some(container.clone());
    assert_eq!(
        decide(&state, &both_run).decision,
        Decision::Freeze(Outcome::Diverged)
    );

    let mut again = state;
    for _ in 0..MAX_RECOVERIES {
        again.apply(&entry(Phase::Recovered {
            forward: true,
            reason: String::new(),
            cause: None,
        }));
    }
    assert_eq!(
        decide(&again, &seen(&container, true)).decision,
        Decision::Freeze(Outcome::NeedsOperator)
    );
}

#[test]
fn what_is_frozen_is_left_and_what_has_an_outcome_is_cleaned_up() {
    let container = container();
    let mut state = died_in(Step::Gate, &container);
    state.apply(&entry(Phase::Ended {
        outcome: Outcome::NeedsOperator,
        reason: "x".to_owned(),
    }));
    assert_eq!(
        decide(&state, &seen(&container, true)).decision,
        Decision::Leave
    );
    let mut state = died_in(Step::CleanUp, &container);
    state.apply(&entry(Phase::Ended {
        outcome: Outcome::Committed,
        reason: String::new(),
    }));
    assert_eq!(
        decide(&state, &seen(&container, true)).decision,
        Decision::Continue
    );
}
