//! What a rollout updates at the same time is held by one guard.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::engine::rollout::{Orchestrator, StartRequest, Started};
use fleet_core::engine::{Fleet, FleetOptions, Keep};
use fleet_core::model::labels;
use fleet_core::plan::rollout::Ending;
use fleet_core::plan::strategy::StrategySpec;
use fleet_core::ports::{NoProgress, Progress, ProgressSink, RolloutStore as _, StoredRollout};
use fleet_core::testing::{FakeHost, FaultPlan, Move, Workload, image};

use crate::rollouts::orchestrator;
use crate::{World, probed};

const NAMES: [&str; 3] = ["web0", "web1", "web2"];
/// Longer than any of these rollouts takes, deaths included.
const SITES_MAX: u64 = 2_000;

/// Three instances of one image, each with a row in its volume, and a release of it.
fn world(workload: Workload) -> (World, StartRequest) {
    let world = World::new();
    world.host.load(image("app:1"));
    for name in NAMES {
        world
            .host
            .run(probed(name).label("fleet.mode", "auto").network("front"));
        world
            .host
            .write_file(&format!("{name}-data"), "row", name.as_bytes());
    }
    let release = world.publish("app:2", workload);
    let mut request = StartRequest::new("test", release.image);
    request.strategy = StrategySpec::named("immediate").with_abort_on(6).unwrap();
    request.limits.max_concurrent = 2;
    (world, request)
}

async fn start_and_wait(orchestrator: &Orchestrator, request: StartRequest) -> StoredRollout {
    let Started::Opened(plan) = orchestrator.start(request).await.unwrap() else {
        panic!("expected a rollout");
    };
    orchestrator.wait(&plan.id()).await.unwrap().rollout
}

/// Names of the guards that are there.
fn guards(host: &FakeHost) -> Vec<String> {
    let all = host.containers().into_iter();
    let guards = all.filter(|container| labels::is_auxiliary(&container.labels));
    guards.map(|container| container.name).collect()
}

#[track_caller]
fn check_data(world: &World, told: &str) {
    for name in NAMES {
        let files = world.host.files(&format!("{name}-data"));
        let files = files.unwrap_or_else(|| panic!("{told}: the volume of {name} is gone"));
        assert_eq!(
            files.get("row").map(Vec::as_slice),
            Some(name.as_bytes()),
            "{told}: {name}"
        );
    }
}

/// Prunes everything that does not run whenever an update has stopped its instance.
struct Pruner {
    host: FakeHost,
    /// The most guards that were there at once, and at how many stops somebody looked.
    seen: std::sync::Mutex<(usize, usize)>,
}

impl Pruner {
    fn new(world: &World) -> Self {
        Self {
            host: world.host.clone(),
            seen: std::sync::Mutex::default(),
        }
    }
}

impl ProgressSink for Pruner {
    fn report(&self, progress: Progress) {
        let progress = match progress {
            Progress::Of { progress, .. } => *progress,
            other => other,
        };
        if let Progress::Step {
            step: "snapshot", ..
        } = progress
        {
            self.host.happen(Move::Prune);
            let mut seen = self.seen.lock().unwrap();
            *seen = (seen.0.max(guards(&self.host).len()), seen.1 + 1);
        }
    }
}

#[test]
fn one_guard_holds_all_and_a_prune_at_any_stop_takes_nothing() {
    let (world, request) = world(Workload::healthy("2"));
    let pruner = Arc::new(Pruner::new(&world));
    let orchestrator = orchestrator(&world, pruner.clone());
    let rollout = world
        .host
        .drive(start_and_wait(&orchestrator, request))
        .unwrap();
    let (at_once, stops) = *pruner.seen.lock().unwrap();
    assert_eq!(at_once, 1);
    // The prune takes the candidates as well, which no guard holds; so each is tried more than once.
    assert!(stops > 3, "{stops}");
    check_data(&world, "pruned");
    assert_eq!(rollout.state.tally().needs_operator, 0, "{rollout:#?}");
    assert_eq!(world.names(), NAMES);
    assert_eq!(guards(&world.host), Vec::<String>::new());
}

