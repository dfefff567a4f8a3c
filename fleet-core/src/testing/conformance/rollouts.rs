//! Rollouts: compare-and-swap, all or nothing.

use futures::future::join_all;

use super::fixtures::{at, event, instance, rollout, rollout_id, update_id};
use crate::plan::Companion;
use crate::plan::rollout::{Ending, Hold, HoldKind, MemberState, Phase, RolloutState, WavePhase};
use crate::ports::{EventFilter, EventStore, RolloutStore, RolloutStoreError};

/// What every [`RolloutStore`] must do.
///
/// # Panics
/// It does not.
pub async fn rollouts<S: RolloutStore + EventStore>(fresh: impl AsyncFn() -> S) {
    an_empty_store_has_none(&fresh().await).await;
    rollouts_read_back_as_written(&fresh().await).await;
    an_id_is_used_once(&fresh().await).await;
    every_state_reads_back(&fresh().await).await;
    a_stale_writer_is_overtaken(&fresh().await).await;
    one_of_many_that_write_at_once_wins(&fresh().await).await;
    states_that_do_not_fit_the_plan_are_refused(&fresh().await).await;
    active_ones_come_oldest_first_and_all_newest_first(&fresh().await).await;
}

async fn events_of(store: &impl EventStore) -> usize {
    let page = store.page(0, 1000, &EventFilter::default()).await;
    page.unwrap().len()
}

async fn create(store: &impl RolloutStore, n: u8) -> RolloutState {
    let (plan, state) = rollout(n, 3);
    store.create(&plan, &state, vec![]).await.unwrap();
    state
}

async fn an_empty_store_has_none(store: &impl RolloutStore) {
    assert_eq!(store.load(&rollout_id(1)).await.unwrap(), None);
    assert_eq!(store.active().await.unwrap(), []);
    assert_eq!(store.list(9).await.unwrap(), []);
}

async fn rollouts_read_back_as_written<S: RolloutStore + EventStore>(store: &S) {
    // More than nine, so that an order by text would show.
    for (n, total) in [(1, 12), (2, 0)] {
        let (mut plan, state) = rollout(n, total);
        plan.references = vec!["registry.example/team/app:0".parse().unwrap()];
        if let Some(member) = plan.members.get_mut(1) {
            member.reference = Some(0);
            member.with = vec![Companion {
                instance: instance("beside"),
                from: Some(0),
                to: 1,
                reference: None,
            }];
        }
        store.create(&plan, &state, vec![event(n)]).await.unwrap();
        let kept = store.load(&rollout_id(n)).await.unwrap().unwrap();
        assert_eq!((kept.plan, kept.state, kept.generation), (plan, state, 1));
    }
    assert_eq!(events_of(store).await, 2);
}

async fn an_id_is_used_once<S: RolloutStore + EventStore>(store: &S) {
    let state = create(store, 1).await;
    let (plan, _) = rollout(1, 3);
    let again = store.create(&plan, &state, vec![event(1)]).await;
    assert!(
        matches!(again, Err(RolloutStoreError::Exists(id)) if id == rollout_id(1)),
        "expected Exists, found {again:?}"
    );
    assert_eq!(events_of(store).await, 0);
    assert_eq!(store.list(9).await.unwrap().len(), 1);
}

fn phases() -> Vec<Phase> {
    let (by, child) = (rollout_id(8), rollout_id(9));
    let why = || "because".to_owned();
    vec![
        Phase::AwaitingApproval,
        Phase::Scheduled,
        Phase::Running,
        Phase::Superseding { by },
        Phase::Aborting {
            rollback: true,
            why: why(),
        },
        Phase::RollingBack { child },
        Phase::Completed,
        Phase::CompletedWithFailures,
        Phase::Aborted { why: why() },
        Phase::RolledBack { child },
        Phase::RollbackIncomplete { child },
        Phase::Superseded { by },
        Phase::Cancelled { why: why() },
        Phase::Planned,
    ]
}

