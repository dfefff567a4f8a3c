//! The kit and the test program, against the real engine: every mode does what its name says.

use std::time::{Duration, Instant};

use fleet_testkit::{Image, Lab, Registry, docker, get, try_docker, wait_for};

#[test]
fn program_keeps_rows_and_obeys_sigterm() {
    let lab = Lab::new("kit");
    let image = lab.import("app", &Image::new("7", ""));
    let volume = lab.volume("data");
    let container = lab.run("web").volume(&volume, "/data").start(&image);
    container.wait_up();
    assert_eq!(container.get("/version").body, "7");
    assert_eq!(
        container.get("/health").body,
        "{\"status\":\"ok\",\"version\":\"7\"}"
    );
    container.put("a");
    container.put("b");
    assert_eq!(container.rows(), ["a", "b"]);
    assert_eq!(container.get("/rows").body, "2");
    let begun = Instant::now();
    docker(&["stop", "--time", "20", &container.id]);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(container.inspect()["State"]["ExitCode"], 0);
}

#[test]
fn bad_modes_are_bad() {
    let lab = Lab::new("modes");
    let run = |name: &str, mode: &str| {
        let image = lab.import(name, &Image::new("1", mode));
        lab.run(name)
            .volume(&lab.volume(name), "/data")
            .start(&image)
    };
    let ended = |container: &fleet_testkit::Container, code: i64| {
        wait_for("the end", Duration::from_secs(20), || {
            let state = container.inspect()["State"].clone();
            let over = state["Status"] == "exited" && state["ExitCode"] == code;
            if over { Ok(()) } else { Err(state.to_string()) }
        });
    };
    ended(&run("exit", "exit"), 3);
    ended(&run("later", "exit-later:50"), 5);
    ended(&run("typo", "unhealty"), 1);
    let once = run("once", "exit-after-health:1");
    once.wait_up();
    assert_eq!(once.get("/health").status, 200);
    ended(&once, 4);
    let unhealthy = run("unhealthy", "unhealthy");
    unhealthy.wait_up();
    assert_eq!(unhealthy.get("/health").status, 503);
    let hang = run("hang", "hang");
    let silent = wait_for("a connection", Duration::from_secs(20), || {
        match get(hang.address(), "/health", Duration::from_millis(300)) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(true),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(silent);
    let stubborn = run("stubborn", "ignore-term");
    stubborn.wait_up();
    docker(&["stop", "--time", "1", &stubborn.id]);
    assert_eq!(stubborn.inspect()["State"]["ExitCode"], 137);
}

#[test]
fn bad_migration_changes_the_volume() {
    let lab = Lab::new("migrate");
    let good = lab.import("good", &Image::new("1", ""));
    let bad = lab.import("bad", &Image::new("2", "corrupt"));
    let volume = lab.volume("data");
    let first = lab.run("first").volume(&volume, "/data").start(&good);
    first.wait_up();
    first.put("row-1");
    docker(&["stop", &first.id]);
    let second = lab.run("second").volume(&volume, "/data").start(&bad);
    second.wait_up();
    assert_eq!(second.get("/health").status, 503);
    assert_ne!(second.get("/dump").body, "row-1\n");
}

#[test]
fn registry_takes_and_gives_and_lab_leaves_nothing() {
    let (prefix, reference, address);
    {
        let lab = Lab::new("registry");
        let mut registry = Registry::start();
        let image = lab.import("app", &Image::new("1", ""));
        let digest = registry.push(&image, "team/app:1");
        docker(&["rmi", &image]);
        reference = registry.reference(&format!("team/app@{digest}"));
        address = registry.address();
        docker(&["pull", "--quiet", &reference]);
        docker(&["rmi", &reference]);
        registry.stop();
        assert!(
            try_docker(&["pull", &reference]).is_err(),
            "the registry is down"
        );
        registry.start_again();
        docker(&["pull", "--quiet", &reference]);
        let other = lab.import("other", &Image::new("2", ""));
        let _running = lab
            .run("web")
            .volume(&lab.volume("data"), "/data")
            .start(&other);
        prefix = lab.prefix().to_owned();
    }
    let images = docker(&["images", "--all", "--format", "{{.Repository}}"]);
    assert!(
        !images.contains(&prefix) && !images.contains(&address),
        "{images}"
    );
    let containers = docker(&["ps", "--all", "--format", "{{.Names}}"]);
    assert!(!containers.contains(&prefix), "{containers}");
    let volumes = docker(&["volume", "ls", "--quiet"]);
    assert!(!volumes.contains(&prefix), "{volumes}");
}
