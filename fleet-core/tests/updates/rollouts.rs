//! A rollout whose updates are real ones, on the fake host.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet_core::engine::FleetUpdater;
use fleet_core::engine::rollout::{Orchestrator, StartRequest, Started};
use fleet_core::plan::rollout::Phase;
use fleet_core::plan::strategy::{RollingWave, StrategyRegistry, StrategySpec, WaveSize};
use fleet_core::ports::{NoProgress, Progress, ProgressSink};
use fleet_core::testing::{FakeEntropy, Move, SeedRng, Workload, image, instance};

use crate::{World, probed};

pub(crate) fn orchestrator(world: &World, progress: Arc<dyn ProgressSink>) -> Orchestrator {
    let updater = FleetUpdater::new(world.fleet.clone(), progress.clone());
    Orchestrator::new(
        Arc::new(world.store.clone()),
        Arc::new(updater),
        Arc::new(world.host.clock()),
        Arc::new(FakeEntropy::new(SeedRng::new(2))),
        StrategyRegistry::default(),
    )
    .reporting_to(progress)
}

/// What is reported, as short lines.
#[derive(Default)]
struct Reports(Mutex<Vec<String>>);

impl ProgressSink for Reports {
    fn report(&self, progress: Progress) {
        let line = match progress {
            Progress::Rollout(glance) => {
                let waves = glance.waves.iter();
                let waves: Vec<String> = waves
                    .map(|wave| format!("{} {}", wave.state, wave.tally.committed))
                    .collect();
                format!("{}: {}", glance.state, waves.join(", "))
            }
            Progress::Of { instance, .. } => format!("{instance} goes on"),
            Progress::Over { instance } => format!("{instance} is over"),
            Progress::Step { .. } | Progress::Bytes { .. } | Progress::Probe { .. } => {
                "nobody's".to_owned()
            }
        };
        let mut lines = self.0.lock().unwrap();
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
}

#[test]
fn who_watches_is_told_how_far_the_waves_and_each_update_are() {
    let world = World::new();
    world.host.load(image("app:1"));
    for name in ["web0", "web1"] {
        world.host.run(probed(name).label("fleet.mode", "auto"));
    }
    let release = world.publish("app:2", Workload::healthy("2"));
    let reports = Arc::new(Reports::default());
    let orchestrator = orchestrator(&world, reports.clone());
    let mut request = StartRequest::new("test", release.image);
    request.strategy = StrategySpec::Rolling(RollingWave {
        size: WaveSize::count(1).unwrap(),
        pause: Duration::ZERO,
        ..RollingWave::default()
    });
    let whole = async {
        let Started::Opened(plan) = orchestrator.start(request).await.unwrap() else {
            panic!("expected a rollout");
        };
        orchestrator.wait(&plan.id()).await.unwrap();
        plan.members[0].instance.to_string()
    };
    let first = world.host.drive(whole).expect("nothing kills it");
    let lines = reports.0.lock().unwrap();
    let place = |line: &str| {
        let found = lines.iter().position(|found| found == line);
        found.unwrap_or_else(|| panic!("{line} is not in {lines:#?}"))
    };
    let story = [
        "planned: pending 0, pending 0",
        "running: settling 0, pending 0",
        &format!("{first} goes on"),
        &format!("{first} is over"),
        "running: passed 1, settling 0",
        "completed: passed 1, passed 1",
    ];
    let places: Vec<usize> = story.iter().map(|line| place(line)).collect();
    assert!(places.is_sorted(), "{lines:#?}");
    assert_eq!(lines.last().map(String::as_str), Some(story[5]));
    assert!(!lines.contains(&"nobody's".to_owned()), "{lines:#?}");
}

#[test]
fn a_plan_says_what_its_snapshots_need_and_looks_at_each_volume_once() {
    const SIZE: usize = 100_000;
    let world = World::new();
    world.host.load(image("app:1"));
    world
        .host
        .load(image("db:1").runs(Workload::healthy("db1")));
    world.host.run(instance("db").image("db:1"));
    // The first one takes its database along.
    let web0 = probed("web0").label("fleet.depends_on", "db");
    for web in [web0, probed("web1"), probed("web2")] {
        world.host.run(web.label("fleet.mode", "auto"));
    }
    for volume in ["db-data", "web0-data", "web1-data", "web2-data"] {
        world.host.write_file(volume, "large", &[0; SIZE]);
    }
    let release = world.publish("app:2", Workload::healthy("2"));
    let orchestrator = orchestrator(&world, Arc::new(NoProgress));
    let mut request = StartRequest::new("test", release.image);
    request.strategy = StrategySpec::named("immediate");
    request.limits.max_concurrent = 2;
    let foresee = async {
        let plan = orchestrator.preview(request).await.unwrap();
        assert_eq!(plan.members.len(), 3, "{plan:#?}");
        world.host.keep_trace();
        let seen = world.fleet.foresee(&plan).await.unwrap();
        (plan, seen)
    };
    let (plan, seen) = world.host.drive(foresee).expect("nothing kills it");
    let disk = seen.disk.expect("the volumes can be measured");
    assert_eq!(seen.refusals, []);
    // Both passes of each; what the programs wrote by themselves is little beside it.
    let volumes = |bytes: u64| bytes / (2 * SIZE as u64);
    assert_eq!(volumes(disk.needed_bytes), 4, "{disk:?}");
    // Two at a time, and one of them has its database with it.
    assert_eq!(volumes(disk.at_once_bytes), 3, "{disk:?}");
    assert!(disk.fits(), "{disk:?}");
    let trace = world.host.trace();
    let estimates = trace.lines().iter();
    let estimates = estimates.filter(|line| line.contains("estimate the snapshot"));
    // One for each volume, and one for what is free.
    assert_eq!(estimates.count(), 5, "{trace:?}");

    let tight = disk.reserve_bytes + disk.at_once_bytes - 1;
    world.host.happen(Move::FreeBytes(tight));
    let again = world.host.drive(world.fleet.foresee(&plan));
    let disk = again.expect("nothing kills it").unwrap().disk.unwrap();
    assert!(!disk.fits() && !disk.fits_at_once(), "{disk:?}");
}

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
    let orchestrator = orchestrator(&world, Arc::new(NoProgress));
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
