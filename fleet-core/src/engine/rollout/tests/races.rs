//! Several who change the same rollout at the same time.

use async_trait::async_trait;

use super::*;
use crate::plan::RolloutPlan;
use crate::plan::rollout::RolloutState;
use crate::ports::{RolloutStore, RolloutStoreError};
use crate::record::NewEvent;

/// A store at which others have their turn before each answer.
struct Contended(MemoryStore);

impl Contended {
    async fn turn(&self) -> &MemoryStore {
        tokio::task::yield_now().await;
        &self.0
    }
}

#[async_trait]
impl RolloutStore for Contended {
    async fn create(
        &self,
        plan: &RolloutPlan,
        state: &RolloutState,
        events: Vec<NewEvent>,
    ) -> Result<(), RolloutStoreError> {
        self.turn().await.create(plan, state, events).await
    }

    async fn load(&self, id: &RolloutId) -> Result<Option<StoredRollout>, RolloutStoreError> {
        self.turn().await.load(id).await
    }

    async fn active(&self) -> Result<Vec<StoredRollout>, RolloutStoreError> {
        self.turn().await.active().await
    }

    async fn list(&self, limit: u32) -> Result<Vec<StoredRollout>, RolloutStoreError> {
        self.turn().await.list(limit).await
    }

    async fn of_image(
        &self,
        image: &ImageRef,
        limit: u32,
    ) -> Result<Vec<StoredRollout>, RolloutStoreError> {
        self.turn().await.of_image(image, limit).await
    }

    async fn compare_and_swap(
        &self,
        id: &RolloutId,
        expected: u64,
        state: &RolloutState,
        events: Vec<NewEvent>,
    ) -> Result<u64, RolloutStoreError> {
        let store = self.turn().await;
        store.compare_and_swap(id, expected, state, events).await
    }
}

fn contender(world: &World) -> Orchestrator {
    Orchestrator::new(
        Arc::new(Contended(world.store.clone())),
        Arc::new(world.fleet.clone()),
        Arc::new(world.clock.clone()),
        Arc::clone(&world.entropy),
        StrategyRegistry::default(),
    )
}

/// Drives everything until nothing is left to do, by two tasks of one process.
async fn drive(world: &World) {
    let process = contender(world);
    let task = async || {
        let mut woken = process.woken();
        while !world.store.active().await.unwrap().is_empty() {
            process.run_due().await.unwrap();
            process.idle(&mut woken, Duration::from_secs(3)).await;
        }
    };
    futures::future::join(task(), task()).await;
}

#[test]
fn two_tasks_a_pause_an_abort_and_a_newer_release_at_the_same_time_lose_nothing() {
    // Before the first wave, in waves, and in pauses between them.
    for at in [0, 1, 29, 30, 31, 35, 40, 41, 69, 70, 71] {
        for order in 0..3 {
            paused(async {
                let world = World::of(8);
                let id = world.start(request("2", rolling(2, 10, 3))).await;
                let people = async {
                    let process = contender(&world);
                    world.clock.sleep(Duration::from_secs(at)).await;
                    let why = || "enough".to_owned();
                    let abort = Command::Abort {
                        why: why(),
                        rollback: false,
                    };
                    let pause = Command::Pause { why: why() };
                    let pause = process.command(&id, &pause, "ann");
                    let abort = process.command(&id, &abort, "bob");
                    let newer = process.start(request("3", rolling(4, 0, 3)));
                    match order {
                        0 => futures::future::join3(newer, pause, abort).await,
                        1 => {
                            let (pause, abort, newer) =
                                futures::future::join3(pause, abort, newer).await;
                            (newer, pause, abort)
                        }
                        _ => {
                            let (abort, newer, pause) =
                                futures::future::join3(abort, newer, pause).await;
                            (newer, pause, abort)
                        }
                    }
                };
                let ((), (newer, pause, abort)) =
                    futures::future::join(drive(&world), people).await;
                let case = format!("at {at} s, order {order}: {pause:?}, {abort:?}");
                let Started::Opened(newer) = newer.unwrap() else {
                    panic!("expected a rollout");
                };
                check(&world, &id, &newer.id(), &case);
                let aborted = world.count(&EventKind::RolloutAborted);
                assert_eq!(aborted, usize::from(abort.is_ok()), "{case}");
                let illegal = |error: &RolloutError| matches!(error, RolloutError::Illegal(_));
                assert!(
                    pause.is_ok() || pause.as_ref().is_err_and(illegal),
                    "{case}"
                );
                assert!(
                    abort.is_ok() || abort.as_ref().is_err_and(illegal),
                    "{case}"
                );
            });
        }
    }
}

/// The old rollout ended once, the newer one reached everybody, and each of them updated each instance at most once.
#[track_caller]
fn check(world: &World, old: &RolloutId, newer: &RolloutId, case: &str) {
    let updates = world.fleet.ends();
    for number in 0..8 {
        let name = instance(&format!("i{number}"));
        let of = |rollout: &RolloutId| {
            let mine = updates.iter().map(|(order, _)| order);
            let mine = mine.filter(|order| order.instance == name && order.rollout == *rollout);
            mine.count()
        };
        assert!(of(old) <= 1 && of(newer) == 1, "{name} {case}");
    }
    assert!(world.runs_everywhere("3", 8), "{case}");
    let ends = [EventKind::RolloutCompleted, EventKind::RolloutSuperseded];
    for kind in &ends {
        assert!(world.count(kind) <= 2, "{kind:?} {case}");
    }
    let superseded = world.count(&EventKind::RolloutSuperseded);
    assert!(superseded <= 1, "{case}");
}
