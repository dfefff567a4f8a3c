//! The engine goes away under `fleet serve` and comes back, on an engine of the test's own.

use std::process::Stdio;
use std::thread;
use std::time::Instant;

use fleet_testkit::{PrivateEngine, Serving, wait_for};

use crate::daemon::{PATIENCE, World};

/// On a thread of its own: it never leaves the engine's network. Containers live through the engine's end.
fn on_private_engine(work: impl FnOnce(&mut PrivateEngine) + Send) {
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let mut engine = PrivateEngine::start(true);
            engine.enter();
            work(&mut engine);
        });
        if let Err(panic) = worker.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[track_caller]
fn wait_for_event(world: &World, serving: &Serving, kind: &str) {
    wait_for(kind, PATIENCE, || {
        let events = world.events();
        match events.iter().any(|event| event == kind) {
            true => Ok(()),
            false => Err(format!("{events:?}: {}", serving.log())),
        }
    });
}

fn count(world: &World, kind: &str) -> usize {
    world.events().iter().filter(|event| *event == kind).count()
}

/// The status of `/readyz`, none if nobody answers.
fn readiness(world: &World) -> Option<u16> {
    let answer = world.fleet.ask("GET", "/readyz", "");
    answer.map(|(status, _)| status)
}

#[test]
fn an_engine_that_goes_away_and_comes_back_is_told_of_and_worked_with_again() {
    on_private_engine(|engine| {
        let world = World::new("away", "");
        let mut serving = world.fleet.serve();

        engine.kill();
        wait_for_event(&world, &serving, "engine.lost");
        assert_eq!(readiness(&world), Some(503), "{}", serving.log());
        assert_eq!(
            world.fleet.ask("GET", "/livez", "").map(|it| it.0),
            Some(200)
        );

        engine.start_again();
        wait_for_event(&world, &serving, "engine.back");
        wait_for("readiness", PATIENCE, || match readiness(&world) {
            Some(200) => Ok(()),
            other => Err(format!("{other:?}: {}", serving.log())),
        });
        world.push("1", "2", "");
        world.wait_settled("2");

        assert_eq!(count(&world, "engine.lost"), 1);
        assert_eq!(count(&world, "engine.back"), 1);
        serving.signal("TERM");
        assert_eq!(serving.wait(), Some(0), "{}", serving.log());
    });
}

#[test]
fn a_daemon_that_finds_no_engine_waits_for_it_and_then_decides() {
    on_private_engine(|engine| {
        let world = World::new("late", "");
        let two = world.push("2", "2", "unhealthy");
        let mut serving = world.fleet.serve();
        let mut client = world
            .fleet
            .command(&["update", &world.web.name, "--to", &two])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("fleet can be started");
        world.wait_started();
        serving.signal("KILL");
        assert_eq!(serving.wait(), None);
        client.wait().expect("it ends");
        engine.kill();

        // A person stops it while it waits: that is no failure.
        let mut in_vain = world.fleet.begin_to_serve();
        wait_for_event(&world, &in_vain, "engine.lost");
        assert_eq!(readiness(&world), None);
        in_vain.signal("TERM");
        assert_eq!(in_vain.wait(), Some(0), "{}", in_vain.log());

        let mut serving = world.fleet.begin_to_serve();
        wait_for("the wait for an engine", PATIENCE, || {
            match serving.log().contains("no engine answers") {
                true => Ok(()),
                false => Err(serving.log()),
            }
        });
        engine.start_again();
        let reachable = Instant::now();
        wait_for("a decision", PATIENCE, || {
            match serving.log().contains("therefore") {
                true => Ok(()),
                false => Err(serving.log()),
            }
        });
        // At most two seconds are wanted. That its pauses leave room for it is shown on the fake host, with a clock that
        // no busy machine slows down; this is the figure for docs/benchmarks.md.
        let took = reachable.elapsed();
        println!("recovery decided {took:?} after the engine answered");

        world.wait_settled("1");
        wait_for("readiness", PATIENCE, || match readiness(&world) {
            Some(200) => Ok(()),
            other => Err(format!("{other:?}: {}", serving.log())),
        });
        let events = world.events();
        for kind in ["engine.back", "instance.recovered", "update.rolled_back"] {
            assert!(
                events.iter().any(|event| event == kind),
                "{kind}: {events:?}"
            );
        }
        assert_eq!(count(&world, "engine.lost"), 2);
        serving.signal("TERM");
        assert_eq!(serving.wait(), Some(0), "{}", serving.log());
    });
}