#[test]
fn what_waits_for_a_person_keeps_its_guard_until_it_is_resolved() {
    let (world, mut request) = world(Workload::destroyer("2"));
    request.limits.max_concurrent = 3;
    let orchestrator = orchestrator(&world, Arc::new(NoProgress));
    // The old version does not come up any more either.
    world.host.changes("web0", Workload::crasher("1"));
    let rollout = world
        .host
        .drive(start_and_wait(&orchestrator, request))
        .unwrap();
    let members = rollout.plan.members.iter().zip(&rollout.state.members);
    let frozen = members.filter(|(_, state)| state.ending() == Some(Ending::NeedsOperator));
    let frozen: Vec<_> = frozen.map(|(member, _)| &member.instance.name).collect();
    assert_eq!(frozen.len(), 3, "{rollout:#?}");
    world.host.changes("web0", Workload::healthy("1"));
    world.host.happen(Move::Prune);
    check_data(&world, "frozen");
    for name in frozen {
        assert_eq!(guards(&world.host).len(), 1, "before {name}");
        let resolve = world
            .fleet
            .resolve(name.as_str(), Keep::Old, "ann", &NoProgress);
        world.host.drive(resolve).unwrap().unwrap();
    }
    assert_eq!(guards(&world.host), Vec::<String>::new());
}

#[test]
fn where_images_or_networks_differ_each_has_a_guard_of_its_own() {
    let (world, mut request) = world(Workload::healthy("2"));
    request.limits.max_concurrent = 4;
    world
        .host
        .run(probed("web3").label("fleet.mode", "auto").network("back"));
    world.host.keep_trace();
    let orchestrator = orchestrator(&world, Arc::new(NoProgress));
    let rollout = world
        .host
        .drive(start_and_wait(&orchestrator, request))
        .unwrap();
    assert_eq!(rollout.state.tally().committed, 4, "{rollout:#?}");
    let trace = world.host.trace();
    let made = trace
        .lines()
        .iter()
        .filter(|line| line.contains("fleet-guard-"));
    let made: Vec<_> = made.filter(|line| line.contains("create")).collect();
    assert_eq!(made.len(), 2, "{made:#?}");
    assert_eq!(guards(&world.host), Vec::<String>::new());
}

/// After a death the next process ends the rollout: whatever became of the guard in between.
#[track_caller]
fn die_and_go_on(site: u64, meanwhile: Option<Move>, bad: bool) -> bool {
    let release = match bad {
        true => Workload::destroyer("2"),
        false => Workload::healthy("2"),
    };
    let (world, request) = world(release);
    let first = orchestrator(&world, Arc::new(NoProgress));
    world.host.set_faults(FaultPlan::death(site));
    if world.host.drive(start_and_wait(&first, request)).is_some() {
        return false;
    }
    world.host.set_faults(FaultPlan::default());
    let told = format!("death {site}, {meanwhile:?}");
    meanwhile
        .into_iter()
        .for_each(|what| world.host.happen(what));
    world.host.let_engine_return();
    let world = World {
        fleet: Fleet::new(world.fleet.ports().clone(), FleetOptions::default()),
        ..world
    };
    let pruner = Arc::new(Pruner::new(&world));
    let second = orchestrator(&world, pruner.clone());
    let go_on = async {
        world
            .fleet
            .recover(pruner.as_ref(), &|_, _| {})
            .await
            .unwrap();
        let active = world.store.active().await.unwrap();
        for rollout in &active {
            second.wait(&rollout.plan.id()).await.unwrap();
        }
    };
    world.host.drive(go_on).expect("nothing kills it");
    let rollouts = world.host.drive(world.store.list(10)).unwrap().unwrap();
    for rollout in rollouts {
        let over = rollout.state.phase.is_terminal();
        assert!(over, "{told}: {rollout:#?}");
        assert_eq!(
            rollout.state.tally().needs_operator,
            0,
            "{told}: {rollout:#?}"
        );
    }
    check_data(&world, &told);
    assert_eq!(world.names(), NAMES, "{told}");
    true
}

/// Lets a rollout die at its places, one after the other: each in a long run, otherwise a share of them. Gives how many.
fn die_everywhere(meanwhile: impl Fn() -> Option<Move>, bad: bool) -> usize {
    let long = std::env::var_os("FLEET_TEST_LONG").is_some();
    let places = (1..SITES_MAX).step_by(if long { 1 } else { 7 });
    let deaths = places.take_while(|site| die_and_go_on(*site, meanwhile(), bad));
    deaths.count()
}

#[test]
fn after_a_death_anywhere_the_guard_is_used_or_removed_and_nothing_is_lost() {
    for bad in [false, true] {
        let deaths = die_everywhere(|| None, bad);
        assert!(deaths > 20, "{deaths}");
    }
}

#[test]
fn a_prune_after_a_death_takes_no_data() {
    let deaths = die_everywhere(|| Some(Move::Prune), false);
    assert!(deaths > 20, "{deaths}");
}

#[test]
fn a_restart_of_the_engine_after_a_death_takes_no_data() {
    let down_for = Duration::from_secs(3);
    let deaths = die_everywhere(|| Some(Move::EngineRestart { down_for }), false);
    assert!(deaths > 20, "{deaths}");
}
