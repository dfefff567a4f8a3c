//! Strategies of an embedder, and what the rollout guarantees whatever they answer.

use std::num::NonZeroU32;

use super::*;
use crate::plan::PlannedInstance;
use crate::plan::strategy::{
    Batch, Failure, FailureBudget, OnFailure, Progress, RolloutStrategy, WaveGate,
};

/// One after the other, and everything that fails is tried twice more.
#[derive(Debug)]
struct Stubborn;

impl RolloutStrategy for Stubborn {
    fn label(&self) -> &str {
        "stubborn"
    }

    fn next_batch(&self, _remaining: &[PlannedInstance], _so_far: &Progress) -> Batch {
        Batch::Take {
            size: NonZeroU32::MIN,
            gate: WaveGate::Open,
        }
    }

    fn on_failure(&self, failure: &Failure<'_>) -> OnFailure {
        OnFailure::Retry {
            attempt: failure.attempt + 1,
            after: Duration::from_secs(5),
        }
    }

    fn retries(&self) -> u32 {
        2
    }

    fn failure_budget(&self, _total: u32) -> FailureBudget {
        FailureBudget {
            limit: NonZeroU32::MIN,
            canary: None,
        }
    }
}

fn with_stubborn(world: &World) -> Orchestrator {
    Orchestrator::new(
        Arc::new(world.store.clone()),
        Arc::new(world.fleet.clone()),
        Arc::new(world.clock.clone()),
        Arc::clone(&world.entropy),
        StrategyRegistry::default().with(Stubborn),
    )
}

async fn start(world: &World, tag: &str) -> RolloutId {
    let strategy = StrategySpec::Custom {
        name: "stubborn".to_owned(),
    };
    match with_stubborn(world).start(request(tag, strategy)).await {
        Ok(Started::Opened(plan)) => plan.id(),
        other => panic!("expected a rollout, found {other:?}"),
    }
}

#[test]
fn a_bad_release_that_is_tried_again_spends_the_budget_all_the_same() {
    paused(async {
        let world = World::of(4);
        world.fleet.release(image("2").digest, Nature::Bad);
        let id = start(&world, "2").await;
        let process = with_stubborn(&world);
        process.wait(&id).await.unwrap();
        assert!(matches!(world.phase(&id).await, Phase::Aborted { .. }));
        // One instance, three times; nobody else.
        assert_eq!((world.fleet.begun(), world.failed().len()), (3, 1));
    });
}

#[test]
fn what_failed_and_is_tried_again_is_counted_when_it_is_taken_out() {
    paused(async {
        let world = World::of(3);
        world.fleet.release(image("2").digest, Nature::Bad);
        let id = start(&world, "2").await;
        let process = with_stubborn(&world);
        let plan = process.load(&id).await.unwrap().plan;
        let first = plan.members[0].instance.clone();
        let steer = async {
            world.clock.sleep(Duration::from_secs(32)).await;
            let command = Command::Exclude { instance: first };
            process.command(&id, &command, "ann").await.unwrap();
        };
        let (waited, ()) = futures::future::join(process.wait(&id), steer).await;
        waited.unwrap();
        assert_eq!(world.fleet.begun(), 1, "{:?}", world.phase(&id).await);
    });
}

#[test]
fn a_rollout_whose_strategy_nobody_knows_stands_still_and_the_others_go_on() {
    paused(async {
        let world = World::of(2);
        let unknown = start(&world, "2").await;
        let other = World {
            fleet: world.fleet.clone(),
            store: world.store.clone(),
            clock: world.clock.clone(),
            entropy: Arc::clone(&world.entropy),
        };
        let mut known = request("2", rolling(1, 0, 1));
        known.target = PinnedImage {
            image: "registry.example/db:2".parse().unwrap(),
            ..image("db")
        };
        other.fleet.add(candidate("db", "t9"));
        known.asked = crate::plan::Asked::ForInstances {
            names: vec![instance("db").name],
        };
        let known = other.start(known).await;
        world.process().run_due().await.unwrap();
        assert_eq!(world.phase(&known).await, Phase::Completed);
        assert!(!world.phase(&unknown).await.is_terminal());
        with_stubborn(&world).wait(&unknown).await.unwrap();
        assert_eq!(world.phase(&unknown).await, Phase::Completed);
    });
}
