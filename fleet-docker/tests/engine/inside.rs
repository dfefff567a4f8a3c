//! Logs, commands, events, orphans.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::ids::ContainerId;
use fleet_core::model::VolumeSource;
use fleet_core::ports::{ContainerRuntime as _, EngineEventKind, PortError, PortErrorKind};
use fleet_docker::Scout;
use fleet_docker::helper::{Access, Connect, Connection, HelperScout, serve_in};
use fleet_docker::volume::SnapshotOptions;
use fleet_testkit::{Image, Lab, docker};
use futures::StreamExt as _;

use crate::kit::{engine, id};

#[tokio::test]
async fn commands_run_inside_and_are_bounded() {
    let lab = Lab::new("exec");
    let web = lab
        .run("web")
        .start(&lab.import("app", &Image::new("1", "")));
    web.wait_up();
    let engine = engine().await;
    let argv = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    // The program itself as a command: a second instance cannot bind the port and ends with an error.
    let ended = engine
        .exec(&id(&web), &argv(&["/app"]), Duration::from_secs(20))
        .await
        .expect("ran");
    assert_ne!(ended.exit_code, 0);
    let missing = engine
        .exec(&id(&web), &argv(&["/none"]), Duration::from_secs(20))
        .await;
    let missing = missing.expect_err("no such program");
    assert!(!missing.outcome_unknown(), "{missing}");
    docker(&["stop", &web.id]);
    let stopped = engine
        .exec(&id(&web), &argv(&["/app"]), Duration::from_secs(20))
        .await;
    assert_eq!(
        stopped.expect_err("it does not run").kind(),
        PortErrorKind::Conflict
    );
}

#[tokio::test]
async fn log_ends_with_the_last_lines() {
    let lab = Lab::new("logs");
    let web = lab
        .run("web")
        .start(&lab.import("app", &Image::new("1", "no-such-mode")));
    let engine = engine().await;
    engine.stop(&id(&web), None).await.expect("it ended");
    let log = engine.logs_tail(&id(&web), 10).await.expect("read");
    assert!(log.contains("no-such-mode"), "{log:?}");
    let without = lab
        .run("without")
        .options(&["--log-driver", "none"])
        .create(&lab.name("app"));
    assert!(engine.logs_tail(&id(&without), 10).await.is_err());
}

#[tokio::test]
async fn events_arrive_from_the_call_on() {
    let lab = Lab::new("events");
    let web = lab
        .run("web")
        .label("mine", "1")
        .create(&lab.import("app", &Image::new("1", "")));
    let engine = engine().await;
    let mut events = engine.events().await.expect("following");
    docker(&["start", &web.id]);
    docker(&["rename", &web.id, &lab.name("renamed")]);
    docker(&["rm", "--force", &web.id]);
    let mut seen = Vec::new();
    while seen.last() != Some(&EngineEventKind::Destroy) {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        let event = event
            .expect("in time")
            .expect("not ended")
            .expect("readable");
        if event.container == id(&web) {
            assert_eq!(event.attributes["mine"], "1");
            seen.push(event.kind);
        }
    }
    for kind in [
        EngineEventKind::Start,
        EngineEventKind::Rename,
        EngineEventKind::Kill,
        EngineEventKind::Die,
    ] {
        assert!(seen.contains(&kind), "{kind:?} in {seen:?}");
    }
}

/// A helper in a thread of this process, which sees the host's processes.
#[derive(Debug)]
struct Thread;

#[async_trait]
impl Connect for Thread {
    async fn connect(&self, _: &[VolumeSource], access: Access) -> Result<Connection, PortError> {
        assert_eq!(access, Access::Processes);
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        std::thread::spawn(move || {
            let folder = tempfile::tempdir().expect("a folder");
            let output = theirs.try_clone().expect("a clone");
            let folder = folder.path().join("snapshots");
            serve_in(&folder, SnapshotOptions::default(), theirs, output)
        });
        Ok(Connection {
            to: Box::new(ours.try_clone().expect("a clone")),
            from: Box::new(ours),
            keep: Box::new(()),
        })
    }
}

/// Says that there is always one.
#[derive(Debug)]
struct Pessimist;

#[async_trait]
impl Scout for Pessimist {
    async fn process_of(&self, container: &ContainerId) -> Result<Option<String>, PortError> {
        Ok(Some(container.short().to_owned()))
    }
}

#[tokio::test]
async fn a_helper_looks_at_the_processes_that_fleet_does_not_see() {
    let lab = Lab::new("scout");
    let web = lab
        .run("web")
        .start(&lab.import("app", &Image::new("1", "")));
    let scout = HelperScout::new(Arc::new(Thread));
    for _ in 0..2 {
        let found = scout.process_of(&id(&web)).await.expect("asked");
        assert!(found.is_some_and(|found| found.contains("/app")));
    }
    let blind = engine().await.with_scout(Arc::new(Pessimist));
    assert_eq!(blind.orphan(&id(&web)).await.expect("asked"), None);
    docker(&["stop", &web.id]);
    assert_eq!(scout.process_of(&id(&web)).await.expect("asked"), None);
    let orphan = blind.orphan(&id(&web)).await.expect("asked");
    assert_eq!(orphan.as_deref(), Some(id(&web).short()));
}

#[tokio::test]
async fn running_container_is_no_orphan() {
    let lab = Lab::new("orphan");
    let web = lab
        .run("web")
        .start(&lab.import("app", &Image::new("1", "")));
    let engine = engine().await;
    assert_eq!(engine.orphan(&id(&web)).await.expect("asked"), None);
}
