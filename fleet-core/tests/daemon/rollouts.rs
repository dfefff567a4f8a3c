//! Rollouts with updates as they are, on the fake host.

use fleet_core::engine::rollout::{Command, StartRequest, Started};
use fleet_core::ids::RolloutId;
use fleet_core::model::Release;
use fleet_core::plan::rollout::Phase;
use fleet_core::plan::strategy::{RollingWave, StrategySpec, WaveSize};

use super::*;

async fn start(process: &Process, release: &Release, strategy: StrategySpec) -> RolloutId {
    let mut request = StartRequest::new("ann", release.image.clone());
    request.strategy = strategy;
    match process.orchestrator.start(request).await.unwrap() {
        Started::Opened(plan) => plan.id(),
        other => panic!("expected a rollout, found {other:?}"),
    }
}

async fn over(world: &World, process: &Process, id: &RolloutId) -> Phase {
    for _ in 0..10_000 {
        let phase = process.orchestrator.load(id).await.unwrap().state.phase;
        if phase.is_terminal() {
            return phase;
        }
        world.pass(Duration::from_millis(100)).await;
    }
    panic!("it is not over: {:?}", world.events());
}

#[test]
fn what_is_taken_back_has_its_old_reference_again_and_tags_stay_where_they_were() {
    let world = World::new();
    world.host.load(image("app:1").runs(Workload::healthy("1")));
    for name in ["one", "two"] {
        world.host.run(follower(name, "stable").image("app:1"));
    }
    let second = world
        .host
        .publish(image("app:2").runs(Workload::healthy("2")));
    let process = world.process();
    let images = || {
        ["one", "two"].map(|name| {
            let container = world.host.container(name).unwrap();
            (container.image, container.image_id)
        })
    };
    let before = images();
    world.with(&process, async {
        // One, then a long pause.
        let one = RollingWave::new(WaveSize::count(1).unwrap()).with_pause(minutes(600));
        let id = start(&process, &second, StrategySpec::Rolling(one)).await;
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
        assert_ne!(images(), before);
        let tags = world.host.tags();
        let abort = Command::Abort {
            why: "customers complain".to_owned(),
            rollback: true,
        };
        let steered = process.orchestrator.command(&id, &abort, "ann").await;
        steered.unwrap();
        let phase = over(&world, &process, &id).await;
        assert!(matches!(phase, Phase::RolledBack { .. }), "{phase:?}");
        assert_eq!(images(), before);
        assert_eq!(world.host.tags(), tags);
    });
}

#[test]
fn two_that_share_a_volume_get_the_release_in_one_update() {
    let world = World::new();
    world.host.load(image("app:1").runs(Workload::healthy("1")));
    for name in ["web", "worker"] {
        let run = follower(name, "stable").image("app:1").without_volumes();
        world.host.run(run.volume("shared", "/data"));
    }
    let second = world
        .host
        .publish(image("app:2").runs(Workload::healthy("2")));
    let process = world.process();
    world.with(&process, async {
        let id = start(&process, &second, StrategySpec::default()).await;
        assert_eq!(over(&world, &process, &id).await, Phase::Completed);
        for name in ["web", "worker"] {
            assert_eq!(world.host.container(name).unwrap().image, "app:2");
        }
        assert_eq!(world.count("update.started"), 1, "{:?}", world.events());
    });
}
