//! How it ends, and how the next one goes on.

use fleet_core::engine::UpdateRequest;
use fleet_core::testing::{Fault, FaultPlan, WriteFault};

use super::*;

/// Whether a container of this instance stands under a name of the middle of an update.
fn has(world: &World, mark: &str) -> bool {
    world.names().iter().any(|name| name.contains(mark))
}

#[test]
fn a_stop_before_the_cut_leaves_the_old_container_alone_and_the_next_start_goes_on() {
    let world = World::new().with_channels(&["canary"]);
    world.publish("canary:1", "2");
    let old = world.host.container("canary").unwrap();
    let slow = Fault::Slow(Duration::from_secs(5));
    world.host.set_faults(FaultPlan {
        at_op: [("pull the image", slow)].into(),
        ..FaultPlan::default()
    });
    let process = world.process();
    world.until_stopped(&process, async {
        world
            .until("a beginning", || world.count("update.started") == 1)
            .await;
        process.daemon.stop();
    });
    world.host.set_faults(FaultPlan::default());
    let still = world.host.container("canary").unwrap();
    assert!(still.is_up());
    assert_eq!(still.id, old.id);
    assert_eq!(world.names(), ["canary"]);

    world.beside(async {
        world
            .until("a recovery", || world.count("instance.recovered") == 1)
            .await;
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
        world.until("order", || world.names() == ["canary"]).await;
    });
    assert_ne!(world.host.container("canary").unwrap().id, old.id);
    assert!(!world.heard.0.lock().unwrap().is_empty());
}

#[test]
fn a_stop_while_an_instance_is_out_of_service_waits_until_it_serves_again() {
    let world = World::new().with_channels(&["canary"]);
    world.publish("canary:1", "2");
    let process = world.process();
    world.until_stopped(&process, async {
        world
            .until("a parked container", || has(&world, ".fleet-p-"))
            .await;
        process.daemon.stop();
    });
    let new = world.host.container("canary").unwrap();
    assert!(new.is_up());
    assert_eq!(new.restart_policy, fleet_core::model::RestartPolicy::Always);
    let ended = world.host.clock().monotonic();
    assert!(ended < GRACE, "{ended:?}");
    world.beside(async {
        world.until("order", || world.names() == ["canary"]).await;
        world
            .until("a rollout's end", || world.count("rollout.completed") == 1)
            .await;
    });
    assert_eq!(world.count("update.committed"), 1);
}

#[test]
fn a_stop_takes_no_longer_than_its_grace() {
    let world = World::new().with_channels(&["canary"]);
    let never = fleet_core::testing::Wellness::Never;
    world.host.publish(image("canary:1").runs(Workload {
        health: never,
        ..Workload::healthy("2")
    }));
    let process = world.process();
    let (mut asked_at, clock) = (Duration::ZERO, world.host.clock());
    world.until_stopped(&process, async {
        world
            .until("a parked container", || has(&world, ".fleet-p-"))
            .await;
        asked_at = clock.monotonic();
        process.daemon.stop();
    });
    let took = clock.monotonic() - asked_at;
    assert!(took <= GRACE + Duration::from_secs(1), "{took:?}");
    world.beside(async {
        world.until("order", || world.names() == ["canary"]).await;
    });
    assert!(world.host.container("canary").unwrap().is_up());
}

#[test]
fn an_idle_daemon_stops_at_once() {
    let world = World::new().with_channels(&["canary"]);
    let process = world.process();
    let clock = world.host.clock();
    let mut asked_at = Duration::ZERO;
    world.until_stopped(&process, async {
        world.pass(minutes(3)).await;
        asked_at = clock.monotonic();
        process.daemon.stop();
    });
    assert!(clock.monotonic() - asked_at < Duration::from_secs(31));
}

#[test]
fn it_is_ready_after_recovery_and_not_before() {
    let world = World::new().with_channels(&["canary"]);
    let process = world.process();
    assert!(!process.daemon.state().borrow().recovered);
    world.with(&process, world.pass(Duration::from_secs(1)));
    assert!(process.daemon.state().borrow().recovered);
}

#[test]
fn recovery_leaves_alone_what_another_task_works_on() {
    let world = World::new().with_channels(&["canary"]);
    world.publish("canary:2", "2");
    let process = world.process();
    let fleet = &process.fleet;
    let request = UpdateRequest {
        instances: vec!["canary".to_owned()],
        to: "canary:2".parse().unwrap(),
        timeout: None,
        override_window: false,
        retry: false,
        actor: "ann".to_owned(),
        rollout: None,
    };
    let script = async {
        let update = fleet.update(&request, &NoProgress);
        let recoveries = async {
            for _ in 0..200 {
                let recovered = fleet.recover(&NoProgress, &|_, _| {}).await.unwrap();
                assert!(recovered.is_empty(), "{recovered:?}");
                let copy = fleet.snapshot_create("canary", "ann", &NoProgress).await;
                let moving = world.names().len() > 1;
                assert!(
                    copy.is_err() || !moving || world.names() == ["canary"],
                    "{copy:?}"
                );
                world.pass(Duration::from_millis(10)).await;
            }
        };
        join(update, recoveries).await.0.unwrap()
    };
    let reports = world.host.drive(script).unwrap();
    assert_eq!(reports[0].outcome, Some(Outcome::Committed), "{reports:?}");
    assert_eq!(world.names(), ["canary"]);
}

#[test]
fn somebody_who_waits_for_a_rollout_hears_at_once_that_the_daemon_finished_it() {
    let world = World::new().with_channels(&["canary"]);
    world.publish("canary:1", "2");
    let process = world.process();
    let orchestrator = &process.orchestrator;
    world.with(&process, async {
        world
            .until("a rollout", || world.count("rollout.started") == 1)
            .await;
        let id = orchestrator.list(1).await.unwrap()[0].plan.id();
        let waited = orchestrator.wait(&id).await.unwrap();
        assert_eq!(waited.rollout.state.tally().committed, 1);
    });
    assert!(world.host.clock().monotonic() < Duration::from_secs(20));
}

#[test]
fn a_journal_that_takes_no_more_ends_it_and_the_next_start_finishes_what_was_open() {
    let world = World::new().with_channels(&["canary"]);
    world.publish("canary:1", "2");
    let process = world.process();
    let breaks = async {
        world
            .until("a parked container", || has(&world, ".fleet-p-"))
            .await;
        world.store.inject(1, WriteFault::Broken);
        world.pass(minutes(5)).await;
    };
    let both = select(Box::pin(process.daemon.run()), Box::pin(breaks));
    let ended = match world.host.drive(both).expect("nothing kills it") {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => panic!("it goes on although nothing can be written"),
    };
    let error = ended.expect_err("it did not end well").to_string();
    assert!(error.contains("nothing more is written"), "{error}");
    assert!(world.host.clock().monotonic() < minutes(2));
    drop(process);
    world.store.heal();
    world.beside(async {
        world.until("order", || world.names() == ["canary"]).await;
    });
    assert!(world.host.container("canary").unwrap().is_up());
}
