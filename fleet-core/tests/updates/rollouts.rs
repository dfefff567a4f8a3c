//! A rollout whose updates are real ones, on the fake host.

use std::sync::Arc;

use fleet_core::engine::FleetUpdater;
use fleet_core::engine::rollout::{Orchestrator, StartRequest, Started};
use fleet_core::plan::rollout::Phase;
use fleet_core::plan::strategy::{StrategyRegistry, StrategySpec};
use fleet_core::ports::NoProgress;
use fleet_core::testing::{FakeEntropy, SeedRng, Workload, image};

use crate::{World, probed};

#[test]
fn a_rollout_looks_at_all_containers_once_for_each_pass_and_not_for_each_order() {
    const INSTANCES: usize = 6;
    let world = World::new();
    world.host.load(image("app:1"));
    for number in 0..INSTANCES {
        let name = format!("web{number}");
        world.host.run(probed(&name).label("fleet.mode", "auto"));
    }
    let release = world.publish("app:2", Workload::healthy("2"));
    let updater = FleetUpdater::new(world.fleet.clone(), Arc::new(NoProgress));
    let orchestrator = Orchestrator::new(
        Arc::new(world.store.clone()),
        Arc::new(updater),
        Arc::new(world.host.clock()),
        Arc::new(FakeEntropy::new(SeedRng::new(2))),
        StrategyRegistry::default(),
    );
    let mut request = StartRequest::new("test", release.image);
    request.strategy = StrategySpec::named("immediate").with_abort_on(6).unwrap();
    request.limits.max_concurrent = 3;
    world.host.keep_trace();
    let whole = async {
        let Started::Opened(plan) = orchestrator.start(request).await.unwrap() else {
            panic!("expected a rollout");
        };
        orchestrator.wait(&plan.id()).await.unwrap().rollout
    };
    let rollout = world.host.drive(whole).expect("nothing kills it");
    assert_eq!(rollout.state.phase, Phase::Completed);
    assert_eq!(rollout.state.tally().committed, 6);
    let trace = world.host.trace();
    let looks = trace.lines().iter();
    let looks = looks
        .filter(|line| line.contains("list the containers"))
        .count();
    // To start with, once more when the first wave opens, and after each end.
    assert!(
        (1..=INSTANCES + 3).contains(&looks),
        "{looks} looks at all containers"
    );
}
