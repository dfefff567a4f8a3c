//! Every call of the port: what it does, that it may be repeated, and what it says when it cannot.

use std::time::Duration;

use fleet_core::ids::ContainerId;
use fleet_core::model::{RestartPolicy, RunState};
use fleet_core::ports::{ContainerRuntime as _, PortErrorKind};
use fleet_testkit::{Image, Lab, docker};

use crate::kit::{engine, id};

fn nobody() -> ContainerId {
    ContainerId::new("0".repeat(64)).expect("an id")
}

#[tokio::test]
async fn engine_says_what_it_is() {
    let engine = engine().await;
    let info = engine.info().await.expect("info");
    assert_eq!(info.flavour, "docker");
    assert_eq!(info.platform.os, "linux");
    assert!(info.api_version <= info.api_version_max, "{info:?}");
    assert!(!info.engine_id.is_empty() && !info.root_dir.is_empty());
}

#[tokio::test]
async fn containers_are_found_by_exact_name_only() {
    let lab = Lab::new("find");
    let image = lab.import("app", &Image::new("1", ""));
    let web = lab.run("web").create(&image);
    let engine = engine().await;
    let found = engine.find(&web.name).await.expect("asked").expect("found");
    assert_eq!(found.id, id(&web));
    assert_eq!(found.state, RunState::Created);
    assert_eq!(found.exposed_ports, [8080]);
    for other in [
        &web.id[..12],
        web.id.as_str(),
        "",
        "no/such",
        &lab.name("we"),
    ] {
        assert_eq!(engine.find(other).await.expect("asked"), None, "{other}");
    }
    assert_eq!(engine.inspect(&nobody()).await.expect("asked"), None);
    let inventory = engine.inventory().await.expect("listed");
    assert_eq!(inventory.by_name(&web.name), Some(&found));
}

#[tokio::test]
async fn rename_policy_start_stop_and_remove_may_be_repeated() {
    let lab = Lab::new("calls");
    let image = lab.import("app", &Image::new("1", ""));
    let web = lab
        .run("web")
        .options(&["--restart", "always"])
        .create(&image);
    let other = lab.run("other").create(&image);
    let engine = engine().await;
    let web_id = id(&web);

    for _ in 0..2 {
        engine
            .rename(&web_id, &lab.name("parked"))
            .await
            .expect("renamed");
    }
    let taken = engine
        .rename(&web_id, &other.name)
        .await
        .expect_err("taken");
    assert_eq!(taken.kind(), PortErrorKind::Conflict);

    for policy in [
        RestartPolicy::No,
        RestartPolicy::OnFailure { max_retries: 3 },
        RestartPolicy::No,
    ] {
        engine
            .set_restart_policy(&web_id, policy)
            .await
            .expect("set");
        let now = engine
            .inspect(&web_id)
            .await
            .expect("asked")
            .expect("there");
        assert_eq!(now.restart_policy, policy);
    }

    let stopped = engine.stop(&web_id, None).await.expect("never ran");
    assert_eq!(stopped.exit_code, None);
    let started = engine.start(&web_id).await.expect("started");
    assert!(started.running);
    let again = engine.start(&web_id).await.expect("is running");
    assert_eq!(again.started_at, started.started_at);
    let running = engine.remove(&web_id).await.expect_err("it runs");
    assert_eq!(running.kind(), PortErrorKind::Conflict);
    for _ in 0..2 {
        let stopped = engine
            .stop(&web_id, Some(Duration::from_secs(20)))
            .await
            .expect("stopped");
        assert_eq!(stopped.exit_code, Some(0));
    }
    for _ in 0..2 {
        engine.remove(&web_id).await.expect("removed");
    }
    assert_eq!(engine.inspect(&web_id).await.expect("asked"), None);
}

#[tokio::test]
async fn calls_on_nobody_say_so() {
    let engine = engine().await;
    let kinds = [
        engine.rename(&nobody(), "x").await.err(),
        engine
            .set_restart_policy(&nobody(), RestartPolicy::No)
            .await
            .err(),
        engine.start(&nobody()).await.err(),
        engine.stop(&nobody(), None).await.err(),
        engine.freeze(&nobody()).await.err(),
        engine.writable_layer(&nobody()).await.err(),
        engine.logs_tail(&nobody(), 5).await.err(),
        engine
            .exec(&nobody(), &["/x".to_owned()], Duration::from_secs(5))
            .await
            .err(),
    ];
    for (index, error) in kinds.into_iter().enumerate() {
        assert_eq!(
            error.map(|error| error.kind()),
            Some(PortErrorKind::NotFound),
            "call {index}"
        );
    }
    engine.remove(&nobody()).await.expect("nothing to do");
    assert_eq!(engine.orphan(&nobody()).await.expect("asked"), None);
}

#[tokio::test]
async fn program_that_ignores_the_signal_is_killed_after_the_grace() {
    let lab = Lab::new("kill");
    let image = lab.import("app", &Image::new("1", "ignore-term"));
    let web = lab.run("web").start(&image);
    web.wait_up();
    let engine = engine().await;
    let stopped = engine
        .stop(&id(&web), Some(Duration::from_millis(300)))
        .await
        .expect("stopped");
    assert_eq!(stopped.exit_code, Some(137));
}

#[tokio::test]
async fn start_that_the_engine_refuses_is_told_from_one_that_ended() {
    let lab = Lab::new("start");
    let image = lab.import("app", &Image::new("1", "exit"));
    let engine = engine().await;

    let ended = engine
        .start(&id(&lab.run("ends").create(&image)))
        .await
        .expect("it ran");
    assert!(ended.started_at.is_some());

    let missing = lab
        .run("missing")
        .options(&["--entrypoint", "/no-such-program"])
        .create(&image);
    let refused = engine
        .start(&id(&missing))
        .await
        .expect_err("no such program");
    assert!(
        !refused.outcome_unknown() && !refused.is_not_found(),
        "{refused}"
    );
    let state = engine
        .inspect(&id(&missing))
        .await
        .expect("asked")
        .expect("there");
    assert_eq!(state.state, RunState::Created);

    let holder = lab.import("holder", &Image::new("1", ""));
    let held = lab
        .run("holder")
        .options(&["--publish", "127.0.0.1::8080"])
        .start(&holder);
    let port = docker(&["port", &held.id, "8080/tcp"]);
    let port = port.rsplit(':').next().expect("a port");
    let late = lab
        .run("late")
        .options(&["--publish", &format!("127.0.0.1:{port}:8080")])
        .create(&holder);
    let refused = engine
        .start(&id(&late))
        .await
        .expect_err("the port is taken");
    assert_eq!(refused.kind(), PortErrorKind::Conflict, "{refused}");

    let network = lab.network("gone", &[]);
    let lost = lab
        .run("lost")
        .options(&["--network", &network])
        .create(&holder);
    docker(&["network", "rm", &network]);
    let refused = engine
        .start(&id(&lost))
        .await
        .expect_err("the network is gone");
    assert_eq!(refused.kind(), PortErrorKind::Failed, "{refused}");
}