async fn every_state_reads_back(store: &impl RolloutStore) {
    let mut state = create(store, 1).await;
    state.wave_phase = WavePhase::Open;
    state.passed_at = Some(at(4));
    state.replaces = vec![rollout_id(7)];
    state.holds = vec![Hold {
        kind: HoldKind::UserPause,
        by: "ann".to_owned(),
        why: "lunch".to_owned(),
        since: at(5),
    }];
    for (generation, phase) in (1..).zip(phases()) {
        let terminal = phase.is_terminal();
        state.phase = phase;
        // Another member changes each time, the others stay as they are.
        let place = usize::try_from(generation).unwrap() % 3;
        state.members[place] = match state.members[place] {
            MemberState::Queued { .. } => MemberState::Claimed {
                update: update_id(1),
                attempt: 1,
                since: at(6),
                failed: true,
            },
            MemberState::Claimed { .. } => MemberState::Ended {
                how: Ending::RolledBack,
                counts: true,
                attempts: 1,
                why: Some("unhealthy".to_owned()),
            },
            MemberState::Ended { .. } => MemberState::Queued {
                attempts: 1,
                not_before: Some(at(7)),
                last: Some("registry away".to_owned()),
                failed: true,
            },
        };
        let written = store
            .compare_and_swap(&rollout_id(1), generation, &state, vec![])
            .await
            .unwrap();
        assert_eq!(written, generation + 1);
        let kept = store.load(&rollout_id(1)).await.unwrap().unwrap();
        assert_eq!((&kept.state, kept.generation), (&state, written));
        let active = store.active().await.unwrap();
        assert_eq!(active.is_empty(), terminal, "{:?}", state.phase);
    }
}

async fn a_stale_writer_is_overtaken<S: RolloutStore + EventStore>(store: &S) {
    let state = create(store, 1).await;
    let id = rollout_id(1);
    let running = RolloutState {
        phase: Phase::Running,
        ..state.clone()
    };
    for stale in [0, 2] {
        let refused = store
            .compare_and_swap(&id, stale, &running, vec![event(1)])
            .await;
        match refused {
            Err(RolloutStoreError::Overtaken {
                rollout,
                expected,
                found,
            }) => assert_eq!((rollout, expected, found), (id, stale, 1)),
            other => panic!("expected Overtaken, found {other:?}"),
        }
    }
    let kept = store.load(&id).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.generation), (state.clone(), 1));
    assert_eq!(events_of(store).await, 0);

    let unknown = store
        .compare_and_swap(&rollout_id(2), 1, &state, vec![event(1)])
        .await;
    assert!(
        matches!(unknown, Err(RolloutStoreError::NoSuchRollout(id)) if id == rollout_id(2)),
        "expected NoSuchRollout, found {unknown:?}"
    );
    store
        .compare_and_swap(&id, 1, &running, vec![event(1)])
        .await
        .unwrap();
    assert_eq!(events_of(store).await, 1);
}

async fn one_of_many_that_write_at_once_wins(store: &impl RolloutStore) {
    let state = create(store, 1).await;
    let id = rollout_id(1);
    let writes = (0..8).map(|_| store.compare_and_swap(&id, 1, &state, vec![]));
    let written = join_all(writes).await;
    let won = written.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1, "{written:?}");
    let kept = store.load(&id).await.unwrap().unwrap();
    assert_eq!(kept.generation, 2);
}

async fn states_that_do_not_fit_the_plan_are_refused(store: &impl RolloutStore) {
    let (plan, mut short) = rollout(1, 3);
    short.members.pop();
    let refused = store.create(&plan, &short, vec![]).await;
    assert!(
        matches!(refused, Err(RolloutStoreError::Store { .. })),
        "{refused:?}"
    );
    let state = create(store, 1).await;
    let refused = store
        .compare_and_swap(&rollout_id(1), 1, &short, vec![])
        .await;
    assert!(
        matches!(refused, Err(RolloutStoreError::Store { .. })),
        "{refused:?}"
    );
    let kept = store.load(&rollout_id(1)).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.generation), (state, 1));
}

async fn active_ones_come_oldest_first_and_all_newest_first(store: &impl RolloutStore) {
    // The order is that of creation, whatever the ids are.
    for n in [3, 1, 2] {
        create(store, n).await;
    }
    let over = RolloutState {
        phase: Phase::Completed,
        ..rollout(1, 3).1
    };
    store
        .compare_and_swap(&rollout_id(1), 1, &over, vec![])
        .await
        .unwrap();
    let ids = |rollouts: Vec<crate::ports::StoredRollout>| -> Vec<_> {
        rollouts.iter().map(|kept| kept.plan.id()).collect()
    };
    assert_eq!(ids(store.active().await.unwrap()), [3, 2].map(rollout_id));
    assert_eq!(ids(store.list(9).await.unwrap()), [2, 1, 3].map(rollout_id));
    assert_eq!(ids(store.list(2).await.unwrap()), [2, 1].map(rollout_id));
    let (plan, _) = rollout(1, 1);
    let image = plan.request.target.image;
    let of_image = store.of_image(&image, 9).await.unwrap();
    assert_eq!(ids(of_image), [2, 1, 3].map(rollout_id));
    let newest = store.of_image(&image, 1).await.unwrap();
    assert_eq!(ids(newest), [rollout_id(2)]);
    let other = "registry.example/nobody:1".parse().unwrap();
    assert_eq!(store.of_image(&other, 9).await.unwrap(), []);
}
