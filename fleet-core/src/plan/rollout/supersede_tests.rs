//! What a newer release means, for every state of the rollout that is going on.

use super::*;
use crate::plan::rollout::{Hold, RolloutState};
use crate::testing::conformance::fixtures::{at, digest, rollout};

fn policy(then: WhenNewer) -> SupersedePolicy {
    SupersedePolicy {
        then,
        quiet_period: Duration::from_secs(10),
        min_interval: Duration::from_secs(60),
    }
}

#[track_caller]
fn check(phase: Phase, change: impl FnOnce(&mut RolloutState), then: WhenNewer, expect: &str) {
    let (plan, mut state) = rollout(1, 3);
    state.phase = phase;
    change(&mut state);
    let channel = Channel {
        current: Some((&plan, &state)),
        known_bad: &[],
        completed: &[],
        left: &[],
        last_start: Some(at(0)),
    };
    let found = decide(&channel, &digest(2), at(100), policy(then), at(120)).to_string();
    assert_eq!(found.replace(&plan.id().to_string(), "it"), expect);
}

#[test]
fn what_has_not_begun_is_replaced_at_once_and_what_ends_is_waited_for() {
    for phase in [Phase::Planned, Phase::AwaitingApproval, Phase::Scheduled] {
        check(
            phase,
            |_| (),
            WhenNewer::FinishFirst,
            "a rollout is opened in place of it",
        );
    }
    check(
        Phase::Running,
        |_| (),
        WhenNewer::Replace,
        "a rollout is opened in place of it",
    );
    check(
        Phase::Running,
        |_| (),
        WhenNewer::FinishFirst,
        "waits for it: it finishes first",
    );
    check(
        Phase::Running,
        |_| (),
        WhenNewer::Ignore,
        "waits for it: releases are not looked at while it runs",
    );
    let ending = [
        Phase::Aborting {
            rollback: true,
            why: String::new(),
        },
        Phase::RollingBack {
            child: rollout(9, 1).0.id(),
        },
        Phase::Superseding {
            by: rollout(9, 1).0.id(),
        },
    ];
    for phase in ending {
        check(
            phase,
            |_| (),
            WhenNewer::Replace,
            "waits for it: it is ending",
        );
    }
}

#[test]
fn what_a_person_paused_is_not_replaced_silently_but_what_a_gate_holds_is() {
    let hold = |kind| {
        move |state: &mut RolloutState| {
            state.holds.push(Hold {
                kind,
                by: String::new(),
                why: String::new(),
                since: at(0),
            });
        }
    };
    check(
        Phase::Running,
        hold(HoldKind::UserPause),
        WhenNewer::Replace,
        "waits for it: a person paused it: abort it to make way",
    );
    check(
        Phase::Running,
        hold(HoldKind::ManualGate),
        WhenNewer::Replace,
        "a rollout is opened in place of it",
    );
}

#[test]
fn after_three_that_never_left_their_first_wave_one_finishes() {
    let replaced = |times| move |state: &mut RolloutState| state.replaced_in_a_row = times;
    check(
        Phase::Running,
        replaced(2),
        WhenNewer::Replace,
        "a rollout is opened in place of it",
    );
    check(
        Phase::Running,
        replaced(3),
        WhenNewer::Replace,
        "waits for it: several before it never left their first wave: it finishes once",
    );
    let later = |state: &mut RolloutState| {
        state.replaced_in_a_row = 3;
        state.wave = 1;
    };
    check(
        Phase::Running,
        later,
        WhenNewer::Replace,
        "a rollout is opened in place of it",
    );
}

#[test]
fn the_same_the_bad_and_the_old_are_told_apart() {
    let (plan, state) = rollout(1, 3);
    let found = |current, bad: &[Digest], completed: &[Digest], n, now| {
        let channel = Channel {
            current,
            known_bad: bad,
            completed,
            left: &[digest(9)],
            last_start: None,
        };
        decide(
            &channel,
            &digest(n),
            at(100),
            policy(WhenNewer::Replace),
            at(now),
        )
    };
    let running = Some((&plan, &state));
    assert_eq!(found(running, &[], &[], 1, 120), Decision::Same);
    assert_eq!(found(None, &[], &[digest(1)], 1, 120), Decision::Same);
    assert_eq!(
        found(None, &[digest(2)], &[digest(1)], 2, 120),
        Decision::KnownBad
    );
    assert_eq!(
        found(None, &[], &[digest(3), digest(1)], 1, 120),
        Decision::MovedBack
    );
    // What ran before the first release that fleet brought.
    assert_eq!(found(None, &[], &[digest(1)], 9, 120), Decision::MovedBack);
    assert_eq!(found(running, &[], &[], 9, 120), Decision::MovedBack);
    // Back to stable while something else is rolled out.
    assert_eq!(
        found(running, &[], &[digest(3)], 3, 120),
        Decision::MovedBack
    );
    assert_eq!(
        found(None, &[], &[], 2, 120),
        Decision::Open { replaces: None }
    );
    assert_eq!(found(None, &[], &[], 2, 105), Decision::WaitUntil(at(110)));
}
